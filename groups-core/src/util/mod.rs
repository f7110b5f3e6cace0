//! Tools that do not depend on other modules: random numbers, a buffer for each thread, a keyed hash and a checksum that are
//! the same in all versions, files that are replaced atomically, panics as values, texts in one line, the process, and
//! the locks and the clock that a simulation can replace. There are no threads, and the only state is what each thread keeps.

pub(crate) mod atomic_file;
mod buffer;
pub(crate) mod checksum;
pub(crate) mod panic;
pub(crate) mod printable;
pub(crate) mod process;
pub(crate) mod random;
#[cfg(simulation)]
pub(crate) mod simulated;
pub(crate) mod siphash;
pub(crate) mod sync;

pub(crate) use self::buffer::Buffer;

use std::cell::Cell;
use std::thread::LocalKey;

/// The maximum capacity of a buffer that a thread keeps.
const MAX_KEPT: usize = 64 << 10;

thread_local! {
    static BUFFER: Cell<Option<Box<Buffer>>> = const { Cell::new(None) };
}

/// Lends the thread's buffer, empty. Nested calls get a new buffer.
pub(crate) fn with_scratch<R>(write: impl FnOnce(&mut Buffer) -> R) -> R {
    lend(&BUFFER, |buffer| {
        buffer.clear();
        let result = write(buffer);
        (result, buffer.capacity() <= MAX_KEPT)
    })
}

/// Lends what a thread keeps, as it was left. Nested calls get a new one. `work` returns whether it is kept.
pub(crate) fn lend<T: Default, R>(
    kept: &'static LocalKey<Cell<Option<Box<T>>>>,
    work: impl FnOnce(&mut T) -> (R, bool),
) -> R {
    // A thread that is ending has lost it: it gets a new one, which is not kept.
    let lent = kept.try_with(Cell::take).ok().flatten();
    let mut lent = lent.unwrap_or_default();
    let (result, is_kept) = work(&mut lent);
    if is_kept {
        let _ = kept.try_with(|kept| kept.set(Some(lent)));
    }
    result
}

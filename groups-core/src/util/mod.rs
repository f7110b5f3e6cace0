//! Tools that do not depend on other modules: random numbers, a buffer for each thread, a keyed hash and a checksum that are
//! the same in all versions, files that are replaced atomically, panics as values, texts in one line, and the locks and the
//! clock that a simulation can replace. There are no threads, and the buffers are the only state.

pub(crate) mod atomic_file;
mod buffer;
pub(crate) mod checksum;
pub(crate) mod panic;
pub(crate) mod printable;
pub(crate) mod random;
#[cfg(simulation)]
pub(crate) mod simulated;
pub(crate) mod siphash;
pub(crate) mod sync;

pub(crate) use self::buffer::Buffer;

use std::cell::RefCell;
use std::thread::LocalKey;

/// The maximum capacity of a buffer that a thread keeps.
pub(crate) const MAX_KEPT: usize = 64 << 10;

thread_local! {
    static BUFFER: RefCell<Buffer> = RefCell::default();
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
    kept: &'static LocalKey<RefCell<T>>,
    work: impl FnOnce(&mut T) -> (R, bool),
) -> R {
    let mut work = Some(work);
    let mut lend_to = |buffer: &mut T| work.take().map(|work| work(buffer));
    let result = kept.try_with(|kept| {
        let mut buffer = kept.try_borrow_mut().ok()?;
        let (result, is_kept) = lend_to(&mut buffer)?;
        if !is_kept {
            *buffer = T::default();
        }
        Some(result)
    });
    // A thread that is ending has lost it: it gets a new one, which is not kept.
    let in_new = || lend_to(&mut T::default()).map(|(result, _)| result);
    let Some(result) = result.ok().flatten().or_else(in_new) else {
        unreachable!("the work was not done before")
    };
    result
}

//! Tools that do not depend on other modules: random numbers, a buffer for each thread, a keyed hash and a checksum that are
//! the same in all versions, files that are replaced atomically, panics as values, and the locks and the clock that a
//! simulation can replace. There are no threads, and the buffers are the only state.

pub(crate) mod atomic_file;
pub(crate) mod checksum;
pub(crate) mod panic;
pub(crate) mod random;
#[cfg(simulation)]
pub(crate) mod simulated;
pub(crate) mod siphash;
pub(crate) mod sync;

use std::cell::Cell;

/// The maximum capacity of a buffer that a thread keeps.
const MAX_KEPT: usize = 64 << 10;

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Lends the thread's buffer, empty. Nested calls get a new buffer.
pub(crate) fn with_scratch<R>(write: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    // A thread that is ending has lost its buffer: it gets a new one, which is not kept.
    let mut buffer = BUFFER.try_with(Cell::take).unwrap_or_default();
    buffer.clear();
    let result = write(&mut buffer);
    if buffer.capacity() <= MAX_KEPT {
        let _ = BUFFER.try_with(|kept| kept.set(buffer));
    }
    result
}

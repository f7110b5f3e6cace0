//! A buffer that each thread keeps for what it writes and throws away.

use std::cell::Cell;

/// What a thread keeps at most.
const MOST: usize = 64 << 10;

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Lends the thread's buffer, empty. Whoever asks for it meanwhile gets a new one.
pub(crate) fn with_scratch<R>(write: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    // None while the thread ends.
    let mut buffer = BUFFER.try_with(Cell::take).unwrap_or_default();
    buffer.clear();
    let result = write(&mut buffer);
    if buffer.capacity() <= MOST {
        let _ = BUFFER.try_with(|kept| kept.set(buffer));
    }
    result
}

//! In which process a thread runs.

use std::cell::Cell;
use std::process;
use std::time::{Duration, Instant};

/// For how long the system need not be asked again. A fork takes more than ten times as long, and to ask costs more than to
/// encode an update.
const ASK_AFTER: Duration = Duration::from_micros(5);

thread_local! {
    /// The process that this thread runs in, and when the system said so.
    static PROCESS: Cell<Option<(u32, Instant)>> = const { Cell::new(None) };
}

/// Returns the id of this process, for callers that ask in a loop whether it is a fork.
pub(crate) fn id() -> u32 {
    let now = Instant::now();
    match PROCESS.get() {
        Some((id, at)) if now.duration_since(at) < ASK_AFTER => id,
        _ => {
            let id = process::id();
            PROCESS.set(Some((id, now)));
            id
        }
    }
}

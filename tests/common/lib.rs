//! What several tests and benchmarks need.

mod again;
pub mod careless;
mod chance;
mod example;
pub mod faulty;
mod mount;
pub mod postgres;
mod says;

use std::thread;
use std::time::{Duration, Instant};

pub use again::{again, is_own_process, said, say};
pub use chance::Chance;
pub use example::{Ended, Example};
pub use mount::Mount;
pub use says::{all, says};

/// Long enough for any machine. No test waits for it to pass.
pub const LONG: Duration = Duration::from_secs(60);

/// Waits for something that must come true, however slow the machine is.
#[track_caller]
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < LONG, "never {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

//! What several tests and benchmarks need.

mod again;
pub mod careless;
mod chance;
mod example;
pub mod faulty;
#[cfg(unix)]
mod forks;
mod mount;
pub mod postgres;
mod says;

use std::fmt::Display;
use std::io::Write as _;
use std::thread;
use std::time::{Duration, Instant};

pub use again::{again, is_own_process, said, say};
pub use chance::Chance;
pub use example::{Ended, Example};
#[cfg(unix)]
pub use forks::in_child;
pub use mount::Mount;
pub use says::{all, says};

/// Long enough for any machine. No test waits for it to pass.
pub const LONG: Duration = Duration::from_secs(180);

/// Waits for something that must come true, however slow the machine is.
#[track_caller]
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < LONG, "never {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Says what a test skips and why, past the harness, which keeps what a test that passes prints. The gate lists these lines.
pub fn say_skipped(what: impl Display) {
    // The harness may have begun a line.
    let line = format!("\nSKIPPED {what}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// Says what a test skips because a program is missing, which fails where `CI` is set: the gate has installed it.
#[track_caller]
pub fn say_missing(what: impl Display) {
    assert!(std::env::var_os("CI").is_none(), "{what}");
    say_skipped(what);
}

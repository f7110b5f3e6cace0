//! Processes that fork. Each test has a process of its own, since a fork also keeps the files of other tests open.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::LONG;

/// Runs one part in a child, and meanwhile the other here.
pub fn in_child(child: impl FnOnce(), parent: impl FnOnce()) {
    match fork::fork().unwrap() {
        fork::Fork::Child => {
            let has_panicked = catch_unwind(AssertUnwindSafe(child)).is_err();
            std::process::exit(i32::from(has_panicked));
        }
        fork::Fork::Parent(child) => {
            parent();
            assert_eq!(status(child), 0, "the child's exit status");
        }
    }
}

/// Waits for a child. One that does not end is killed, since its output would keep this process waiting.
fn status(child: i32) -> i32 {
    let start = Instant::now();
    loop {
        if let Some(status) = fork::waitpid_nohang(child).unwrap() {
            return status;
        }
        if start.elapsed() > LONG {
            let pid = child.to_string();
            let killed = Command::new("kill").args(["-KILL", &pid]).status();
            assert!(killed.unwrap().success());
        }
        thread::sleep(Duration::from_millis(1));
    }
}

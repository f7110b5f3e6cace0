//! Mounts for tests, where they are permitted.

use std::path::Path;
use std::process::Command;

use crate::say_skipped;

/// A mount, as long as this is not dropped.
pub struct Mount<'p>(&'p Path);

impl<'p> Mount<'p> {
    /// Mounts, or says that the test is skipped.
    #[must_use]
    pub fn new(arguments: &[&str], on: &'p Path) -> Option<Self> {
        let mounted = Command::new("mount").args(arguments).arg(on).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(on)),
            other => {
                say_skipped(format!("what needs mount {arguments:?}: {other:?}"));
                None
            }
        }
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        let status = Command::new("umount").arg("--lazy").arg(self.0).status();
        let status = status.unwrap();
        assert!(status.success() || std::thread::panicking());
    }
}

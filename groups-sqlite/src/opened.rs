//! Which files this process has open.
//!
//! SQLite keeps one list of its locks for each process. A fork inherits the list without the locks: what it opens that its
//! parent had open, it would use without locks, and its parent would remove the log from under it.

use std::path::Path;
use std::process;
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::identity::{FileId, file_id};
use mixpanel_groups::{Error, ErrorKind};

/// Each file that is open, and the process that opened it. SQLite knows files by these numbers too, whatever leads to them.
static OPEN: Mutex<Vec<(u32, FileId)>> = Mutex::new(Vec::new());

/// How long to wait for the list: in a fork, no thread may be left to give it back.
const PATIENCE: Duration = Duration::from_secs(1);

/// A file that a process has open: as long as this is not dropped there.
pub(crate) struct Opened {
    process: u32,
    /// Where files have numbers.
    file: Option<FileId>,
}

impl Opened {
    /// Notes that this process has the file open.
    pub(crate) fn of(path: &Path) -> Self {
        let (process, file) = (process::id(), file_id(path));
        if let (Some(file), Some(mut open)) = (file, list()) {
            open.push((process, file));
        }
        Self { process, file }
    }

    /// Returns whether this process is a fork of the one that opened the file. SQLite's connections cannot be carried over a
    /// fork, not even to close them.
    pub(crate) fn is_inherited(&self) -> bool {
        self.process != process::id()
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if self.is_inherited() {
            return;
        }
        let (Some(file), Some(mut open)) = (self.file, list()) else {
            return;
        };
        if let Some(at) = open.iter().position(|other| *other == (self.process, file)) {
            open.swap_remove(at);
        }
    }
}

/// Returns an error if this process is a fork of one that has the file open.
pub(crate) fn check(path: &Path, what: &str) -> Result<(), Error> {
    // What does not exist yet is open nowhere.
    let Some(file) = file_id(path) else {
        return Ok(());
    };
    let is_inherited =
        |(process, other): &(u32, FileId)| *process != process::id() && *other == file;
    if list().is_some_and(|open| !open.iter().any(is_inherited)) {
        return Ok(());
    }
    let path = path.display();
    let message = format!(
        "cannot open the {what} {path} in a fork: the parent process had it open; open it after the fork alone"
    );
    Err(Error::new(ErrorKind::Closed, message))
}

fn list() -> Option<MutexGuard<'static, Vec<(u32, FileId)>>> {
    let start = Instant::now();
    loop {
        match OPEN.try_lock() {
            Ok(open) => return Some(open),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) if start.elapsed() < PATIENCE => {
                sleep(Duration::from_millis(1));
            }
            Err(TryLockError::WouldBlock) => return None,
        }
    }
}

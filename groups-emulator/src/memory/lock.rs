use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::process;

/// The error of a lock that another emulator has.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InUse;

/// A lock that ends when this is dropped, or the process ends.
pub(crate) struct FileLock {
    file: File,
    /// The process that locked it.
    process: u32,
}

impl FileLock {
    /// Locks a file beside the one at `path`, which is itself replaced with each save. Returns `None` where there
    /// cannot be such a file, as in a folder that cannot be written.
    ///
    /// # Errors
    /// If it is locked already.
    pub(crate) fn beside(path: &Path) -> Result<Option<Self>, InUse> {
        let path = target(path);
        let Some(name) = path.file_name() else {
            return Ok(None);
        };
        let mut name = name.to_owned();
        name.push(".lock");
        let path = path.with_file_name(name);
        // It may be another user's, or another program's that only has this name.
        let mut options = OpenOptions::new();
        let opened = options.write(true).create(true).truncate(false).open(&path);
        let Ok(file) = opened.or_else(|_| File::open(&path)) else {
            return Ok(None);
        };
        match file.try_lock() {
            Ok(()) => Ok(Some(Self {
                file,
                process: process::id(),
            })),
            Err(TryLockError::WouldBlock) => Err(InUse),
            // Not every file system has locks.
            Err(TryLockError::Error(_)) => Ok(None),
        }
    }
}

/// Returns where a path leads, also if nothing is there yet.
pub(super) fn target(path: &Path) -> PathBuf {
    /// As many links follow each other on Linux.
    const LINKS: usize = 40;
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        let Ok(next) = fs::read_link(&path) else {
            break;
        };
        path.pop();
        path.push(next);
    }
    fs::canonicalize(&path).unwrap_or(path)
}

impl Drop for FileLock {
    /// Removes the lock. A child process that is just being started shares the open file, so closing it would not do. Nor may
    /// a fork remove it, which is dropping what its parent still uses.
    fn drop(&mut self) {
        if self.process == process::id() {
            // An error would leave the lock to the end of the process.
            let _ = self.file.unlock();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Here, since these tests run on other systems too.
    #[test]
    fn a_file_is_locked_once_and_keeps_what_it_has() {
        let path = std::env::temp_dir().join(format!("emulator-lock-{}", process::id()));
        let lock = path.with_extension("lock");
        fs::write(&lock, "4711").unwrap();
        let first = FileLock::beside(&path).unwrap().expect("a lock");
        assert_eq!(FileLock::beside(&path).err(), Some(InUse));
        drop(first);
        assert!(FileLock::beside(&path).unwrap().is_some());
        assert_eq!(fs::read_to_string(&lock).unwrap(), "4711");
        fs::remove_file(&lock).unwrap();
    }
}

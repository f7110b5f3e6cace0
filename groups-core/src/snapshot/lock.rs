use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::process;

use super::file_store::io_error;
use crate::record::{Error, ErrorKind};
use crate::util::atomic_file::beside;

/// A file that is locked as long as this is not dropped and the process has not ended.
pub(super) struct Locked {
    pub(super) file: File,
    /// The process that locked it.
    process: u32,
}

impl Drop for Locked {
    /// Removes the lock. A child process that is just being started shares the open file, so closing it would not do. Nor may
    /// a fork remove it, which is dropping what its parent still uses.
    fn drop(&mut self) {
        if self.process == process::id() {
            // An error would leave the lock to the end of the process: the next run reports it.
            let _ = self.file.unlock();
        }
    }
}

impl Locked {
    /// Locks the snapshot itself, by the file that is read and written. In two containers, it may be the same file in two
    /// folders.
    ///
    /// On Windows, such a lock would keep all others from reading the file, for a backup, so it does nothing.
    pub(super) fn new(file: File, path: &Path) -> Result<Self, Error> {
        if cfg!(windows) {
            return Ok(of_this_process(file));
        }
        try_lock(file, path)
    }

    /// Locks a file beside the snapshot, which may be another user's. Unlike the snapshot, it is there from the beginning, and
    /// is never replaced. Returns `None` if it cannot be opened and the snapshot exists, whose own lock is enough then.
    pub(super) fn beside(path: &Path) -> Result<Option<Self>, Error> {
        let failed = |error| io_error("lock", path, error);
        let other = beside(path, "lock").map_err(failed)?;
        // Another program's file of that name keeps what it has.
        let mut options = File::options();
        let created = options
            .write(true)
            .create(true)
            .truncate(false)
            .open(&other);
        match created.or_else(|error| File::open(&other).map_err(|_| error)) {
            Ok(file) => try_lock(file, path).map(Some),
            Err(error) => match error.kind() {
                io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied
                    if cfg!(unix) && path.exists() =>
                {
                    Ok(None)
                }
                _ => Err(failed(error)),
            },
        }
    }
}

fn of_this_process(file: File) -> Locked {
    let process = process::id();
    Locked { file, process }
}

fn try_lock(file: File, path: &Path) -> Result<Locked, Error> {
    match file.try_lock() {
        Ok(()) => Ok(of_this_process(file)),
        Err(TryLockError::WouldBlock) => {
            let message = format!(
                "the snapshot {} is in use by another run: wait for its end",
                path.display()
            );
            Err(Error::new(ErrorKind::Io, message))
        }
        Err(TryLockError::Error(error)) => Err(io_error("lock", path, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_shares_the_open_file_does_not_keep_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("snapshot");
        let first = Locked::beside(&path).unwrap().unwrap();
        let shared = first.file.try_clone().unwrap();
        assert!(Locked::beside(&path).is_err());
        drop(first);
        drop(Locked::beside(&path).unwrap());
        drop(shared);
    }
}

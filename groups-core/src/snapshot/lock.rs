use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;

use super::file_store::io_error;
use crate::record::{Error, ErrorKind};
use crate::util::atomic_file::beside;

/// The lock of a snapshot's file, as long as this is not dropped and the process has not ended.
pub(super) struct Lock(File);

impl Drop for Lock {
    /// Removes the lock. A child process that is just being started shares the open file, so closing it would not do.
    fn drop(&mut self) {
        // An error would leave the lock to the end of the process: the next run reports it.
        let _ = self.0.unlock();
    }
}

/// Locks the snapshot by a file beside it, which may be another user's, or the file itself if there is none and its folder
/// cannot be written: then the file is never replaced either.
pub(super) fn lock(path: &Path) -> Result<Lock, Error> {
    let failed = |error| io_error("lock", path, error);
    let other = beside(path, "lock").map_err(failed)?;
    let file = File::create(&other).or_else(|error| match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            let file = File::open(&other).or_else(|_| File::open(path));
            file.map_err(|_| error)
        }
        _ => Err(error),
    });
    let file = file.map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(TryLockError::WouldBlock) => {
            let message = format!(
                "the snapshot {} is in use by another run: wait for its end",
                path.display()
            );
            Err(Error::new(ErrorKind::Io, message))
        }
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_shares_the_open_file_does_not_keep_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("snapshot");
        let first = lock(&path).unwrap();
        let shared = first.0.try_clone().unwrap();
        assert!(lock(&path).is_err());
        drop(first);
        lock(&path).unwrap();
        drop(shared);
    }
}

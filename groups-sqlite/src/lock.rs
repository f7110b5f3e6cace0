use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::process;

use mixpanel_groups::{Error, ErrorKind};

/// The lock of a snapshot, as long as this is not dropped and the process has not ended.
pub(crate) struct Lock {
    file: File,
    /// The process that locked it.
    process: u32,
}

impl Lock {
    /// Locks the snapshot by a file beside it. SQLite's own locks would not do: on a file that another user may only read,
    /// its exclusive lock is a shared one.
    pub(crate) fn of(snapshot: &Path) -> Result<Self, Error> {
        let mut path = snapshot.as_os_str().to_owned();
        path.push("-snapshot");
        let mut options = File::options();
        let options = options.write(true).create(true).truncate(false);
        let file = options.open(&path).or_else(|error| match error.kind() {
            // Another user's.
            io::ErrorKind::PermissionDenied => File::open(&path).map_err(|_| error),
            _ => Err(error),
        });
        let failed = |error| {
            let message = format!("cannot lock the snapshot {}", snapshot.display());
            Error::new(ErrorKind::Io, message).with_source(error)
        };
        let file = file.map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self {
                file,
                process: process::id(),
            }),
            Err(TryLockError::WouldBlock) => {
                let path = snapshot.display();
                let message =
                    format!("the snapshot {path} is in use by another run: wait for its end");
                Err(Error::new(ErrorKind::Io, message))
            }
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}

impl Drop for Lock {
    /// Removes the lock. A child process that is just being started shares the open file, so closing it would not do. Nor may
    /// a fork remove it, which is dropping what its parent still uses.
    fn drop(&mut self) {
        if self.process == process::id() {
            // An error would leave the lock to the end of the process: the next run reports it.
            let _ = self.file.unlock();
        }
    }
}

use std::path::Path;

/// Which files an outbox has open: its database, and beside it the write-ahead log and that log's index.
///
/// If one of them is removed or replaced, SQLite continues with the open files, which end with the process. On
/// Windows that cannot happen: a file that is open cannot be removed.
pub(crate) struct Identity([Option<FileId>; 3]);

/// The device and the number of a file there.
pub(crate) type FileId = (u64, u64);

impl Identity {
    /// Returns the files at that path now. The log is there as soon as something was written, until no connection is left.
    pub(crate) fn of(path: &Path) -> Self {
        Self(["", "-wal", "-shm"].map(|suffix| {
            let mut path = path.as_os_str().to_owned();
            path.push(suffix);
            file_id(Path::new(&path))
        }))
    }

    /// Returns whether the files at that path are the same.
    pub(crate) fn is_at(&self, path: &Path) -> bool {
        Self::of(path).0 == self.0
    }
}

#[cfg(unix)]
pub(crate) fn file_id(path: &Path) -> Option<FileId> {
    use std::os::unix::fs::MetadataExt as _;
    let file = path.metadata().ok()?;
    Some((file.dev(), file.ino()))
}

#[cfg(not(unix))]
pub(crate) fn file_id(_path: &Path) -> Option<FileId> {
    None
}

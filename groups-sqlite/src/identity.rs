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

    /// Returns whether one of the files at that path is another one.
    pub(crate) fn is_replaced_at(&self, path: &Path) -> bool {
        let mut pairs = Self::of(path).0.into_iter().zip(self.0);
        pairs.any(|(now, then)| now.is_some() && now != then)
    }

    /// Returns whether another database at that path has the log of the open one: then what is written to one of them
    /// damages the other. SQLite itself checks this for a rollback journal only.
    pub(crate) fn shares_log_at(&self, path: &Path) -> bool {
        let ([now, log, index], [then, own_log, own_index]) = (Self::of(path).0, self.0);
        now.is_some() && now != then && (log == own_log || index == own_index)
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

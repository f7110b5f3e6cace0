use std::borrow::Borrow;
use std::fs;
use std::io::ErrorKind::{NotFound, PermissionDenied};
use std::path::Path;
use std::sync::Arc;

use rusqlite::ErrorCode;
use rusqlite::ffi::{SQLITE_IOERR_SHMSIZE, SQLITE_IOERR_WRITE, SQLITE_READONLY_DIRECTORY};

use mixpanel_groups::{Error, ErrorKind};

use crate::schema::VERSION;

/// Why a call of the outbox failed.
#[derive(Clone)]
pub(crate) enum Failure {
    Sqlite(Arc<rusqlite::Error>),
    /// The file at the path is not the one that is open.
    Replaced,
    /// The disk was full, and what is left of it is for sending.
    Full,
    /// Another thread has the connection until the deadline, perhaps because it waits for another process.
    Busy,
    /// The disk was too slow for a deadline.
    Slow,
    /// This process is a fork of the one that opened the outbox.
    Forked,
    /// Another process has taken over.
    TakenOver,
    /// Something cannot be read.
    Damaged,
    /// The tables are of that version.
    OtherVersion(i64),
    /// The updates that could not be read are in the table of that name.
    SetAside(String),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(Arc::new(error))
    }
}

impl Failure {
    /// Returns whether the disk or the database is full.
    pub(crate) fn is_full(&self) -> bool {
        match self {
            Self::Full => true,
            Self::Sqlite(error) => is_full(error),
            _ => false,
        }
    }

    /// Returns whether a page of the file cannot be read.
    pub(crate) fn is_corruption(&self) -> bool {
        let Self::Sqlite(error) = self else {
            return false;
        };
        error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt)
    }

    /// Returns the error for the user: what cannot be done with the outbox at that path.
    pub(crate) fn of(self, path: &Path, verb: &str) -> Error {
        use ErrorKind::{Closed, Damaged, Io, Timeout};
        let at = path.display();
        let (kind, message) = match self {
            Self::Sqlite(error) => return failed("outbox", path, verb, error),
            Self::Replaced => (
                Io,
                format!(
                    "the file of the outbox {at} was removed or replaced: this process would lose what it publishes, and \
                     sends nothing of a new file; open the outbox again"
                ),
            ),
            Self::Full => (
                Io,
                format!(
                    "cannot {verb} the outbox {at}: its disk was full, and is kept free for sending what waits"
                ),
            ),
            Self::Busy => (
                Timeout,
                format!("cannot {verb} the outbox {at}: others write to it"),
            ),
            Self::Slow => (
                Timeout,
                format!("cannot {verb} the outbox {at} in time: its disk is too slow"),
            ),
            Self::Forked => (
                Closed,
                format!(
                    "the outbox {at} belongs to the parent process: open it after the fork, in the child alone"
                ),
            ),
            Self::TakenOver => (
                Io,
                format!(
                    "another process has taken over the outbox {at}, and sends these updates again"
                ),
            ),
            Self::OtherVersion(other) => (
                Damaged,
                format!(
                    "the outbox {at} has tables of version {other}: expected {VERSION}, as this version of \
                     mixpanel-groups-sqlite uses; let the version that created them send what waits, and drop the \
                     tables"
                ),
            ),
            Self::Damaged => (
                Damaged,
                format!(
                    "the file of the outbox {at} is damaged: nothing is sent; stop what uses it, run \
                     `sqlite3 '{at}' '.clone \"{at}.repaired\"'`, move {at}, {at}-wal and {at}-shm away, and rename \
                     {at}.repaired to {at}"
                ),
            ),
            Self::SetAside(table) => (
                Damaged,
                format!(
                    "the file of the outbox {at} was damaged: what could be read of the table {table} is sent, the \
                     rest stays there"
                ),
            ),
        };
        Error::new(kind, message)
    }
}

/// Returns SQLite's error for the user: what cannot be done with the outbox or the snapshot at that path.
pub(crate) fn failed<E>(what: &str, path: &Path, verb: &str, error: E) -> Error
where
    E: Borrow<rusqlite::Error> + std::error::Error + Send + Sync + 'static,
{
    let at = path.display();
    let code = error.borrow().sqlite_error();
    let in_folder = code.is_some_and(|code| code.extended_code == SQLITE_READONLY_DIRECTORY);
    let (kind, message) = match error.borrow().sqlite_error_code() {
        Some(ErrorCode::ReadOnly) if in_folder => (
            ErrorKind::Io,
            format!("the folder of the {what} {at} is read-only: make the folder writable"),
        ),
        Some(ErrorCode::ReadOnly) => (
            ErrorKind::Io,
            format!(
                "the {what} {at} is read-only: make the file writable, and those beside it whose names begin with its name"
            ),
        ),
        Some(ErrorCode::CannotOpen) => {
            let why = another_reason(path).unwrap_or_else(|| {
                "its folder must exist, and the folder and the file must be writable".to_owned()
            });
            let message = format!("cannot {verb} the {what} {at}: {why}");
            (ErrorKind::Io, message)
        }
        // An error without a code of its own means that a table or a column is missing.
        None | Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown) => {
            (ErrorKind::Damaged, format!("cannot {verb} the {what} {at}"))
        }
        // Until the deadline of the call.
        Some(ErrorCode::DatabaseBusy) => {
            (ErrorKind::Timeout, format!("cannot {verb} the {what} {at}"))
        }
        Some(_) => (ErrorKind::Io, format!("cannot {verb} the {what} {at}")),
    };
    Error::new(kind, message).with_source(error)
}

/// Returns why nothing beside the file can be opened, if it is neither permissions nor a missing folder: too many open files, for
/// instance, which SQLite does not say.
fn another_reason(path: &Path) -> Option<String> {
    let folder = path.parent()?;
    let folder = if folder == Path::new("") {
        Path::new(".")
    } else {
        folder
    };
    match fs::read_dir(folder) {
        Err(error) if ![NotFound, PermissionDenied].contains(&error.kind()) => {
            Some(error.to_string())
        }
        _ => None,
    }
}

/// Returns whether an error means that there is no room: on the disk, also for the index of the write-ahead log. Where a quota
/// is exhausted, SQLite returns the error of any write that failed. If it was another reason, nothing is lost but the
/// reserve, which is filled again.
fn is_full(error: &rusqlite::Error) -> bool {
    let rusqlite::Error::SqliteFailure(error, _) = error else {
        return false;
    };
    error.code == ErrorCode::DiskFull
        || [SQLITE_IOERR_WRITE, SQLITE_IOERR_SHMSIZE].contains(&error.extended_code)
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi::{
        self, SQLITE_CANTOPEN, SQLITE_FULL, SQLITE_IOERR_FSYNC, SQLITE_IOERR_READ, SQLITE_READONLY,
        SQLITE_READONLY_DIRECTORY,
    };

    use super::*;

    #[test]
    fn the_advice_is_about_what_cannot_be_written() {
        for (code, advice) in [
            (
                SQLITE_READONLY,
                "make the file writable, and those beside it whose names begin with its name",
            ),
            (SQLITE_READONLY_DIRECTORY, "make the folder writable"),
            (
                SQLITE_CANTOPEN,
                "its folder must exist, and the folder and the file must be writable",
            ),
        ] {
            let error = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
            let error = Failure::from(error).of(Path::new("a.db"), "open");
            assert_eq!(error.kind(), ErrorKind::Io);
            assert!(error.to_string().ends_with(advice), "{error}");
        }
    }

    #[test]
    fn a_quota_that_is_exhausted_is_a_full_disk() {
        let is_full = |code| {
            let error = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
            Failure::from(error).is_full()
        };
        // The kernel's EDQUOT is not ENOSPC, which alone is SQLite's error of a full disk.
        for code in [SQLITE_FULL, SQLITE_IOERR_WRITE, SQLITE_IOERR_SHMSIZE] {
            assert!(is_full(code), "{code}");
        }
        for code in [SQLITE_IOERR_READ, SQLITE_IOERR_FSYNC] {
            assert!(!is_full(code), "{code}");
        }
    }
}

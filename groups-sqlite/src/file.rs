//! The file of an outbox or a snapshot, and the connections to it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rusqlite::{
    CachedStatement, Connection, ErrorCode, OpenFlags, OptionalExtension as _, Row, Transaction,
    TransactionBehavior,
};

use mixpanel_groups::outbox::Depth;
use mixpanel_groups::{Error, ErrorKind};

use crate::durability::Durability;
use crate::failure::{Failure, failed};
use crate::identity::Identity;
use crate::opened::{self, Opened};
use crate::reserve::{Reserve, with_reserve};
use crate::schema::{SCHEMA, Tables};

/// The longest wait for another connection that writes to the file, unless the client says otherwise.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// The file and one queue in it, which several connections of this process share.
pub(crate) struct OutboxFile {
    pub(crate) tables: Tables,
    pub(crate) path: PathBuf,
    pub(crate) reserve: Reserve,
    identity: Identity,
    /// Something is damaged that could not be set aside.
    is_damaged: AtomicBool,
    /// How many nanoseconds a call waits for another connection that writes.
    timeout: AtomicU64,
    /// The highest id that this process has taken; every row up to it is taken too. Locked after the file, if both are.
    taken: Mutex<i64>,
}

impl OutboxFile {
    /// Returns the file at that path, which a connection has open and in which the tables are.
    pub(crate) fn of(path: PathBuf, tables: Tables) -> Self {
        Self {
            tables,
            reserve: Reserve::of(&path).prepare(),
            identity: Identity::of(&path),
            path,
            is_damaged: AtomicBool::new(false),
            timeout: AtomicU64::new(nanos(BUSY_TIMEOUT)),
            taken: Mutex::new(0),
        }
    }

    pub(crate) fn set_timeout(&self, timeout: Duration) {
        self.timeout.store(nanos(timeout), Ordering::Relaxed);
    }

    /// Returns how long a call may wait for others.
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_nanos(self.timeout.load(Ordering::Relaxed))
    }

    /// Returns when a call that begins now is to give up waiting for others.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        Instant::now().checked_add(self.timeout())
    }

    pub(crate) fn taken(&self) -> MutexGuard<'_, i64> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_damaged(&self, is_damaged: bool) {
        self.is_damaged.store(is_damaged, Ordering::Relaxed);
    }

    /// Returns an error if the file at the path is not the one that is open, or is damaged: what is published now would
    /// not be sent.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.is_damaged.load(Ordering::Relaxed) {
            return Err(Failure::Damaged);
        }
        if self.identity.is_at(&self.path) {
            return Ok(());
        }
        Err(Failure::Replaced)
    }

    /// Begins a transaction that holds the write lock, unless it would damage a database that replaced this one.
    pub(crate) fn begin<'db>(
        &self,
        db: &'db Connection,
        deadline: Option<Instant>,
    ) -> Result<Transaction<'db>, Failure> {
        let transaction = begin(db, deadline)?;
        self.check_log()?;
        Ok(transaction)
    }

    /// Returns an error if another database at the path has the log of this one.
    pub(crate) fn check_log(&self) -> Result<(), Failure> {
        if self.identity.shares_log_at(&self.path) {
            return Err(Failure::Replaced);
        }
        Ok(())
    }

    /// Returns an error if another file is at the path: what others publish to it, this process would never send.
    pub(crate) fn check_replaced(&self) -> Result<(), Failure> {
        if self.identity.is_replaced_at(&self.path) {
            return Err(Failure::Replaced);
        }
        Ok(())
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Opens the file of an outbox or a snapshot, or creates it. Returns its path without symbolic links too, which the names of
/// other files beside it are made of: SQLite resolves them as well.
pub(crate) fn open(path: &Path, what: &str) -> Result<(Connection, PathBuf, Opened), Error> {
    let bytes = path.as_os_str().as_encoded_bytes();
    if [&b""[..], b":memory:"].contains(&bytes) || bytes.contains(&0) || is_special(path) {
        let name = path.to_string_lossy();
        let message = format!("path {name:?} is not a file: name one");
        return Err(Error::new(ErrorKind::Config, message));
    }
    if bytes.starts_with(b"file:") {
        let path = path.display();
        let message = format!(
            "path \"{path}\" is a URI: name a file, or \"./{path}\" for a file of that name"
        );
        return Err(Error::new(ErrorKind::Config, message));
    }
    opened::check(path, what)?;
    let db = connect(path).map_err(|error| failed(what, path, "open", error))?;
    let opened = Opened::of(path);
    let resolved = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    Ok((db, resolved, opened))
}

/// Returns whether something is there that is not a regular file, such as a device: SQLite would leave a journal beside it.
/// What ends with a separator is a folder, also if it does not exist.
fn is_special(path: &Path) -> bool {
    let bytes = path.as_os_str().as_encoded_bytes();
    let last = bytes.last().map(|byte| char::from(*byte));
    last.is_some_and(std::path::is_separator) || path.metadata().is_ok_and(|file| !file.is_file())
}

/// Opens a connection. SQLite reads a path that begins with `file:` as a URI, also without the flag for that: the bundled
/// one is built so.
pub(crate) fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(Duration::ZERO)?; // `patiently` waits.
    Ok(db)
}

/// Reads once: then the connection has all of its files open, and can still be used when they are removed.
pub(crate) fn open_files(db: &Connection) -> rusqlite::Result<()> {
    let deadline = Some(Instant::now() + BUSY_TIMEOUT);
    let select = "SELECT count(*) FROM sqlite_schema";
    patiently(deadline, || db.query_row(select, [], |_| Ok(())))
}

/// Returns the version of the tables, or `None` if there are no tables yet.
pub(crate) fn version(db: &Connection) -> rusqlite::Result<Option<i64>> {
    let deadline = Some(Instant::now() + BUSY_TIMEOUT);
    let exists = "SELECT 1 FROM sqlite_schema WHERE name = 'mixpanel_outbox_state'";
    if !patiently(deadline, || db.prepare(exists)?.exists([]))? {
        return Ok(None);
    }
    let version = "SELECT version FROM mixpanel_outbox_state";
    patiently(deadline, || db.query_row(version, [], |row| row.get(0))).map(Some)
}

/// Creates the tables, if they are missing.
fn create_tables(db: &Connection, path: &Path) -> rusqlite::Result<()> {
    let deadline = Some(Instant::now() + BUSY_TIMEOUT);
    turn_on_wal(db, path, deadline)?;
    let transaction = begin(db, deadline)?;
    if version(db)?.is_none() {
        transaction.execute_batch(SCHEMA)?;
    }
    // A file that cannot be written is an error now, not when something is published.
    transaction.execute("UPDATE mixpanel_outbox_state SET version = version", [])?;
    transaction.commit()
}

/// Returns whether the file is in the mode in which connections that read and one that writes do not wait for each other.
pub(crate) fn is_in_wal_mode(db: &Connection) -> rusqlite::Result<bool> {
    db.pragma_query_value(None, "journal_mode", |row| {
        Ok(row.get_ref(0)?.as_str() == Ok("wal"))
    })
}

/// Turns on WAL mode, in which the file stays.
///
/// Where there is no shared memory, as on some network file systems, SQLite notices that at the next reading only, and then
/// nobody can read the file any more. It may be an application's: so it gets its old mode back.
fn turn_on_wal(db: &Connection, path: &Path, deadline: Option<Instant>) -> rusqlite::Result<()> {
    if patiently(deadline, || is_in_wal_mode(db))? {
        return Ok(());
    }
    // A connection of its own, since only one that is closed stops using the shared memory.
    let turn_on = || {
        let db = connect(path)?;
        db.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
        db.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
    };
    patiently(deadline, turn_on).inspect_err(|error| {
        if error.sqlite_error_code() != Some(ErrorCode::DatabaseBusy) {
            // An error of this would hide the cause. Where another connection is open, it is one.
            let _ = turn_off_wal(path);
        }
    })
}

/// Takes the file out of WAL mode without shared memory, if no other connection is open.
fn turn_off_wal(path: &Path) -> rusqlite::Result<()> {
    let db = connect(path)?;
    db.pragma_update_and_check(None, "locking_mode", "EXCLUSIVE", |_| Ok(()))?;
    db.pragma_update_and_check(None, "journal_mode", "DELETE", |_| Ok(()))
}

/// Creates the tables, also on a full disk.
pub(crate) fn create_tables_in(db: &Connection, path: &Path) -> Result<(), Failure> {
    let reserve = Reserve::of(path);
    with_reserve(&reserve, db, || Ok(create_tables(db, path)?))
}

/// Sets what holds for one connection only. The log is moved to the database when it has so many bytes; as many stay when
/// it is empty.
pub(crate) fn set_up(
    db: &Connection,
    durability: Durability,
    log_bytes: usize,
) -> rusqlite::Result<()> {
    let full = durability == Durability::Full;
    db.pragma_update(None, "synchronous", if full { "FULL" } else { "NORMAL" })?;
    // On macOS, a plain `fsync` does not reach the disk.
    db.pragma_update(None, "fullfsync", full)?;
    let page = db.pragma_query_value(None, "page_size", |row| size(row, 0))?;
    for (name, limit) in [
        ("journal_size_limit", log_bytes),
        ("wal_autocheckpoint", log_bytes / page.max(1)),
    ] {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        db.pragma_update_and_check(None, name, limit, |_| Ok(()))?;
    }
    Ok(())
}

/// Begins a transaction that holds the write lock from its beginning, so it cannot fail with `SQLITE_BUSY` later.
fn begin(db: &Connection, deadline: Option<Instant>) -> rusqlite::Result<Transaction<'_>> {
    let begin = || Transaction::new_unchecked(db, TransactionBehavior::Immediate);
    patiently(deadline, begin)
}

/// Repeats what fails while another connection writes, until the deadline.
///
/// SQLite's own handler waits longer each time, so beside a busy process it may never get its turn; and while another
/// process turns on WAL mode, SQLite does not call it.
pub(crate) fn patiently<R>(
    deadline: Option<Instant>,
    mut call: impl FnMut() -> rusqlite::Result<R>,
) -> rusqlite::Result<R> {
    loop {
        match call() {
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                    && deadline.is_none_or(|deadline| Instant::now() < deadline) =>
            {
                sleep(Duration::from_millis(1));
            }
            result => return result,
        }
    }
}

/// Returns the depth, with the age of the oldest row.
pub(crate) fn depth(db: &Connection, tables: Tables) -> rusqlite::Result<Depth> {
    let sql = "SELECT (julianday('now') - julianday(since)) * 86400.0
               FROM mixpanel_outbox ORDER BY id LIMIT 1";
    let mut select = tables.prepare(db, sql)?;
    let seconds: Option<Option<f64>> = select.query_row([], |row| row.get(0)).optional()?;
    // Not known if the clock was set back, or an SQL statement has written some text as the time.
    let oldest = seconds.flatten().map(Duration::try_from_secs_f64);
    let oldest = oldest.and_then(Result::ok);
    Ok(held(db, tables)?.with_oldest(oldest))
}

/// Returns the depth without the age of the oldest row.
pub(crate) fn held(db: &Connection, tables: Tables) -> rusqlite::Result<Depth> {
    let sql = "SELECT updates, bytes FROM mixpanel_outbox_state";
    let mut select = tables.prepare(db, sql)?;
    match select.query_row([], |row| Ok(Depth::new(size(row, 0)?, size(row, 1)?))) {
        Err(rusqlite::Error::IntegralValueOutOfRange(..)) => recount(db, tables),
        held => held,
    }
}

/// Reads a count, which is an error below zero.
pub(crate) fn size(row: &Row<'_>, column: usize) -> rusqlite::Result<usize> {
    let size: i64 = row.get(column)?;
    usize::try_from(size).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, size))
}

/// Counts the rows, since the counts that were kept are wrong: only an SQL statement of another program can write such.
/// Corrects them if the connection is writing.
fn recount(db: &Connection, tables: Tables) -> rusqlite::Result<Depth> {
    log::warn!("the counts of the outbox were below zero: its rows are counted again");
    let sql = "SELECT count(*), coalesce(sum(length(CAST(body AS BLOB))), 0) FROM mixpanel_outbox";
    let (updates, bytes): (i64, i64) =
        db.query_row(&tables.sql(sql), [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if !db.is_autocommit() {
        let sql = "UPDATE mixpanel_outbox_state SET updates = ?1, bytes = ?2";
        db.execute(&tables.sql(sql), (updates, bytes))?;
    }
    let size = |count: i64| usize::try_from(count).unwrap_or(usize::MAX);
    Ok(Depth::new(size(updates), size(bytes)))
}

/// Returns the current time as the tables write it.
pub(crate) fn now(db: &Connection) -> rusqlite::Result<String> {
    let sql = "SELECT strftime('%Y-%m-%dT%H:%M:%fZ', 'now')";
    db.prepare_cached(sql)?.query_row([], |row| row.get(0))
}

/// Prepares the statement that appends a row, from its time and body.
pub(crate) fn insert(db: &Connection, tables: Tables) -> rusqlite::Result<CachedStatement<'_>> {
    tables.prepare(
        db,
        "INSERT INTO mixpanel_outbox (since, body) VALUES (?1, ?2)",
    )
}

/// Prepares the statement that deletes rows, from the first id and the last.
pub(crate) fn delete(db: &Connection, tables: Tables) -> rusqlite::Result<CachedStatement<'_>> {
    tables.prepare(db, "DELETE FROM mixpanel_outbox WHERE id BETWEEN ?1 AND ?2")
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn where_there_is_no_shared_memory_the_application_can_still_read_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shop.db");
        let own = Connection::open(&path).unwrap();
        own.execute_batch("CREATE TABLE companies (id); INSERT INTO companies VALUES (7)")
            .unwrap();
        drop(own);
        // SQLite follows no link there.
        std::os::unix::fs::symlink("nowhere", folder.path().join("shop.db-shm")).unwrap();
        assert!(create_tables(&connect(&path).unwrap(), &path).is_err());
        let own = Connection::open(&path).unwrap();
        let id = own.query_row("SELECT id FROM companies", [], |row| row.get::<_, u8>(0));
        assert_eq!(id, Ok(7));
        assert_eq!(is_in_wal_mode(&own), Ok(false));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_path_of_any_bytes_is_in_wal_mode_too() {
        use std::os::unix::ffi::OsStrExt as _;

        let folder = tempfile::tempdir().unwrap();
        let name = std::ffi::OsStr::from_bytes(b"b\xfcro.db");
        let path = folder.path().join(name);
        let db = connect(&path).unwrap();
        create_tables(&db, &path).unwrap();
        assert_eq!(is_in_wal_mode(&db), Ok(true));
    }
}

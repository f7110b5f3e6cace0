use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fmt, mem};

use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior, params};

use mixpanel_groups::snapshot::{EachRow, SnapshotStore};
use mixpanel_groups::{Error, ErrorKind};

use crate::durability::Durability;
use crate::failure::failed;
use crate::file::{self, is_in_wal_mode};
use crate::lock::Lock;
use crate::opened::Opened;

/// The table of a snapshot. Numbers are not used again after their rows are removed.
const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS mixpanel_snapshot (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    row BLOB NOT NULL
)";
/// What the file is, in errors.
const WHAT: &str = "snapshot";
/// The most bytes of a write-ahead log.
const MAX_LOG: usize = 4 << 20;
/// The longest wait for another connection that writes to the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// A [`Snapshot`](mixpanel_groups::Snapshot) in an SQLite file, which may be a database of your own: in the table
/// `mixpanel_snapshot`.
///
/// ```no_run
/// use mixpanel_groups::{Client, Snapshot};
/// use mixpanel_groups_sqlite::SqliteSnapshot;
///
/// # #[derive(mixpanel_groups::MixpanelGroup)]
/// # #[mixpanel(group_key = "company")]
/// # struct Company { #[mixpanel(group_id)] id: u64 }
/// # fn main() -> Result<(), mixpanel_groups::Error> {
/// # let (client, companies) = (Client::from_env()?, Vec::<Company>::new());
/// let mut snapshot = Snapshot::open_in(SqliteSnapshot::open("shop.db")?)?;
/// snapshot.sync(&client, &companies)?;
/// # Ok(())
/// # }
/// ```
///
/// A second snapshot of the same file is refused, in this process or in another one on this machine, as long as the
/// first one is open. For that, it locks an empty file beside it, whose name ends with `-snapshot`. The lock ends with the
/// process, and the file stays. In a container, mount the folder, not the file alone: SQLite's own files are beside it, too.
/// A fork may not open what its parent had open.
///
/// # Beside your own queries and transactions
/// Transactions of your own that write wait while rows are written, and rows wait while a transaction of your own writes: do
/// not keep one open during a run.
///
/// The journal mode of a database stays as it is. In SQLite's default mode, rows wait for queries too: one that is half read,
/// such as a cursor that the groups come from, would keep the run from writing, and it ends with
/// [`Timeout`](mixpanel_groups::ErrorKind::Timeout). In [WAL mode](https://www.sqlite.org/wal.html) queries and rows do not
/// wait for each other: set it (`PRAGMA journal_mode = WAL`, once) where the groups come from a cursor on the same file, or
/// collect them before the run.
pub struct SqliteSnapshot {
    path: PathBuf,
    /// There until it is dropped.
    db: Option<Connection>,
    /// Locked as long as the store is open.
    _lock: Lock,
    opened: Opened,
}

impl SqliteSnapshot {
    /// Opens the file, or creates it, and the table if it does not exist.
    ///
    /// # Errors
    /// - [`ErrorKind::Config`](mixpanel_groups::ErrorKind::Config) if the path is empty or `:memory:`, with which SQLite
    ///   keeps nothing, contains a NUL byte, is a folder or a device, or begins with `file:`, which is a URI to SQLite.
    /// - [`ErrorKind::Io`](mixpanel_groups::ErrorKind::Io) if the file cannot be read and written, or a snapshot of it is
    ///   open.
    /// - [`ErrorKind::Timeout`](mixpanel_groups::ErrorKind::Timeout) if another connection writes to it for 10 seconds, or,
    ///   unless it is in WAL mode, reads from it for so long. A run can end with it, too.
    /// - [`ErrorKind::Damaged`](mixpanel_groups::ErrorKind::Damaged) if it is not an SQLite database.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let (db, path, opened) = file::open(path.as_ref(), WHAT)?;
        let set_up = || {
            db.busy_timeout(BUSY_TIMEOUT)?;
            file::set_up(&db, Durability::Full, MAX_LOG)?;
            // A power loss may undo with `FULL` what was committed last, unless the file is in WAL mode.
            db.pragma_update(None, "synchronous", "EXTRA")?;
            db.execute_batch(SCHEMA)
        };
        set_up().map_err(|error| failed(WHAT, &path, "open", error))?;
        let lock = Lock::of(&path)?;
        Ok(Self {
            path,
            db: Some(db),
            _lock: lock,
            opened,
        })
    }

    fn db(&self) -> &Connection {
        self.db.as_ref().expect("it is there until it is dropped")
    }

    fn failed(&self, verb: &str, error: rusqlite::Error) -> Error {
        failed(WHAT, &self.path, verb, error)
    }

    fn cannot_write(&self, error: rusqlite::Error) -> Error {
        if error.sqlite_error_code() != Some(ErrorCode::DatabaseBusy)
            || is_in_wal_mode(self.db()) == Ok(true)
        {
            return self.failed("write", error);
        }
        let message = format!(
            "cannot write the snapshot {}: another connection writes to the database, or a query is half read, perhaps that of \
             the groups; for that, set WAL mode (`PRAGMA journal_mode = WAL`)",
            self.path.display()
        );
        Error::new(ErrorKind::Timeout, message).with_source(error)
    }
}

fn append(transaction: &Transaction<'_>, row: &[u8]) -> rusqlite::Result<u64> {
    let mut insert =
        transaction.prepare_cached("INSERT INTO mixpanel_snapshot (row) VALUES (?1)")?;
    let id = insert.insert(params![row])?;
    place(id)
}

fn read(db: &Connection, place: u64) -> rusqlite::Result<Vec<u8>> {
    let mut select = db.prepare_cached("SELECT row FROM mixpanel_snapshot WHERE id = ?1")?;
    select.query_row(params![id(place)], |row| row.get(0))
}

/// Converts a number: SQLite's are signed. Negative ones are of another program.
fn place(id: i64) -> rusqlite::Result<u64> {
    u64::try_from(id).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(0, id))
}

/// Converts a place back.
fn id(place: u64) -> i64 {
    i64::try_from(place).unwrap_or(i64::MAX)
}

impl SnapshotStore for SqliteSnapshot {
    fn load(&mut self, each: &mut EachRow<'_>) -> Result<bool, Error> {
        let failed = |error| self.failed("read", error);
        let select = "SELECT id, row FROM mixpanel_snapshot ORDER BY id";
        let mut select = self.db().prepare(select).map_err(failed)?;
        let mut rows = select.query([]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let id: i64 = row.get(0).map_err(failed)?;
            let bytes = row.get_ref(1).map_err(failed)?;
            let bytes = bytes.as_blob().map_err(|error| failed(error.into()))?;
            each(place(id).map_err(failed)?, bytes)?;
        }
        Ok(true)
    }

    fn read(&mut self, place: u64) -> Result<Vec<u8>, Error> {
        read(self.db(), place).map_err(|error| self.failed("read", error))
    }

    fn append(&mut self, rows: &[Vec<u8>]) -> Result<Vec<u64>, Error> {
        let write = || {
            let behavior = TransactionBehavior::Immediate;
            let transaction = Transaction::new_unchecked(self.db(), behavior)?;
            let places = rows.iter().map(|row| append(&transaction, row));
            let places = places.collect::<rusqlite::Result<_>>()?;
            transaction.commit()?;
            Ok(places)
        };
        write().map_err(|error| self.cannot_write(error))
    }

    fn retain(&mut self, places: &[u64]) -> Result<(), Error> {
        let write = || {
            let behavior = TransactionBehavior::Immediate;
            let transaction = Transaction::new_unchecked(self.db(), behavior)?;
            let last = "SELECT MAX(id) FROM mixpanel_snapshot";
            let last: Option<i64> = transaction.query_row(last, [], |row| row.get(0))?;
            for place in places {
                let row = read(&transaction, *place)?;
                append(&transaction, &row)?;
            }
            let delete = "DELETE FROM mixpanel_snapshot WHERE id <= ?1";
            transaction.execute(delete, params![last.unwrap_or_default()])?;
            transaction.commit()
        };
        write().map_err(|error| self.cannot_write(error))
    }
}

impl Drop for SqliteSnapshot {
    fn drop(&mut self) {
        if self.opened.is_inherited() {
            mem::forget(self.db.take());
        }
    }
}

impl fmt::Debug for SqliteSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteSnapshot")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The program has begun to read the groups, and would wait for itself.
    #[test]
    fn a_query_that_is_half_read_is_in_the_way_outside_wal_mode_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shop.db");
        let own = Connection::open(&path).unwrap();
        own.execute_batch("CREATE TABLE companies (id); INSERT INTO companies VALUES (1), (2)")
            .unwrap();
        let mut store = SqliteSnapshot::open(&path).unwrap();
        store.db().busy_timeout(Duration::ZERO).unwrap();
        let mut append_meanwhile = || {
            let mut select = own.prepare("SELECT id FROM companies").unwrap();
            let mut rows = select.query([]).unwrap();
            assert!(rows.next().unwrap().is_some());
            store.append(&[vec![1]])
        };
        let error = append_meanwhile().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(error.to_string().contains("WAL mode"), "{error}");
        own.execute_batch("PRAGMA journal_mode = WAL").unwrap();
        assert_eq!(append_meanwhile().unwrap().len(), 1);
    }

    /// Without WAL mode, a transaction is undone if its journal is there after a power loss. `FULL` does not wait until the
    /// journal's removal is on the disk.
    #[test]
    fn a_row_is_on_the_disk_for_good() {
        const EXTRA: u8 = 3;
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteSnapshot::open(folder.path().join("shop.db")).unwrap();
        let of = |pragma| {
            store
                .db()
                .pragma_query_value(None, pragma, |row| row.get(0))
        };
        assert_eq!(of("synchronous"), Ok(EXTRA));
    }
}

//! The outbox in an `SQLite` file.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rusqlite::{
    CachedStatement, Connection, ErrorCode, MAIN_DB, OpenFlags, OptionalExtension, Row,
    Transaction, TransactionBehavior, params,
};

use crate::group_commit::GroupCommit;
use crate::outbox::{Capacity, Depth, Outbox, Waiting};
use crate::{Error, ErrorKind, Rejection, StoredUpdate, Update};

const VERSION: i64 = 1;
/// How many rejected updates are kept.
const REJECTED: i64 = 100_000;
/// How long to wait for another process that writes.
const PATIENCE: Duration = Duration::from_secs(10);

/// An outbox in an `SQLite` file: what waits there outlives a crash of the process or the machine.
///
/// Any number of threads and processes may publish to one file. One process at a time sends: `take`
/// gives nothing while another has taken something. It has it under a lock on a second file, which
/// is named like the first with `-relay` at its end, and which ends with its process.
///
/// # The file
/// It may be a database of your own: see [`publish_in`](Self::publish_in). The tables
/// ([`SCHEMA`](Self::SCHEMA)) are plain, and exact whoever writes to them:
/// ```sh
/// sqlite3 outbox.db "SELECT * FROM mixpanel_outbox_rejected"
/// # Try them once more:
/// sqlite3 outbox.db "BEGIN; INSERT INTO mixpanel_outbox (body) SELECT body FROM mixpanel_outbox_rejected;
///                    DELETE FROM mixpanel_outbox_rejected; COMMIT"
/// ```
/// A row that is no update, because somebody changed it, goes to the rejected ones too.
///
/// The file is put into [WAL mode](https://www.sqlite.org/wal.html), so it cannot lie on a network
/// file system. It does not shrink: the place of removed rows is used again.
///
/// # Speed
/// Threads that publish at the same time share one transaction, and with it the wait for the disk:
/// [`Synchronous`] says which. `append` and the others wait 10 seconds at most for another process
/// that writes to the file, and then fail.
///
/// # Several processes and dropping the oldest
/// A process knows only what it took itself. If another one drops the oldest, it may drop what is
/// just being sent.
pub struct SqliteOutbox {
    path: PathBuf,
    engine: GroupCommit<Engine, Append, Result<bool, Arc<rusqlite::Error>>>,
}

/// What an update that was published outlives: `SQLite`'s setting `synchronous`, in WAL mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Synchronous {
    /// The death of the process, and power loss: each transaction waits for the disk.
    #[default]
    Full,
    /// The death of the process, but not always power loss or a crash of the operating system:
    /// these may take the last transactions with them. What is left is whole and in order.
    Normal,
}

/// What one call appends.
struct Append {
    updates: Vec<StoredUpdate>,
    capacity: Capacity,
}

/// The database, for one thread at a time.
struct Engine {
    db: Connection,
    /// Holds a transaction open for as long as something is taken.
    relay: Connection,
    /// What is there up to this id is taken.
    taken: i64,
}

/// An update that goes to the rejected ones.
struct Rejected<'a> {
    id: i64,
    field: Option<&'a str>,
    message: &'a str,
}

/// How much the table holds.
struct State {
    updates: usize,
    bytes: usize,
}

impl SqliteOutbox {
    /// The tables, as `open` makes them where they are not there yet.
    pub const SCHEMA: &'static str = include_str!("sqlite_outbox.sql");

    /// Opens the file, and makes it if there is none. What is published outlives power loss.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if the file cannot be read and written, [`ErrorKind::Damaged`] if it is no
    /// `SQLite` database, or of a newer version of this library.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open_with(path, Synchronous::default())
    }

    /// Opens the file, with a choice between speed and safety.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(path: impl AsRef<Path>, synchronous: Synchronous) -> Result<Self, Error> {
        let path = path.as_ref();
        let failed = |error| failed(path, "open", error);
        let mut engine = Engine::open(path).map_err(failed)?;
        let version = engine.version().map_err(failed)?;
        let newer = version.filter(|version| *version != VERSION);
        if let Some(newer) = newer {
            let path = path.display();
            let message = format!(
                "the outbox {path} is of version {newer}, and this library knows {VERSION}"
            );
            return Err(Error::new(ErrorKind::Damaged, message));
        }
        if engine.db.is_readonly(MAIN_DB).map_err(failed)? {
            let message = format!("the outbox {} can only be read", path.display());
            return Err(Error::new(ErrorKind::Io, message));
        }
        engine.set_up(synchronous).map_err(failed)?;
        Ok(Self {
            path: path.to_owned(),
            engine: GroupCommit::new(engine),
        })
    }

    /// Writes an update in a transaction of your own: it is published if and when the transaction
    /// commits, together with your rows. One that has nothing to say is left out.
    ///
    /// The transaction is one on the outbox's file, where [`open`](Self::open) or
    /// [`SCHEMA`](Self::SCHEMA) has made the tables. It should write before it reads, or be an
    /// [immediate](TransactionBehavior::Immediate) one: `SQLite` lets one transaction write at a
    /// time. No capacity limits what is published so.
    ///
    /// # Errors
    /// If the update cannot be sent, or not be written. The transaction is still yours to roll back.
    ///
    /// ```
    /// # use mixpanel_groups::{Group, SqliteOutbox};
    /// # use serde_json::json;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("shop.db");
    /// let mut db = rusqlite::Connection::open(&path)?;
    /// # db.execute_batch("CREATE TABLE companies (id TEXT, plan TEXT)")?;
    /// let outbox = SqliteOutbox::open(&path)?;
    ///
    /// let transaction = db.transaction()?;
    /// transaction.execute("INSERT INTO companies VALUES ('acme', 'pro')", [])?;
    /// let acme = Group::new("company", "acme");
    /// SqliteOutbox::publish_in(&transaction, acme.set(json!({"plan": "pro"})))?;
    /// transaction.commit()?; // both, or none
    /// # use mixpanel_groups::Outbox;
    /// # assert_eq!(outbox.depth()?.updates, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn publish_in<'a>(
        transaction: &Transaction<'_>,
        update: impl Into<Update<'a>>,
    ) -> Result<(), Error> {
        let Some(update) = StoredUpdate::new(&update.into())? else {
            return Ok(());
        };
        let insert = || {
            let mut insert = insert(transaction)?;
            insert.execute(params![now(transaction)?, update.as_json()])
        };
        let path = || Path::new(transaction.path().unwrap_or_default());
        insert()
            .map(drop)
            .map_err(|error| failed(path(), "write to", error))
    }
}

impl Outbox for SqliteOutbox {
    fn append(&self, updates: &[StoredUpdate], capacity: Capacity) -> Result<bool, Error> {
        let append = Append {
            updates: updates.to_vec(),
            capacity,
        };
        let written = self.engine.join(append, Engine::append_all);
        let written = written.ok_or_else(|| {
            let path = self.path.display();
            let message = format!("cannot write to the outbox {path}: a thread panicked");
            Error::new(ErrorKind::Io, message)
        })?;
        written.map_err(|error| self.failed("write to", error))
    }

    fn take(&self, most: usize) -> Result<Vec<Waiting>, Error> {
        loop {
            let rows = self.engine.writer().take(most);
            let rows = rows.map_err(|error| self.failed("take from", error))?;
            let found = rows.len();
            let (taken, unreadable) = read(rows);
            self.reject(&unreadable)?;
            if found == 0 || !taken.is_empty() {
                return Ok(taken);
            }
        }
    }

    fn settle(&self, accepted: &[i64], rejected: &[(i64, &Rejection)]) -> Result<(), Error> {
        let rejected: Vec<_> = rejected
            .iter()
            .map(|(id, rejection)| Rejected {
                id: *id,
                field: rejection.field.as_deref(),
                message: &rejection.message,
            })
            .collect();
        let settled = self.engine.writer().settle(accepted, &rejected);
        settled.map_err(|error| self.failed("remove from", error))
    }

    fn release(&self) -> Result<(), Error> {
        let released = self.engine.writer().release();
        released.map_err(|error| self.failed("unlock", error))
    }

    fn drop_oldest(
        &self,
        updates: usize,
        bytes: usize,
        capacity: Capacity,
    ) -> Result<usize, Error> {
        let dropped = self.engine.writer().drop_oldest(updates, bytes, capacity);
        dropped.map_err(|error| self.failed("remove from", error))
    }

    fn depth(&self) -> Result<Depth, Error> {
        let depth = self.engine.writer().depth();
        depth.map_err(|error| self.failed("read", error))
    }
}

impl SqliteOutbox {
    /// Puts aside the rows that are no updates.
    fn reject(&self, unreadable: &[(i64, String)]) -> Result<(), Error> {
        if unreadable.is_empty() {
            return Ok(());
        }
        let (path, count) = (self.path.display(), unreadable.len());
        log::warn!("{count} rows of the outbox {path} are no updates: see the rejected ones");
        let rejected: Vec<_> = unreadable
            .iter()
            .map(|(id, message)| Rejected {
                id: *id,
                field: None,
                message,
            })
            .collect();
        let settled = self.engine.writer().settle(&[], &rejected);
        settled.map_err(|error| self.failed("remove from", error))
    }

    fn failed(&self, verb: &str, error: impl Into<Arc<rusqlite::Error>>) -> Error {
        failed(&self.path, verb, error)
    }
}

/// Parts the updates from the rows that are none, and why.
fn read(rows: Vec<(i64, rusqlite::Result<String>)>) -> (Vec<Waiting>, Vec<(i64, String)>) {
    let mut updates = Vec::with_capacity(rows.len());
    let mut unreadable = Vec::new();
    for (id, json) in rows {
        let update = json
            .map_err(|error| error.to_string())
            .and_then(|json| StoredUpdate::from_json(&json).map_err(|error| error.to_string()));
        match update {
            Ok(update) => updates.push(Waiting::new(id, update)),
            Err(why) => unreadable.push((id, why)),
        }
    }
    (updates, unreadable)
}

impl Engine {
    fn open(path: &Path) -> rusqlite::Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(path, flags)?;
        db.busy_handler(Some(wait_for_others))?;
        let mut relay = path.as_os_str().to_owned();
        relay.push("-relay");
        let relay = Connection::open_with_flags(relay, flags)?;
        // Whether another process has something is known at once.
        relay.busy_timeout(Duration::ZERO)?;
        let taken = 0;
        Ok(Self { db, relay, taken })
    }

    /// The version of the tables, where there are any.
    fn version(&self) -> rusqlite::Result<Option<i64>> {
        let exists = "SELECT 1 FROM sqlite_schema WHERE name = 'mixpanel_outbox_state'";
        if !self.db.prepare(exists)?.exists([])? {
            return Ok(None);
        }
        let version = "SELECT version FROM mixpanel_outbox_state";
        self.db.query_row(version, [], |row| row.get(0)).map(Some)
    }

    fn set_up(&mut self, synchronous: Synchronous) -> rusqlite::Result<()> {
        let full = synchronous == Synchronous::Full;
        self.use_wal()?;
        let db = &self.db;
        db.pragma_update(None, "synchronous", if full { "FULL" } else { "NORMAL" })?;
        // On macOS nothing less reaches the disk.
        db.pragma_update(None, "fullfsync", full)?;
        let transaction = self.begin()?;
        if self.version()?.is_none() {
            transaction.execute_batch(SqliteOutbox::SCHEMA)?;
        }
        transaction.commit()
    }

    /// While another process does the same, SQLite gives up at once instead of asking
    /// [`wait_for_others`].
    fn use_wal(&self) -> rusqlite::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let used = self
                .db
                .pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()));
            match used {
                Err(error)
                    if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                        && Instant::now() < deadline =>
                {
                    sleep(Duration::from_millis(5));
                }
                used => return used,
            }
        }
    }

    /// A transaction that may write from its beginning, so that it never has to be begun anew.
    fn begin(&self) -> rusqlite::Result<Transaction<'_>> {
        Transaction::new_unchecked(&self.db, TransactionBehavior::Immediate)
    }

    /// Writes what several calls append, in one transaction.
    fn append_all(&mut self, appends: &[Append]) -> Vec<Result<bool, Arc<rusqlite::Error>>> {
        match self.try_append_all(appends) {
            Ok(appended) => appended.into_iter().map(Ok).collect(),
            Err(error) => {
                let error = Arc::new(error);
                appends.iter().map(|_| Err(error.clone())).collect()
            }
        }
    }

    fn try_append_all(&self, appends: &[Append]) -> rusqlite::Result<Vec<bool>> {
        let transaction = self.begin()?;
        let now = now(&transaction)?;
        let mut state = State::read(&transaction)?;
        let mut insert = insert(&transaction)?;
        let mut appended = Vec::with_capacity(appends.len());
        for append in appends {
            let bytes = append.updates.iter().map(|u| u.as_json().len()).sum();
            let has_room = state.has_room(append.updates.len(), bytes, append.capacity);
            if has_room {
                for update in &append.updates {
                    insert.execute(params![now, update.as_json()])?;
                }
                state.updates += append.updates.len();
                state.bytes += bytes;
            }
            appended.push(has_room);
        }
        drop(insert);
        transaction.commit()?;
        Ok(appended)
    }

    /// The oldest rows; none while another process has some.
    fn take(&mut self, most: usize) -> rusqlite::Result<Vec<(i64, rusqlite::Result<String>)>> {
        if !self.lock_relay()? {
            return Ok(Vec::new());
        }
        let rows = self.oldest(most);
        let last = rows.as_ref().ok().and_then(|rows| rows.last());
        match last {
            Some((id, _)) => self.taken = *id,
            None => self.release()?,
        }
        rows
    }

    fn oldest(&self, most: usize) -> rusqlite::Result<Vec<(i64, rusqlite::Result<String>)>> {
        let sql = "SELECT id, body FROM mixpanel_outbox ORDER BY id LIMIT ?1";
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let mut select = self.db.prepare_cached(sql)?;
        let rows = select.query_map([most], |row| Ok((row.get(0)?, row.get(1))))?;
        rows.collect()
    }

    /// Locks the file beside the database; `false` if another process has it locked.
    fn lock_relay(&self) -> rusqlite::Result<bool> {
        if !self.relay.is_autocommit() {
            return Ok(true);
        }
        match self.relay.execute_batch("BEGIN EXCLUSIVE") {
            Ok(()) => Ok(true),
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn release(&mut self) -> rusqlite::Result<()> {
        self.taken = 0;
        if self.relay.is_autocommit() {
            return Ok(());
        }
        self.relay.execute_batch("ROLLBACK")
    }

    fn settle(&mut self, accepted: &[i64], rejected: &[Rejected<'_>]) -> rusqlite::Result<()> {
        let transaction = self.begin()?;
        for rejected in rejected {
            rejected.keep(&transaction)?;
        }
        if !rejected.is_empty() {
            let sql = "DELETE FROM mixpanel_outbox_rejected WHERE rowid <=
                       (SELECT max(rowid) FROM mixpanel_outbox_rejected) - ?1";
            transaction.prepare_cached(sql)?.execute([REJECTED])?;
        }
        let rejected = rejected.iter().map(|rejected| rejected.id);
        let mut settled: Vec<i64> = accepted.iter().copied().chain(rejected).collect();
        settled.sort_unstable();
        let mut delete = delete(&transaction)?;
        for run in settled.chunk_by(|id, next| next - id <= 1) {
            delete.execute((run.first(), run.last()))?;
        }
        drop(delete);
        let sql = "SELECT 1 FROM mixpanel_outbox WHERE id <= ?1";
        let some_left = transaction.prepare_cached(sql)?.exists([self.taken])?;
        transaction.commit()?;
        if some_left {
            return Ok(());
        }
        // Whoever comes first takes the next.
        self.release()
    }

    fn drop_oldest(
        &self,
        updates: usize,
        bytes: usize,
        capacity: Capacity,
    ) -> rusqlite::Result<usize> {
        let transaction = self.begin()?;
        let mut state = State::read(&transaction)?;
        let mut last = self.taken;
        let sql = "SELECT id, length(CAST(body AS BLOB)) FROM mixpanel_outbox
                   WHERE id > ?1 ORDER BY id";
        let mut select = transaction.prepare_cached(sql)?;
        let mut rows = select.query([self.taken])?;
        while !state.has_room(updates, bytes, capacity) {
            let Some(row) = rows.next()? else { break };
            last = row.get(0)?;
            state.updates = state.updates.saturating_sub(1);
            state.bytes = state.bytes.saturating_sub(size(row, 1)?);
        }
        drop(rows);
        drop(select);
        let dropped = delete(&transaction)?.execute((self.taken + 1, last))?;
        transaction.commit()?;
        Ok(dropped)
    }

    fn depth(&self) -> rusqlite::Result<Depth> {
        let State { updates, bytes } = State::read(&self.db)?;
        let sql = "SELECT (julianday('now') - julianday(since)) * 86400.0
                   FROM mixpanel_outbox ORDER BY id LIMIT 1";
        let mut select = self.db.prepare_cached(sql)?;
        let seconds: Option<Option<f64>> = select.query_row([], |row| row.get(0)).optional()?;
        // A clock may have been set back, and a row's time may have been changed to anything.
        let oldest = seconds.map(|seconds| {
            let age = Duration::try_from_secs_f64(seconds.unwrap_or_default());
            age.unwrap_or_default()
        });
        Ok(Depth {
            updates,
            bytes,
            oldest,
        })
    }
}

impl State {
    fn read(db: &Connection) -> rusqlite::Result<Self> {
        let sql = "SELECT updates, bytes FROM mixpanel_outbox_state";
        db.prepare_cached(sql)?.query_row([], |row| {
            Ok(Self {
                updates: size(row, 0)?,
                bytes: size(row, 1)?,
            })
        })
    }

    fn has_room(&self, updates: usize, bytes: usize, capacity: Capacity) -> bool {
        self.updates + updates <= capacity.updates && self.bytes + bytes <= capacity.bytes
    }
}

impl Rejected<'_> {
    fn keep(&self, db: &Connection) -> rusqlite::Result<()> {
        let sql = "INSERT INTO mixpanel_outbox_rejected (id, since, body, field, message)
                   SELECT id, since, body, ?2, ?3 FROM mixpanel_outbox WHERE id = ?1";
        let mut keep = db.prepare_cached(sql)?;
        keep.execute((self.id, self.field, self.message)).map(drop)
    }
}

/// A count, which is below zero only where somebody wrote it there.
fn size(row: &Row<'_>, column: usize) -> rusqlite::Result<usize> {
    let size: i64 = row.get(column)?;
    Ok(usize::try_from(size).unwrap_or_default())
}

fn now(db: &Connection) -> rusqlite::Result<String> {
    let sql = "SELECT strftime('%Y-%m-%dT%H:%M:%fZ', 'now')";
    db.prepare_cached(sql)?.query_row([], |row| row.get(0))
}

fn insert(db: &Connection) -> rusqlite::Result<CachedStatement<'_>> {
    db.prepare_cached("INSERT INTO mixpanel_outbox (since, body) VALUES (?1, ?2)")
}

fn delete(db: &Connection) -> rusqlite::Result<CachedStatement<'_>> {
    db.prepare_cached("DELETE FROM mixpanel_outbox WHERE id BETWEEN ?1 AND ?2")
}

/// `SQLite`'s own handler pauses for longer and longer, and may never get its turn beside a busy
/// process.
fn wait_for_others(attempts: i32) -> bool {
    const PAUSE: Duration = Duration::from_millis(1);
    sleep(PAUSE);
    PAUSE.saturating_mul(attempts.unsigned_abs()) < PATIENCE
}

fn failed(path: &Path, verb: &str, error: impl Into<Arc<rusqlite::Error>>) -> Error {
    let error = error.into();
    let kind = match error.sqlite_error_code() {
        // Without a code of its own `SQLite` means tables that are not as they should be.
        None | Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown) => {
            ErrorKind::Damaged
        }
        Some(_) => ErrorKind::Io,
    };
    let message = format!("cannot {verb} the outbox {}: {error}", path.display());
    Error::new(kind, message).with_source(error)
}

impl fmt::Debug for SqliteOutbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteOutbox")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

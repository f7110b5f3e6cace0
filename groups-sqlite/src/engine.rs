//! The tables of [`SqliteOutbox`](crate::SqliteOutbox), and what is done with them.

use std::path::Path;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rusqlite::{
    CachedStatement, Connection, ErrorCode, OpenFlags, OptionalExtension, Row, Transaction,
    TransactionBehavior, params,
};

use mixpanel_groups::EncodedUpdate;
use mixpanel_groups::outbox::{Capacity, Depth};

pub(crate) const SCHEMA: &str = include_str!("schema.sql");
/// The version of the schema.
pub(crate) const VERSION: i64 = 1;
/// How many rejected updates are kept.
const REJECTED: i64 = 100_000;
/// How long to wait for another process that writes.
const PATIENCE: Duration = Duration::from_secs(10);

/// What an update that was published outlives: `SQLite`'s setting `synchronous`, in WAL mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// The death of the process, and power loss: each transaction waits for the disk.
    #[default]
    Full,
    /// The death of the process, but not always power loss or a crash of the operating system:
    /// these may take the last transactions with them. What is left is whole and in order.
    Normal,
}

/// What one call appends.
pub(crate) struct Append {
    pub(crate) updates: Vec<EncodedUpdate>,
    pub(crate) capacity: Capacity,
}

/// The database, for one thread at a time.
pub(crate) struct Engine {
    pub(crate) db: Connection,
    /// Holds a transaction open for as long as something is taken.
    relay: Connection,
    /// What is there up to this id is taken.
    taken: i64,
}

/// An update that goes to the rejected ones.
pub(crate) struct Rejected {
    pub(crate) id: i64,
    pub(crate) field: Option<String>,
    pub(crate) message: String,
}

impl Engine {
    pub(crate) fn open(path: &Path) -> rusqlite::Result<Self> {
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
    pub(crate) fn version(&self) -> rusqlite::Result<Option<i64>> {
        let exists = "SELECT 1 FROM sqlite_schema WHERE name = 'mixpanel_outbox_state'";
        if !self.db.prepare(exists)?.exists([])? {
            return Ok(None);
        }
        let version = "SELECT version FROM mixpanel_outbox_state";
        self.db.query_row(version, [], |row| row.get(0)).map(Some)
    }

    pub(crate) fn set_up(&mut self, synchronous: Durability) -> rusqlite::Result<()> {
        let full = synchronous == Durability::Full;
        self.use_wal()?;
        let db = &self.db;
        db.pragma_update(None, "synchronous", if full { "FULL" } else { "NORMAL" })?;
        // On macOS nothing less reaches the disk.
        db.pragma_update(None, "fullfsync", full)?;
        let transaction = self.begin()?;
        if self.version()?.is_none() {
            transaction.execute_batch(SCHEMA)?;
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
    pub(crate) fn append_all(
        &mut self,
        appends: &[Append],
    ) -> Vec<Result<bool, Arc<rusqlite::Error>>> {
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
        let mut held = held(&transaction)?;
        let mut insert = insert(&transaction)?;
        let mut appended = Vec::with_capacity(appends.len());
        for append in appends {
            let (updates, bytes) = (
                append.updates.len(),
                append.updates.iter().map(EncodedUpdate::len).sum(),
            );
            let has_room = held.has_room(updates, bytes, append.capacity);
            if has_room {
                for update in &append.updates {
                    insert.execute(params![now, update.as_json()])?;
                }
                held.updates += updates;
                held.bytes += bytes;
            }
            appended.push(has_room);
        }
        drop(insert);
        transaction.commit()?;
        Ok(appended)
    }

    /// The oldest rows; none while another process has some.
    pub(crate) fn take(
        &mut self,
        most: usize,
    ) -> rusqlite::Result<Vec<(i64, rusqlite::Result<String>)>> {
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

    pub(crate) fn release(&mut self) -> rusqlite::Result<()> {
        self.taken = 0;
        if self.relay.is_autocommit() {
            return Ok(());
        }
        self.relay.execute_batch("ROLLBACK")
    }

    pub(crate) fn settle(
        &mut self,
        accepted: &[i64],
        rejected: &[Rejected],
    ) -> rusqlite::Result<()> {
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

    pub(crate) fn drop_oldest(
        &self,
        updates: usize,
        bytes: usize,
        capacity: Capacity,
    ) -> rusqlite::Result<usize> {
        let transaction = self.begin()?;
        let mut held = held(&transaction)?;
        let mut last = self.taken;
        let sql = "SELECT id, length(CAST(body AS BLOB)) FROM mixpanel_outbox
                   WHERE id > ?1 ORDER BY id";
        let mut select = transaction.prepare_cached(sql)?;
        let mut rows = select.query([self.taken])?;
        while !held.has_room(updates, bytes, capacity) {
            let Some(row) = rows.next()? else { break };
            last = row.get(0)?;
            held.updates = held.updates.saturating_sub(1);
            held.bytes = held.bytes.saturating_sub(size(row, 1)?);
        }
        drop(rows);
        drop(select);
        let dropped = delete(&transaction)?.execute((self.taken + 1, last))?;
        transaction.commit()?;
        Ok(dropped)
    }

    pub(crate) fn depth(&self) -> rusqlite::Result<Depth> {
        let sql = "SELECT (julianday('now') - julianday(since)) * 86400.0
                   FROM mixpanel_outbox ORDER BY id LIMIT 1";
        let mut select = self.db.prepare_cached(sql)?;
        let seconds: Option<Option<f64>> = select.query_row([], |row| row.get(0)).optional()?;
        // A clock may have been set back, and a row's time may have been changed to anything.
        let oldest = seconds.map(|seconds| {
            let age = Duration::try_from_secs_f64(seconds.unwrap_or_default());
            age.unwrap_or_default()
        });
        Ok(held(&self.db)?.with_oldest(oldest))
    }
}

impl Rejected {
    fn keep(&self, db: &Connection) -> rusqlite::Result<()> {
        let sql = "INSERT INTO mixpanel_outbox_rejected (id, since, body, field, message)
                   SELECT id, since, body, ?2, ?3 FROM mixpanel_outbox WHERE id = ?1";
        let mut keep = db.prepare_cached(sql)?;
        keep.execute((self.id, &self.field, &self.message))
            .map(drop)
    }
}

/// How much there is, but not for how long.
fn held(db: &Connection) -> rusqlite::Result<Depth> {
    let sql = "SELECT updates, bytes FROM mixpanel_outbox_state";
    db.prepare_cached(sql)?
        .query_row([], |row| Ok(Depth::new(size(row, 0)?, size(row, 1)?)))
}

/// A count, which is below zero only where somebody wrote it there.
fn size(row: &Row<'_>, column: usize) -> rusqlite::Result<usize> {
    let size: i64 = row.get(column)?;
    Ok(usize::try_from(size).unwrap_or_default())
}

pub(crate) fn now(db: &Connection) -> rusqlite::Result<String> {
    let sql = "SELECT strftime('%Y-%m-%dT%H:%M:%fZ', 'now')";
    db.prepare_cached(sql)?.query_row([], |row| row.get(0))
}

pub(crate) fn insert(db: &Connection) -> rusqlite::Result<CachedStatement<'_>> {
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

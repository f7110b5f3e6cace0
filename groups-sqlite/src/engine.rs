//! The tables of [`SqliteOutbox`](crate::SqliteOutbox), and the statements on them.

use std::path::Path;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rusqlite::{
    CachedStatement, Connection, ErrorCode, OpenFlags, OptionalExtension, Row, Transaction,
    TransactionBehavior, params,
};

use crate::durability::Durability;
use crate::lease::Lease;
use mixpanel_groups::EncodedUpdate;
use mixpanel_groups::outbox::{Capacity, Depth};

pub(crate) const SCHEMA: &str = include_str!("schema.sql");
/// The version of the schema.
pub(crate) const VERSION: i64 = 2;
/// The most bytes of JSON that are taken at once, unless one update has more.
const MAX_BYTES: usize = 16 << 20;
/// The most rejected updates that are kept.
const MAX_REJECTED: i64 = 100_000;
/// The longest wait for another process that writes to the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// The most bytes of the write-ahead log that stay when it is empty.
const MAX_JOURNAL: i64 = 4 << 20;

/// The arguments of one call of `append`.
pub(crate) struct Append {
    pub(crate) updates: Vec<EncodedUpdate>,
    pub(crate) capacity: Capacity,
}

/// The connection of one process. One thread uses it at a time.
pub(crate) struct Engine {
    pub(crate) db: Connection,
    lease: Lease,
    /// The highest id that is taken; every row up to it is taken too.
    taken: i64,
}

/// A row to move to `mixpanel_outbox_rejected`.
pub(crate) struct RejectedRow {
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
        db.busy_timeout(Duration::ZERO)?; // `patiently` waits.
        let lease = Lease::new();
        Ok(Self {
            db,
            lease,
            taken: 0,
        })
    }

    /// Returns the version of the tables, or `None` if there are no tables yet.
    pub(crate) fn version(&self) -> rusqlite::Result<Option<i64>> {
        let exists = "SELECT 1 FROM sqlite_schema WHERE name = 'mixpanel_outbox_state'";
        if !patiently(|| self.db.prepare(exists)?.exists([]))? {
            return Ok(None);
        }
        let version = "SELECT version FROM mixpanel_outbox_state";
        patiently(|| self.db.query_row(version, [], |row| row.get(0))).map(Some)
    }

    /// Creates the tables, if they are missing, and sets the durability.
    pub(crate) fn set_up(&mut self, durability: Durability) -> rusqlite::Result<()> {
        let full = durability == Durability::Full;
        self.use_wal()?;
        let db = &self.db;
        db.pragma_update(None, "synchronous", if full { "FULL" } else { "NORMAL" })?;
        // On macOS, a plain `fsync` does not reach the disk.
        db.pragma_update(None, "fullfsync", full)?;
        let transaction = begin(&self.db)?;
        if self.version()?.is_none() {
            transaction.execute_batch(SCHEMA)?;
        }
        // A file that cannot be written is an error now, not when something is published.
        transaction.execute("UPDATE mixpanel_outbox_state SET version = version", [])?;
        transaction.commit()
    }

    fn use_wal(&self) -> rusqlite::Result<()> {
        patiently(|| {
            self.db
                .pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))
        })?;
        self.db
            .pragma_update_and_check(None, "journal_size_limit", MAX_JOURNAL, |_| Ok(()))
    }

    /// Changes the lease in a transaction.
    fn change_lease<R>(
        &mut self,
        change: impl FnOnce(&mut Lease, &Connection) -> rusqlite::Result<R>,
    ) -> rusqlite::Result<R> {
        let transaction = begin(&self.db)?;
        let changed = change(&mut self.lease, &transaction);
        let committed = changed.and_then(|changed| transaction.commit().map(|()| changed));
        if committed.is_err() {
            self.lease.forget();
        }
        committed
    }

    /// Appends the updates of several calls in one transaction. The result of each call says whether
    /// there was room for it.
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
        let transaction = begin(&self.db)?;
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

    /// Takes the oldest rows, at most `most`. Returns none while the lease is another's.
    pub(crate) fn take(
        &mut self,
        most: usize,
    ) -> rusqlite::Result<Vec<(i64, rusqlite::Result<String>)>> {
        // Most looks find nothing: they do not write.
        if !patiently(|| self.has_rows())? {
            self.release()?;
            return Ok(Vec::new());
        }
        if !self.change_lease(Lease::take)? {
            return Ok(Vec::new());
        }
        let rows = patiently(|| self.oldest(most))?;
        self.taken = rows.last().map_or(0, |(last, _)| *last);
        Ok(rows)
    }

    fn has_rows(&self) -> rusqlite::Result<bool> {
        self.db
            .prepare_cached("SELECT 1 FROM mixpanel_outbox")?
            .exists([])
    }

    fn oldest(&self, most: usize) -> rusqlite::Result<Vec<(i64, rusqlite::Result<String>)>> {
        let sql = "SELECT id, body FROM mixpanel_outbox ORDER BY id LIMIT ?1";
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let mut select = self.db.prepare_cached(sql)?;
        let mut rows = select.query([most])?;
        let (mut oldest, mut bytes) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            let body: rusqlite::Result<String> = row.get(1);
            bytes += body.as_ref().map_or(0, String::len);
            if bytes > MAX_BYTES && !oldest.is_empty() {
                break;
            }
            oldest.push((row.get(0)?, body));
        }
        Ok(oldest)
    }

    /// Extends the lease, so that a request may start that takes so long. Returns `false` if another has it.
    pub(crate) fn hold(&mut self, time: Duration) -> rusqlite::Result<bool> {
        if self.lease.covers(time) {
            return Ok(true);
        }
        self.change_lease(|lease, db| lease.extend(db, time))
    }

    /// Gives up the lease, so that another can take what is not settled.
    pub(crate) fn release(&mut self) -> rusqlite::Result<()> {
        self.taken = 0;
        if self.lease.is_held() {
            self.change_lease(Lease::release)?;
        }
        Ok(())
    }

    /// Removes accepted rows and moves rejected ones. Once all taken rows are settled, any process may
    /// take the next. Returns `false` if the lease is another's: that one may be sending them again.
    pub(crate) fn settle(
        &mut self,
        accepted: &[i64],
        rejected: &[RejectedRow],
    ) -> rusqlite::Result<bool> {
        let transaction = begin(&self.db)?;
        if !self.lease.is_mine(&transaction)? {
            return Ok(false);
        }
        for rejected in rejected {
            rejected.copy(&transaction)?;
        }
        if !rejected.is_empty() {
            let sql = "DELETE FROM mixpanel_outbox_rejected WHERE rowid <=
                       (SELECT max(rowid) FROM mixpanel_outbox_rejected) - ?1";
            transaction.prepare_cached(sql)?.execute([MAX_REJECTED])?;
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
        let is_some_left = transaction.prepare_cached(sql)?.exists([self.taken])?;
        if !is_some_left && self.lease.is_held() {
            self.lease.release(&transaction)?;
            self.taken = 0;
        }
        transaction.commit()?;
        Ok(true)
    }

    /// Removes the oldest rows that are not taken, until there is room. Returns how many were removed.
    pub(crate) fn drop_oldest(
        &self,
        updates: usize,
        bytes: usize,
        capacity: Capacity,
    ) -> rusqlite::Result<usize> {
        let transaction = begin(&self.db)?;
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

    /// Returns the depth, with the age of the oldest row.
    pub(crate) fn depth(&self) -> rusqlite::Result<Depth> {
        let sql = "SELECT (julianday('now') - julianday(since)) * 86400.0
                   FROM mixpanel_outbox ORDER BY id LIMIT 1";
        let seconds = || -> rusqlite::Result<Option<Option<f64>>> {
            let mut select = self.db.prepare_cached(sql)?;
            select.query_row([], |row| row.get(0)).optional()
        };
        let seconds = patiently(seconds)?;
        // The clock may have been set back, and an SQL statement may have written any text as the time.
        let oldest = seconds.map(|seconds| {
            let age = Duration::try_from_secs_f64(seconds.unwrap_or_default());
            age.unwrap_or_default()
        });
        Ok(patiently(|| held(&self.db))?.with_oldest(oldest))
    }
}

impl RejectedRow {
    /// Copies the row to `mixpanel_outbox_rejected`.
    fn copy(&self, db: &Connection) -> rusqlite::Result<()> {
        let sql = "INSERT INTO mixpanel_outbox_rejected (id, since, body, field, message)
                   SELECT id, since, body, ?2, ?3 FROM mixpanel_outbox WHERE id = ?1";
        let mut copy = db.prepare_cached(sql)?;
        copy.execute((self.id, &self.field, &self.message))
            .map(drop)
    }
}

/// Returns the depth without the age of the oldest row.
fn held(db: &Connection) -> rusqlite::Result<Depth> {
    let sql = "SELECT updates, bytes FROM mixpanel_outbox_state";
    db.prepare_cached(sql)?
        .query_row([], |row| Ok(Depth::new(size(row, 0)?, size(row, 1)?)))
}

/// Reads a count. A negative one, which only an SQL statement of somebody else can write, counts as 0.
fn size(row: &Row<'_>, column: usize) -> rusqlite::Result<usize> {
    let size: i64 = row.get(column)?;
    Ok(usize::try_from(size).unwrap_or_default())
}

/// Returns the current time as the tables write it.
pub(crate) fn now(db: &Connection) -> rusqlite::Result<String> {
    let sql = "SELECT strftime('%Y-%m-%dT%H:%M:%fZ', 'now')";
    db.prepare_cached(sql)?.query_row([], |row| row.get(0))
}

/// Prepares the statement that appends a row, from its time and body.
pub(crate) fn insert(db: &Connection) -> rusqlite::Result<CachedStatement<'_>> {
    db.prepare_cached("INSERT INTO mixpanel_outbox (since, body) VALUES (?1, ?2)")
}

/// Prepares the statement that deletes rows, from the first id and the last.
fn delete(db: &Connection) -> rusqlite::Result<CachedStatement<'_>> {
    db.prepare_cached("DELETE FROM mixpanel_outbox WHERE id BETWEEN ?1 AND ?2")
}

/// Begins a transaction that holds the write lock from its beginning, so it cannot fail with `SQLITE_BUSY` later.
fn begin(db: &Connection) -> rusqlite::Result<Transaction<'_>> {
    patiently(|| Transaction::new_unchecked(db, TransactionBehavior::Immediate))
}

/// Repeats what fails while another connection writes, for up to [`BUSY_TIMEOUT`].
///
/// SQLite's own handler waits longer each time, so beside a busy process it may never get its turn; and while another
/// process turns on WAL mode, SQLite does not call it.
fn patiently<R>(mut call: impl FnMut() -> rusqlite::Result<R>) -> rusqlite::Result<R> {
    let deadline = Instant::now() + BUSY_TIMEOUT;
    loop {
        match call() {
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                    && Instant::now() < deadline =>
            {
                sleep(Duration::from_millis(1));
            }
            result => return result,
        }
    }
}

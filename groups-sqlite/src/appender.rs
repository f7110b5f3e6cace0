use std::fs;
use std::sync::Arc;
use std::time::Instant;

use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use mixpanel_groups::outbox::{Capacity, OutboxRecord};

use crate::failure::Failure;
use crate::file::{OutboxFile, delete, held, insert, now, size};
use crate::reserve::{self, empty_log};
use crate::schema::Tables;

/// The most rows that one call drops. It is to end by its deadline; the caller comes again.
const MAX_DROPPED: i64 = 10_000;

/// The arguments of one call of `append`.
pub(crate) struct Append<R> {
    pub(crate) updates: Vec<R>,
    pub(crate) capacity: Capacity,
}

/// The connection for publishing. One thread uses it at a time.
pub(crate) struct Appender {
    pub(crate) db: Connection,
    pub(crate) file: Arc<OutboxFile>,
}

impl Appender {
    /// Appends the updates of several calls in one transaction, which `take` returns once it has begun. The result of each
    /// call says whether there was room for it. Returns an error if another connection writes until the deadline.
    pub(crate) fn append_all<R: OutboxRecord>(
        &mut self,
        deadline: Option<Instant>,
        take: &mut dyn FnMut() -> Vec<Append<R>>,
    ) -> Result<Vec<Result<bool, Failure>>, Failure> {
        let transaction = self.file.begin(&self.db, deadline)?;
        let appends = take();
        let mut appended = self.try_append_all(transaction, &appends);
        if let Err(failure) = &appended
            && failure.is_full()
        {
            self.file.reserve.wait_until_filled();
            // What is appended to free pages needs no more room in the database, and the log may have little room to grow.
            empty_log(&self.db);
            let transaction = self.file.begin(&self.db, deadline);
            appended = transaction.and_then(|again| self.try_append_all(again, &appends));
        }
        Ok(match appended {
            Ok(appended) => appended.into_iter().map(Ok).collect(),
            Err(failure) => appends.iter().map(|_| Err(failure.clone())).collect(),
        })
    }

    fn try_append_all<R: OutboxRecord>(
        &self,
        transaction: Transaction<'_>,
        appends: &[Append<R>],
    ) -> Result<Vec<bool>, Failure> {
        let tables = self.file.tables;
        check_oldest(&transaction, tables)?;
        if self.file.reserve.is_short() && !self.has_free_pages(appends)? {
            return Err(Failure::Full);
        }
        let now = now(&transaction)?;
        let mut held = held(&transaction, self.file.tables)?;
        let mut insert = insert(&transaction, tables)?;
        let mut appended = Vec::with_capacity(appends.len());
        for append in appends {
            let (updates, bytes) = (append.updates.len(), append.bytes());
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
        self.file.check()?;
        // What others have appended since the log was emptied is less than that, too.
        let reserve = &self.file.reserve;
        if needed(appends) > reserve.log_bytes()
            && !reserve.has_room_for(self.growth()?, needed(appends))
        {
            return Err(Failure::Full);
        }
        transaction.commit()?;
        Ok(appended)
    }

    /// Returns by how many bytes the file of the database will grow when the log is moved to it.
    fn growth(&self) -> rusqlite::Result<usize> {
        let bytes = pragma(&self.db, "page_count")?.saturating_mul(pragma(&self.db, "page_size")?);
        let file = fs::metadata(&self.file.path).ok();
        let length = file.and_then(|file| usize::try_from(file.len()).ok());
        Ok(bytes.saturating_sub(length.unwrap_or_default()))
    }

    /// Returns whether the updates need no more room in the file of the database, nor their rejection.
    fn has_free_pages<R: OutboxRecord>(&self, appends: &[Append<R>]) -> rusqlite::Result<bool> {
        let page = pragma(&self.db, "page_size")?;
        let free = pragma(&self.db, "freelist_count")?.saturating_mul(page);
        // What is rejected is copied before it is removed.
        Ok(free >= needed(appends).saturating_add(reserve::LEAST))
    }

    /// Removes some of the oldest rows that are not taken, until there is room. Returns how many were removed.
    pub(crate) fn drop_oldest(
        &self,
        updates: usize,
        bytes: usize,
        capacity: Capacity,
        deadline: Option<Instant>,
    ) -> Result<usize, Failure> {
        let transaction = self.file.begin(&self.db, deadline)?;
        let taken = self.file.taken();
        let mut held = held(&transaction, self.file.tables)?;
        // A process with a small capacity does not drop what others with a larger one keep.
        let is_foreign = |waiting: usize, most: usize| waiting > most.saturating_mul(2);
        if is_foreign(held.updates, capacity.updates) || is_foreign(held.bytes, capacity.bytes) {
            return Ok(0);
        }
        let mut last = *taken;
        let sql = "SELECT id, length(CAST(body AS BLOB)) FROM mixpanel_outbox
                   WHERE id > ?1 ORDER BY id LIMIT ?2";
        let mut select = self.file.tables.prepare(&transaction, sql)?;
        let mut rows = select.query([*taken, MAX_DROPPED])?;
        while !held.has_room(updates, bytes, capacity) {
            let Some(row) = rows.next()? else { break };
            last = row.get(0)?;
            held.updates = held.updates.saturating_sub(1);
            held.bytes = held.bytes.saturating_sub(size(row, 1)?);
        }
        drop(rows);
        drop(select);
        let dropped = delete(&transaction, self.file.tables)?.execute((*taken + 1, last))?;
        transaction.commit()?;
        Ok(dropped)
    }
}

fn pragma(db: &Connection, name: &str) -> rusqlite::Result<usize> {
    db.pragma_query_value(None, name, |row| size(row, 0))
}

/// Returns an error if the oldest row cannot be read: nothing behind it would ever be sent.
fn check_oldest(db: &Connection, tables: Tables) -> rusqlite::Result<()> {
    let sql = "SELECT body FROM mixpanel_outbox ORDER BY id LIMIT 1";
    let mut oldest = tables.prepare(db, sql)?;
    let read = oldest.query_row([], |row| row.get_ref(0).map(drop));
    read.optional().map(drop)
}

/// Returns how many bytes the pages of the updates have at most: a page holds less than its bytes of them.
fn needed<R: OutboxRecord>(appends: &[Append<R>]) -> usize {
    appends.iter().map(Append::bytes).sum::<usize>() * 2
}

impl<R: OutboxRecord> Append<R> {
    fn bytes(&self) -> usize {
        let lengths = self.updates.iter().map(|update| update.as_json().len());
        lengths.sum()
    }
}

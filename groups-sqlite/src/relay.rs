use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::damage;
use crate::failure::Failure;
use crate::file::{OutboxFile, delete, patiently};
use crate::lease::{Lease, MAX_REQUEST};
use crate::reserve::{empty_log, with_reserve};
use crate::schema::Tables;
use mixpanel_groups::Rejection;

/// The most bytes of JSON that are taken at once, unless one update has more.
const MAX_BYTES: usize = 16 << 20;
/// How often it is tried to fill the reserve: on a full disk each try fills what is left of it.
const REFILL_EVERY: Duration = Duration::from_secs(60);
/// How often, if it is missing: the disk may be too small for it.
const REPLACE_EVERY: Duration = Duration::from_secs(60 * 60);
/// In how many parts to settle on a full disk what is too much at once.
const PARTS: usize = 8;
/// How many seconds the lease of another lasts that are worth a warning: more than an ordinary request takes.
const LONG_WAIT: f64 = 60.0;
/// How often shorter ones are logged, where several processes send in turn.
const LOG_WAIT_EVERY: Duration = Duration::from_secs(60);
/// The most rejected updates that are kept.
const MAX_REJECTED: i64 = 100_000;

/// The connection of the sender. One thread uses it at a time.
pub(crate) struct Relay {
    pub(crate) db: Connection,
    pub(crate) file: Arc<OutboxFile>,
    pub(crate) lease: Lease,
    /// When it was last tried to fill the reserve again.
    pub(crate) refilled: Option<Instant>,
    /// The last line of the log about the lease of another process.
    pub(crate) logged: Option<LoggedWait>,
    /// What was set aside by a `settle` that succeeded then: the next `take` reports it.
    pub(crate) unreported: Option<Failure>,
}

/// A line of the log about the lease of another process.
pub(crate) struct LoggedWait {
    other: String,
    is_long: bool,
    at: Instant,
}

/// A row whose fate is known: its id, and why it was rejected, if it was.
type Settled<'a> = (i64, Option<&'a Rejection>);

/// An id, and the text in its row.
type TakenRow = (i64, rusqlite::Result<String>);

impl Relay {
    /// Changes the lease in a transaction.
    fn change_lease<R>(
        &mut self,
        change: impl Fn(&mut Lease, &Connection) -> rusqlite::Result<R>,
    ) -> Result<R, Failure> {
        let Self {
            db, file, lease, ..
        } = self;
        with_reserve(&file.reserve, db, || {
            let transaction = file.begin(db, file.deadline())?;
            let changed = change(lease, &transaction);
            let committed = changed.and_then(|changed| transaction.commit().map(|()| changed));
            if committed.is_err() {
                lease.forget();
            }
            Ok(committed?)
        })
    }

    /// Takes the oldest rows, at most `most`. Returns none while the lease is another's.
    pub(crate) fn take(&mut self, most: usize) -> Result<Vec<TakenRow>, Failure> {
        if let Some(failure) = self.unreported.take() {
            return Err(failure);
        }
        let taken = self.try_take(most);
        match taken {
            Err(failure) if failure.is_corruption() => Err(self.set_aside(failure)),
            taken => taken,
        }
    }

    /// Sets what is damaged aside, and returns how that ended: what to take and settle next is sound then.
    fn set_aside(&mut self, failure: Failure) -> Failure {
        match damage::set_aside(&self.db, &self.file) {
            Ok(Some(table)) => {
                self.file.set_damaged(false);
                Failure::SetAside(table)
            }
            elsewhere => {
                if let Err(Failure::Sqlite(error)) = elsewhere {
                    log::error!("what is damaged in the outbox cannot be set aside: {error}");
                }
                self.file.set_damaged(true);
                failure
            }
        }
    }

    fn try_take(&mut self, most: usize) -> Result<Vec<TakenRow>, Failure> {
        self.file.check_log()?;
        // Most looks find nothing, or the lease of another: they do not write.
        if !patiently(self.file.deadline(), || self.has_rows())? {
            self.release()?;
            self.file.set_damaged(false); // What could not be read is gone: another set it aside.
            self.correct_counts()?;
            self.file.check_replaced()?;
            return Ok(Vec::new());
        }
        let other = patiently(self.file.deadline(), || self.lease.other_now(&self.db))?;
        if let Some((other, seconds)) = other {
            self.log_wait(other, seconds);
            return Ok(Vec::new());
        }
        let time = self.file.timeout();
        if !self.change_lease(|lease, db| lease.take(db, time))? {
            return Ok(Vec::new());
        }
        let mut taken = self.file.taken();
        let rows = patiently(self.file.deadline(), || self.oldest(most))?;
        *taken = rows.last().map_or(0, |(last, _)| *last);
        Ok(rows)
    }

    /// Logs once that another process, which may have been killed, keeps this one from sending: as a warning, if for long.
    fn log_wait(&mut self, other: String, seconds: f64) {
        let is_long = seconds > LONG_WAIT;
        let is_logged = self.logged.as_ref().is_some_and(|logged| {
            let is_same = logged.other == other && (logged.is_long || !is_long);
            is_same || !is_long && logged.at.elapsed() < LOG_WAIT_EVERY
        });
        if is_logged {
            return;
        }
        let path = self.file.path.display();
        let table = self.file.tables.sql("mixpanel_outbox_lease");
        if is_long {
            log::warn!(
                "the outbox {path} is leased to another process for up to {seconds:.0} s more: nothing is sent here meanwhile; \
                 if that process was killed, delete its row {other:?} of {table}",
            );
        } else {
            log::info!(
                "the outbox {path} is leased to another process, row {other:?} of {table}, for up to {seconds:.0} s more: \
                 nothing is sent here meanwhile",
            );
        }
        let at = Instant::now();
        self.logged = Some(LoggedWait { other, is_long, at });
    }

    /// Sets the counts to zero if nothing waits: a flush would wait for that. `OR REPLACE` of another program, for example,
    /// removes rows without their triggers.
    fn correct_counts(&self) -> Result<(), Failure> {
        let Self { db, file, .. } = self;
        let wrong = "(updates <> 0 OR bytes <> 0) AND NOT EXISTS (SELECT 1 FROM mixpanel_outbox)";
        let select = format!("SELECT 1 FROM mixpanel_outbox_state WHERE {wrong}");
        let are_wrong = || file.tables.prepare(db, &select)?.exists([]);
        if !patiently(file.deadline(), are_wrong)? {
            return Ok(());
        }
        let update =
            format!("UPDATE mixpanel_outbox_state SET updates = 0, bytes = 0 WHERE {wrong}");
        let corrected = with_reserve(&file.reserve, db, || {
            let correct = || file.tables.prepare(db, &update)?.execute([]);
            Ok(patiently(file.deadline(), correct)?)
        })?;
        if corrected > 0 {
            log::warn!("the counts of the outbox were too high: nothing waits");
        }
        Ok(())
    }

    fn has_rows(&self) -> rusqlite::Result<bool> {
        let sql = "SELECT 1 FROM mixpanel_outbox";
        self.file.tables.prepare(&self.db, sql)?.exists([])
    }

    fn oldest(&self, most: usize) -> rusqlite::Result<Vec<TakenRow>> {
        let sql = "SELECT id, body FROM mixpanel_outbox ORDER BY id LIMIT ?1";
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let mut select = self.file.tables.prepare(&self.db, sql)?;
        let mut rows = select.query([most])?;
        let (mut oldest, mut bytes) = (Vec::new(), 0);
        loop {
            let row = match rows.next() {
                Ok(Some(row)) => row,
                Ok(None) => break,
                // What stands before a damaged page can be sent.
                Err(_) if !oldest.is_empty() => break,
                Err(error) => return Err(error),
            };
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
    pub(crate) fn hold(&mut self, time: Duration) -> Result<bool, Failure> {
        let (deadline, time) = (self.file.deadline(), time.min(MAX_REQUEST));
        let mut spare = Duration::ZERO;
        // If the disk is slow, too little is left of the lease, and the next one is longer by what this one took.
        while !self.lease.covers(time) {
            let start = Instant::now();
            // Once at least, however short the time for a call.
            if !spare.is_zero() && deadline.is_some_and(|deadline| deadline < start) {
                return Err(Failure::Slow);
            }
            let time = time.saturating_add(spare);
            if !self.change_lease(|lease, db| lease.extend(db, time))? {
                return Ok(false);
            }
            spare = start.elapsed();
        }
        Ok(true)
    }

    /// Gives up the lease, so that another can take what is not settled.
    pub(crate) fn release(&mut self) -> Result<(), Failure> {
        *self.file.taken() = 0;
        if self.lease.is_held() {
            self.change_lease(Lease::release)?;
        }
        self.refill_reserve(false);
        Ok(())
    }

    /// Removes accepted rows and moves rejected ones. Once all taken rows are settled, any process may
    /// take the next. It is an error if the lease is another's: that one may be sending them again.
    pub(crate) fn settle(
        &mut self,
        accepted: &[i64],
        rejected: &[(i64, &Rejection)],
    ) -> Result<(), Failure> {
        let rejected = rejected.iter().map(|(id, why)| (*id, Some(*why)));
        let mut settled: Vec<Settled<'_>> = accepted
            .iter()
            .map(|id| (*id, None))
            .chain(rejected)
            .collect();
        settled.sort_unstable_by_key(|(id, _)| *id);
        let mut result = self.settle_in_parts(&settled);
        if let Err(failure) = &result
            && failure.is_corruption()
        {
            let failure = self.set_aside(failure.clone());
            result = if let Failure::SetAside(_) = failure {
                self.unreported = Some(failure);
                self.settle_in_parts(&settled)
            } else {
                Err(failure)
            };
        }
        if result.is_ok() {
            self.file.set_damaged(false); // Or it was repaired.
        }
        self.refill_reserve(result.is_ok());
        result
    }

    /// Settles all at once, or, on a full disk, so many at a time as it has room for: the oldest first, so that what
    /// cannot be settled, and is sent once more, are the last ones.
    fn settle_in_parts(&mut self, settled: &[Settled<'_>]) -> Result<(), Failure> {
        match self.settle_part(settled) {
            Err(failure) if failure.is_full() => self.file.reserve.wait_until_filled(),
            result => return result,
        }
        self.file.reserve.spend();
        empty_log(&self.db);
        if settled.len() <= 1 {
            return self.settle_part(settled);
        }
        // For all of them the log might take all the room of the reserve, and the file may have to grow a little.
        for part in settled.chunks(settled.len().div_ceil(PARTS)) {
            self.settle_in_parts(part)?;
            empty_log(&self.db);
        }
        Ok(())
    }

    fn settle_part(&mut self, settled: &[Settled<'_>]) -> Result<(), Failure> {
        let Self {
            db, file, lease, ..
        } = self;
        let transaction = file.begin(db, file.deadline())?;
        if !lease.is_mine(&transaction)? {
            if settled.is_empty() {
                return Ok(());
            }
            return Err(Failure::TakenOver);
        }
        // Each rejected row is deleted before the next one is copied, into the room of this one: the file hardly grows.
        let mut delete = delete(&transaction, file.tables)?;
        let mut is_any_rejected = false;
        for run in settled
            .chunk_by(|(id, why), (next, other)| why.is_none() && other.is_none() && next - id <= 1)
        {
            let [(first, rejected), ..] = run else {
                continue;
            };
            if let Some(rejection) = rejected {
                copy(&transaction, file.tables, *first, rejection)?;
                is_any_rejected = true;
            }
            let last = run.last().map_or(first, |(last, _)| last);
            delete.execute((first, last))?;
        }
        drop(delete);
        if is_any_rejected {
            let sql = "DELETE FROM mixpanel_outbox_rejected WHERE rowid <=
                       (SELECT max(rowid) FROM mixpanel_outbox_rejected) - ?1";
            let mut trim = file.tables.prepare(&transaction, sql)?;
            trim.execute([MAX_REJECTED])?;
        }
        let mut taken = file.taken();
        let sql = "SELECT 1 FROM mixpanel_outbox WHERE id <= ?1";
        let is_some_left = file.tables.prepare(&transaction, sql)?.exists([*taken])?;
        // Also if an earlier try, which the disk had no room for, has forgotten it: the file says that it is held.
        let gives_up = !is_some_left;
        if gives_up {
            lease.release(&transaction)?;
        }
        transaction.commit()?;
        if gives_up {
            *taken = 0;
        }
        Ok(())
    }

    /// Keeps room for sending again, when nothing is taken and the room was needed before, or the reserve is missing. Where
    /// nothing was sent, it shares no room: what is published then would take it, until none is left to send with.
    fn refill_reserve(&mut self, is_sent: bool) {
        let reserve = &self.file.reserve;
        if self.lease.is_held() {
            return;
        }
        if is_sent && reserve.is_used() {
            reserve.share();
            self.refilled = Some(Instant::now());
            return;
        }
        let is_due = if reserve.is_short() {
            self.refilled.is_none_or(|at| at.elapsed() >= REFILL_EVERY)
        } else if self.file.check().is_err() {
            false
        } else if reserve.is_missing() {
            self.refilled.is_none_or(|at| at.elapsed() >= REPLACE_EVERY)
        } else {
            // Not at each start of a program: others cannot write meanwhile.
            let last = *self.refilled.get_or_insert_with(Instant::now);
            reserve.is_small() && last.elapsed() >= REPLACE_EVERY
        };
        if is_due {
            reserve.refill();
            self.refilled = Some(Instant::now());
        }
    }
}

/// Copies a rejected row to `mixpanel_outbox_rejected`.
fn copy(db: &Connection, tables: Tables, id: i64, rejection: &Rejection) -> rusqlite::Result<()> {
    let sql = "INSERT INTO mixpanel_outbox_rejected (id, since, body, field, message)
               SELECT id, since, body, ?2, ?3 FROM mixpanel_outbox WHERE id = ?1";
    let mut copy = tables.prepare(db, sql)?;
    let row = (id, &rejection.field, &rejection.message);
    copy.execute(row).map(drop)
}

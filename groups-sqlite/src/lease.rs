use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use mixpanel_groups::outbox::HeldUntil;
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::schema::Tables;

/// How long a lease lasts at least before the first request of a process extends it, and at most.
const FIRST: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];

/// The longest time that a request is held for: a process that was killed, however long its requests may take, holds others
/// up no longer.
pub(crate) const MAX_REQUEST: Duration = Duration::from_secs(60 * 60);

/// The longest time that a lease lasts, with what a slow disk adds to that of the request.
const MAX_LEASE: Duration = Duration::from_secs(2 * 60 * 60);

/// By how many seconds the clock may be set back without ending a lease.
const TOLERANCE: f64 = 10.0;

/// Who may send what is in one queue, and until when: one row of the file, by the clock of the machine.
///
/// A lease ends when it is released, or when its time has passed without a release, since its holder was killed. No
/// request starts that it does not outlast ([`Outbox::hold`](mixpanel_groups::Outbox::hold)). So a successor sends
/// nothing before every request of its predecessor has ended for its client.
pub(crate) struct Lease {
    tables: Tables,
    holder: String,
    /// Until when it is held, as far as is known.
    until: Option<HeldUntil>,
    /// How long to take it for at least: as long as the last request could take, so that the next need not extend it.
    time: Duration,
}

impl Lease {
    /// Returns a lease that is not held.
    pub(crate) fn new(tables: Tables) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        Self {
            tables,
            holder: format!("{}-{number}-{}", process::id(), since.as_nanos()),
            until: None,
            time: Duration::ZERO,
        }
    }

    /// Returns whether it was taken and neither released nor lost, as far as is known.
    pub(crate) fn is_held(&self) -> bool {
        self.until.is_some()
    }

    /// Returns whether it lasts for that long.
    pub(crate) fn covers(&self, time: Duration) -> bool {
        self.until.is_some_and(|until| until.covers(time))
    }

    /// Returns the process that holds it now, and for how many seconds more.
    fn holder_now(&self, db: &Connection) -> rusqlite::Result<Option<(String, f64)>> {
        let sql = "SELECT holder, until - ?1 FROM mixpanel_outbox_lease
                   -- A clock that was set far back, or a time that no lease lasts, holds nobody up.
                   WHERE since <= ?1 + ?2 AND until <= since + ?3 AND ?1 < until";
        let mut select = self.tables.prepare(db, sql)?;
        // What is added to a number of today's size and taken from it again is not exact.
        let longest = MAX_LEASE.as_secs_f64() + 1.0;
        let holder = select.query_row([now(), TOLERANCE, longest], |row| {
            Ok((row.get(0)?, row.get(1)?))
        });
        holder.optional()
    }

    /// Returns the other process that holds it now, and for how many seconds more.
    pub(crate) fn other_now(&self, db: &Connection) -> rusqlite::Result<Option<(String, f64)>> {
        let holder = self.holder_now(db)?;
        Ok(holder.filter(|(holder, _)| *holder != self.holder))
    }

    /// Takes it in a transaction, unless another has it, for a call that may take so long: no other is to take over
    /// meanwhile.
    pub(crate) fn take(&mut self, db: &Connection, time: Duration) -> rusqlite::Result<bool> {
        let [least, longest] = FIRST;
        let first = time.clamp(least, longest);
        let holder = self.holder_now(db)?;
        if holder
            .as_ref()
            .is_some_and(|(holder, _)| *holder != self.holder)
        {
            self.until = None;
            return Ok(false);
        }
        if holder.is_none() || !self.covers(first / 2) {
            self.write(db, self.time.max(first))?;
        }
        Ok(true)
    }

    /// Extends it in a transaction, unless another took it.
    pub(crate) fn extend(&mut self, db: &Connection, time: Duration) -> rusqlite::Result<bool> {
        if !self.is_mine(db)? {
            self.until = None;
            return Ok(false);
        }
        self.time = HeldUntil::lease(time);
        self.write(db, self.time)?;
        Ok(true)
    }

    /// Returns whether the file says that it is held by this one, though its time may have passed.
    pub(crate) fn is_mine(&self, db: &Connection) -> rusqlite::Result<bool> {
        let sql = "SELECT 1 FROM mixpanel_outbox_lease WHERE holder = ?1";
        self.tables.prepare(db, sql)?.exists([&self.holder])
    }

    /// Relies on it no longer: whether the file has it is not known.
    pub(crate) fn forget(&mut self) {
        self.until = None;
    }

    /// Ends it in a transaction, if it is still held.
    pub(crate) fn release(&mut self, db: &Connection) -> rusqlite::Result<()> {
        self.forget();
        let sql = "DELETE FROM mixpanel_outbox_lease WHERE holder = ?1";
        let mut delete = self.tables.prepare(db, sql)?;
        delete.execute([&self.holder]).map(drop)
    }

    fn write(&mut self, db: &Connection, time: Duration) -> rusqlite::Result<()> {
        let time = time.min(MAX_LEASE);
        let until = HeldUntil::after(time);
        let since = now();
        let sql = "DELETE FROM mixpanel_outbox_lease";
        self.tables.prepare(db, sql)?.execute([])?;
        let sql = "INSERT INTO mixpanel_outbox_lease (holder, since, until) VALUES (?1, ?2, ?3)";
        let mut insert = self.tables.prepare(db, sql)?;
        insert.execute(params![self.holder, since, since + time.as_secs_f64()])?;
        self.until = Some(until);
        Ok(())
    }
}

/// Returns the time in seconds since the Unix epoch, as the table has it.
fn now() -> f64 {
    let since = SystemTime::UNIX_EPOCH.elapsed();
    since.unwrap_or_default().as_secs_f64()
}

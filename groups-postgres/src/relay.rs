use std::collections::HashSet;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use tokio::time::timeout;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use crate::builder::OutboxSettings;
use crate::connection::{
    Connection, Params, check_hidden, failed, has_code, is_hidden, numbers, random_bits,
};
use crate::depth::{correct_counts, merge_counts};
use crate::portion::Portion;
use crate::publish::{ascii, unicode};
use mixpanel_groups::outbox::{HeldUntil, OutboxEntry, OutboxRecord};
use mixpanel_groups::{Error, ErrorKind};

/// How long a lease lasts before the first request extends it: as long as the call may take, within these limits.
const FIRST: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];

/// The most bytes of JSON that a `take` reads. A single update may exceed it.
const MAX_BYTES: i64 = 32 << 20;

/// The most bytes of a row that is read whole: Mixpanel accepts 1 MB, which is up to three times as long with escapes for all
/// that is not ASCII.
const MAX_ROW: i32 = 4_000_000;

/// The most rows that a `take` reads, of which half are tried if one is not UTF-8.
const MAX_TAKEN: i64 = 1 << 20;

/// The database's encoding, or UTF-8, has no such character.
const OF_ENCODING: [SqlState; 2] = [
    SqlState::CHARACTER_NOT_IN_REPERTOIRE,
    SqlState::UNTRANSLATABLE_CHARACTER,
];

/// How often the rows that count are merged.
const MERGE_EVERY: Duration = Duration::from_secs(1);

/// How often old rows of `rejected` and `accepted` are removed.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// When that is tried again if it failed.
const SWEEP_AGAIN: Duration = Duration::from_secs(1);

/// The most rows of each that one statement removes; fewer after one that was too slow.
const MAX_SWEPT: i64 = 1_000;

/// The connection that takes, holds and settles, with what it has taken.
///
/// The lease is one row of the database, by whose clock it goes. It ends when it is released, or when its time has passed
/// without that, since its holder was killed. No request starts that it does not outlast
/// ([`Outbox::hold`](mixpanel_groups::Outbox::hold)). So a successor sends nothing before every request of its
/// predecessor has ended for its client.
pub(crate) struct Relay {
    pub(crate) connection: Connection,
    settings: OutboxSettings,
    /// The beginning of the holder's name in the database.
    process: String,
    /// The whole name, another one for each lease, of which later ones are greater: a statement that is executed after it was
    /// given up then neither ends nor replaces one that was taken since.
    holder: String,
    leases: u64,
    /// Until when the lease is held, as far as is known.
    until: Option<HeldUntil>,
    /// Whether the database may have it as this one's.
    may_hold: bool,
    /// The other relay of whose long lease the log has a line.
    logged: Option<String>,
    /// How much to take at once, so that it can be read in time,
    reads: Portion,
    /// and so that it can be settled in time: otherwise the same would be sent in each round.
    settles: Portion,
    /// The ids of the taken updates that are not settled.
    taken: HashSet<i64>,
    /// The highest of them, for other threads.
    last_taken: Arc<AtomicI64>,
    merged: Option<Instant>,
    /// Whether this relay was the last to send, as far as it knows: then its settings say what is old.
    is_last_sender: bool,
    /// When old rows are to be removed, and how many at most.
    sweep_at: Instant,
    sweeps: Portion,
}

impl Relay {
    pub(crate) fn new(
        connection: Connection,
        settings: &OutboxSettings,
        last_taken: &Arc<AtomicI64>,
    ) -> Self {
        Self {
            connection,
            settings: settings.clone(),
            process: format!("{}-{:016x}", process::id(), random_bits()),
            holder: String::new(),
            leases: 0,
            until: None,
            may_hold: false,
            logged: None,
            reads: Portion::ALL,
            settles: Portion::ALL,
            taken: HashSet::new(),
            last_taken: Arc::clone(last_taken),
            merged: None,
            is_last_sender: false,
            sweep_at: Instant::now(),
            sweeps: Portion::ALL,
        }
    }

    /// Returns whether its connection is open, and nothing is taken, for which it would be needed.
    pub(crate) fn is_idle(&self) -> bool {
        self.taken.is_empty() && self.connection.is_open()
    }

    fn covers(&self, time: Duration) -> bool {
        self.until.is_some_and(|until| until.covers(time))
    }

    /// Takes the lease, unless another has it or nothing waits, and reads what waits. The time is what is left to the call.
    pub(crate) async fn take<R: OutboxRecord>(
        &mut self,
        most: usize,
        time: Duration,
    ) -> Result<Vec<OutboxEntry<R>>, Error> {
        let start = Instant::now();
        let entries = self.take_oldest(most, time).await?;
        // Half of what is left at most: what was read is to return in time.
        self.tidy(time.saturating_sub(start.elapsed()) / 4).await;
        Ok(entries)
    }

    async fn take_oldest<R: OutboxRecord>(
        &mut self,
        most: usize,
        time: Duration,
    ) -> Result<Vec<OutboxEntry<R>>, Error> {
        const WHAT: &str = "read the outbox";
        let start = Instant::now();
        let [least, longest] = FIRST;
        let first = time.clamp(least, longest);
        // While it reads, no other is to take over.
        if !self.covers(time.min(longest)) {
            self.until = None;
            // Without a connection, no lease was requested, so there is nothing to release.
            self.connection.ensure_open().await?;
            self.may_hold = true;
            self.leases += 1;
            self.holder = format!("{}/{:020}", self.process, self.leases);
            let until = HeldUntil::after(first);
            let first = seconds(first);
            let params: &Params<'_> = &[
                (&self.holder, Type::TEXT),
                (&first, Type::FLOAT8),
                (&self.process, Type::TEXT),
            ];
            let rows = self.connection.query(WHAT, TAKE, params);
            let rows = rows.await?;
            let [is_taken, is_there, is_waiting] = numbers(WHAT, &rows)?;
            if let Err(hidden) = check_hidden(WHAT, &rows, 4) {
                // It may have the lease, for which others that can send would wait.
                self.release().await?;
                return Err(hidden);
            }
            if is_there == 0 {
                let message = "the outbox's table of the lease is empty: run `migrate` again";
                return Err(Error::new(ErrorKind::Damaged, message));
            }
            if is_taken == 0 {
                // If something waits, another sends it.
                self.is_last_sender &= is_waiting == 0;
                if is_waiting > 0 {
                    let long = rows[0].try_get(3).map_err(|error| failed(WHAT, error))?;
                    self.log_wait(long);
                }
                self.may_hold = false;
                self.set_taken(HashSet::new());
                return Ok(Vec::new());
            }
            self.until = Some(until);
            self.is_last_sender = true;
        }
        let time = time.saturating_sub(start.elapsed());
        let entries = self.oldest(WHAT, most, time).await?;
        self.set_taken(entries.iter().map(|entry| entry.id).collect());
        if entries.is_empty() {
            self.release().await?;
        }
        Ok(entries)
    }

    /// Logs once that another relay, whose process may have been killed, keeps this one from sending for long.
    fn log_wait(&mut self, lease: Option<String>) {
        let holder = lease.as_deref().and_then(|lease| lease.split('/').next());
        if holder.is_none() || holder == self.logged.as_deref() {
            return;
        }
        self.logged = holder.map(str::to_owned);
        log::warn!(
            "the outbox is leased to another relay ({}): nothing is sent here meanwhile; if its process was killed, set \
             the holder of its row in `…_lease` to null",
            lease.unwrap_or_default(),
        );
    }

    /// Reads the oldest rows. One that is not UTF-8, in a database of another encoding, comes alone, as one that cannot be
    /// read. So does the beginning of one that is far too large.
    async fn oldest<R: OutboxRecord>(
        &mut self,
        what: &str,
        most: usize,
        time: Duration,
    ) -> Result<Vec<OutboxEntry<R>>, Error> {
        let most = i64::try_from(most).unwrap_or(i64::MAX).min(MAX_TAKEN);
        let attempt = self.reads.begin(time);
        let portion = attempt.portion.min(self.settles);
        let (mut most, bytes) = (portion.of(most), portion.of(MAX_BYTES));
        let entries = loop {
            let params: &Params<'_> = &[
                (&most, Type::INT8),
                (&bytes, Type::INT8),
                (&MAX_ROW, Type::INT4),
            ];
            let rows = match self.connection.query(what, READ, params).await {
                Err(error) if has_code(&error, &OF_ENCODING) && most > 1 => {
                    most /= 2;
                    continue;
                }
                Err(error) if has_code(&error, &OF_ENCODING) => {
                    let params: &Params<'_> = &[(&MAX_ROW, Type::INT4)];
                    let row = self.connection.query(what, READ_BYTES, params).await?;
                    let unreadable = |row: &Row| {
                        let reason = too_large(row)?.unwrap_or_else(|| "it is not UTF-8".into());
                        let text: &str = row.try_get(1)?;
                        Ok(OutboxEntry::unreadable(row.try_get(0)?, text, reason))
                    };
                    break row.iter().map(unreadable).collect::<Result<Vec<_>, _>>();
                }
                rows => rows?,
            };
            break rows.iter().map(read).collect();
        };
        self.reads.succeed(&attempt);
        entries.map_err(|error| failed(what, error))
    }

    /// Holds what was taken for the time of a request. Returns whether it is still held.
    pub(crate) async fn hold(&mut self, time: Duration) -> Result<bool, Error> {
        const WHAT: &str = "hold the lease of the outbox";
        let time = time.min(MAX_REQUEST);
        let mut lease = HeldUntil::lease(time);
        // The database may execute it late, or reply late. Then too little is left of the lease, and the next one is longer by
        // what this one took. The deadline of the call ends this.
        while !self.covers(time) {
            let start = Instant::now();
            let until = HeldUntil::after(lease);
            let params: &Params<'_> = &[
                (&self.holder, Type::TEXT),
                (&seconds(lease.min(MAX_LEASE)), Type::FLOAT8),
            ];
            let rows = self.connection.query(WHAT, HOLD, params);
            let [is_held] = numbers(WHAT, &rows.await?)?;
            self.until = (is_held > 0).then_some(until);
            if self.until.is_none() {
                return Ok(false);
            }
            lease = HeldUntil::lease(time).saturating_add(start.elapsed());
        }
        Ok(true)
    }

    /// Removes settled updates, and releases the lease if no taken ones are left. Fails if another has taken the lease. The
    /// time is what is left to the call.
    pub(crate) async fn settle(
        &mut self,
        accepted: Vec<i64>,
        rejected: Vec<(i64, String)>,
        time: Duration,
    ) -> Result<(), Error> {
        const WHAT: &str = "settle updates in the outbox";
        if accepted.is_empty() && rejected.is_empty() {
            return Ok(());
        }
        let (ids, mut messages): (Vec<i64>, Vec<String>) = rejected.into_iter().unzip();
        let mut left = self.taken.clone();
        for id in accepted.iter().chain(&ids) {
            left.remove(id);
        }
        let (is_last, keep) = (left.is_empty(), !self.settings.keep_accepted.is_zero());
        // If no reply comes, the lease may be another's already.
        let until = self.until.take();
        let attempt = self.settles.begin(time);
        let rows = loop {
            let params: &Params<'_> = &[
                (&self.holder, Type::TEXT),
                (&is_last, Type::BOOL),
                (&accepted, Type::INT8_ARRAY),
                (&ids, Type::INT8_ARRAY),
                (&messages, Type::TEXT_ARRAY),
                (&keep, Type::BOOL),
            ];
            match self.connection.query(WHAT, SETTLE, params).await {
                // The database's encoding lacks a character of Mixpanel's.
                Err(error)
                    if has_code(&error, &OF_ENCODING)
                        && !messages.iter().all(|message| message.is_ascii()) =>
                {
                    for message in &mut messages {
                        *message = ascii(message).into_owned();
                    }
                }
                rows => break rows?,
            }
        };
        let [is_mine] = numbers(WHAT, &rows)?;
        self.settles.succeed(&attempt);
        if is_mine == 0 || is_last {
            self.may_hold = false;
        } else {
            self.until = until;
        }
        if is_mine == 0 {
            let message = "another relay has taken over the outbox, and sends these updates again, or its table was truncated";
            return Err(Error::new(ErrorKind::Io, message));
        }
        self.set_taken(left);
        Ok(())
    }

    /// Gives back what was taken and not settled, and lets another relay send at once.
    pub(crate) async fn release(&mut self) -> Result<(), Error> {
        self.set_taken(HashSet::new());
        self.until = None;
        if self.may_hold {
            let params: &Params<'_> = &[(&self.holder, Type::TEXT)];
            let what = "release the lease of the outbox";
            self.connection.query(what, RELEASE, params).await?;
            self.may_hold = false;
        }
        Ok(())
    }

    fn set_taken(&mut self, taken: HashSet<i64>) {
        let last = taken.iter().max().copied().unwrap_or_default();
        self.last_taken.store(last, Ordering::Relaxed);
        self.taken = taken;
    }

    /// Once in a while, merges and corrects the rows that count, and the last sender deletes those of `rejected` and
    /// `accepted` that were kept long enough. What takes long or fails is done later: nothing that is to be sent waits for it.
    async fn tidy(&mut self, time: Duration) {
        if self
            .merged
            .is_none_or(|merged| merged.elapsed() >= MERGE_EVERY)
        {
            self.merged = Some(Instant::now());
            let count = async {
                merge_counts(&mut self.connection).await;
                correct_counts(&mut self.connection).await;
            };
            drop(timeout(time, count).await);
        }
        if !self.is_last_sender || self.sweep_at > Instant::now() {
            return;
        }
        let attempt = self.sweeps.begin(time);
        let most = attempt.portion.of(MAX_SWEPT);
        // As after a failure: the call may be given up before the end.
        self.sweep_at = Instant::now() + SWEEP_AGAIN;
        let rejected = seconds(self.settings.keep_rejected);
        let accepted = seconds(self.settings.keep_accepted);
        let params: &Params<'_> = &[
            (&rejected, Type::FLOAT8),
            (&accepted, Type::FLOAT8),
            (&most, Type::INT8),
        ];
        let what = "delete old rejected and accepted updates of the outbox";
        let swept = timeout(time, self.connection.query(what, SWEEP, params)).await;
        let swept = swept.map(|rows| rows.and_then(|rows| numbers::<1>(what, &rows)));
        let pause = match swept {
            Ok(Ok([swept])) => {
                self.sweeps.succeed(&attempt);
                if swept < most {
                    SWEEP_EVERY
                } else {
                    Duration::ZERO
                }
            }
            Ok(Err(error)) => {
                log::warn!("{error:#}");
                SWEEP_AGAIN
            }
            Err(_) => SWEEP_AGAIN,
        };
        self.sweep_at = Instant::now() + pause;
    }
}

fn read<R: OutboxRecord>(row: &Row) -> Result<OutboxEntry<R>, tokio_postgres::Error> {
    let (id, json): (_, &str) = (row.try_get(0)?, row.try_get(1)?);
    Ok(match too_large(row)? {
        Some(reason) => OutboxEntry::unreadable(id, json, reason),
        None => OutboxEntry::read(id, &unicode(json)),
    })
}

/// Returns why a row was not read whole, if it was not.
fn too_large(row: &Row) -> Result<Option<String>, tokio_postgres::Error> {
    let bytes: i32 = row.try_get(2)?;
    let reason = || format!("record is {bytes} bytes; the limit is 1000000");
    Ok((bytes > MAX_ROW).then(reason))
}

/// The longest time that a request is held for: a process that was killed, however long its requests may take, holds others
/// up no longer.
const MAX_REQUEST: Duration = Duration::from_secs(60 * 60);

/// The longest time that a lease lasts, with what a slow database adds to that of the request. [`TAKE`] has it too.
const MAX_LEASE: Duration = Duration::from_secs(2 * 60 * 60);

/// A thousand years: longer times overflow in SQL.
const FOREVER: Duration = Duration::from_secs(1_000 * 365 * 24 * 60 * 60);

/// Converts a time for SQL.
fn seconds(time: Duration) -> f64 {
    time.min(FOREVER).as_secs_f64()
}

/// A lease must survive a crash of the server. What was settled need not: sent again, it is harmless.
macro_rules! durably {
    () => {
        "CASE pg_catalog.current_setting('synchronous_commit') WHEN 'off'
         THEN pg_catalog.set_config('synchronous_commit', 'local', true) END"
    };
}

/// It locks the table of the lease first, as the other statements do.
///
/// A clock that was set back, or a time that no lease lasts, holds nobody up. The clocks of a server and of its standby may
/// differ by some seconds.
const TAKE: &str = concat!(
    "WITH taken AS (
         UPDATE public.mixpanel_outbox_lease
         SET holder = $1, since = pg_catalog.clock_timestamp(), until = pg_catalog.clock_timestamp() + $2 * interval '1 second'
         WHERE kind = 'update' AND (holder IS NULL OR until <= pg_catalog.clock_timestamp()
                OR pg_catalog.split_part(holder, '/', 1) = $3 AND holder COLLATE \"C\" < $1
                OR pg_catalog.clock_timestamp() < since - interval '10 seconds' OR until > since + interval '2 hours 1 second')
           AND (SELECT id FROM public.mixpanel_outbox WHERE kind = 'update' ORDER BY id LIMIT 1) IS NOT NULL
         RETURNING ",
    durably!(),
    ") SELECT (SELECT pg_catalog.count(*) FROM taken), (SELECT pg_catalog.count(*) FROM public.mixpanel_outbox_lease WHERE kind = 'update'),
        (SELECT pg_catalog.count(*) FROM (SELECT id FROM public.mixpanel_outbox WHERE kind = 'update' ORDER BY id LIMIT 1) AS oldest),
        -- Another's lease that lasts longer than an ordinary request.
        (SELECT pg_catalog.format('%s until %s', holder, until) FROM public.mixpanel_outbox_lease
         WHERE kind = 'update' AND until > pg_catalog.clock_timestamp() + interval '1 minute'), ",
    is_hidden!("public.mixpanel_outbox", "{r,d}"),
    " OR ",
    is_hidden!("public.mixpanel_outbox_lease", "{r,w}"),
);

/// Of a row that is too large, this reads the beginning.
const READ: &str = "SELECT id, CASE WHEN bytes <= $3 THEN body::text ELSE pg_catalog.left(body::text, 1000) END, bytes FROM (
         SELECT first.*, pg_catalog.sum(LEAST(bytes, $3)) OVER (ORDER BY id) AS total FROM (
             SELECT id, body, bytes FROM public.mixpanel_outbox WHERE kind = 'update' ORDER BY id LIMIT $1
         ) AS first
     ) AS summed WHERE total - LEAST(bytes, $3) < $2 ORDER BY id";

/// The oldest row, with escapes in place of bytes beyond ASCII.
const READ_BYTES: &str = "SELECT id, pg_catalog.encode(pg_catalog.convert_to(
         CASE WHEN bytes <= $1 THEN body::text ELSE pg_catalog.left(body::text, 1000) END,
         pg_catalog.getdatabaseencoding()), 'escape'), bytes
     FROM public.mixpanel_outbox WHERE kind = 'update' ORDER BY id LIMIT 1";

/// One that is executed late does not shorten the lease, unless the clock was set back since.
const HOLD: &str = concat!(
    "WITH held AS (
         UPDATE public.mixpanel_outbox_lease
         SET since = pg_catalog.clock_timestamp(), until = GREATEST(pg_catalog.clock_timestamp() + $2 * interval '1 second',
             CASE WHEN since <= pg_catalog.clock_timestamp() THEN until END)
         WHERE kind = 'update' AND holder = $1 RETURNING ",
    durably!(),
    ") SELECT pg_catalog.count(*) FROM held"
);

/// Where a sequence was set back by hand, ids come again: the newer row replaces the rejected one.
const SETTLE: &str = "WITH mine AS (
         UPDATE public.mixpanel_outbox_lease SET holder = CASE WHEN NOT $2 THEN holder END
         WHERE kind = 'update' AND holder = $1 RETURNING pg_catalog.set_config('synchronous_commit', 'off', true)
     ), gone AS (
         DELETE FROM public.mixpanel_outbox WHERE kind = 'update' AND id = ANY ($3 || $4) AND EXISTS (SELECT FROM mine)
         RETURNING id, kind, since, body
     ), refused AS (
         INSERT INTO public.mixpanel_outbox_rejected (id, kind, since, message, body)
         SELECT id, kind, since, message, body
         FROM gone JOIN unnest($4, $5) AS why (id, message) USING (id)
         ON CONFLICT (id) DO UPDATE SET (kind, since, rejected_at, message, body)
             = (excluded.kind, excluded.since, excluded.rejected_at, excluded.message, excluded.body)
     ), kept AS (
         INSERT INTO public.mixpanel_outbox_accepted (id, kind, since, body)
         SELECT id, kind, since, body FROM gone WHERE $6 AND id <> ALL ($4)
         ON CONFLICT DO NOTHING
     ) SELECT pg_catalog.count(*) FROM mine";

const RELEASE: &str =
    "UPDATE public.mixpanel_outbox_lease SET holder = NULL WHERE kind = 'update' AND holder = $1";

/// Some at a time, and none that another transaction has locked.
const SWEEP: &str = "WITH rejected AS (
         DELETE FROM public.mixpanel_outbox_rejected WHERE id IN (
             SELECT id FROM public.mixpanel_outbox_rejected
             WHERE kind = 'update' AND rejected_at < pg_catalog.now() - $1 * interval '1 second'
             ORDER BY rejected_at LIMIT $3 FOR UPDATE SKIP LOCKED
         ) RETURNING id
     ), accepted AS (
         DELETE FROM public.mixpanel_outbox_accepted WHERE id IN (
             SELECT id FROM public.mixpanel_outbox_accepted
             WHERE kind = 'update' AND accepted_at < pg_catalog.now() - $2 * interval '1 second'
             ORDER BY accepted_at LIMIT $3 FOR UPDATE SKIP LOCKED
         ) RETURNING id
     ) SELECT GREATEST((SELECT pg_catalog.count(*) FROM rejected), (SELECT pg_catalog.count(*) FROM accepted))";

use std::collections::HashSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::time::{sleep_until, timeout};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use crate::connection::{Connection, Params, failed, has_code};
use crate::publish::Encoding;
use crate::queue::{Append, Queue, Reply, group};
use crate::relay::{counts, merge_counts};
use mixpanel_groups::outbox::{Capacity, Depth};
use mixpanel_groups::record::EncodedRecord;
use mixpanel_groups::{Error, ErrorKind, Group};

/// The server has ended a transaction for the sake of another one.
const ROLLED_BACK: [SqlState; 2] = [
    SqlState::T_R_DEADLOCK_DETECTED,
    SqlState::T_R_SERIALIZATION_FAILURE,
];

/// How long merging the counts may take.
const MERGE_TIMEOUT: Duration = Duration::from_millis(250);

/// How long a measured depth is good enough.
const MEASURE_EVERY: Duration = Duration::from_secs(1);

/// How long a measurement may hold up publishing.
const MEASURE_TIMEOUT: Duration = Duration::from_millis(500);

/// How long a transaction waits for locks, at most a quarter of the time of a call.
const LOCK_TIMEOUT: Duration = Duration::from_millis(500);

/// How long a call yields to threads that are about to join it.
const YIELD: Duration = Duration::from_micros(200);

/// How many rows of counts are left to add up.
const MAX_COUNTS: i64 = 100;

/// The most updates that one statement drops.
const DROP_CHUNK: usize = 10_000;

/// The most statements of one call that drops.
const MAX_CHUNKS: usize = 10;

/// Appends, measures and drops, on one connection. Calls of `append` that wait while another one writes share the next
/// transaction.
pub(crate) struct Writer {
    pending: std::sync::Mutex<Queue>,
    state: Mutex<WriterState>,
    /// Held by the job that comes back for calls that are blocked.
    retrying: Mutex<()>,
    encoding: Arc<Encoding>,
    notify: bool,
}

struct WriterState {
    connection: Connection,
    /// The measured depth, and what this process has appended since.
    depth: Depth,
    measured: Option<Instant>,
    /// How many calls the last transaction was for.
    last_calls: usize,
}

/// What became of the calls that waited.
enum Written {
    /// None waited that is not blocked.
    None,
    Some,
    /// Locks were not free in time. They wait again, those for groups that are blocked aside.
    PutBack,
}

impl Writer {
    pub(crate) fn new(connection: Connection, encoding: &Arc<Encoding>, notify: bool) -> Self {
        Self {
            pending: std::sync::Mutex::default(),
            state: Mutex::new(WriterState {
                connection,
                depth: Depth::default(),
                measured: None,
                last_calls: 0,
            }),
            retrying: Mutex::default(),
            encoding: Arc::clone(encoding),
            notify,
        }
    }

    /// Runs the migration in a transaction, one process at a time.
    pub(crate) async fn migrate(&self, migration: &str) -> Result<(), Error> {
        let lock =
            "SELECT pg_advisory_xact_lock(hashtext('mixpanel-groups'), hashtext('migrate'));";
        let mut state = self.state.lock().await;
        let statements = [lock, migration].concat();
        let what = "create the outbox's tables";
        state.connection.batch(what, &statements).await
    }

    /// Queues records for the next transaction, which `append` writes.
    pub(crate) fn queue(
        &self,
        records: Vec<EncodedRecord>,
        capacity: Capacity,
    ) -> Result<Reply, Error> {
        self.pending().push(records, capacity)
    }

    /// Takes calls that wait. Each of those that stay has a job that writes it later, or finds it written.
    ///
    /// The threads of the last transaction are likely to be back in a moment, so this yields to them first; otherwise it
    /// would write one alone and make the others wait for the next transaction.
    async fn take_pending(&self, last_calls: usize) -> Vec<Append> {
        let start = Instant::now();
        while self.pending().len() < last_calls && start.elapsed() < YIELD {
            std::thread::yield_now();
            tokio::task::yield_now().await;
        }
        self.pending().take()
    }

    /// Appends what was queued. Returns `false` if there is no room for it.
    ///
    /// It is written in a job of its own, which has all of the time: a call that is given up takes none from those whose
    /// updates are in the same transaction.
    pub(crate) async fn append(
        self: Arc<Self>,
        queued: Reply,
        time: Duration,
    ) -> Result<bool, Error> {
        tokio::spawn(self.write_pending(time));
        let broken_off = |_| {
            let message = "the database was too slow: updates may have been published or not";
            Arc::new(Error::new(ErrorKind::Timeout, message))
        };
        let outcome = queued.outcome.await;
        let outcome = outcome.unwrap_or_else(|error| Err(broken_off(error)));
        outcome.map_err(|error| {
            let shared = Error::new(error.kind(), "cannot publish to the outbox");
            Arc::try_unwrap(error).unwrap_or_else(|error| shared.with_source(error))
        })
    }

    fn pending(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the calls that wait first. If any are blocked, one job comes back for them, until there are none: theirs have
    /// ended.
    async fn write_pending(self: Arc<Self>, time: Duration) {
        while matches!(self.write_next(time).await, Written::PutBack) {}
        let Ok(_retrying) = self.retrying.try_lock() else {
            return;
        };
        // All jobs are on one thread: none blocks a group between the last look and the end of this one.
        loop {
            let Some(at) = self.pending().retry_at() else {
                return;
            };
            sleep_until(at.into()).await;
            while !matches!(self.write_next(time).await, Written::None) {}
        }
    }

    async fn write_next(&self, time: Duration) -> Written {
        let mut state = self.state.lock().await;
        // Another job may have written what this one is for. Otherwise this one writes it, or what waits before it.
        let batch = self.take_pending(state.last_calls).await;
        if batch.is_empty() {
            return Written::None;
        }
        state.last_calls = batch.len();
        let written = timeout(time, self.write(&mut state, batch, time)).await;
        written.unwrap_or(Written::Some)
    }

    /// Writes those for which there is room, in one transaction. The time is that of all of it.
    async fn write(&self, state: &mut WriterState, calls: Vec<Append>, time: Duration) -> Written {
        let (mut batch, mut records) = (Vec::new(), Vec::new());
        // A measurement that is too slow must leave time to publish.
        let mut measure = Some(MEASURE_TIMEOUT.min(time / 4));
        let mut bytes = 0;
        for call in calls {
            let all = records.len() + call.records.len();
            let all_bytes = bytes + call.bytes;
            let room = self.has_room(state, &mut measure, all, all_bytes, call.capacity);
            if room.await {
                bytes = all_bytes;
                records.extend(call.records.iter().cloned());
                batch.push(call);
            } else {
                drop(call.reply.send(Ok(false)));
            }
        }
        if batch.is_empty() {
            return Written::Some;
        }
        let lock_timeout = LOCK_TIMEOUT.min(time / 4);
        let started = Instant::now();
        let written = self.publish(state, &records, lock_timeout).await;
        if let Err(error) = &written
            && has_code(error, &[SqlState::LOCK_NOT_AVAILABLE])
            // Not that of a trigger of the application.
            && started.elapsed() >= lock_timeout / 2
        {
            let blocked = self.find_blocked(state, &records, lock_timeout).await;
            let pause = 2 * lock_timeout;
            self.pending().put_back(batch, blocked, pause);
            return Written::PutBack;
        }
        if written.is_ok() {
            // Another kind that was published beside is counted at the next measurement.
            state.depth.updates += records.len();
            state.depth.bytes += bytes;
        }
        let written = written.map(|()| true).map_err(Arc::new);
        for call in batch {
            drop(call.reply.send(written.clone()));
        }
        Written::Some
    }

    /// Returns the groups for which another session's transaction has published that has not ended. None, if that cannot
    /// be found out.
    async fn find_blocked(
        &self,
        state: &mut WriterState,
        records: &[EncodedRecord],
        lock_timeout: Duration,
    ) -> Vec<Group<'static>> {
        const WHAT: &str = "find the groups that are blocked in the outbox";
        let mut seen = HashSet::new();
        let of_groups = records.iter().filter_map(|record| {
            let group = group(record)?;
            seen.insert(group.clone()).then(|| (group, record.clone()))
        });
        let (groups, records): (Vec<_>, Vec<_>) = of_groups.unzip();
        let bodies = self.encoding.bodies(&records);
        let params: &Params<'_> = &[
            (&bodies, Type::TEXT_ARRAY),
            (&milliseconds(lock_timeout), Type::TEXT),
        ];
        let rows = state.connection.query(WHAT, BLOCKED, params).await;
        let positions = rows.and_then(|rows| {
            let positions = rows.first().map(|row| row.try_get(0)).transpose();
            let positions: Option<Vec<i32>> = positions.map_err(|error| failed(WHAT, error))?;
            Ok(positions.unwrap_or_default())
        });
        match positions {
            Ok(positions) => {
                let positions = positions.into_iter();
                let group = |at: i32| groups.get(usize::try_from(at).ok()?).cloned();
                positions.filter_map(group).collect()
            }
            Err(error) => {
                log::warn!("{error:#}");
                Vec::new()
            }
        }
    }

    async fn publish(
        &self,
        state: &mut WriterState,
        records: &[EncodedRecord],
        lock_timeout: Duration,
    ) -> Result<(), Error> {
        const WHAT: &str = "publish to the outbox";
        let encoding = Arc::clone(&self.encoding);
        if encoding.is_missing_for(records) {
            let rows = state.connection.query(WHAT, Encoding::QUERY, &[]).await?;
            let name = rows.first().map(|row| row.try_get(0)).transpose();
            let name: Option<&str> = name.map_err(|error| failed(WHAT, error))?;
            encoding.set(name.unwrap_or_default());
        }
        let bodies = encoding.bodies(records);
        let params: &Params<'_> = &[
            (&bodies, Type::TEXT_ARRAY),
            (&self.notify, Type::BOOL),
            (&milliseconds(lock_timeout), Type::TEXT),
        ];
        loop {
            let published = state.connection.query(WHAT, PUBLISH_SOON, params).await;
            match published {
                // The transaction is the outbox's own: it can be repeated.
                Err(error) if has_code(&error, &ROLLED_BACK) => log::debug!("{error:#}: again"),
                published => return published.map(drop),
            }
        }
    }

    /// Returns whether there is room, by a depth that is at most a second old. If there seems to be none, it is measured
    /// again, unless it is fresh: then no time is left for that. If the depth cannot be measured, there is room, and for a
    /// second the old depth is good enough.
    async fn has_room(
        &self,
        state: &mut WriterState,
        measure: &mut Option<Duration>,
        updates: usize,
        bytes: usize,
        capacity: Capacity,
    ) -> bool {
        if capacity == UNLIMITED {
            return true;
        }
        let measured = state.measured;
        let is_recent = measured.is_some_and(|then| then.elapsed() < MEASURE_EVERY);
        if (is_recent || measure.is_none()) && state.depth.has_room(updates, bytes, capacity) {
            return true;
        }
        let Some(time) = measure.take() else {
            return false;
        };
        let why = match timeout(time, self.measure(state)).await {
            Ok(Ok(depth)) => return depth.has_room(updates, bytes, capacity),
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => format!("the database did not respond within {time:?}"),
        };
        state.measured = Some(Instant::now());
        log::warn!("publishing to the outbox without checking the capacity: {why}");
        true
    }

    pub(crate) async fn depth(&self) -> Result<Depth, Error> {
        self.measure(&mut *self.state.lock().await).await
    }

    async fn measure(&self, state: &mut WriterState) -> Result<Depth, Error> {
        const WHAT: &str = "measure the depth of the outbox";
        let rows = state.connection.query(WHAT, DEPTH, &[]);
        let rows = rows.await?;
        let [updates, bytes, counts] = counts(WHAT, &rows)?;
        let oldest = rows.first().map(|row| row.try_get::<_, Option<f64>>(3));
        let oldest = oldest.transpose().map_err(|error| failed(WHAT, error))?;
        let oldest = oldest.flatten().map(Duration::try_from_secs_f64);
        let (Ok(updates), Ok(bytes)) = (usize::try_from(updates), usize::try_from(bytes)) else {
            let message = "the counts of the outbox are below zero: run `migrate` again";
            return Err(Error::new(ErrorKind::Damaged, message));
        };
        let depth = Depth::new(updates, bytes);
        let depth = depth.with_oldest(oldest.map(Result::unwrap_or_default));
        (state.depth, state.measured) = (depth, Some(Instant::now()));
        if counts > MAX_COUNTS {
            // Where it waits for a lock, it is done another time.
            drop(timeout(MERGE_TIMEOUT, merge_counts(&mut state.connection)).await);
        }
        Ok(depth)
    }

    /// Removes the oldest updates behind the last one that is taken, until there is room, and where much may wait, for
    /// some more. Returns how many were removed.
    pub(crate) async fn drop_oldest(
        &self,
        last_taken: &AtomicI64,
        updates: usize,
        bytes: usize,
        capacity: Capacity,
    ) -> Result<usize, Error> {
        const WHAT: &str = "drop updates from the outbox";
        let mut state = self.state.lock().await;
        let depth = self.measure(&mut state).await?;
        // A process with a small capacity does not drop what others with a larger one keep.
        let is_foreign = |waiting: usize, most: usize| waiting > most.saturating_add(most / 4);
        if depth.has_room(updates, bytes, capacity)
            || is_foreign(depth.updates, capacity.updates)
            || is_foreign(depth.bytes, capacity.bytes)
        {
            return Ok(0);
        }
        let over = |depth: usize, more: usize, most: usize| {
            let over = depth.saturating_add(more).saturating_sub(most);
            if over > 0 { over + most / 1_024 } else { 0 }
        };
        let mut excess = over(depth.updates, updates, capacity.updates);
        let mut excess_bytes = over(depth.bytes, bytes, capacity.bytes);
        let mut dropped = 0;
        // If that does not suffice, the caller comes again: each call is to end by its deadline.
        for _ in 0..MAX_CHUNKS {
            if excess == 0 && excess_bytes == 0 {
                break;
            }
            let chunk = if excess_bytes > 0 {
                DROP_CHUNK
            } else {
                excess.min(DROP_CHUNK)
            };
            let number = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
            // The relay may have taken some while this waited for the writer.
            let last_taken = last_taken.load(Ordering::Relaxed);
            let params: &Params<'_> = &[
                (&last_taken, Type::INT8),
                (&number(chunk), Type::INT8),
                (&number(excess), Type::INT8),
                (&number(excess_bytes), Type::INT8),
            ];
            let gone = state.connection.query(WHAT, DROP, params);
            let [gone, gone_bytes] = counts(WHAT, &gone.await?)?;
            let (gone, gone_bytes) = (usize::try_from(gone), usize::try_from(gone_bytes));
            let (gone, gone_bytes) = (gone.unwrap_or_default(), gone_bytes.unwrap_or_default());
            if gone == 0 {
                break;
            }
            dropped += gone;
            excess = excess.saturating_sub(gone);
            excess_bytes = excess_bytes.saturating_sub(gone_bytes);
        }
        state.measured = None;
        Ok(dropped)
    }
}

/// No capacity.
pub(crate) const UNLIMITED: Capacity = Capacity::new(usize::MAX, usize::MAX);

/// Publishes as `PUBLISH` does, unless it waits too long for a lock. The setting is that of the transaction, so a pooler
/// may be in between.
const PUBLISH_SOON: &str = "SELECT public.mixpanel_outbox_publish($1, $2) FROM pg_catalog.set_config('lock_timeout', $3, true)";

const BLOCKED: &str = "SELECT public.mixpanel_outbox_blocked($1) FROM pg_catalog.set_config('lock_timeout', $2, true)";

/// Returns a time as a setting, in which zero would be without a limit.
fn milliseconds(time: Duration) -> String {
    format!("{}ms", time.as_millis().max(1))
}

const DEPTH: &str =
    "SELECT coalesce(pg_catalog.sum(updates), 0)::bigint, coalesce(pg_catalog.sum(bytes), 0)::bigint, pg_catalog.count(*),
        (SELECT extract(epoch FROM pg_catalog.clock_timestamp() - since)::float8
         FROM public.mixpanel_outbox WHERE kind = 'update' ORDER BY id LIMIT 1)
     FROM public.mixpanel_outbox_count WHERE kind = 'update'";

const DROP: &str = "WITH gone AS (
         DELETE FROM public.mixpanel_outbox WHERE kind = 'update' AND id IN (
             SELECT id FROM (
                 SELECT id, pg_catalog.row_number() OVER oldest AS n, pg_catalog.sum(bytes) OVER oldest - bytes AS before
                 FROM (SELECT id, bytes FROM public.mixpanel_outbox
                       WHERE kind = 'update' AND id > $1 ORDER BY id LIMIT $2) AS first
                 WINDOW oldest AS (ORDER BY id)
             ) AS untaken WHERE n <= $3 OR before < $4
         ) RETURNING bytes
     ) SELECT pg_catalog.count(*), coalesce(pg_catalog.sum(bytes), 0)::bigint FROM gone";

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{Mutex, oneshot};
use tokio::time::timeout;
use tokio_postgres::types::Type;

use crate::connection::{Connection, Params, failed, numbers};
use crate::depth::{measure, merge_if_many};
use crate::portion::Portion;
use crate::publish::{Encoding, PUBLISH};
use mixpanel_groups::outbox::{Capacity, Depth};
use mixpanel_groups::record::EncodedRecord;
use mixpanel_groups::{Error, ErrorKind};

/// How long a measured depth is good enough.
const MEASURE_EVERY: Duration = Duration::from_secs(1);

/// How often it is logged that the depth is not known. Without a right to count, that is so for each transaction.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// How long a measurement may hold up publishing.
const MEASURE_TIMEOUT: Duration = Duration::from_millis(500);

/// The most calls of `append` that wait for one transaction.
const MAX_WAITING: usize = 10_000;

/// The most records of one transaction that are of several calls.
const MAX_RECORDS: usize = 10_000;

/// The most bytes of JSON of one transaction that are of several calls.
const MAX_BYTES: usize = 8 << 20;

/// How long a call yields to threads that are about to join it.
const YIELD: Duration = Duration::from_micros(200);

/// The most updates that one statement drops.
const DROP_CHUNK: i64 = 10_000;

/// The most statements of one call that drops.
const MAX_CHUNKS: usize = 10;

/// Appends and drops, and measures for that, on one connection. Calls of `append` that wait while another one writes share
/// the next transaction.
pub(crate) struct Writer {
    pending: std::sync::Mutex<Vec<Append>>,
    state: Mutex<WriterState>,
    encoding: Arc<Encoding>,
    kind: &'static str,
    notify: bool,
}

struct WriterState {
    connection: Connection,
    /// The measured depth, and what this process has appended since.
    depth: Depth,
    measured: Option<Instant>,
    /// When it was last logged that the depth is not known.
    warned: Option<Instant>,
    /// How many calls the last transaction was for.
    last_calls: usize,
    /// How much to drop at once.
    drops: Portion,
}

struct Append {
    records: Vec<EncodedRecord>,
    bytes: usize,
    capacity: Capacity,
    /// How long its caller waits for it.
    time: Duration,
    reply: oneshot::Sender<Result<bool, Arc<Error>>>,
}

/// What becomes of a queued call.
pub(crate) type Reply = oneshot::Receiver<Result<bool, Arc<Error>>>;

impl Writer {
    pub(crate) fn new(
        connection: Connection,
        encoding: &Arc<Encoding>,
        kind: &'static str,
        notify: bool,
    ) -> Self {
        Self {
            pending: std::sync::Mutex::default(),
            state: Mutex::new(WriterState {
                connection,
                depth: Depth::default(),
                measured: None,
                warned: None,
                last_calls: 0,
                drops: Portion::ALL,
            }),
            encoding: Arc::clone(encoding),
            kind,
            notify,
        }
    }

    /// Queues records for the next transaction.
    ///
    /// While calls wait, there is one job that writes the first of them, and none while none wait: the first that is queued
    /// starts it, and a job that leaves some starts the next.
    pub(crate) fn queue(
        self: &Arc<Self>,
        runtime: &Handle,
        records: Vec<EncodedRecord>,
        capacity: Capacity,
        time: Duration,
    ) -> Result<Reply, Error> {
        let (reply, outcome) = oneshot::channel();
        let mut pending = self.pending();
        if pending.len() >= MAX_WAITING {
            let message = format!("{MAX_WAITING} calls wait for the outbox's database");
            return Err(Error::new(ErrorKind::Full, message));
        }
        let is_first = pending.is_empty();
        pending.push(Append {
            bytes: records.iter().map(EncodedRecord::len).sum(),
            records,
            capacity,
            time,
            reply,
        });
        drop(pending);
        if is_first {
            Arc::clone(self).spawn_job(runtime);
        }
        Ok(outcome)
    }

    /// Starts a job that writes the first calls that wait. It has all of their time: a call that is given up takes none from
    /// those whose updates are in the same transaction.
    fn spawn_job(self: Arc<Self>, runtime: &Handle) {
        runtime.spawn(async move {
            let mut state = self.state.lock().await;
            let (mut batch, leaves_some) = self.take_pending(state.last_calls).await;
            if leaves_some {
                Arc::clone(&self).spawn_job(&Handle::current());
            }
            batch.retain(|append| !append.reply.is_closed());
            if let Some(time) = batch.iter().map(|append| append.time).max() {
                state.last_calls = batch.len();
                drop(timeout(time, self.write(&mut state, batch)).await);
            }
        });
    }

    /// Takes the first calls that wait, at least one, and others up to a size. Returns whether it leaves some.
    ///
    /// The threads of the last transaction are likely to be back in a moment, so this yields to them first; otherwise it
    /// would write one alone and make the others wait for the next transaction.
    async fn take_pending(&self, last_calls: usize) -> (Vec<Append>, bool) {
        let start = Instant::now();
        while self.pending().len() < last_calls && start.elapsed() < YIELD {
            std::thread::yield_now();
            tokio::task::yield_now().await;
        }
        let mut pending = self.pending();
        let (mut records, mut bytes) = (0, 0);
        let fit = pending.iter().take_while(|append| {
            records += append.records.len();
            bytes += append.bytes;
            records <= MAX_RECORDS && bytes <= MAX_BYTES
        });
        let number = fit.count().max(1).min(pending.len());
        let batch = pending.drain(..number).collect();
        (batch, !pending.is_empty())
    }

    /// Waits until what was queued is written. Returns `false` if there is no room for it.
    pub(crate) async fn written(outcome: Reply) -> Result<bool, Error> {
        let broken_off = |_| {
            let message = "the database was too slow: updates may have been published or not";
            Arc::new(Error::new(ErrorKind::Timeout, message))
        };
        let outcome = outcome.await.unwrap_or_else(|error| Err(broken_off(error)));
        outcome.map_err(|error| {
            let shared = Error::new(error.kind(), "the transaction of several calls failed");
            Arc::try_unwrap(error).unwrap_or_else(|error| shared.with_source(error))
        })
    }

    fn pending(&self) -> std::sync::MutexGuard<'_, Vec<Append>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes those for which there is room, in one transaction.
    async fn write(&self, state: &mut WriterState, batch: Vec<Append>) {
        let (mut bodies, mut replies) = (Vec::new(), Vec::new());
        // A measurement that is too slow must leave each call time to publish.
        let least = batch.iter().map(|append| append.time / 4).min();
        let mut measure = Some(MEASURE_TIMEOUT.min(least.unwrap_or_default()));
        let mut bytes = 0;
        for append in batch {
            let all = bodies.len() + append.records.len();
            let all_bytes = bytes + append.bytes;
            let room = self.has_room(state, &mut measure, all, all_bytes, append.capacity);
            if room.await {
                bytes = all_bytes;
                bodies.extend(append.records);
                replies.push(append.reply);
            } else {
                drop(append.reply.send(Ok(false)));
            }
        }
        if replies.is_empty() {
            return;
        }
        let written = self.publish(state, &bodies).await;
        if written.is_ok() {
            // Another kind that was published beside is counted at the next measurement.
            state.depth.updates += bodies.len();
            state.depth.bytes += bytes;
        }
        let written = written.map(|()| true).map_err(Arc::new);
        for reply in replies {
            drop(reply.send(written.clone()));
        }
    }

    async fn publish(
        &self,
        state: &mut WriterState,
        records: &[EncodedRecord],
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
        let params: &Params<'_> = &[(&bodies, Type::TEXT_ARRAY), (&self.notify, Type::BOOL)];
        let published = state.connection.query(WHAT, PUBLISH, params);
        published.await.map(drop)
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
        if state
            .warned
            .is_none_or(|warned| warned.elapsed() >= WARN_EVERY)
        {
            state.warned = Some(Instant::now());
            log::warn!("publishing to the outbox without checking the capacity: {why}");
        }
        true
    }

    async fn measure(&self, state: &mut WriterState) -> Result<Depth, Error> {
        let (depth, counts) = measure(&mut state.connection, self.kind).await?;
        (state.depth, state.measured) = (depth, Some(Instant::now()));
        merge_if_many(&mut state.connection, counts).await;
        Ok(depth)
    }

    /// Removes the oldest updates behind the last one that is taken, until there is room, and where much may wait, for
    /// some more. Counts how many were removed, also if it fails or is given up after that.
    pub(crate) async fn drop_oldest(
        &self,
        last_taken: &AtomicI64,
        updates: usize,
        bytes: usize,
        capacity: Capacity,
        time: Duration,
        dropped: &AtomicUsize,
    ) -> Result<(), Error> {
        const WHAT: &str = "drop updates from the outbox";
        let start = Instant::now();
        let mut state = self.state.lock().await;
        let depth = self.measure(&mut state).await?;
        // A process with a small capacity does not drop what others with a larger one keep.
        let is_foreign = |waiting: usize, most: usize| waiting > most.saturating_mul(2);
        if depth.has_room(updates, bytes, capacity)
            || is_foreign(depth.updates, capacity.updates)
            || is_foreign(depth.bytes, capacity.bytes)
        {
            return Ok(());
        }
        let over = |depth: usize, more: usize, most: usize| {
            let over = depth.saturating_add(more).saturating_sub(most);
            if over > 0 { over + most / 1_024 } else { 0 }
        };
        let mut excess = over(depth.updates, updates, capacity.updates);
        let mut excess_bytes = over(depth.bytes, bytes, capacity.bytes);
        // If that does not suffice, the caller comes again: each call is to end by its deadline.
        for _ in 0..MAX_CHUNKS {
            let left = time.saturating_sub(start.elapsed());
            let is_first = dropped.load(Ordering::Relaxed) == 0;
            if (excess == 0 && excess_bytes == 0) || (!is_first && left < time / 2) {
                break;
            }
            let attempt = state.drops.begin(left);
            let most = attempt.portion.of(DROP_CHUNK);
            let number = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
            let chunk = if excess_bytes > 0 {
                most
            } else {
                most.min(number(excess))
            };
            // The relay may have taken some while this waited for the writer.
            let last_taken = last_taken.load(Ordering::Relaxed);
            let params: &Params<'_> = &[
                (&last_taken, Type::INT8),
                (&chunk, Type::INT8),
                (&number(excess), Type::INT8),
                (&number(excess_bytes), Type::INT8),
            ];
            let gone = state.connection.query(WHAT, DROP, params);
            let [gone, gone_bytes] = numbers(WHAT, &gone.await?)?;
            state.drops.succeed(&attempt);
            let (gone, gone_bytes) = (usize::try_from(gone), usize::try_from(gone_bytes));
            let (gone, gone_bytes) = (gone.unwrap_or_default(), gone_bytes.unwrap_or_default());
            if gone == 0 {
                break;
            }
            dropped.fetch_add(gone, Ordering::Relaxed);
            excess = excess.saturating_sub(gone);
            excess_bytes = excess_bytes.saturating_sub(gone_bytes);
        }
        state.measured = None;
        Ok(())
    }
}

/// No capacity.
pub(crate) const UNLIMITED: Capacity = Capacity::new(usize::MAX, usize::MAX);

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

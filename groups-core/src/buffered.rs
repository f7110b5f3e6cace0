use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use crate::records::MAX_RECORDS;
use crate::relay::run_relay;
use crate::{
    Capacity, Client, Error, ErrorKind, MemoryOutbox, Outbox, Rejection, Report, StoredUpdate,
    Undelivered, Update,
};

/// Sends in the background: [`publish`](Self::publish) returns in about a microsecond, and one
/// thread delivers.
///
/// Batches leave when 2,000 updates wait, or after the flush interval. A failed delivery is tried
/// again until it succeeds; what waits is bounded, and what happens when the bound is reached is
/// [your choice](WhenFull). End it with [`shutdown`](Self::shutdown), which says what was not
/// delivered; dropping it shuts it down too, within a few seconds, and logs what is left.
///
/// ```no_run
/// # use std::time::Duration;
/// # use mixpanel_groups::{Client, MixpanelGroup};
/// # #[derive(mixpanel_groups::MixpanelGroup)]
/// # #[mixpanel(group_key = "company")]
/// # struct Company { #[mixpanel(group_id)] id: u64, plan: String }
/// # fn main() -> Result<(), mixpanel_groups::Error> {
/// # let acme = Company { id: 1, plan: "free".into() };
/// let buffered = Client::from_env()?.buffered().start()?;
/// buffered.publish(acme.set())?;
/// let drained = buffered.shutdown(Duration::from_secs(5));
/// assert!(drained.is_complete());
/// # Ok(())
/// # }
/// ```
#[must_use = "dropping it at once sends what was published and ends it"]
pub struct BufferedClient {
    shared: Arc<Shared>,
}

/// What happens to an update for which there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenFull {
    /// Publishing waits for room that long; then it is an error, as with `Reject`.
    Block(Duration),
    /// Publishing is an error that gives the update [back](Error::undelivered).
    Reject,
    /// The oldest updates are dropped, counted and told to [`on_error`].
    ///
    /// [`on_error`]: BufferedClientBuilder::on_error
    DropOldest,
}

/// What [`BufferedClientBuilder::on_error`] is told.
#[derive(Debug)]
#[non_exhaustive]
pub enum Trouble<'a> {
    /// Mixpanel refused an update, which is lost to it (an outbox may keep it).
    Rejected(&'a StoredUpdate, &'a Rejection),
    /// A delivery failed; what was not delivered keeps waiting and is tried again.
    Undelivered(&'a Error),
    /// So many of the oldest updates were dropped to make room.
    Dropped(usize),
    /// The outbox failed; what is in it keeps waiting.
    Outbox(&'a Error),
}

/// How much there was and is to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Updates that wait, those under way included.
    pub queued: usize,
    /// The bytes of JSON of these.
    pub queued_bytes: usize,
    /// How long the oldest of them has waited.
    pub oldest: Option<Duration>,
    /// Updates that went out in at least one request, each counted once a delivery.
    pub sent: usize,
    /// Updates that Mixpanel accepted, those folded into others included.
    pub accepted: usize,
    /// Updates that Mixpanel refused.
    pub rejected: usize,
    /// Updates that were dropped to make room.
    pub dropped: usize,
    /// Updates that `before_send` kept back.
    pub withheld: usize,
    /// Requests.
    pub requests: usize,
    /// Requests that were repeated after a failure.
    pub retries: usize,
    /// Bytes of all request bodies.
    pub bytes: u64,
}

/// What [`BufferedClient::flush`] and [`BufferedClient::shutdown`] leave.
#[derive(Clone, Debug)]
#[must_use = "it holds what was not delivered"]
#[non_exhaustive]
pub struct Drained {
    /// How many updates still wait: in an outbox that outlives the process, or, after a `flush`,
    /// in memory.
    pub waiting: usize,
    /// After a `shutdown`, the updates that were in memory only and not delivered, in order.
    pub undelivered: Vec<StoredUpdate>,
    /// What was done since the start.
    pub stats: Stats,
}

impl Drained {
    /// Whether everything that was published has been accepted or rejected.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.waiting == 0 && self.undelivered.is_empty()
    }
}

pub(crate) struct Shared {
    pub(crate) client: Client,
    pub(crate) outbox: Arc<dyn Outbox>,
    pub(crate) settings: Settings,
    state: Mutex<State>,
    changed: Condvar,
    /// Nothing more can be published.
    closed: AtomicBool,
    /// What is under way is to be broken off.
    pub(crate) cancel: AtomicBool,
    /// Updates published since the relay looked last.
    published: AtomicUsize,
}

#[derive(Clone)]
pub(crate) struct Settings {
    flush_interval: Duration,
    capacity: Capacity,
    when_full: WhenFull,
    pub(crate) fold: bool,
    drop_timeout: Duration,
    on_error: Option<Arc<OnError>>,
    before_send: Option<Arc<BeforeSend>>,
}

type OnError = dyn Fn(&Trouble<'_>) + Send + Sync;
type BeforeSend = dyn Fn(&mut Map<String, Value>) -> bool + Send + Sync;

#[derive(Default)]
struct State {
    /// There is enough to send.
    awake: bool,
    /// How often a flush was asked for, and which of these is done.
    flush_wanted: u64,
    flush_done: u64,
    stopping: bool,
    ended: bool,
    stats: Stats,
}

/// The settings of a [`BufferedClient`]: see [`Client::buffered`].
#[must_use = "nothing is sent before `start`"]
pub struct BufferedClientBuilder {
    client: Client,
    outbox: Arc<dyn Outbox>,
    settings: Settings,
}

impl BufferedClientBuilder {
    pub(crate) fn new(client: Client) -> Self {
        let settings = Settings {
            flush_interval: Duration::from_secs(1),
            capacity: Capacity {
                updates: 100_000,
                bytes: 64 << 20,
            },
            when_full: WhenFull::Block(Duration::from_secs(1)),
            fold: true,
            drop_timeout: Duration::from_secs(5),
            on_error: None,
            before_send: None,
        };
        Self {
            client,
            outbox: Arc::new(MemoryOutbox::new()),
            settings,
        }
    }

    /// How long an update waits at most for others to share a request; default 1 s.
    pub fn flush_interval(mut self, interval: Duration) -> Self {
        self.settings.flush_interval = interval;
        self
    }

    /// How many updates, and how many bytes of their JSON, may wait; default 100,000 and 64 MiB.
    pub fn capacity(mut self, updates: usize, bytes: usize) -> Self {
        self.settings.capacity = Capacity { updates, bytes };
        self
    }

    /// What happens when that is reached; by default publishing waits for room, 1 s at most.
    pub fn when_full(mut self, when_full: WhenFull) -> Self {
        self.settings.when_full = when_full;
        self
    }

    /// Whether updates of one group that wait together are [folded](crate::Batch::fold); default
    /// yes.
    pub fn fold(mut self, fold: bool) -> Self {
        self.settings.fold = fold;
        self
    }

    /// How long dropping the client may take to send what waits; default 5 s.
    pub fn drop_timeout(mut self, timeout: Duration) -> Self {
        self.settings.drop_timeout = timeout;
        self
    }

    /// Calls the function when something goes wrong, on the thread where it does. If it panics, that
    /// is logged and no more.
    pub fn on_error(mut self, callback: impl Fn(&Trouble<'_>) + Send + Sync + 'static) -> Self {
        self.settings.on_error = Some(Arc::new(callback));
        self
    }

    /// Calls the function with each update's JSON object before it waits (`$group_key`,
    /// `$group_id`, `$set`…), on the thread that publishes. It may change it; with `false` the
    /// update is not sent. If it panics, the update is not sent.
    pub fn before_send(
        mut self,
        callback: impl Fn(&mut Map<String, Value>) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.settings.before_send = Some(Arc::new(callback));
        self
    }

    /// Where updates wait: in memory by default; another [`Outbox`] keeps them over a crash.
    pub fn outbox(mut self, outbox: impl Outbox + 'static) -> Self {
        self.outbox = Arc::new(outbox);
        self
    }

    /// Starts the thread that sends.
    ///
    /// # Errors
    /// If there can be no thread.
    pub fn start(self) -> Result<BufferedClient, Error> {
        let shared = Arc::new(Shared {
            client: self.client,
            outbox: self.outbox,
            settings: self.settings,
            state: Mutex::default(),
            changed: Condvar::new(),
            closed: AtomicBool::new(false),
            cancel: AtomicBool::new(false),
            published: AtomicUsize::new(0),
        });
        let waker = Arc::downgrade(&shared);
        shared.outbox.on_append(Arc::new(move || {
            if let Some(shared) = waker.upgrade() {
                shared.wake();
            }
        }));
        let stopper = Arc::downgrade(&shared);
        shared.outbox.on_loss(Arc::new(move || {
            if let Some(shared) = stopper.upgrade() {
                shared.cancel.store(true, Ordering::Relaxed);
            }
        }));
        let its_shared = Arc::clone(&shared);
        thread::Builder::new()
            .name("mixpanel-groups relay".to_owned())
            .spawn(move || run_relay(&its_shared))
            .map_err(|error| {
                let message = format!("no thread to send from: {error}");
                Error::new(ErrorKind::Io, message).with_source(error)
            })?;
        Ok(BufferedClient { shared })
    }
}

impl BufferedClient {
    /// Takes an update to be sent soon. It is encoded here and now; nothing is borrowed from it.
    ///
    /// # Errors
    /// If the update cannot be sent (the error names group, property and cause), if there is no room
    /// for it (see [`WhenFull`]), or if the outbox fails. But for the first, the error gives the
    /// update [back](Error::undelivered).
    pub fn publish<'u>(&self, update: impl Into<Update<'u>>) -> Result<(), Error> {
        match self.shared.prepare(&update.into())? {
            Some(update) => self.shared.append(&[update]),
            None => Ok(()),
        }
    }

    /// Takes many updates; with an outbox on disk that is much faster than one by one.
    ///
    /// # Errors
    /// As [`publish`](Self::publish), at the first update that is not taken. The error gives back all
    /// that were not, but for those that cannot be sent.
    pub fn publish_all<'u, I>(&self, updates: I) -> Result<(), Error>
    where
        I: IntoIterator,
        I::Item: Into<Update<'u>>,
    {
        let mut updates = updates.into_iter().map(Into::into);
        loop {
            let mut some = Vec::new();
            let prepared = updates
                .by_ref()
                .filter_map(|update: Update<'u>| self.shared.prepare(&update).transpose())
                .take(MAX_RECORDS)
                .try_for_each(|update| {
                    some.push(update?);
                    Ok(())
                });
            if prepared.is_ok() && some.is_empty() {
                return Ok(());
            }
            let taken = prepared.and_then(|()| self.shared.append(&some));
            taken.map_err(|error| {
                let rest = updates
                    .by_ref()
                    .filter_map(|update| StoredUpdate::new(&update).ok()?);
                give_back(error, some.iter().cloned().chain(rest))
            })?;
        }
    }

    /// Sends what waits now, without waiting for the flush interval; returns when all of it has
    /// been accepted or rejected, and after that time at the latest.
    pub fn flush(&self, timeout: Duration) -> Drained {
        let deadline = Instant::now().checked_add(timeout);
        let mut state = self.shared.state();
        state.flush_wanted += 1;
        let wanted = state.flush_wanted;
        drop(state);
        self.shared.changed.notify_all();
        self.shared
            .wait_until(deadline, |state| state.flush_done >= wanted || state.ended);
        Drained {
            waiting: self.shared.depth().updates,
            undelivered: Vec::new(),
            stats: self.stats(),
        }
    }

    /// Takes no more updates, sends what waits, and ends; returns after that time at the latest,
    /// with what could not be delivered.
    pub fn shutdown(self, timeout: Duration) -> Drained {
        self.shared.shutdown(timeout)
    }

    /// How much there was and is to do, for a metrics endpoint.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }
}

impl Drop for BufferedClient {
    fn drop(&mut self) {
        if self.shared.closed.load(Ordering::Relaxed) {
            return;
        }
        let drained = self.shared.shutdown(self.shared.settings.drop_timeout);
        if !drained.is_complete() {
            let lost = drained.undelivered.len();
            log::error!("{} updates still wait and {lost} are lost", drained.waiting);
        }
    }
}

impl fmt::Debug for BufferedClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferedClient")
            .field("client", &self.shared.client)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for BufferedClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferedClientBuilder")
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

/// The same error, with the updates that it is about.
fn give_back(error: Error, updates: impl IntoIterator<Item = StoredUpdate>) -> Error {
    let undelivered: Undelivered = updates.into_iter().collect();
    error.with_delivery(Report::default(), undelivered)
}

/// How long a shutdown waits for what it has broken off to end.
const GRACE: Duration = Duration::from_millis(100);

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for something to be so; not longer than to the deadline.
    fn wait_until(&self, deadline: Option<Instant>, is_so: impl Fn(&State) -> bool) {
        let mut state = self.state();
        while !is_so(&state) {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            state = match left {
                Some(Duration::ZERO) => return,
                Some(left) => {
                    self.changed
                        .wait_timeout(state, left)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
                None => self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// The update as it will wait; nothing, if it has nothing to say or is kept back.
    fn prepare(&self, update: &Update<'_>) -> Result<Option<StoredUpdate>, Error> {
        let Some(stored) = StoredUpdate::new(update)? else {
            return Ok(None);
        };
        let Some(hook) = &self.settings.before_send else {
            return Ok(Some(stored));
        };
        let mut json: Map<String, Value> = serde_json::from_str(stored.as_json())
            .map_err(|error| Error::new(ErrorKind::InvalidUpdate, error.to_string()))?;
        let is_wanted = catch_unwind(AssertUnwindSafe(|| hook(&mut json))).unwrap_or_else(|_| {
            log::error!("`before_send` panicked: the update is not sent");
            false
        });
        if is_wanted {
            StoredUpdate::from_json(&Value::Object(json).to_string()).map(Some)
        } else {
            self.state().stats.withheld += 1;
            Ok(None)
        }
    }

    /// Lets updates wait, or does what is to be done when there is no room.
    fn append(&self, updates: &[StoredUpdate]) -> Result<(), Error> {
        let back = |error| Err(give_back(error, updates.iter().cloned()));
        let mut blocks_until = None;
        loop {
            if self.closed.load(Ordering::Relaxed) {
                return back(Error::new(
                    ErrorKind::Closed,
                    "the client has been shut down",
                ));
            }
            match self.outbox.append(updates, self.settings.capacity) {
                Ok(true) => {
                    self.note_published(updates.len());
                    return Ok(());
                }
                Ok(false) => {}
                Err(error) => return back(error),
            }
            let full = || Error::new(ErrorKind::Full, "too many updates wait already");
            match self.settings.when_full {
                WhenFull::Reject => return back(full()),
                WhenFull::DropOldest => match self.drop_oldest(updates) {
                    Ok(0) => return back(full()),
                    Ok(_) => {}
                    Err(error) => return back(error),
                },
                WhenFull::Block(time) => {
                    let until = *blocks_until.get_or_insert_with(|| Instant::now() + time);
                    if Instant::now() >= until {
                        return back(full());
                    }
                    self.wake();
                    self.wait_for_change(until);
                }
            }
        }
    }

    fn drop_oldest(&self, updates: &[StoredUpdate]) -> Result<usize, Error> {
        let bytes = updates.iter().map(|update| update.as_json().len()).sum();
        let dropped = self
            .outbox
            .drop_oldest(updates.len(), bytes, self.settings.capacity)?;
        if dropped > 0 {
            self.state().stats.dropped += dropped;
            self.tell(&Trouble::Dropped(dropped));
        }
        Ok(dropped)
    }

    /// Wakes the relay at the update that makes a batch full.
    fn note_published(&self, updates: usize) {
        let before = self.published.fetch_add(updates, Ordering::Relaxed);
        if before < MAX_RECORDS && before + updates >= MAX_RECORDS {
            self.wake();
        }
    }

    fn wake(&self) {
        self.state().awake = true;
        self.changed.notify_all();
    }

    fn wait_for_change(&self, until: Instant) {
        let left = until.saturating_duration_since(Instant::now());
        drop(self.changed.wait_timeout(self.state(), left));
    }

    pub(crate) fn tell(&self, trouble: &Trouble<'_>) {
        if let Some(hook) = &self.settings.on_error {
            if catch_unwind(AssertUnwindSafe(|| hook(trouble))).is_err() {
                log::error!("`on_error` panicked");
            }
        }
    }

    /// Waits until there is a reason to send, a flush interval at most, or longer after failures;
    /// which flush that will serve.
    pub(crate) fn wait_for_work(&self, failures: u32) -> u64 {
        let pause = self
            .settings
            .flush_interval
            .saturating_mul(2_u32.saturating_pow(failures));
        let pause = pause.min(Duration::from_secs(60).max(self.settings.flush_interval));
        let due = Instant::now().checked_add(pause);
        self.wait_until(due, |state| {
            let is_asked = state.awake || state.stopping || state.flush_wanted > state.flush_done;
            (failures == 0 && is_asked) || self.cancel.load(Ordering::Relaxed)
        });
        self.published.store(0, Ordering::Relaxed);
        let mut state = self.state();
        state.awake = false;
        state.flush_wanted
    }

    /// Notes that all that waited is settled, as that flush wanted.
    pub(crate) fn note_flushed(&self, flush: u64) {
        self.state().flush_done = flush;
        self.changed.notify_all();
    }

    /// Adds what one delivery did.
    pub(crate) fn note_report(&self, report: &Report, accepted: usize) {
        let mut state = self.state();
        let Stats {
            sent,
            rejected,
            requests,
            retries,
            bytes,
            ..
        } = &mut state.stats;
        *sent += report.sent;
        *rejected += report.rejected.len();
        *requests += report.requests;
        *retries += report.retries;
        *bytes += report.bytes;
        state.stats.accepted += accepted;
        drop(state);
        self.changed.notify_all();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.state().stopping
    }

    /// Goes on after what was under way was broken off, unless that was to end it.
    pub(crate) fn resume(&self) {
        let state = self.state();
        if !state.stopping {
            self.cancel.store(false, Ordering::Relaxed);
        }
    }

    pub(crate) fn note_end(&self) {
        self.state().ended = true;
        self.changed.notify_all();
    }

    fn depth(&self) -> crate::Depth {
        self.outbox.depth().unwrap_or_else(|error| {
            self.tell(&Trouble::Outbox(&error));
            crate::Depth::default()
        })
    }

    fn stats(&self) -> Stats {
        let depth = self.depth();
        Stats {
            queued: depth.updates,
            queued_bytes: depth.bytes,
            oldest: depth.oldest,
            ..self.state().stats.clone()
        }
    }

    fn shutdown(&self, timeout: Duration) -> Drained {
        let deadline = Instant::now().checked_add(timeout);
        self.closed.store(true, Ordering::Relaxed);
        self.state().stopping = true;
        self.changed.notify_all();
        self.wait_until(deadline, |state| state.ended);
        self.cancel.store(true, Ordering::Relaxed);
        self.changed.notify_all();
        self.wait_until(Some(Instant::now() + GRACE), |state| state.ended);
        let undelivered = if self.outbox.is_durable() {
            Vec::new()
        } else {
            self.take_back()
        };
        Drained {
            waiting: self.depth().updates,
            undelivered,
            stats: self.stats(),
        }
    }

    /// Empties an outbox that ends with the process.
    fn take_back(&self) -> Vec<StoredUpdate> {
        let waiting = self
            .outbox
            .release()
            .and_then(|()| self.outbox.take(usize::MAX));
        let waiting = waiting.unwrap_or_else(|error| {
            self.tell(&Trouble::Outbox(&error));
            Vec::new()
        });
        let ids: Vec<_> = waiting.iter().map(|waiting| waiting.id).collect();
        if let Err(error) = self.outbox.settle(&ids, &[]) {
            self.tell(&Trouble::Outbox(&error));
        }
        waiting.into_iter().map(|waiting| waiting.update).collect()
    }
}

//! What the publishers and the thread that sends know of each other.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::settings::{DeliveryEvent, OverflowPolicy, Settings};
use super::stats::{FlushOutcome, Stats};
use crate::client::Client;
use crate::client::records::MAX_RECORDS;
use crate::outbox::{Capacity, Depth, Outbox};
use crate::record::MAX_RECORD;
use crate::record::encoded_update::total_bytes;
use crate::record::{EncodedUpdate, Error, ErrorKind, Report, Undelivered, Update};

/// How long a shutdown waits for what it has broken off to end.
const GRACE: Duration = Duration::from_millis(100);

pub(super) struct Shared {
    pub(super) client: Client,
    pub(super) outbox: Arc<dyn Outbox>,
    pub(super) settings: Settings,
    state: Mutex<State>,
    changed: Condvar,
    /// Nothing more can be published.
    closed: AtomicBool,
    /// What is under way is to be broken off.
    pub(super) cancel: AtomicBool,
    /// Updates published since the relay looked last.
    published: AtomicUsize,
}

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

impl Shared {
    pub(super) fn new(client: Client, outbox: Arc<dyn Outbox>, settings: Settings) -> Arc<Self> {
        let shared = Arc::new(Self {
            client,
            outbox,
            settings,
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
        shared
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for something to be so; not longer than to the deadline.
    fn wait_until(&self, deadline: Option<Instant>, is_so: impl Fn(&State) -> bool) {
        let mut state = self.state();
        while !is_so(&state) {
            let left = deadline.map_or(Duration::MAX, |deadline| {
                deadline.saturating_duration_since(Instant::now())
            });
            if left.is_zero() {
                return;
            }
            let waited = self.changed.wait_timeout(state, left);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The update as it will wait; nothing, if it has nothing to say or is kept back.
    pub(super) fn prepare(&self, update: &Update<'_>) -> Result<Option<EncodedUpdate>, Error> {
        let Some(stored) = EncodedUpdate::new(update)? else {
            return Ok(None);
        };
        let Some(hook) = &self.settings.before_send else {
            return Ok(Some(stored));
        };
        let guarded = |json: &mut Map<String, Value>| {
            catch_unwind(AssertUnwindSafe(|| hook(json))).unwrap_or_else(|_| {
                log::error!("`before_send` panicked: the update is not sent");
                false
            })
        };
        let edited = stored.edit(guarded)?;
        if edited.is_none() {
            self.state().stats.withheld += 1;
        }
        Ok(edited)
    }

    /// Reads as many updates as can be appended at once.
    pub(super) fn read_some(
        &self,
        updates: impl Iterator<Item = Result<EncodedUpdate, Error>>,
        some: &mut Vec<EncodedUpdate>,
    ) -> Result<(), Error> {
        let Capacity {
            updates: most,
            bytes,
        } = self.settings.capacity;
        let mut room = bytes;
        for update in updates.take(most.clamp(1, MAX_RECORDS)) {
            let update = update?;
            room = room.saturating_sub(update.as_json().len());
            some.push(update);
            if room < MAX_RECORD {
                break; // The next one may not fit.
            }
        }
        Ok(())
    }

    /// Lets updates wait, or does what is to be done when there is no room.
    pub(super) fn append(&self, updates: &[EncodedUpdate]) -> Result<(), Error> {
        let back = |error| Err(give_back(error, updates.iter().cloned()));
        let mut blocked_since = None;
        loop {
            if self.closed.load(Ordering::Relaxed) {
                return back(Error::new(
                    ErrorKind::Closed,
                    "the client was shut down, or its thread panicked",
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
            match self.settings.overflow {
                OverflowPolicy::Reject => return back(full()),
                OverflowPolicy::DropOldest => match self.drop_oldest(updates) {
                    Ok(0) => return back(full()),
                    Ok(_) => {}
                    Err(error) => return back(error),
                },
                OverflowPolicy::Block(time) => {
                    let waited = blocked_since.get_or_insert_with(Instant::now).elapsed();
                    let left = time.saturating_sub(waited);
                    if left.is_zero() {
                        return back(full());
                    }
                    self.wait_for_room(left);
                }
            }
        }
    }

    fn drop_oldest(&self, updates: &[EncodedUpdate]) -> Result<usize, Error> {
        let (capacity, bytes) = (self.settings.capacity, total_bytes(updates));
        if !Depth::default().has_room(updates.len(), bytes, capacity) {
            return Ok(0); // There is no room for them, whatever is dropped.
        }
        let dropped = self.outbox.drop_oldest(updates.len(), bytes, capacity)?;
        if dropped > 0 {
            log::error!("{dropped} updates are dropped to make room");
            self.state().stats.dropped += dropped;
            self.tell(&DeliveryEvent::Dropped(dropped));
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

    /// Wakes the relay, and waits until it has done something.
    fn wait_for_room(&self, time: Duration) {
        let mut state = self.state();
        state.awake = true;
        self.changed.notify_all();
        drop(self.changed.wait_timeout(state, time));
    }

    pub(super) fn tell(&self, trouble: &DeliveryEvent<'_>) {
        if let Some(hook) = &self.settings.on_error {
            if catch_unwind(AssertUnwindSafe(|| hook(trouble))).is_err() {
                log::error!("`on_error` panicked");
            }
        }
    }

    /// Waits until there is a reason to send, a flush interval at most, or longer after failures;
    /// which flush that will serve. A flush that none of the failures has `tried` ends any wait.
    pub(super) fn wait_for_work(&self, failures: u32, tried: u64) -> u64 {
        let pause = self
            .settings
            .flush_interval
            .saturating_mul(2_u32.saturating_pow(failures));
        let pause = pause.min(Duration::from_secs(60).max(self.settings.flush_interval));
        let due = Instant::now().checked_add(pause);
        self.wait_until(due, |state| {
            let is_enough = failures == 0 && state.awake;
            is_enough || state.flush_wanted > tried || self.cancel.load(Ordering::Relaxed)
        });
        self.published.store(0, Ordering::Relaxed);
        let mut state = self.state();
        state.awake = false;
        state.flush_wanted
    }

    /// Notes that all that waited is settled, as that flush wanted.
    pub(super) fn note_flushed(&self, flush: u64) {
        self.state().flush_done = flush;
        self.changed.notify_all();
    }

    /// Adds what one delivery did.
    pub(super) fn note_report(&self, report: &Report, accepted: usize, rejected: usize) {
        let stats = &mut self.state().stats;
        stats.sent += report.sent;
        stats.accepted += accepted;
        stats.rejected += rejected;
        stats.requests += report.requests;
        stats.retries += report.retries;
        stats.bytes += report.bytes;
        self.changed.notify_all();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.state().stopping
    }

    /// Goes on after what was under way was broken off, unless that was to end it.
    pub(super) fn resume(&self) {
        let state = self.state();
        if !state.stopping {
            self.cancel.store(false, Ordering::Relaxed);
        }
    }

    pub(super) fn note_end(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.state().ended = true;
        self.changed.notify_all();
    }

    pub(super) fn stats(&self) -> Stats {
        let depth = self.outbox.depth().unwrap_or_else(|error| {
            self.tell(&DeliveryEvent::Outbox(&error));
            Depth::default()
        });
        Stats {
            queued: depth.updates,
            queued_bytes: depth.bytes,
            oldest: depth.oldest,
            ..self.state().stats.clone()
        }
    }

    /// Asks the relay for a flush, its last one perhaps; which one that is.
    fn ask(&self, stopping: bool) -> u64 {
        let mut state = self.state();
        state.stopping |= stopping;
        state.flush_wanted += 1;
        self.changed.notify_all();
        state.flush_wanted
    }

    /// Waits until all that waits now is settled, not longer than that.
    pub(super) fn flush(&self, timeout: Duration) -> FlushOutcome {
        let deadline = Instant::now().checked_add(timeout);
        let wanted = self.ask(false);
        self.wait_until(deadline, |state| state.flush_done >= wanted || state.ended);
        self.drained(Vec::new())
    }

    pub(super) fn shutdown(&self, timeout: Duration) -> FlushOutcome {
        let deadline = Instant::now().checked_add(timeout);
        self.closed.store(true, Ordering::Relaxed);
        self.ask(true);
        self.wait_until(deadline, |state| state.ended);
        self.cancel.store(true, Ordering::Relaxed);
        self.changed.notify_all();
        self.wait_until(Some(Instant::now() + GRACE), |state| state.ended);
        let undelivered = if self.outbox.is_durable() {
            Vec::new()
        } else {
            self.take_back()
        };
        self.drained(undelivered)
    }

    fn drained(&self, undelivered: Vec<EncodedUpdate>) -> FlushOutcome {
        let stats = self.stats();
        FlushOutcome {
            waiting: stats.queued,
            undelivered,
            stats,
        }
    }

    /// Empties an outbox that ends with the process.
    fn take_back(&self) -> Vec<EncodedUpdate> {
        let waiting = self
            .outbox
            .release()
            .and_then(|()| self.outbox.take(usize::MAX));
        let waiting = waiting.unwrap_or_else(|error| {
            self.tell(&DeliveryEvent::Outbox(&error));
            Vec::new()
        });
        let ids: Vec<_> = waiting.iter().map(|waiting| waiting.id).collect();
        if let Err(error) = self.outbox.settle(&ids, &[]) {
            self.tell(&DeliveryEvent::Outbox(&error));
        }
        waiting.into_iter().map(|waiting| waiting.update).collect()
    }
}

/// The same error, with the updates that it is about.
pub(super) fn give_back(error: Error, updates: impl IntoIterator<Item = EncodedUpdate>) -> Error {
    let undelivered: Undelivered = updates.into_iter().collect();
    error.with_undelivered(undelivered)
}

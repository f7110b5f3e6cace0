//! From an update to the outbox: what runs on the callers' threads, and the callbacks.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};

use crate::buffered::settings::Settings;
use crate::buffered::state::Shared;
use crate::buffered::{DeliveryEvent, FlushOutcome, OverflowPolicy, Stats};
use crate::client::Client;
use crate::client::records::MAX_RECORDS;
use crate::outbox::{Depth, Outbox};
use crate::record::encoded_update::total_bytes;
use crate::record::{EncodedUpdate, Error, ErrorKind, MAX_RECORD, Update};
use crate::util::sync::{Instant, Mutex};

/// How long a shutdown waits for what it has broken off to end.
const GRACE: Duration = Duration::from_millis(if cfg!(simulation) { 5_000 } else { 100 });

fn closed() -> Error {
    Error::new(
        ErrorKind::Closed,
        "the client was shut down, or its thread panicked",
    )
}

/// What the clones of a client and its worker share.
pub(super) struct Publisher {
    pub(super) client: Client,
    pub(super) outbox: Arc<dyn Outbox>,
    pub(super) settings: Settings,
    /// The hooks of the outbox have it too, and nothing else: an outbox does not keep itself alive.
    pub(super) shared: Arc<Shared>,
    /// Whether a shutdown has taken back what was left. Held while updates are taken back or settled: each is either
    /// handed back or counted, and handed back once.
    pub(super) is_taken_back: Mutex<bool>,
}

impl Publisher {
    pub(super) fn new(client: Client, outbox: Arc<dyn Outbox>, settings: Settings) -> Self {
        let shared = Arc::new(Shared::new());
        let appended = Arc::clone(&shared);
        outbox.on_append(Arc::new(move || appended.request_send()));
        let lost = Arc::clone(&shared);
        outbox.on_loss(Arc::new(move || lost.break_off_delivery()));
        Self {
            client,
            outbox,
            settings,
            shared,
            is_taken_back: Mutex::new(false),
        }
    }

    pub(super) fn publish(&self, update: &Update<'_>) -> Result<(), Error> {
        match self.prepare(update)? {
            Some(update) => self.append(&[update]),
            None => Ok(()),
        }
    }

    pub(super) fn publish_all<'u>(
        &self,
        updates: impl Iterator<Item = Update<'u>>,
    ) -> Result<(), Error> {
        let mut updates = updates.filter_map(|update| self.prepare(&update).transpose());
        loop {
            let mut chunk = Vec::new();
            let filled = self.fill(&mut chunk, &mut updates);
            if filled.is_ok() && chunk.is_empty() {
                return Ok(());
            }
            if let Err(error) = filled.and_then(|()| self.append(&chunk)) {
                let rest = updates.filter_map(Result::ok);
                let undelivered = chunk.into_iter().chain(rest).collect();
                return Err(error.with_undelivered(undelivered));
            }
        }
    }

    /// Returns the update as it will wait; `None` if there is nothing to send or the hook withholds it.
    fn prepare(&self, update: &Update<'_>) -> Result<Option<EncodedUpdate>, Error> {
        let Some(encoded) = EncodedUpdate::new(update)? else {
            return Ok(None);
        };
        let Some(hook) = &self.settings.before_send else {
            return Ok(Some(encoded));
        };
        let guarded = |json: &mut Map<String, Value>| {
            catch_unwind(AssertUnwindSafe(|| hook(json))).unwrap_or_else(|_| {
                log::error!("`before_send` panicked: the update is not sent");
                false
            })
        };
        let edited = encoded.edit(guarded)?;
        if edited.is_none() {
            self.shared.count(|stats| stats.withheld += 1);
        }
        Ok(edited)
    }

    /// Fills a chunk with as many updates as can be appended at once.
    fn fill(
        &self,
        chunk: &mut Vec<EncodedUpdate>,
        updates: impl Iterator<Item = Result<EncodedUpdate, Error>>,
    ) -> Result<(), Error> {
        let capacity = self.settings.capacity;
        let mut room = capacity.bytes;
        for update in updates.take(capacity.updates.min(MAX_RECORDS)) {
            let update = update?;
            room = room.saturating_sub(update.len());
            chunk.push(update);
            if room < MAX_RECORD {
                break; // The next one may not fit.
            }
        }
        Ok(())
    }

    /// Appends to the outbox, applying the overflow policy when it is full. An error gives the updates back.
    fn append(&self, updates: &[EncodedUpdate]) -> Result<(), Error> {
        self.try_append(updates)
            .map_err(|error| error.with_undelivered(updates.iter().cloned().collect()))
    }

    fn try_append(&self, updates: &[EncodedUpdate]) -> Result<(), Error> {
        let mut blocked_since = None;
        loop {
            let append = || self.outbox.append(updates, self.settings.capacity);
            let appended = self.shared.while_open(append).ok_or_else(closed)?;
            if appended? {
                if self.is_too_late(updates)? {
                    return Err(closed());
                }
                self.shared.count_published(updates.len());
                return Ok(());
            }
            let full = || Err(Error::new(ErrorKind::Full, "too many updates wait already"));
            match self.settings.overflow {
                OverflowPolicy::Reject => return full(),
                OverflowPolicy::DropOldest => {
                    if self.drop_oldest(updates)? == 0 {
                        return full();
                    }
                }
                OverflowPolicy::Block(time) => {
                    let waited = blocked_since.get_or_insert_with(Instant::now).elapsed();
                    let left = time.saturating_sub(waited);
                    if left.is_zero() {
                        return full();
                    }
                    self.shared.wait_for_room(left);
                }
            }
        }
    }

    /// Returns whether a shutdown took back what was left before these updates were appended, and takes them out
    /// again then: nobody would send them.
    fn is_too_late(&self, updates: &[EncodedUpdate]) -> Result<bool, Error> {
        if !self.shared.is_closed() || self.outbox.is_durable() {
            return Ok(false);
        }
        let is_taken_back = self.is_taken_back.lock();
        let is_taken_back = is_taken_back.unwrap_or_else(PoisonError::into_inner);
        if !*is_taken_back {
            return Ok(false);
        }
        let mut entries = self.outbox.take(usize::MAX)?;
        entries.retain(|entry| matches!(&entry.update, Ok(update) if updates.contains(update)));
        let ids: Vec<_> = entries.iter().map(|entry| entry.id).collect();
        self.outbox
            .settle(&ids[..ids.len().min(updates.len())], &[])?;
        Ok(!ids.is_empty())
    }

    /// Drops the oldest updates to make room, and returns how many.
    fn drop_oldest(&self, updates: &[EncodedUpdate]) -> Result<usize, Error> {
        let (capacity, bytes) = (self.settings.capacity, total_bytes(updates));
        if !Depth::default().has_room(updates.len(), bytes, capacity) {
            return Ok(0); // Not even an empty outbox has room for them.
        }
        let dropped = self.outbox.drop_oldest(updates.len(), bytes, capacity)?;
        if dropped > 0 {
            self.shared.count(|stats| stats.dropped += dropped);
            self.notify(&DeliveryEvent::Dropped(dropped));
        }
        Ok(dropped)
    }

    /// Logs what went wrong and calls `on_error`. What goes wrong within that call is logged and does not
    /// call it again.
    pub(super) fn notify(&self, event: &DeliveryEvent<'_>) {
        thread_local! {
            static IS_NOTIFYING: Cell<bool> = const { Cell::new(false) };
        }
        match event {
            DeliveryEvent::Rejected(..) => {} // Logged where it was refused.
            DeliveryEvent::Undelivered(_) => log::warn!("{event}"),
            DeliveryEvent::Dropped(_) | DeliveryEvent::Outbox(_) => log::error!("{event}"),
        }
        let Some(hook) = &self.settings.on_error else {
            return;
        };
        if IS_NOTIFYING.replace(true) {
            return;
        }
        if catch_unwind(AssertUnwindSafe(|| hook(event))).is_err() {
            log::error!("`on_error` panicked");
        }
        IS_NOTIFYING.set(false);
    }

    /// Waits until everything that waits now is settled, for that time at most.
    pub(super) fn flush(&self, timeout: Duration) -> FlushOutcome {
        self.shared.flush(timeout);
        self.outcome(Vec::new())
    }

    pub(super) fn shut_down(&self, timeout: Duration) -> FlushOutcome {
        self.shared.shut_down(timeout, GRACE);
        if self.outbox.is_durable() {
            return self.outcome(Vec::new());
        }
        let (undelivered, emptied) = self.take_back();
        if let Err(error) = emptied {
            self.notify(&DeliveryEvent::Outbox(&error));
        }
        self.outcome(undelivered)
    }

    fn outcome(&self, undelivered: Vec<EncodedUpdate>) -> FlushOutcome {
        let stats = self.stats();
        FlushOutcome {
            waiting: stats.queued,
            undelivered,
            stats,
        }
    }

    pub(super) fn stats(&self) -> Stats {
        let depth = self.outbox.depth();
        if let Err(error) = &depth {
            self.notify(&DeliveryEvent::Outbox(error));
        }
        let depth = depth.ok();
        Stats {
            queued: depth.map(|depth| depth.updates),
            queued_bytes: depth.map(|depth| depth.bytes),
            oldest: depth.and_then(|depth| depth.oldest),
            ..self.shared.stats()
        }
    }

    /// Empties an outbox that ends with the process. Returns what was in it, and whether that worked.
    fn take_back(&self) -> (Vec<EncodedUpdate>, Result<(), Error>) {
        let lock = self.is_taken_back.lock();
        let mut is_taken_back = lock.unwrap_or_else(PoisonError::into_inner);
        *is_taken_back = true;
        let released = self.outbox.release();
        let entries = match released.and_then(|()| self.outbox.take(usize::MAX)) {
            Ok(entries) => entries,
            Err(error) => return (Vec::new(), Err(error)),
        };
        let ids: Vec<_> = entries.iter().map(|entry| entry.id).collect();
        let settled = self.outbox.settle(&ids, &[]);
        let updates = entries.into_iter().filter_map(|entry| entry.update.ok());
        (updates.collect(), settled)
    }
}

//! From an update to the outbox: what runs on the callers' threads, and the callbacks.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};

use crate::buffered::kind::Kind;
use crate::buffered::settings::Settings;
use crate::buffered::state::Shared;
use crate::buffered::{DeliveryEvent, OverflowPolicy, Stats};
use crate::client::Client;
use crate::outbox::{Depth, Outbox, total_bytes};
use crate::record::{Error, ErrorKind};
use crate::util::sync::{Instant, Mutex};

fn closed() -> Error {
    Error::new(
        ErrorKind::Closed,
        "the client was shut down, or its thread panicked",
    )
}

/// What a client is made of twice, for updates and for events: an outbox, and what its worker and those who publish
/// share.
pub(super) struct Publisher<R> {
    pub(super) client: Client,
    pub(super) outbox: Arc<dyn Outbox<R>>,
    pub(super) settings: Arc<Settings>,
    /// The hooks of the outbox have it too, and nothing else: an outbox does not keep itself alive.
    pub(super) shared: Arc<Shared>,
    /// Whether a shutdown has taken back what was left. Held while updates are taken back or settled: each is either
    /// handed back or counted, and handed back once.
    pub(super) is_taken_back: Mutex<bool>,
}

impl<R: Kind> Publisher<R> {
    pub(super) fn new(
        client: &Client,
        outbox: Arc<dyn Outbox<R>>,
        settings: &Arc<Settings>,
    ) -> Self {
        let shared = Arc::new(Shared::new());
        let appended = Arc::clone(&shared);
        outbox.on_append(Arc::new(move || appended.request_send()));
        let lost = Arc::clone(&shared);
        outbox.on_loss(Arc::new(move || lost.break_off_delivery()));
        Self {
            client: client.clone(),
            outbox,
            settings: Arc::clone(settings),
            shared,
            is_taken_back: Mutex::new(false),
        }
    }

    /// Appends to the outbox, applying the overflow policy when it is full. An error gives the updates back.
    pub(super) fn append(&self, records: &[R]) -> Result<(), Error> {
        self.try_append(records)
            .map_err(|error| error.with_undelivered(records.iter().cloned().collect()))
    }

    fn try_append(&self, records: &[R]) -> Result<(), Error> {
        let mut blocked_since = None;
        loop {
            let append = || self.outbox.append(records, self.settings.capacity);
            let appended = self.shared.while_open(append).ok_or_else(closed)?;
            if appended? {
                if self.is_too_late(records)? {
                    return Err(closed());
                }
                self.shared.count_published(records.len());
                return Ok(());
            }
            let full = || {
                let message = format!("too many {} wait already", R::NAME);
                Err(Error::new(ErrorKind::Full, message))
            };
            match self.settings.overflow {
                OverflowPolicy::Reject => return full(),
                OverflowPolicy::DropOldest => {
                    if self.drop_oldest(records)? == 0 {
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
    fn is_too_late(&self, records: &[R]) -> Result<bool, Error> {
        if !self.shared.is_closed() || self.outbox.is_durable() {
            return Ok(false);
        }
        let is_taken_back = self.is_taken_back.lock();
        let is_taken_back = is_taken_back.unwrap_or_else(PoisonError::into_inner);
        if !*is_taken_back {
            return Ok(false);
        }
        let mut entries = self.outbox.take(usize::MAX)?;
        entries.retain(|entry| matches!(&entry.update, Ok(record) if records.contains(record)));
        let ids: Vec<_> = entries.iter().map(|entry| entry.id).collect();
        self.outbox
            .settle(&ids[..ids.len().min(records.len())], &[])?;
        Ok(!ids.is_empty())
    }

    /// Drops the oldest updates to make room, and returns how many.
    fn drop_oldest(&self, records: &[R]) -> Result<usize, Error> {
        let (capacity, bytes) = (self.settings.capacity, total_bytes(records));
        if !Depth::default().has_room(records.len(), bytes, capacity) {
            return Ok(0); // Not even an empty outbox has room for them.
        }
        let dropped = self.outbox.drop_oldest(records.len(), bytes, capacity)?;
        if dropped > 0 {
            self.shared.count(|stats| stats.dropped += dropped);
            self.notify(&R::dropped(dropped));
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
            DeliveryEvent::Dropped(_)
            | DeliveryEvent::DroppedEvents(_)
            | DeliveryEvent::Outbox(_) => log::error!("{event}"),
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

    /// Returns what an outbox that ends with the process still holds, after a shutdown.
    pub(super) fn left_over(&self) -> Vec<R> {
        if self.outbox.is_durable() {
            return Vec::new();
        }
        let (undelivered, emptied) = self.take_back();
        if let Err(error) = emptied {
            self.notify(&DeliveryEvent::Outbox(&error));
        }
        undelivered
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
    fn take_back(&self) -> (Vec<R>, Result<(), Error>) {
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
        let records = entries.into_iter().filter_map(|entry| entry.update.ok());
        (records.collect(), settled)
    }
}

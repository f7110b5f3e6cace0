//! From an update to the outbox: what runs on the callers' threads, and the callbacks.

use std::cell::Cell;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::buffered::guarded::{GuardedOutbox, panicked};
use crate::buffered::kind::Kind;
use crate::buffered::settings::Settings;
use crate::buffered::state::Shared;
use crate::buffered::{DeliveryEvent, OverflowPolicy, Stats};
use crate::client::Client;
use crate::client::records::Limits;
use crate::outbox::{Depth, Outbox, OutboxEntry, total_bytes};
use crate::record::{Error, ErrorKind};
use crate::util::panic::catch;
use crate::util::process;
use crate::util::sync::Instant;

/// How long a shutdown waits for an aborted delivery to end, and then for the outbox.
pub(super) const GRACE: Duration =
    Duration::from_millis(if cfg!(simulation) { 5_000 } else { 100 });

fn closed() -> Error {
    Error::new(
        ErrorKind::Closed,
        "the client was shut down, or its thread panicked",
    )
}

/// An outbox, and what its worker and the publishers share. A client has two: one for updates, one for events.
pub(super) struct Publisher<R> {
    pub(super) client: Client,
    pub(super) outbox: GuardedOutbox<R>,
    pub(super) settings: Arc<Settings>,
    /// The hooks of the outbox have it too, and nothing else: an outbox does not keep itself alive.
    pub(super) shared: Arc<Shared>,
    /// The process in which the worker runs. A fork has no worker, and locks that nobody may ever release.
    process: u32,
    /// How many records were dropped to make room, and are not yet reported.
    dropped: Arc<AtomicUsize>,
}

thread_local! {
    /// An `on_error` runs on this thread.
    static IS_NOTIFYING: Cell<bool> = const { Cell::new(false) };
}

impl<R: Kind> Publisher<R> {
    pub(super) fn new(
        client: &Client,
        outbox: &Arc<dyn Outbox<R>>,
        settings: &Arc<Settings>,
    ) -> Result<Self, Error> {
        let guarded = GuardedOutbox::new(Arc::clone(outbox), settings.outbox_timeout)?;
        let shared = Arc::new(Shared::new());
        let appended = Arc::clone(&shared);
        let on_append = || outbox.on_append(Arc::new(move || appended.request_send()));
        catch(on_append).map_err(panicked)?;
        Ok(Self {
            client: client.clone(),
            outbox: guarded,
            settings: Arc::clone(settings),
            shared,
            process: process::id(),
            dropped: Arc::default(),
        })
    }

    /// Returns whether this process is a fork of that of the worker.
    pub(super) fn is_forked(&self) -> bool {
        self.process != process::id()
    }

    /// Appends to the outbox, applying the overflow policy when it is full. An error gives the updates back.
    pub(super) fn append(&self, updates: &[R]) -> Result<(), Error> {
        self.try_append(updates)
            .map_err(|error| error.with_undelivered(updates.iter().cloned().collect()))
    }

    fn try_append(&self, updates: &[R]) -> Result<(), Error> {
        if self.is_forked() {
            let message = "the client belongs to the parent process: start one after the fork";
            return Err(Error::new(ErrorKind::Closed, message));
        }
        // The clock is read only where it is needed: by an outbox that does not keep its timeout, or one that is full.
        let mut started = (!self.outbox.keeps_its_timeout()).then(Instant::now);
        let block = match self.settings.overflow {
            // The worker, on which `on_error` runs, cannot wait for itself.
            OverflowPolicy::Block(time) if !IS_NOTIFYING.get() => time,
            _ => Duration::ZERO,
        };
        let outbox_timeout = self.settings.outbox_timeout;
        let most = outbox_timeout.saturating_add(block);
        let mut blocked_since = None;
        loop {
            let elapsed = started.map_or(Duration::ZERO, |started| started.elapsed());
            let left = most.saturating_sub(elapsed).min(outbox_timeout);
            let append = || self.outbox.append(left, updates, self.settings.capacity);
            let appended = self.shared.while_open(append).ok_or_else(closed)?;
            if appended? {
                if self.is_too_late(updates)? {
                    return Err(closed());
                }
                let (count, bytes) = (updates.len(), total_bytes(updates));
                self.shared.count_published(count, bytes, self.full_batch());
                return Ok(());
            }
            let started = started.get_or_insert_with(Instant::now);
            let full = || {
                let message = format!("the queue of {} is full", R::NAME);
                Err(Error::new(ErrorKind::Full, message))
            };
            let (bytes, capacity) = (total_bytes(updates), self.settings.capacity);
            // Not even an empty outbox has room for them, now or later.
            if !Depth::default().has_room(updates.len(), bytes, capacity) {
                let (name, most) = (R::NAME, capacity.bytes);
                let message = format!(
                    "{bytes} bytes of {name} do not fit into a capacity of {most}: set a larger one"
                );
                return Err(Error::new(ErrorKind::Full, message));
            }
            // What fills it may be rows of other processes, or of an earlier run, which are not counted here.
            self.shared.request_send();
            match self.settings.overflow {
                OverflowPolicy::Reject => return full(),
                OverflowPolicy::DropOldest => {
                    let left = most.saturating_sub(started.elapsed()).min(outbox_timeout);
                    if left.is_zero() || self.drop_oldest(left, updates.len(), bytes)? == 0 {
                        return full();
                    }
                }
                OverflowPolicy::Block(_) => {
                    let waited = blocked_since.get_or_insert_with(Instant::now).elapsed();
                    let left = block.saturating_sub(waited);
                    if left.is_zero() {
                        return full();
                    }
                    self.shared.wait_for_room(left);
                }
            }
        }
    }

    /// Returns how much is sent without waiting for the interval: a request, or half of the capacity if that is less. Then
    /// there is room left for what is published while it is sent.
    fn full_batch(&self) -> Limits {
        let (limits, capacity) = (R::route(&self.client).limits, self.settings.capacity);
        Limits {
            records: limits.records.min(capacity.updates.div_ceil(2)),
            bytes: limits.bytes.min(capacity.bytes.div_ceil(2)),
        }
    }

    /// Returns whether a shutdown took back what was left before these updates were appended. Then it removes them again,
    /// because no worker would send them.
    fn is_too_late(&self, updates: &[R]) -> Result<bool, Error> {
        if !self.shared.is_closed() || self.outbox.is_durable() {
            return Ok(false);
        }
        let turn = self.shared.turn(self.outbox.patience(GRACE));
        if turn.as_ref().is_some_and(|turn| !turn.is_taken_back()) {
            return Ok(false);
        }
        let (mut updates, handed_back) = (updates.to_vec(), self.shared.handed_back());
        let taken_out = self.outbox.call_within(GRACE, move |outbox| {
            let mut entries = outbox.take(usize::MAX)?;
            entries.retain(|entry| {
                // Each of its own once: another publisher may have an equal one.
                let is_one = |update| entry.update.as_ref() == Ok(update);
                let own = updates.iter().position(is_one);
                let own = own.filter(|_| !handed_back.contains(&entry.id));
                own.map(|own| updates.swap_remove(own)).is_some()
            });
            let ids: Vec<_> = entries.iter().map(|entry| entry.id).collect();
            // The shutdown handed them back.
            if ids.is_empty() {
                return Ok((ids, Ok(false)));
            }
            let settled = outbox.settle(&ids, &[]);
            Ok((ids, settled.map(|()| true)))
        });
        let (ids, is_taken_out) = taken_out?;
        if is_taken_out.is_err() {
            // An error gives them back. The next shutdown does not, too.
            let mut handed_back = self.shared.handed_back();
            handed_back.extend(ids);
            self.shared.set_handed_back(handed_back);
        }
        drop(turn);
        is_taken_out
    }

    /// Drops the oldest updates to make room, and returns how many. What is dropped too late for that is counted too, and
    /// reported by the worker or a shutdown.
    fn drop_oldest(&self, time: Duration, updates: usize, bytes: usize) -> Result<usize, Error> {
        let (capacity, shared) = (self.settings.capacity, Arc::clone(&self.shared));
        let unreported = Arc::clone(&self.dropped);
        let dropped = self.outbox.call_within(time, move |outbox| {
            let dropped = outbox.drop_oldest(updates, bytes, capacity)?;
            shared.count(|stats| {
                stats.dropped += dropped;
                unreported.fetch_add(dropped, Ordering::Relaxed);
            });
            Ok(dropped)
        });
        self.report_dropped();
        dropped
    }

    /// Logs what was dropped since the last time, and calls `on_error`.
    pub(super) fn report_dropped(&self) {
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let event = R::dropped(dropped);
            // In an outage, each `publish` drops one: the worker logs the others together.
            if self.shared.note_dropped(dropped) {
                log::error!("{event}");
            }
            self.notify(&event);
        }
    }

    /// Logs what went wrong and calls `on_error`. What goes wrong within that call is logged and does not
    /// call it again.
    pub(super) fn notify(&self, event: &DeliveryEvent<'_>) {
        match event {
            // Logged where it was refused or dropped.
            DeliveryEvent::Rejected(..)
            | DeliveryEvent::Dropped(_)
            | DeliveryEvent::DroppedEvents(_) => {}
            DeliveryEvent::Undelivered(_) => log::warn!("{event}"),
            DeliveryEvent::Outbox(_) => log::error!("{event}"),
        }
        let Some(hook) = &self.settings.on_error else {
            return;
        };
        if IS_NOTIFYING.replace(true) {
            return;
        }
        let called = catch(|| hook(event));
        IS_NOTIFYING.set(false);
        if let Err(message) = called {
            log::error!("`on_error` panicked: {message}");
        }
    }

    /// Returns what an outbox that ends with the process still holds, after a shutdown.
    pub(super) fn left_over(&self, time: Duration) -> Vec<R> {
        if self.outbox.is_durable() {
            return Vec::new();
        }
        let left = self.take_back(time.max(GRACE));
        self.shared.count(|stats| stats.handed_back += left.len());
        left
    }

    pub(super) fn stats(&self) -> Stats {
        if self.is_forked() {
            return Stats::default();
        }
        self.stats_within(self.settings.outbox_timeout)
    }

    pub(super) fn stats_within(&self, time: Duration) -> Stats {
        let depth = self.outbox.depth_within(time);
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

    /// Empties an outbox that ends with the process, and returns what was in it. What cannot be read is rejected.
    fn take_back(&self, time: Duration) -> Vec<R> {
        let Some(turn) = self.shared.turn(self.outbox.patience(time)) else {
            let message = "cannot return queued records: the outbox hangs";
            self.notify(&DeliveryEvent::Outbox(&Error::new(
                ErrorKind::Timeout,
                message,
            )));
            return Vec::new();
        };
        // What comes too late to be handed back stays where it is.
        let is_late = Arc::new(AtomicBool::new(false));
        let may_be_late = Arc::clone(&is_late);
        let entries = self.outbox.call_within(time, move |outbox| {
            let take = || {
                outbox.release()?;
                outbox.take(usize::MAX)
            };
            // There may be no other shutdown.
            let entries = take().or_else(|error| {
                log::warn!("cannot return queued records, so this is tried once more: {error:#}");
                take()
            })?;
            if may_be_late.load(Ordering::Relaxed) {
                outbox.release()?;
                return Ok(Vec::new());
            }
            Ok(entries)
        });
        match &entries {
            Ok(_) => turn.set_taken_back(),
            Err(_) => is_late.store(true, Ordering::Relaxed),
        }
        // Only now that they are here: what is settled and not here would be lost.
        let (entries, settled) = match entries {
            Ok(mut entries) => {
                let ids: Vec<_> = entries.iter().map(|entry| entry.id).collect();
                let taken = ids.iter().copied().collect();
                let settle = move |outbox: &dyn Outbox<R>| outbox.settle(&ids, &[]);
                let settled = self.outbox.call_within(GRACE, settle);
                // What cannot be removed is not handed back by the next shutdown too.
                let left = settled.as_ref().map_or(taken, |()| HashSet::new());
                let before = self.shared.handed_back();
                self.shared.set_handed_back(left);
                entries.retain(|entry| !before.contains(&entry.id));
                (entries, settled)
            }
            Err(error) => (Vec::new(), Err(error)),
        };
        drop(turn);
        if let Err(error) = settled {
            self.notify(&DeliveryEvent::Outbox(&error));
        }
        let mut updates = Vec::with_capacity(entries.len());
        for OutboxEntry { update, .. } in entries {
            match update {
                Ok(update) => updates.push(update),
                Err(unreadable) => {
                    log::warn!("rejected a row of the outbox: {unreadable}");
                    self.shared.count(|stats| stats.rejected += 1);
                    let rejection = unreadable.rejection();
                    self.notify(&DeliveryEvent::Rejected(&unreadable.json, &rejection));
                }
            }
        }
        updates
    }
}

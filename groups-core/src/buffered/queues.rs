//! The two queues of a client, updates and events: which of them a record goes to, and what concerns both.

use std::cell::RefCell;
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::buffered::guarded::panicked;
use crate::buffered::kind::Kind;
use crate::buffered::publisher::{GRACE, Publisher};
use crate::buffered::settings::Settings;
use crate::buffered::state::Shared;
use crate::buffered::{FlushOutcome, Stats};
use crate::client::Client;
use crate::client::records::MAX_RECORDS;
use crate::outbox::{Capacity, Outbox};
use crate::record::{
    EncodedEvent, EncodedRecord, EncodedUpdate, Error, Event, IntoRecord, MAX_RECORD,
};
use crate::util::panic::catch;
use crate::util::sync::Instant;

thread_local! {
    /// The clients whose `before_send` runs on this thread.
    static PREPARING: RefCell<Vec<*const Queues>> = const { RefCell::new(Vec::new()) };
}

/// The state that the clones of a client share.
pub(super) struct Queues {
    pub(super) settings: Arc<Settings>,
    pub(super) updates: Arc<Publisher<EncodedUpdate>>,
    /// `None` where the outbox keeps no events.
    pub(super) events: Option<Arc<Publisher<EncodedEvent>>>,
}

impl Queues {
    pub(super) fn new(
        client: &Client,
        outbox: &Arc<dyn Outbox>,
        settings: Settings,
    ) -> Result<Self, Error> {
        let settings = Arc::new(settings);
        let updates = Arc::new(Publisher::new(client, outbox, &settings)?);
        let events = match catch(|| outbox.events()).map_err(panicked)? {
            Some(outbox) => Some(Arc::new(Publisher::new(client, &outbox, &settings)?)),
            None => None,
        };
        Ok(Self {
            settings,
            updates,
            events,
        })
    }

    /// Returns the state of each queue.
    pub(super) fn states(&self) -> impl Iterator<Item = &Shared> {
        let events = self.events.as_ref().map(|events| &*events.shared);
        std::iter::once(&*self.updates.shared).chain(events)
    }

    // Publishing.

    pub(super) fn publish(&self, record: impl IntoRecord) -> Result<(), Error> {
        match self.prepare(record)? {
            Some(EncodedRecord::Update(update)) => self.updates.append(&[update]),
            Some(EncodedRecord::Event(event)) => match self.event_queue() {
                Ok(events) => events.append(&[event]),
                Err(error) => Err(error.with_undelivered([event].into_iter().collect())),
            },
            None => Ok(()),
        }
    }

    pub(super) fn publish_all(
        &self,
        records: impl Iterator<Item: IntoRecord>,
    ) -> Result<(), Error> {
        if self.is_preparing() {
            let records = records.filter_map(|record| record.into_record().transpose());
            return Err(hook_publishes().with_rest(Vec::new(), records));
        }
        let mut records = records.filter_map(|record| self.prepare(record).transpose());
        let (mut updates, mut events) = (Chunk::default(), Chunk::default());
        let result = self.publish_in_chunks(&mut records, &mut updates, &mut events);
        result.map_err(|error| {
            let updates = updates.records.into_iter().map(EncodedRecord::Update);
            let events = events.records.into_iter().map(EncodedRecord::Event);
            error.with_rest(updates.chain(events).collect(), records)
        })
    }

    /// Appends the records; what is left in the chunks was not appended.
    fn publish_in_chunks(
        &self,
        records: &mut impl Iterator<Item = Result<EncodedRecord, Error>>,
        updates: &mut Chunk<EncodedUpdate>,
        events: &mut Chunk<EncodedEvent>,
    ) -> Result<(), Error> {
        let capacity = self.settings.capacity;
        for record in records {
            match record? {
                EncodedRecord::Update(update) => {
                    updates.push(update);
                    if updates.is_full(capacity) {
                        updates.append_to(&self.updates)?;
                    }
                }
                EncodedRecord::Event(event) => {
                    events.push(event);
                    if events.is_full(capacity) {
                        events.append_to(self.event_queue()?)?;
                    }
                }
            }
        }
        updates.append_to(&self.updates)?;
        if events.records.is_empty() {
            return Ok(());
        }
        events.append_to(self.event_queue()?)
    }

    fn event_queue(&self) -> Result<&Publisher<EncodedEvent>, Error> {
        self.events.as_deref().ok_or_else(|| {
            Error::config("this outbox does not keep events: send them with `client.import`")
        })
    }

    /// Returns the record as it will wait; `None` if there is nothing to send or the hook withholds it.
    fn prepare(&self, record: impl IntoRecord) -> Result<Option<EncodedRecord>, Error> {
        let prepared = match record.into_record()? {
            Some(encoded) => self.edited(encoded)?,
            None => None,
        };
        // What it took would be rejected when it is sent.
        let client = &self.updates.client;
        let checked = match &prepared {
            Some(EncodedRecord::Update(update)) => {
                client.groups_route().check_size(update.members())
            }
            Some(EncodedRecord::Event(event)) => client.import_route().check_size(event.members()),
            None => Ok(()),
        };
        checked.map_err(|rejection| Error::invalid(&rejection))?;
        Ok(prepared)
    }

    /// Returns the record as `before_send` leaves it, if there is one.
    fn edited(&self, encoded: EncodedRecord) -> Result<Option<EncodedRecord>, Error> {
        let Some(hook) = &self.settings.before_send else {
            return Ok(Some(encoded));
        };
        if self.is_preparing() {
            return Err(hook_publishes().with_undelivered([encoded].into_iter().collect()));
        }
        let guarded = |json: &mut Map<String, Value>| {
            catch(|| hook(json)).unwrap_or_else(|message| {
                log::error!("`before_send` panicked, and its record is not sent: {message}");
                false
            })
        };
        let edited = {
            let _preparing = Preparing::of(self);
            encoded.edit(guarded)?
        };
        if edited.is_none() && !self.is_forked() {
            let state = match encoded {
                EncodedRecord::Update(_) => Some(&self.updates.shared),
                EncodedRecord::Event(_) => self.events.as_ref().map(|events| &events.shared),
            };
            if let Some(state) = state {
                state.count(|stats| stats.withheld += 1);
            }
        }
        Ok(edited)
    }

    /// Returns whether `before_send` of this client runs on this thread.
    fn is_preparing(&self) -> bool {
        let is_preparing = |preparing: &RefCell<Vec<_>>| {
            let preparing = preparing.borrow();
            preparing.contains(&ptr::from_ref(self))
        };
        // A thread that is ending has lost it, and runs no hook.
        PREPARING.try_with(is_preparing).unwrap_or_default()
    }

    // Both queues at once.

    /// Returns whether this process is a fork of that of the workers.
    pub(super) fn is_forked(&self) -> bool {
        self.updates.is_forked()
    }

    /// Returns whether this thread is a worker, which cannot wait for itself.
    fn is_worker(&self) -> bool {
        self.states().any(Shared::is_worker)
    }

    /// Waits until everything that waits now is settled, for that time at most.
    pub(super) fn flush(&self, timeout: Duration) -> FlushOutcome {
        if self.is_forked() {
            return FlushOutcome::unknown();
        }
        let start = Instant::now();
        let is_worker = self.is_worker();
        let wait = if is_worker { Duration::ZERO } else { timeout };
        // What `on_error` requests keeps the pause after a failure: each failure would be followed by the next at once.
        let request = |state: &Shared| state.request_flush(!is_worker);
        let flushes: Vec<_> = self.states().map(request).collect();
        for (state, flush) in self.states().zip(flushes) {
            state.wait_for_flush(flush, wait.saturating_sub(start.elapsed()));
        }
        let left = || timeout.saturating_sub(start.elapsed());
        self.outcome(left, Vec::new(), Vec::new())
    }

    /// Ends publishing, and waits until the workers have sent what is queued and have ended. After the timeout, the
    /// deliveries in progress are aborted, and the workers get little more time to end.
    pub(super) fn shut_down(&self, timeout: Duration) -> FlushOutcome {
        if self.is_forked() {
            return FlushOutcome::unknown();
        }
        let start = Instant::now();
        let left = |time: Duration| time.saturating_sub(start.elapsed());
        let (wait, grace) = if self.is_worker() {
            (Duration::ZERO, Duration::ZERO)
        } else {
            (timeout, GRACE)
        };
        self.states().for_each(Shared::close);
        self.states()
            .for_each(|state| state.wait_until_drained(left(wait)));
        self.states().for_each(Shared::break_off);
        let end = start.elapsed() + grace;
        self.states()
            .for_each(|state| state.wait_until_ended(left(end)));
        let updates = self.updates.left_over(left(timeout));
        let events = self.events.as_ref();
        let events = events.map(|events| events.left_over(left(timeout)));
        let outcome = self.outcome(|| left(timeout), updates, events.unwrap_or_default());
        self.updates.report_dropped();
        if let Some(events) = &self.events {
            events.report_dropped();
        }
        outcome
    }

    /// Returns what was handed back and what is queued, if the outbox replies within that time or shortly after.
    fn outcome(
        &self,
        left: impl Fn() -> Duration,
        undelivered: Vec<EncodedUpdate>,
        undelivered_events: Vec<EncodedEvent>,
    ) -> FlushOutcome {
        let time = || left().max(GRACE).min(self.settings.outbox_timeout);
        let stats = self.updates.stats_within(time());
        let event_stats = match &self.events {
            Some(events) => events.stats_within(time()),
            None => Stats::nothing(),
        };
        let waiting = stats.queued.zip(event_stats.queued);
        FlushOutcome {
            waiting: waiting.map(|(updates, events)| updates.saturating_add(events)),
            undelivered,
            undelivered_events: undelivered_events.into_iter().map(Event::from).collect(),
            stats,
            event_stats,
        }
    }

    pub(super) fn is_shut_down(&self) -> bool {
        self.updates.shared.is_shut_down()
    }

    /// Returns what is known of the updates.
    pub(super) fn stats(&self) -> Stats {
        self.updates.stats()
    }

    /// Returns what is known of the events.
    pub(super) fn event_stats(&self) -> Stats {
        match &self.events {
            Some(events) => events.stats(),
            None => Stats::nothing(),
        }
    }
}

/// The hook of a client runs on this thread.
struct Preparing;

impl Preparing {
    fn of(queues: &Queues) -> Self {
        let queues = ptr::from_ref(queues);
        let _ = PREPARING.try_with(|preparing| preparing.borrow_mut().push(queues));
        Self
    }
}

impl Drop for Preparing {
    fn drop(&mut self) {
        let _ = PREPARING.try_with(|preparing| preparing.borrow_mut().pop());
    }
}

fn hook_publishes() -> Error {
    Error::config("`before_send` cannot publish")
}

/// The most bytes of JSON that are appended at once: an outbox in a database is to store them in one statement, and in time.
const MAX_CHUNK: usize = 32 << 20;

/// Records that are appended at once.
struct Chunk<R> {
    records: Vec<R>,
    bytes: usize,
}

impl<R> Default for Chunk<R> {
    fn default() -> Self {
        Self {
            records: Vec::new(),
            bytes: 0,
        }
    }
}

impl<R: Kind> Chunk<R> {
    fn push(&mut self, record: R) {
        self.bytes += record.as_json().len();
        self.records.push(record);
    }

    /// Returns whether the next record may not fit beside it. Half of the capacity is left to what is being sent, which
    /// cannot be dropped, and to other publishers.
    fn is_full(&self, capacity: Capacity) -> bool {
        self.records.len() >= (capacity.updates / 2).clamp(1, MAX_RECORDS)
            || self.bytes.saturating_add(MAX_RECORD) > (capacity.bytes / 2).min(MAX_CHUNK)
    }

    fn append_to(&mut self, queue: &Publisher<R>) -> Result<(), Error> {
        if !self.records.is_empty() {
            queue.append(&self.records)?;
            *self = Self::default();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_full_when_the_next_record_may_not_fit_in_half_of_the_capacity() {
        let json = r#"{"$group_key":"company","$group_id":"1","$delete":""}"#;
        let mut chunk = Chunk::default();
        for _ in 0..2 {
            chunk.push(EncodedUpdate::from_json(json).unwrap());
        }
        let bytes = 2 * json.len() + MAX_RECORD;
        assert!(!chunk.is_full(Capacity::new(6, 2 * bytes)));
        assert!(chunk.is_full(Capacity::new(6, 2 * bytes - 1)));
        assert!(chunk.is_full(Capacity::new(5, 2 * bytes)));
        assert!(chunk.is_full(Capacity::new(1, usize::MAX)));
        let most = Capacity::new(usize::MAX, usize::MAX);
        assert!(!chunk.is_full(most));
        chunk.bytes = MAX_CHUNK - MAX_RECORD + 1;
        assert!(chunk.is_full(most));
    }
}

//! An outbox that outlives the processes of a simulation: with a lease by the time of day, as the engines on disk have it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::outbox::{Capacity, Depth, HeldUntil, Outbox, OutboxEntry, OutboxRecord};
use crate::record::{EncodedEvent, EncodedUpdate, Error, ErrorKind, Rejection};
use crate::simulation::percent;
use crate::simulation::server::{Process, TIMEOUT};
use crate::util::simulated::SystemTime;

#[derive(Default)]
pub(super) struct Store {
    updates: Arc<Queue<EncodedUpdate>>,
    events: Arc<Queue<EncodedEvent>>,
}

struct Queue<R>(Mutex<State<R>>);

struct State<R> {
    entries: Vec<(i64, R)>,
    next_id: i64,
    lease: Option<Lease>,
    accepted: usize,
    rejected: usize,
    /// A process relied on a lease that it did not hold. (A panic in an outbox is an error for the client.)
    is_wrong: bool,
}

/// The lease as the disk has it.
#[derive(Clone, Copy)]
struct Lease {
    holder: u64,
    since: SystemTime,
    until: SystemTime,
}

/// How long a lease lasts before the first request extends it.
const FIRST: Duration = Duration::from_secs(1);

/// How far the clock may be set back without ending a lease.
pub(super) const TOLERANCE: Duration = Duration::from_secs(10);

/// The store as one process has it.
pub(super) struct Handle<R = EncodedUpdate> {
    queue: Arc<Queue<R>>,
    process: Arc<Process>,
    /// Until when the process may send, as far as it knows.
    until: Mutex<Option<HeldUntil>>,
    /// Beside updates.
    events: Option<Arc<Handle<EncodedEvent>>>,
}

impl Store {
    pub(super) fn handle(&self, process: &Arc<Process>) -> Handle {
        let events = Handle {
            queue: Arc::clone(&self.events),
            process: Arc::clone(process),
            until: Mutex::default(),
            events: None,
        };
        Handle {
            queue: Arc::clone(&self.updates),
            process: Arc::clone(process),
            until: Mutex::default(),
            events: Some(Arc::new(events)),
        }
    }

    /// Returns how many updates were accepted and how many rejected.
    pub(super) fn settled(&self) -> (usize, usize) {
        self.updates.settled()
    }

    /// Returns how many events were accepted and how many rejected.
    pub(super) fn settled_events(&self) -> (usize, usize) {
        self.events.settled()
    }

    /// Panics if two processes could have sent at a time.
    pub(super) fn assert_one_sender(&self) {
        let is_wrong = self.updates.state().is_wrong || self.events.state().is_wrong;
        assert!(
            !is_wrong,
            "a process relied on a lease that it did not hold"
        );
    }

    /// Returns whether a process may have a request under way until its time is over.
    pub(super) fn covers_a_request(&self, process: u64, is_import: bool) -> bool {
        if is_import {
            self.events.state().covers(process, TIMEOUT)
        } else {
            self.updates.state().covers(process, TIMEOUT)
        }
    }
}

impl<R> Default for Queue<R> {
    fn default() -> Self {
        Self(Mutex::new(State {
            entries: Vec::new(),
            next_id: 0,
            lease: None,
            accepted: 0,
            rejected: 0,
            is_wrong: false,
        }))
    }
}

impl<R> Queue<R> {
    fn state(&self) -> MutexGuard<'_, State<R>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settled(&self) -> (usize, usize) {
        let state = self.state();
        (state.accepted, state.rejected)
    }
}

impl<R> State<R> {
    /// Returns the process that holds the lease now.
    fn holder(&self) -> Option<u64> {
        let now = SystemTime::now();
        let lease = self.lease?;
        (lease.since <= now + TOLERANCE && now < lease.until).then_some(lease.holder)
    }

    /// Returns whether a process holds the lease for that long.
    fn covers(&self, process: u64, time: Duration) -> bool {
        let lasts = |lease: Lease| SystemTime::now() + time <= lease.until;
        self.holder() == Some(process) && self.lease.is_some_and(lasts)
    }

    /// Returns whether the disk says that it is this process's, though its time may have passed.
    fn is_of(&self, process: u64) -> bool {
        self.lease.is_some_and(|lease| lease.holder == process)
    }
}

impl<R> Handle<R> {
    fn until(&self) -> MutexGuard<'_, Option<HeldUntil>> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_lease(&self, state: &mut State<R>, time: Duration) {
        *self.until() = Some(HeldUntil::after(time));
        let since = SystemTime::now();
        let (holder, until) = (self.process.id, since + time);
        state.lease = Some(Lease {
            holder,
            since,
            until,
        });
    }

    /// Returns whether the process relies on holding the lease for that long.
    fn covers(&self, state: &mut State<R>, time: Duration) -> bool {
        let covers = self.until().is_some_and(|until| until.covers(time));
        state.is_wrong |= covers && !state.covers(self.process.id, time);
        covers
    }

    /// Returns the state, unless the process was killed or the disk fails.
    fn state(&self) -> Result<MutexGuard<'_, State<R>>, Error> {
        if self.process.is_dead() || percent(self.process.faults()) {
            return Err(Error::new(ErrorKind::Io, "the disk fails"));
        }
        Ok(self.queue.state())
    }
}

impl<R: OutboxRecord> Outbox<R> for Handle<R> {
    fn append(&self, updates: &[R], _capacity: Capacity) -> Result<bool, Error> {
        let mut state = self.state()?;
        for update in updates {
            let id = state.next_id;
            state.next_id += 1;
            state.entries.push((id, update.clone()));
        }
        Ok(true)
    }

    fn take(&self, most: usize) -> Result<Vec<OutboxEntry<R>>, Error> {
        let mut state = self.state()?;
        let holder = state.holder();
        if holder.is_some_and(|holder| holder != self.process.id) {
            *self.until() = None;
            return Ok(Vec::new());
        }
        if state.entries.is_empty() {
            (*self.until(), state.lease) = (None, None);
            return Ok(Vec::new());
        }
        if holder.is_none() || !self.covers(&mut state, FIRST / 2) {
            self.write_lease(&mut state, FIRST);
        }
        let entries = state.entries.iter().take(most);
        let entries = entries.map(|(id, update)| OutboxEntry::new(*id, update.clone()));
        Ok(entries.collect())
    }

    fn hold(&self, time: Duration) -> Result<bool, Error> {
        let mut state = self.state()?;
        if self.covers(&mut state, time) {
            return Ok(true);
        }
        let is_held = state.is_of(self.process.id);
        if is_held {
            self.write_lease(&mut state, HeldUntil::lease(time));
        } else {
            *self.until() = None;
        }
        Ok(is_held)
    }

    fn settle(&self, accepted: &[i64], rejected: &[(i64, &Rejection)]) -> Result<(), Error> {
        let mut state = self.state()?;
        if !state.is_of(self.process.id) {
            return Err(Error::new(ErrorKind::Io, "the lease was lost"));
        }
        let before = state.entries.len();
        state.entries.retain(|(id, _)| !accepted.contains(id));
        state.accepted += before - state.entries.len();
        let before = state.entries.len();
        state
            .entries
            .retain(|(id, _)| rejected.iter().all(|(other, _)| other != id));
        state.rejected += before - state.entries.len();
        Ok(())
    }

    fn release(&self) -> Result<(), Error> {
        let mut state = self.state()?;
        *self.until() = None;
        if state.is_of(self.process.id) {
            state.lease = None;
        }
        Ok(())
    }

    fn events(&self) -> Option<Arc<dyn Outbox<EncodedEvent>>> {
        let events = self.events.as_ref()?;
        Some(Arc::clone(events) as Arc<dyn Outbox<EncodedEvent>>)
    }

    fn drop_oldest(&self, _: usize, _: usize, _: Capacity) -> Result<usize, Error> {
        Ok(0)
    }

    fn depth(&self) -> Result<Depth, Error> {
        let state = self.state()?;
        Ok(Depth::new(state.entries.len(), 0))
    }
}

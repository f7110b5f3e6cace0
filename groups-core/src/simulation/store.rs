//! An outbox that outlives the processes of a simulation: with a lease, as the engines on disk have it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::outbox::{Capacity, Depth, HeldUntil, Outbox, OutboxEntry, OutboxRecord};
use crate::record::{EncodedEvent, EncodedUpdate, Error, ErrorKind, Rejection};
use crate::simulation::percent;
use crate::simulation::server::{Process, TIMEOUT};
use crate::util::simulated::Instant;

#[derive(Default)]
pub(super) struct Store {
    updates: Arc<Queue<EncodedUpdate>>,
    events: Arc<Queue<EncodedEvent>>,
}

struct Queue<R>(Mutex<State<R>>);

struct State<R> {
    entries: Vec<(i64, R)>,
    next_id: i64,
    lease: Option<(u64, Instant)>,
    accepted: usize,
    rejected: usize,
}

/// The store as one process has it.
pub(super) struct Handle<R = EncodedUpdate> {
    queue: Arc<Queue<R>>,
    process: Arc<Process>,
    /// Beside updates.
    events: Option<Arc<Handle<EncodedEvent>>>,
}

impl Store {
    pub(super) fn handle(&self, process: &Arc<Process>) -> Handle {
        let events = Handle {
            queue: Arc::clone(&self.events),
            process: Arc::clone(process),
            events: None,
        };
        Handle {
            queue: Arc::clone(&self.updates),
            process: Arc::clone(process),
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

    /// Returns whether a process may have a request under way until its time is over.
    pub(super) fn covers_a_request(&self, process: u64, is_import: bool) -> bool {
        let end = Instant::now() + TIMEOUT;
        let lease = if is_import {
            self.events.state().lease
        } else {
            self.updates.state().lease
        };
        lease.is_some_and(|(holder, until)| holder == process && until >= end)
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

impl<R> Handle<R> {
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
        let me = self.process.id;
        let now = Instant::now();
        if state
            .lease
            .is_some_and(|(holder, until)| holder != me && now < until)
        {
            return Ok(Vec::new());
        }
        if state.entries.is_empty() {
            state.lease = None;
            return Ok(Vec::new());
        }
        state.lease = Some((me, now + Duration::from_secs(1)));
        let entries = state.entries.iter().take(most);
        let entries = entries.map(|(id, update)| OutboxEntry::new(*id, update.clone()));
        Ok(entries.collect())
    }

    fn hold(&self, time: Duration) -> Result<bool, Error> {
        let mut state = self.state()?;
        let is_held = state
            .lease
            .is_some_and(|(holder, _)| holder == self.process.id);
        if is_held {
            state.lease = Some((self.process.id, Instant::now() + HeldUntil::lease(time)));
        }
        Ok(is_held)
    }

    fn settle(&self, accepted: &[i64], rejected: &[(i64, &Rejection)]) -> Result<(), Error> {
        let mut state = self.state()?;
        if state
            .lease
            .is_none_or(|(holder, _)| holder != self.process.id)
        {
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
        if state
            .lease
            .is_some_and(|(holder, _)| holder == self.process.id)
        {
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

//! An outbox that outlives the processes of a simulation: with a lease, as the engines on disk have it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::outbox::{Capacity, Depth, HeldUntil, Outbox, OutboxEntry};
use crate::record::{EncodedUpdate, Error, ErrorKind, Rejection};
use crate::simulation::percent;
use crate::simulation::server::{Process, TIMEOUT};
use crate::util::simulated::Instant;

#[derive(Default)]
pub(super) struct Store(Mutex<State>);

#[derive(Default)]
struct State {
    entries: Vec<(i64, EncodedUpdate)>,
    next_id: i64,
    lease: Option<(u64, Instant)>,
    accepted: usize,
    rejected: usize,
}

/// The store as one process has it.
pub(super) struct Handle {
    store: Arc<Store>,
    process: Arc<Process>,
}

impl Store {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn handle(self: &Arc<Self>, process: &Arc<Process>) -> Handle {
        let (store, process) = (Arc::clone(self), Arc::clone(process));
        Handle { store, process }
    }

    /// Returns how many were accepted and how many rejected.
    pub(super) fn settled(&self) -> (usize, usize) {
        let state = self.state();
        (state.accepted, state.rejected)
    }

    /// Returns whether a process may have a request under way until its time is over.
    pub(super) fn covers_a_request(&self, process: u64) -> bool {
        let end = Instant::now() + TIMEOUT;
        let lease = self.state().lease;
        lease.is_some_and(|(holder, until)| holder == process && until >= end)
    }
}

impl Handle {
    /// Returns the state, unless the process was killed or the disk fails.
    fn state(&self) -> Result<MutexGuard<'_, State>, Error> {
        if self.process.is_dead() || percent(self.process.faults()) {
            return Err(Error::new(ErrorKind::Io, "the disk fails"));
        }
        Ok(self.store.state())
    }
}

impl Outbox for Handle {
    fn append(&self, updates: &[EncodedUpdate], _capacity: Capacity) -> Result<bool, Error> {
        let mut state = self.state()?;
        for update in updates {
            let id = state.next_id;
            state.next_id += 1;
            state.entries.push((id, update.clone()));
        }
        Ok(true)
    }

    fn take(&self, most: usize) -> Result<Vec<OutboxEntry>, Error> {
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

    fn drop_oldest(&self, _: usize, _: usize, _: Capacity) -> Result<usize, Error> {
        Ok(0)
    }

    fn depth(&self) -> Result<Depth, Error> {
        let state = self.state()?;
        Ok(Depth::new(state.entries.len(), 0))
    }
}

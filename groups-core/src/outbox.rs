//! Where updates wait until they are sent.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::{Error, Rejection, StoredUpdate};

/// A queue of updates between those who publish them and the one who sends them.
///
/// [`BufferedClient`](crate::BufferedClient) writes to it and empties it. The one in memory is the
/// default; `SqliteOutbox` keeps what waits over a crash of the process or the machine. Another
/// engine is another implementation of this trait.
///
/// # What an implementation promises
/// - **Append**: when `append` returns `Ok(true)`, the updates are kept as safely as the engine
///   keeps anything, in order after all that are there; all of them or, with `Ok(false)` or an
///   error, none.
/// - **Take in order**: `take` gives updates of each group in the order in which they were
///   appended, and never one of a group while an earlier one of the same group is with another
///   taker. They stay in the outbox.
/// - **Settle**: only `settle` removes updates: accepted ones for good, rejected ones to where a
///   person can look at them, if the engine has such a place. Those that were taken and not settled
///   can be taken again after `release`, or when the taker died.
/// - All methods can be called from any thread at any time; only one thread of a process takes.
pub trait Outbox: Send + Sync {
    /// Appends updates; `false` if there is no room for all of them within the capacity.
    ///
    /// # Errors
    /// If they cannot be kept.
    fn append(&self, updates: &[StoredUpdate], capacity: Capacity) -> Result<bool, Error>;

    /// The oldest updates that can be sent now, `most` at most.
    ///
    /// # Errors
    /// If the outbox cannot be read.
    fn take(&self, most: usize) -> Result<Vec<Waiting>, Error>;

    /// Removes taken updates whose fate is known.
    ///
    /// # Errors
    /// If they cannot be removed; they may be taken again then.
    fn settle(&self, accepted: &[i64], rejected: &[(i64, &Rejection)]) -> Result<(), Error>;

    /// Gives back what was taken and not settled.
    ///
    /// # Errors
    /// If that cannot be said.
    fn release(&self) -> Result<(), Error>;

    /// Removes the oldest updates that are not taken, until there is room for so much more within
    /// the capacity; how many were removed.
    ///
    /// # Errors
    /// If they cannot be removed.
    fn drop_oldest(&self, updates: usize, bytes: usize, capacity: Capacity)
    -> Result<usize, Error>;

    /// How much waits.
    ///
    /// # Errors
    /// If the outbox cannot be read.
    fn depth(&self) -> Result<Depth, Error>;

    /// Whether what waits outlives the process. If not, a shutdown hands it back.
    fn is_durable(&self) -> bool {
        true
    }

    /// Takes a function to call when others have appended something. By default it is not called:
    /// the sender looks once in a flush interval.
    fn on_append(&self, wake: Arc<dyn Fn() + Send + Sync>) {
        drop(wake);
    }

    /// Takes a function to call when what was taken may be with another taker now: the sender breaks
    /// off what it is sending. By default it is not called.
    fn on_loss(&self, stop: Arc<dyn Fn() + Send + Sync>) {
        drop(stop);
    }
}

/// An update in an outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waiting {
    /// What the outbox knows it by.
    pub id: i64,
    /// The update.
    pub update: StoredUpdate,
}

impl Waiting {
    /// For implementations of [`Outbox`].
    #[must_use]
    pub fn new(id: i64, update: StoredUpdate) -> Self {
        Self { id, update }
    }
}

/// How much an outbox may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)] // Both are all there is to measure.
pub struct Capacity {
    /// How many updates.
    pub updates: usize,
    /// How many bytes of JSON.
    pub bytes: usize,
}

/// How much an outbox holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)] // Made by implementations.
pub struct Depth {
    /// How many updates wait.
    pub updates: usize,
    /// How many bytes of JSON they are.
    pub bytes: usize,
    /// How long the oldest has waited.
    pub oldest: Option<Duration>,
}

/// The outbox in memory, which does not outlive the process.
#[derive(Default)]
pub struct MemoryOutbox {
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    entries: VecDeque<Entry>,
    bytes: usize,
    next_id: i64,
    /// How many of the first are taken.
    taken: usize,
}

struct Entry {
    waiting: Waiting,
    since: Instant,
}

impl MemoryOutbox {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn remove(&mut self, index: usize) {
        if let Some(entry) = self.entries.remove(index) {
            self.bytes -= entry.waiting.update.as_json().len();
        }
    }

    fn has_room(&self, updates: usize, bytes: usize, capacity: Capacity) -> bool {
        self.entries.len() + updates <= capacity.updates && self.bytes + bytes <= capacity.bytes
    }
}

impl Outbox for MemoryOutbox {
    fn append(&self, updates: &[StoredUpdate], capacity: Capacity) -> Result<bool, Error> {
        let bytes = updates.iter().map(|update| update.as_json().len()).sum();
        let since = Instant::now();
        let mut queue = self.queue();
        if !queue.has_room(updates.len(), bytes, capacity) {
            return Ok(false);
        }
        queue.bytes += bytes;
        for update in updates {
            let waiting = Waiting::new(queue.next_id, update.clone());
            queue.next_id += 1;
            queue.entries.push_back(Entry { waiting, since });
        }
        Ok(true)
    }

    fn take(&self, most: usize) -> Result<Vec<Waiting>, Error> {
        let mut queue = self.queue();
        queue.taken = queue.entries.len().min(most);
        Ok(queue
            .entries
            .iter()
            .take(most)
            .map(|entry| entry.waiting.clone())
            .collect())
    }

    fn settle(&self, accepted: &[i64], rejected: &[(i64, &Rejection)]) -> Result<(), Error> {
        let rejected = rejected.iter().map(|(id, _)| *id);
        let mut settled: Vec<i64> = accepted.iter().copied().chain(rejected).collect();
        settled.sort_unstable();
        let mut queue = self.queue();
        let mut left = VecDeque::new();
        for _ in 0..std::mem::take(&mut queue.taken) {
            let Some(entry) = queue.entries.pop_front() else {
                break;
            };
            if settled.binary_search(&entry.waiting.id).is_ok() {
                queue.bytes -= entry.waiting.update.as_json().len();
            } else {
                left.push_back(entry);
            }
        }
        queue.taken = left.len();
        left.into_iter()
            .rev()
            .for_each(|entry| queue.entries.push_front(entry));
        Ok(())
    }

    fn release(&self) -> Result<(), Error> {
        self.queue().taken = 0;
        Ok(())
    }

    fn drop_oldest(
        &self,
        updates: usize,
        bytes: usize,
        capacity: Capacity,
    ) -> Result<usize, Error> {
        let mut queue = self.queue();
        let before = queue.entries.len();
        while queue.taken < queue.entries.len() && !queue.has_room(updates, bytes, capacity) {
            let oldest = queue.taken;
            queue.remove(oldest);
        }
        Ok(before - queue.entries.len())
    }

    fn depth(&self) -> Result<Depth, Error> {
        let queue = self.queue();
        Ok(Depth {
            updates: queue.entries.len(),
            bytes: queue.bytes,
            oldest: queue.entries.front().map(|entry| entry.since.elapsed()),
        })
    }

    fn is_durable(&self) -> bool {
        false
    }
}

impl fmt::Debug for MemoryOutbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryOutbox")
            .field("depth", &self.depth())
            .finish()
    }
}

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::outbox::{Capacity, Depth, Outbox, Waiting};
use crate::stored_update::total_bytes;
use crate::{Error, Rejection, StoredUpdate};

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
    /// How much there is, but not for how long.
    fn held(&self) -> Depth {
        Depth {
            updates: self.entries.len(),
            bytes: self.bytes,
            oldest: None,
        }
    }
}

impl Outbox for MemoryOutbox {
    fn append(&self, updates: &[StoredUpdate], capacity: Capacity) -> Result<bool, Error> {
        let bytes = total_bytes(updates);
        let since = Instant::now();
        let mut queue = self.queue();
        if !queue.held().has_room(updates.len(), bytes, capacity) {
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
        let taken = std::mem::take(&mut queue.taken);
        let taken: Vec<_> = queue.entries.drain(..taken).collect();
        for entry in taken.into_iter().rev() {
            if settled.binary_search(&entry.waiting.id).is_ok() {
                queue.bytes -= entry.waiting.update.as_json().len();
            } else {
                queue.entries.push_front(entry);
                queue.taken += 1;
            }
        }
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
        while queue.taken < queue.entries.len() && !queue.held().has_room(updates, bytes, capacity)
        {
            let oldest = queue.taken;
            if let Some(entry) = queue.entries.remove(oldest) {
                queue.bytes -= entry.waiting.update.as_json().len();
            }
        }
        Ok(before - queue.entries.len())
    }

    fn depth(&self) -> Result<Depth, Error> {
        let queue = self.queue();
        let oldest = queue.entries.front();
        Ok(Depth {
            oldest: oldest.map(|entry| entry.since.elapsed()),
            ..queue.held()
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

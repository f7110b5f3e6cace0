//! One write for all threads that arrived while the last one was under way.

use std::collections::HashMap;
use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// The most times that a leader yields to threads that are about to join it.
const YIELDS: usize = 10;

/// A writer that many threads share. A thread that arrives while another writes joins a queue; the
/// first thread of the queue then writes the items of all.
///
/// A disk takes as long to sync a hundred rows as one, so each row costs less the more threads there
/// are. There is no thread besides the callers'.
pub(crate) struct GroupCommit<W, T, R> {
    writer: Mutex<W>,
    queue: Mutex<CommitQueue<T, R>>,
    /// Notified when a leader has finished.
    led: Condvar,
}

struct CommitQueue<T, R> {
    next_ticket: u64,
    waiting: Vec<(u64, T)>,
    outcomes: HashMap<u64, R>,
    /// Whether a thread is writing for all.
    has_leader: bool,
    /// The number of items in the last write.
    last_count: usize,
}

/// Ends the lead when it is dropped, also by a panic of the leader.
struct LeadGuard<'a, W, T, R>(&'a GroupCommit<W, T, R>);

impl<W, T, R> GroupCommit<W, T, R> {
    pub(crate) fn new(writer: W) -> Self {
        let queue = CommitQueue {
            next_ticket: 0,
            waiting: Vec::new(),
            outcomes: HashMap::new(),
            has_leader: false,
            last_count: 0,
        };
        Self {
            writer: Mutex::new(writer),
            queue: Mutex::new(queue),
            led: Condvar::new(),
        }
    }

    /// Locks the writer, for other work.
    pub(crate) fn writer(&self) -> MutexGuard<'_, W> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an item and waits for its outcome. Returns `None` if the thread that wrote it panicked.
    ///
    /// `write` gets items in the order in which they were added, and returns an outcome for each. It may
    /// get the items of other threads, or not be called because another thread wrote this one.
    pub(crate) fn join(&self, item: T, write: impl FnOnce(&mut W, &[T]) -> Vec<R>) -> Option<R> {
        let mut queue = self.queue();
        let ticket = queue.next_ticket;
        queue.next_ticket += 1;
        queue.waiting.push((ticket, item));
        while queue.has_leader {
            let waited = self.led.wait(queue);
            queue = waited.unwrap_or_else(PoisonError::into_inner);
            if let Some(outcome) = queue.outcomes.remove(&ticket) {
                return Some(outcome);
            }
        }
        queue.has_leader = true;
        drop(queue);
        let _lead = LeadGuard(self);
        let mut writer = self.writer();
        let waiting = self.take_waiting();
        let (tickets, items): (Vec<_>, Vec<_>) = waiting.into_iter().unzip();
        let outcomes = write(&mut writer, &items);
        drop(writer);
        let mut queue = self.queue();
        queue.outcomes.extend(tickets.into_iter().zip(outcomes));
        queue.outcomes.remove(&ticket)
    }

    /// Takes all items that wait.
    ///
    /// The threads of the last write are likely to be back in a moment. The leader yields to them first;
    /// otherwise it would write its item alone and make the others wait for the next write.
    fn take_waiting(&self) -> Vec<(u64, T)> {
        for _ in 0..YIELDS {
            let queue = self.queue();
            if queue.waiting.len() >= queue.last_count {
                break;
            }
            drop(queue);
            thread::yield_now();
        }
        let mut queue = self.queue();
        queue.last_count = queue.waiting.len();
        mem::take(&mut queue.waiting)
    }

    fn queue(&self) -> MutexGuard<'_, CommitQueue<T, R>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W, T, R> Drop for LeadGuard<'_, W, T, R> {
    fn drop(&mut self) {
        self.0.queue().has_leader = false;
        self.0.led.notify_all();
    }
}

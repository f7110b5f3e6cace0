//! One write for all threads that arrived while the last one was under way.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::ops::Deref;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

/// The most times that a leader yields to threads that are about to join it.
const YIELDS: usize = 10;

/// A writer that many threads share. A thread that arrives while another writes joins a queue; the
/// first thread of the queue then writes the items of all.
///
/// A disk takes as long to sync a hundred rows as one, so each row costs less the more threads there
/// are. There is no thread besides the callers', and each waits for its turn until its own deadline.
pub(crate) struct GroupCommit<W, T, R> {
    writer: Mutex<W>,
    queue: Mutex<CommitQueue<T, R>>,
    /// Notified when the lead is free.
    freed: Condvar,
}

struct CommitQueue<T, R> {
    next_ticket: u64,
    waiting: VecDeque<(u64, T)>,
    outcomes: HashMap<u64, R>,
    /// Whether a thread has the writer.
    has_leader: bool,
    /// The number of items in the last write.
    last_count: usize,
}

type QueueGuard<'a, T, R> = MutexGuard<'a, CommitQueue<T, R>>;

/// Why an item has no outcome.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotWritten {
    /// Another thread had the writer until the deadline.
    TimedOut,
    /// The thread that wrote it panicked.
    Panicked,
}

/// The writer, which no other thread has meanwhile.
pub(crate) struct Lead<'a, W, T, R> {
    writer: MutexGuard<'a, W>,
    _turn: Turn<'a, W, T, R>,
}

/// Frees the lead when it is dropped, also by a panic of the leader.
struct Turn<'a, W, T, R>(&'a GroupCommit<W, T, R>);

impl<W, T, R> GroupCommit<W, T, R> {
    pub(crate) fn new(writer: W) -> Self {
        let queue = CommitQueue {
            next_ticket: 0,
            waiting: VecDeque::new(),
            outcomes: HashMap::new(),
            has_leader: false,
            last_count: 0,
        };
        Self {
            writer: Mutex::new(writer),
            queue: Mutex::new(queue),
            freed: Condvar::new(),
        }
    }

    /// Returns the writer for other work, or `None` if another thread has it until the deadline.
    pub(crate) fn lead(&self, deadline: Option<Instant>) -> Option<Lead<'_, W, T, R>> {
        let mut queue = self.queue();
        while queue.has_leader {
            queue = self.wait(queue, deadline).ok()?;
        }
        Some(self.take_lead(queue))
    }

    /// Adds an item and waits for its outcome.
    ///
    /// `write` takes the items once it can write, in the order in which they were added, and returns an outcome for each.
    /// If it cannot write, it takes none, and returns the outcome of this item. It may get the items of other threads, or
    /// not be called because another thread wrote this one.
    pub(crate) fn join(
        &self,
        item: T,
        deadline: Option<Instant>,
        write: impl FnOnce(&mut W, &mut dyn FnMut() -> Vec<T>) -> Result<Vec<R>, R>,
    ) -> Result<R, NotWritten> {
        let mut queue = self.queue();
        let ticket = queue.next_ticket;
        queue.next_ticket += 1;
        queue.waiting.push_back((ticket, item));
        loop {
            if let Some(outcome) = queue.outcomes.remove(&ticket) {
                return Ok(outcome);
            }
            let place = queue.waiting.iter().position(|(other, _)| *other == ticket);
            // Each leader gives up at its own deadline, so it must not be one that came later.
            match place {
                Some(0) if !queue.has_leader => break,
                None if !queue.has_leader => return Err(NotWritten::Panicked),
                _ => {}
            }
            // The leader that took it is writing it.
            let until = deadline.filter(|_| place.is_some());
            queue = match self.wait(queue, until) {
                Ok(queue) => queue,
                Err(mut queue) => {
                    let waiting = queue.waiting.len();
                    queue.waiting.retain(|(other, _)| *other != ticket);
                    if queue.waiting.len() < waiting {
                        self.freed.notify_all();
                        return Err(NotWritten::TimedOut);
                    }
                    queue
                }
            };
        }
        let mut lead = self.take_lead(queue);
        let mut tickets = Vec::new();
        let mut take = || {
            let waiting = self.take_waiting();
            let (taken, items) = waiting.into_iter().unzip();
            tickets = taken;
            items
        };
        let written = write(&mut lead.writer, &mut take);
        let mut queue = self.queue();
        match written {
            Ok(outcomes) => {
                queue.outcomes.extend(tickets.into_iter().zip(outcomes));
                queue.outcomes.remove(&ticket).ok_or(NotWritten::Panicked)
            }
            Err(outcome) => {
                queue.waiting.retain(|(other, _)| *other != ticket);
                Ok(outcome)
            }
        }
    }

    fn take_lead<'a>(&'a self, mut queue: QueueGuard<'a, T, R>) -> Lead<'a, W, T, R> {
        queue.has_leader = true;
        drop(queue);
        Lead {
            _turn: Turn(self),
            writer: self.writer.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Waits until something is different. It is an error after the deadline.
    fn wait<'a>(
        &self,
        queue: QueueGuard<'a, T, R>,
        deadline: Option<Instant>,
    ) -> Result<QueueGuard<'a, T, R>, QueueGuard<'a, T, R>> {
        let Some(deadline) = deadline else {
            let waited = self.freed.wait(queue);
            return Ok(waited.unwrap_or_else(PoisonError::into_inner));
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(queue);
        }
        let waited = self.freed.wait_timeout(queue, left);
        Ok(waited.unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Takes all items that wait.
    ///
    /// The threads of the last write are likely to be back in a moment. The leader yields to them first;
    /// otherwise it would write its item alone and make the others wait for the next write.
    fn take_waiting(&self) -> VecDeque<(u64, T)> {
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

    fn queue(&self) -> QueueGuard<'_, T, R> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W, T, R> Deref for Lead<'_, W, T, R> {
    type Target = W;

    fn deref(&self) -> &W {
        &self.writer
    }
}

impl<W, T, R> Drop for Turn<'_, W, T, R> {
    fn drop(&mut self) {
        self.0.queue().has_leader = false;
        self.0.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    type Numbers = GroupCommit<Vec<u32>, u32, bool>;

    const LONG: Duration = Duration::from_secs(60);

    #[allow(clippy::unnecessary_wraps)] // As `join` takes it.
    fn after(time: Duration) -> Option<Instant> {
        Some(Instant::now() + time)
    }

    #[allow(clippy::unnecessary_wraps)] // As `join` calls it.
    fn append(
        numbers: &mut Vec<u32>,
        take: &mut dyn FnMut() -> Vec<u32>,
    ) -> Result<Vec<bool>, bool> {
        let taken = take();
        numbers.extend(&taken);
        Ok(vec![true; taken.len()])
    }

    /// Waits until so many items wait.
    fn wait_for(commit: &Numbers, items: usize) {
        while commit.queue().waiting.len() < items {
            thread::yield_now();
        }
    }

    #[test]
    fn the_oldest_item_leads_and_one_that_cannot_write_fails_alone() {
        let commit = Numbers::new(Vec::new());
        thread::scope(|scope| {
            let busy = commit.lead(None);
            let mut joined = Vec::new();
            for number in 0..4 {
                let commit = &commit;
                joined.push(scope.spawn(move || {
                    commit.join(number, after(LONG), |numbers, take| {
                        assert!(number < 2, "another one leads");
                        if number == 0 {
                            return Err(false);
                        }
                        append(numbers, take)
                    })
                }));
                wait_for(commit, joined.len());
            }
            drop(busy);
            let outcomes = joined.into_iter().map(|joined| joined.join().unwrap());
            let outcomes: Vec<_> = outcomes.map(Result::unwrap).collect();
            assert_eq!(outcomes, [false, true, true, true]);
        });
        assert_eq!(*commit.lead(None).unwrap(), [1, 2, 3]);
    }

    #[test]
    fn each_waits_until_its_own_deadline() {
        let commit = Numbers::new(Vec::new());
        let busy = commit.lead(None);
        assert!(commit.lead(after(Duration::ZERO)).is_none());
        let late = commit.join(1, after(Duration::from_millis(1)), append);
        assert_eq!(late, Err(NotWritten::TimedOut));
        drop(busy);
        assert_eq!(commit.join(2, after(LONG), append), Ok(true));
        assert_eq!(
            *commit.lead(None).unwrap(),
            [2],
            "what is late is not written"
        );
    }

    #[test]
    fn what_a_leader_took_that_panicked_is_not_written() {
        let commit = Numbers::new(Vec::new());
        thread::scope(|scope| {
            let busy = commit.lead(None);
            let leads = scope.spawn(|| {
                commit.join(1, after(LONG), |_, take| {
                    take();
                    std::panic::resume_unwind(Box::new(()));
                })
            });
            wait_for(&commit, 1);
            let follows = scope.spawn(|| commit.join(2, after(LONG), append));
            wait_for(&commit, 2);
            drop(busy);
            assert!(leads.join().is_err());
            assert_eq!(follows.join().unwrap(), Err(NotWritten::Panicked));
        });
        assert_eq!(commit.join(3, after(LONG), append), Ok(true));
        assert_eq!(*commit.lead(None).unwrap(), [3]);
    }
}

//! One write for all who came while the last one was under way.

use std::collections::HashMap;
use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

const YIELDS: usize = 10;

/// A writer that many threads share. Who comes while it is at work waits in line; the first of the
/// line then does the work of all who wait.
///
/// A disk needs as long to make sure of a hundred rows as of one: so the more threads there are, the
/// less each row costs. It takes no thread of its own.
pub(crate) struct GroupCommit<W, T, R> {
    writer: Mutex<W>,
    line: Mutex<Line<T, R>>,
    moved: Condvar,
}

struct Line<T, R> {
    next_ticket: u64,
    waiting: Vec<(u64, T)>,
    outcomes: HashMap<u64, R>,
    /// Whether one of those who came is at work for all.
    led: bool,
    /// How many items were written together last.
    last: usize,
}

/// Ends the lead, whatever happened to the leader.
struct Lead<'a, W, T, R>(&'a GroupCommit<W, T, R>);

impl<W, T, R> GroupCommit<W, T, R> {
    pub(crate) fn new(writer: W) -> Self {
        let line = Line {
            next_ticket: 0,
            waiting: Vec::new(),
            outcomes: HashMap::new(),
            led: false,
            last: 0,
        };
        Self {
            writer: Mutex::new(writer),
            line: Mutex::new(line),
            moved: Condvar::new(),
        }
    }

    /// The writer, for other work.
    pub(crate) fn writer(&self) -> MutexGuard<'_, W> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands in an item, and waits for what became of it. `write` gets items in the order in which
    /// they were handed in, and says of each what became of it. Nothing comes back if the thread
    /// that wrote panicked.
    pub(crate) fn join(&self, item: T, write: impl FnOnce(&mut W, &[T]) -> Vec<R>) -> Option<R> {
        let mut line = self.line();
        let ticket = line.next_ticket;
        line.next_ticket += 1;
        line.waiting.push((ticket, item));
        while line.led {
            let waited = self.moved.wait(line);
            line = waited.unwrap_or_else(PoisonError::into_inner);
            if let Some(outcome) = line.outcomes.remove(&ticket) {
                return Some(outcome);
            }
        }
        line.led = true;
        drop(line);
        let _lead = Lead(self);
        let mut writer = self.writer();
        let waiting = self.gather();
        let (tickets, items): (Vec<_>, Vec<_>) = waiting.into_iter().unzip();
        let outcomes = write(&mut writer, &items);
        drop(writer);
        let mut line = self.line();
        line.outcomes.extend(tickets.into_iter().zip(outcomes));
        line.outcomes.remove(&ticket)
    }

    /// All who wait. Those who were just served are likely to be back in a moment: the first of them
    /// lets the others run, or it would write alone, and make them wait for the next turn.
    fn gather(&self) -> Vec<(u64, T)> {
        for _ in 0..YIELDS {
            let line = self.line();
            if line.waiting.len() >= line.last {
                break;
            }
            drop(line);
            thread::yield_now();
        }
        let mut line = self.line();
        line.last = line.waiting.len();
        mem::take(&mut line.waiting)
    }

    fn line(&self) -> MutexGuard<'_, Line<T, R>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W, T, R> Drop for Lead<'_, W, T, R> {
    fn drop(&mut self) {
        self.0.line().led = false;
        self.0.moved.notify_all();
    }
}

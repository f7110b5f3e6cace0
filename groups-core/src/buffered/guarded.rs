//! The outbox as its client calls it: a panic in it is an error, and no caller waits for it beyond a deadline.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::client::records::MAX_RECORDS;
use crate::outbox::{Capacity, Depth, Outbox, OutboxEntry, OutboxRecord};
use crate::record::{Error, ErrorKind, Rejection};
use crate::util::panic::catch;
use crate::util::sync::{Condvar, Mutex, MutexGuard, thread};

/// An outbox that can neither panic into a caller nor block it beyond a deadline.
///
/// An outbox that keeps its timeout is called on the thread that needs it. For any other there is one thread more, on
/// which the calls of publishers and of `stats` and `shutdown` run one after the other; their callers wait for it until
/// a deadline. So a call that hangs leaves one thread behind and nothing that a later call could overtake. What several
/// publishers append meanwhile is one call.
pub(super) struct GuardedOutbox<R> {
    /// `None` only while it is dropped.
    outbox: Option<Arc<dyn Outbox<R>>>,
    calls: Option<Arc<Calls<R>>>,
    is_durable: bool,
}

/// The calls that wait for the thread. A caller has at most one there.
struct Calls<R> {
    queue: Mutex<CallQueue<R>>,
    /// Wakes the thread: there is a call, or there will be none.
    arrived: Condvar,
}

struct CallQueue<R> {
    next_ticket: u64,
    waiting: VecDeque<(u64, Call<R>)>,
    is_closed: bool,
}

enum Call<R> {
    Append(Append<R>),
    Other(OtherCall<R>),
}

type OtherCall<R> = Box<dyn FnOnce(&dyn Outbox<R>) + Send>;

struct Append<R> {
    updates: Vec<R>,
    capacity: Capacity,
    slot: Arc<Slot<bool>>,
}

/// The place for the result of a call.
struct Slot<T> {
    result: Mutex<Option<Result<T, Error>>>,
    filled: Condvar,
    /// The caller does not wait any more.
    is_given_up: AtomicBool,
}

pub(super) fn panicked(message: String) -> Error {
    Error::new(ErrorKind::Io, "the outbox panicked").with_source(message)
}

impl<R: OutboxRecord> GuardedOutbox<R> {
    /// Guards an outbox whose calls are to take no longer than the timeout.
    pub(super) fn new(outbox: Arc<dyn Outbox<R>>, timeout: Duration) -> Result<Self, Error> {
        let settings = || (outbox.set_timeout(timeout), outbox.is_durable());
        let (keeps_its_timeout, is_durable) = catch(settings).map_err(panicked)?;
        let calls = if keeps_its_timeout {
            None
        } else {
            Some(Calls::start(&outbox)?)
        };
        Ok(Self {
            is_durable,
            outbox: Some(outbox),
            calls,
        })
    }

    /// Returns whether what is queued outlives the process.
    pub(super) fn is_durable(&self) -> bool {
        self.is_durable
    }

    /// Returns whether no call takes longer than the outbox's timeout.
    pub(super) fn keeps_its_timeout(&self) -> bool {
        self.calls.is_none()
    }

    /// Returns how long to wait for a thread that calls the outbox: without an end, if it keeps its timeout.
    pub(super) fn patience(&self, otherwise: Duration) -> Duration {
        if self.keeps_its_timeout() {
            Duration::MAX
        } else {
            otherwise
        }
    }

    /// Calls the outbox on this thread, however long it takes.
    fn call<T>(&self, call: impl FnOnce(&dyn Outbox<R>) -> Result<T, Error>) -> Result<T, Error> {
        let outbox = self.outbox.as_deref();
        let outbox = outbox.expect("it is there until it is dropped");
        catch(|| call(outbox)).unwrap_or_else(|message| Err(panicked(message)))
    }

    /// Calls the outbox, and waits for the result that long at most.
    pub(super) fn call_within<T: Send + 'static>(
        &self,
        time: Duration,
        call: impl FnOnce(&dyn Outbox<R>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        match &self.calls {
            None => self.call(call),
            Some(calls) => calls.call(time, call),
        }
    }

    // For publishers.

    pub(super) fn append(
        &self,
        time: Duration,
        updates: &[R],
        capacity: Capacity,
    ) -> Result<bool, Error> {
        let Some(calls) = &self.calls else {
            return self.call(|outbox| outbox.append(updates, capacity));
        };
        let slot = Slot::new();
        let append = Append {
            updates: updates.to_vec(),
            capacity,
            slot: Arc::clone(&slot),
        };
        calls.run(time, &slot, Call::Append(append))
    }

    pub(super) fn depth_within(&self, time: Duration) -> Result<Depth, Error> {
        self.call_within(time, |outbox| outbox.depth())
    }

    // For the worker, for whose end everybody else waits until a deadline.

    pub(super) fn take(&self, most: usize) -> Result<Vec<OutboxEntry<R>>, Error> {
        self.call(|outbox| outbox.take(most))
    }

    pub(super) fn settle(
        &self,
        accepted: &[i64],
        rejected: &[(i64, &Rejection)],
    ) -> Result<(), Error> {
        self.call(|outbox| outbox.settle(accepted, rejected))
    }

    pub(super) fn hold(&self, time: Duration) -> Result<bool, Error> {
        self.call(|outbox| outbox.hold(time))
    }

    pub(super) fn release(&self) -> Result<(), Error> {
        self.call(|outbox| outbox.release())
    }

    pub(super) fn depth(&self) -> Result<Depth, Error> {
        self.call(|outbox| outbox.depth())
    }
}

impl<R> Drop for GuardedOutbox<R> {
    fn drop(&mut self) {
        let outbox = self.outbox.take();
        let dropped = catch(|| drop(outbox));
        // The thread drops it last then, since that may take time too.
        if let Some(calls) = &self.calls {
            calls.queue().is_closed = true;
            calls.arrived.notify_one();
        }
        if let Err(message) = dropped {
            log::error!("the outbox panicked when it was dropped: {message}");
        }
    }
}

impl<R> Calls<R> {
    fn queue(&self) -> MutexGuard<'_, CallQueue<R>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R: OutboxRecord> Calls<R> {
    fn start(outbox: &Arc<dyn Outbox<R>>) -> Result<Arc<Self>, Error> {
        let calls = Arc::new(Self {
            queue: Mutex::new(CallQueue {
                next_ticket: 0,
                waiting: VecDeque::new(),
                is_closed: false,
            }),
            arrived: Condvar::new(),
        });
        let (its_calls, outbox) = (Arc::clone(&calls), Arc::clone(outbox));
        thread::Builder::new()
            .name("mixpanel-groups outbox".to_owned())
            .spawn(move || {
                while let Some(calls) = its_calls.next() {
                    run(&*outbox, calls);
                }
                if let Err(message) = catch(|| drop(outbox)) {
                    log::error!("the outbox panicked when it was dropped: {message}");
                }
            })
            .map_err(|error| {
                let message = "cannot start the thread that calls the outbox";
                Error::new(ErrorKind::Io, message).with_source(error)
            })?;
        Ok(calls)
    }

    /// Waits for the next call, or several of `append`; `None` when there will be none.
    fn next(&self) -> Option<Vec<Call<R>>> {
        let mut queue = self.queue();
        loop {
            if let Some((_, first)) = queue.waiting.pop_front() {
                let mut calls = vec![first];
                while let (Some(Call::Append(_)), Some((_, Call::Append(next)))) =
                    (calls.last(), queue.waiting.front())
                {
                    let updates: usize = calls.iter().map(Call::updates).sum();
                    if updates + next.updates.len() > MAX_RECORDS {
                        break;
                    }
                    calls.extend(queue.waiting.pop_front().map(|(_, call)| call));
                }
                return Some(calls);
            }
            if queue.is_closed {
                return None;
            }
            let waited = self.arrived.wait(queue);
            queue = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn call<T: Send + 'static>(
        &self,
        time: Duration,
        call: impl FnOnce(&dyn Outbox<R>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let slot = Slot::new();
        let its_slot = Arc::clone(&slot);
        let call = move |outbox: &dyn Outbox<R>| {
            let result = catch(|| call(outbox));
            its_slot.fill(result.unwrap_or_else(|message| Err(panicked(message))));
        };
        self.run(time, &slot, Call::Other(Box::new(call)))
    }

    /// Hands a call to the thread, and waits for its result.
    fn run<T>(&self, time: Duration, slot: &Slot<T>, call: Call<R>) -> Result<T, Error> {
        let mut queue = self.queue();
        let ticket = queue.next_ticket;
        queue.next_ticket += 1;
        queue.waiting.push_back((ticket, call));
        drop(queue);
        self.arrived.notify_one();

        let waited = slot
            .filled
            .wait_timeout_while(slot.result(), time, |result| result.is_none());
        let mut result = waited.unwrap_or_else(PoisonError::into_inner).0;
        if let Some(result) = result.take() {
            return result;
        }
        drop(result);
        // A call that has not begun never begins.
        slot.is_given_up.store(true, Ordering::Relaxed);
        self.queue().waiting.retain(|(other, _)| *other != ticket);
        let late = slot.result().take();
        late.unwrap_or_else(|| {
            let message = "the outbox did not reply in time";
            Err(Error::new(ErrorKind::Timeout, message))
        })
    }
}

impl<R> Call<R> {
    fn updates(&self) -> usize {
        match self {
            Self::Append(append) => append.updates.len(),
            Self::Other(_) => 0,
        }
    }
}

/// Runs a call, or several of `append` as one.
fn run<R: OutboxRecord>(outbox: &dyn Outbox<R>, calls: Vec<Call<R>>) {
    let mut appends = Vec::new();
    for call in calls {
        match call {
            Call::Append(append) => appends.push(append),
            Call::Other(call) => call(outbox),
        }
    }
    if let [first, _, ..] = &appends[..] {
        let all = appends.iter().flat_map(|append| &append.updates);
        let all: Vec<_> = all.cloned().collect();
        if let Ok(Ok(true)) = catch(|| outbox.append(&all, first.capacity)) {
            for append in &appends {
                append.slot.fill(Ok(true));
            }
            return;
        }
        // There may be room for some; and each is to have an error of its own.
    }
    for append in appends {
        if append.slot.is_given_up.load(Ordering::Relaxed) {
            continue;
        }
        let result = catch(|| outbox.append(&append.updates, append.capacity));
        let result = result.unwrap_or_else(|message| Err(panicked(message)));
        append.slot.fill(result);
    }
}

impl<T> Slot<T> {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            result: Mutex::new(None),
            filled: Condvar::new(),
            is_given_up: AtomicBool::new(false),
        })
    }

    fn fill(&self, result: Result<T, Error>) {
        *self.result() = Some(result);
        self.filled.notify_one();
    }

    fn result(&self) -> MutexGuard<'_, Option<Result<T, Error>>> {
        self.result.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[cfg(simulation)]
mod simulation {
    use super::*;
    use crate::group::Group;
    use crate::record::EncodedUpdate;
    use crate::util::simulated::simulate_rule;

    /// Calls that nobody runs.
    fn unanswered() -> Arc<Calls<EncodedUpdate>> {
        Arc::new(Calls {
            queue: Mutex::new(CallQueue {
                next_ticket: 0,
                waiting: VecDeque::new(),
                is_closed: false,
            }),
            arrived: Condvar::new(),
        })
    }

    fn append(updates: usize) -> (Arc<Slot<bool>>, Call<EncodedUpdate>) {
        let slot = Slot::new();
        let update = EncodedUpdate::new(&Group::new("company", 1).delete());
        let update = update.expect("it is valid").expect("it says something");
        let append = Append {
            updates: vec![update; updates],
            capacity: Capacity::default(),
            slot: Arc::clone(&slot),
        };
        (slot, Call::Append(append))
    }

    #[test]
    fn appends_in_line_are_one_call_of_no_more_than_a_batch() {
        simulate_rule(|| {
            let calls = unanswered();
            let half = MAX_RECORDS / 2;
            let lines = [half, half, 1, MAX_RECORDS, 1, 2, 3].map(|updates| append(updates).1);
            let other = Call::Other(Box::new(|_| ()));
            calls.queue().waiting = (0..).zip(lines).collect();
            calls.queue().waiting.insert(5, (7, other));
            let next = || {
                let calls = calls.next().expect("more wait");
                calls.iter().map(Call::updates).collect::<Vec<_>>()
            };
            assert_eq!(next(), [half, half]);
            assert_eq!(next(), [1]);
            assert_eq!(next(), [MAX_RECORDS]);
            assert_eq!(next(), [1]);
            assert_eq!(next(), [0], "the other call");
            assert_eq!(next(), [2, 3]);
            calls.queue().is_closed = true;
            assert!(calls.next().is_none());
        });
    }

    #[test]
    fn a_call_that_is_given_up_leaves_the_line_and_no_other_does() {
        simulate_rule(|| {
            let calls = unanswered();
            let waiting = Arc::clone(&calls);
            let waiting = thread::spawn(move || {
                let (slot, call) = append(2);
                waiting.run(Duration::MAX, &slot, call)
            });
            while calls.queue().waiting.is_empty() {
                thread::yield_now();
            }
            let (slot, call) = append(1);
            let given_up = calls.run(Duration::ZERO, &slot, call);
            assert_eq!(given_up.unwrap_err().kind(), ErrorKind::Timeout);
            assert!(slot.is_given_up.load(Ordering::Relaxed));
            assert_eq!(calls.queue().waiting.len(), 1);
            for call in calls.next().expect("one waits") {
                assert_eq!(call.updates(), 2);
                if let Call::Append(append) = call {
                    append.slot.fill(Ok(true));
                }
            }
            assert!(waiting.join().unwrap().unwrap());
        });
    }
}

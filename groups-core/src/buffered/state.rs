//! The state that a client shares with its worker. Every transition is a method here.

use std::collections::HashSet;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::buffered::Stats;
use crate::client::canceller::Canceller;
use crate::client::records::Limits;
use crate::outbox::Depth;
use crate::record::Report;
use crate::util::sync::{AtomicUsize, Condvar, Instant, Mutex, MutexGuard, thread};

/// The part of a client that its threads change.
pub(super) struct Shared {
    state: Mutex<State>,
    /// Wakes the worker: there is a request.
    work: Condvar,
    /// Wakes the threads that wait for the worker: publishers without room, `flush` and `shutdown`.
    progress: Condvar,
    /// Counts the publishers that append right now, in steps of [`APPENDING`], beside the bit [`CLOSED`].
    gate: AtomicUsize,
    /// Updates published since the worker took its last request, and their bytes.
    published: AtomicUsize,
    published_bytes: AtomicUsize,
    /// Cancels the delivery in progress.
    canceller: Canceller,
}

struct State {
    phase: Phase,
    /// A shutdown was requested; a client in the phase `Ended` may have a worker that panicked instead.
    is_shut_down: bool,
    request: Request,
    /// How many flushes were requested, and up to which one they are done.
    flushes: u64,
    flushes_done: u64,
    stats: Stats,
    /// How many entries were dropped after the first that was logged since the worker's last task; `None` without one.
    dropped_unlogged: Option<usize>,
    /// The thread of the worker, once it runs.
    worker: Option<thread::ThreadId>,
    /// A thread is settling or taking back.
    is_turn_taken: bool,
    /// A shutdown has taken back what was left.
    is_taken_back: bool,
    /// What it, or an error of `publish` after it, handed back and could not remove.
    handed_back: HashSet<i64>,
}

/// The turn to settle or to take back: what is in the outbox is either counted or handed back, and handed back once.
pub(super) struct Turn<'a>(&'a Shared);

/// The life of a client. It never goes back to an earlier phase.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// Updates can be published.
    Open,
    /// Everything that will be published is in the outbox; the worker sends it and ends.
    Draining,
    /// The time for that is over; the worker ends as it is.
    BrokenOff,
    /// The worker has ended.
    Ended,
}

/// A request to the worker before its pause is over. A greater request replaces a lesser one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Request {
    None,
    /// Send, but keep the pause after a failure: a batch is full, or a publisher waits for room.
    Send,
    /// Send now: a flush or a shutdown.
    SendNow,
}

/// A request that the worker has taken.
pub(super) struct Task {
    /// The last flush that it serves.
    flush: u64,
    /// Nothing will be published after it.
    is_last: bool,
    /// A flush or a shutdown waits for it.
    pub(super) is_awaited: bool,
    started: Instant,
}

/// How often a flush, a shutdown or a publisher without room looks at an outbox from which another process sends.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How exactly outboxes know how long an update has waited.
const RESOLUTION: Duration = Duration::from_millis(20);

impl Task {
    /// Returns how long ago the task started.
    pub(super) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Returns whether nothing waits that was published before the task started. The age of the task is one from before the
    /// depth was requested, which may take long.
    pub(super) fn is_older_than(&self, depth: Depth, age: Duration) -> bool {
        // What nobody waits for may as well be sent by the next task.
        let doubt = if self.is_awaited {
            RESOLUTION
        } else {
            Duration::ZERO
        };
        let is_newer = |oldest: Duration| oldest.saturating_add(doubt) < age;
        depth.updates == 0 || depth.oldest.is_some_and(is_newer)
    }
}

/// The bit of the gate that no publisher passes.
const CLOSED: usize = 1;

/// One publisher within the gate.
const APPENDING: usize = 2;

impl Shared {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                phase: Phase::Open,
                is_shut_down: false,
                request: Request::None,
                flushes: 0,
                flushes_done: 0,
                stats: Stats::default(),
                dropped_unlogged: None,
                worker: None,
                is_turn_taken: false,
                is_taken_back: false,
                handed_back: HashSet::new(),
            }),
            work: Condvar::new(),
            progress: Condvar::new(),
            gate: AtomicUsize::new(0),
            published: AtomicUsize::new(0),
            published_bytes: AtomicUsize::new(0),
            canceller: Canceller::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits on `condvar` until the condition holds, for that time at most.
    fn wait<'a>(
        condvar: &Condvar,
        state: MutexGuard<'a, State>,
        time: Duration,
        until: impl Fn(&State) -> bool,
    ) -> MutexGuard<'a, State> {
        let waited = condvar.wait_timeout_while(state, time, |state| !until(state));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn request(&self, state: &mut State, request: Request) {
        if request > state.request {
            state.request = request;
            self.work.notify_one();
        }
    }

    // Publishers.

    /// Calls the function, which appends to the outbox, unless nothing more can be published.
    pub(super) fn while_open<R>(&self, append: impl FnOnce() -> R) -> Option<R> {
        let before = self.gate.fetch_add(APPENDING, Ordering::Acquire);
        let _leave = LeaveGate(self);
        (before & CLOSED == 0).then(append)
    }

    /// Counts published updates, and wakes the worker at the one that makes a batch full.
    pub(super) fn count_published(&self, updates: usize, bytes: usize, batch: Limits) {
        let fills = |count: &AtomicUsize, more: usize, most: usize| {
            let before = count.fetch_add(more, Ordering::Relaxed);
            before < most && before.saturating_add(more) >= most
        };
        let is_full = fills(&self.published, updates, batch.records);
        if fills(&self.published_bytes, bytes, batch.bytes) || is_full {
            self.request_send();
        }
    }

    /// Requests the worker to send what is queued, though not in the pause after a failure.
    pub(super) fn request_send(&self) {
        self.request(&mut self.state(), Request::Send);
    }

    /// Requests the worker to send what is queued, and waits until it has settled something. Another process may make room
    /// too, so it does not wait longer than [`LOOK_AGAIN`].
    pub(super) fn wait_for_room(&self, time: Duration) {
        let mut state = self.state();
        if state.phase == Phase::Open {
            self.request(&mut state, Request::Send);
            drop(self.progress.wait_timeout(state, time.min(LOOK_AGAIN)));
        }
    }

    // Callers of `flush` and `shutdown`.

    /// Requests the worker to send everything that waits now, also in the pause after a failure if that is set. Returns the
    /// number of this flush.
    pub(super) fn request_flush(&self, ends_pause: bool) -> u64 {
        let request = if ends_pause {
            Request::SendNow
        } else {
            Request::Send
        };
        let mut state = self.state();
        state.flushes += 1;
        self.request(&mut state, request);
        state.flushes
    }

    /// Waits until a flush is done, for that time at most.
    pub(super) fn wait_for_flush(&self, flush: u64, time: Duration) {
        drop(Self::wait(&self.progress, self.state(), time, |state| {
            state.flushes_done >= flush || state.phase >= Phase::BrokenOff
        }));
    }

    // A shutdown takes these steps one after the other.

    /// Ends publishing. As soon as nobody appends any more, the worker sends what is left.
    pub(super) fn close(&self) {
        self.close_gate();
        let mut state = self.state();
        state.is_shut_down = true;
        if self.is_gate_empty() {
            self.enter(&mut state, Phase::Draining);
        }
    }

    /// Waits until nobody appends any more and the worker has sent what was left, for that time at most.
    pub(super) fn wait_until_drained(&self, time: Duration) {
        drop(Self::wait(&self.progress, self.state(), time, |state| {
            state.phase >= Phase::BrokenOff
        }));
    }

    /// Aborts what the worker is doing.
    pub(super) fn break_off(&self) {
        self.enter(&mut self.state(), Phase::BrokenOff);
        self.canceller.cancel();
    }

    /// Waits until the worker has ended, for that time at most.
    pub(super) fn wait_until_ended(&self, time: Duration) {
        drop(Self::wait(&self.progress, self.state(), time, |state| {
            state.phase == Phase::Ended && self.is_gate_empty()
        }));
    }

    fn close_gate(&self) {
        self.gate.fetch_or(CLOSED, Ordering::Relaxed);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.gate.load(Ordering::Relaxed) & CLOSED != 0
    }

    fn is_gate_empty(&self) -> bool {
        self.gate.load(Ordering::Acquire) == CLOSED
    }

    fn enter(&self, state: &mut State, phase: Phase) {
        // A publisher that is refused leaves the gate too, and ends no pause.
        if phase > state.phase {
            state.phase = phase;
            self.request(state, Request::SendNow);
        }
        self.progress.notify_all();
    }

    pub(super) fn is_shut_down(&self) -> bool {
        self.state().is_shut_down
    }

    // The worker, and the outbox it takes from.

    /// Waits for a request and takes it; without one, after the pause. After a failure only
    /// [`Request::SendNow`] ends the pause.
    pub(super) fn take_task(&self, pause: Duration, after_failure: bool) -> Task {
        let least = if after_failure {
            Request::SendNow
        } else {
            Request::Send
        };
        let mut state = Self::wait(&self.work, self.state(), pause, |state| {
            state.request >= least
        });
        state.request = Request::None;
        self.published.store(0, Ordering::Relaxed);
        self.published_bytes.store(0, Ordering::Relaxed);
        Task {
            flush: state.flushes,
            is_last: state.phase >= Phase::Draining,
            is_awaited: state.flushes_done < state.flushes || state.phase >= Phase::Draining,
            started: Instant::now(),
        }
    }

    /// Records whether the task is done, with everything sent that waited. Returns whether the worker goes
    /// on.
    pub(super) fn finish_task(&self, task: &Task, is_done: bool) -> bool {
        let mut state = self.state();
        if is_done {
            // Publishers that wait for room are woken by what was settled: to wake them for less would make them ask an
            // outbox that another process sends from over and over.
            if std::mem::replace(&mut state.flushes_done, task.flush) != task.flush {
                self.progress.notify_all();
            }
        }
        !(is_done && task.is_last) && state.phase < Phase::BrokenOff
    }

    /// Starts a delivery and returns what cancels it, or `None` if there is no time for another.
    pub(super) fn start_delivery(&self) -> Option<&Canceller> {
        let is_over = self.state().phase >= Phase::BrokenOff;
        (!is_over).then_some(&self.canceller)
    }

    /// Waits for another process, which has taken what this one is to send, for that time at most.
    pub(super) fn wait_for_another(&self, time: Duration) {
        drop(Self::wait(&self.progress, self.state(), time, |state| {
            state.phase >= Phase::BrokenOff
        }));
    }

    /// Waits for the turn to settle or to take back, that long at most: an outbox may hang in the turn of another.
    pub(super) fn turn(&self, time: Duration) -> Option<Turn<'_>> {
        let is_free = |state: &State| !state.is_turn_taken;
        let mut state = Self::wait(&self.progress, self.state(), time, is_free);
        (!std::mem::replace(&mut state.is_turn_taken, true)).then(|| Turn(self))
    }

    /// Returns which entries were handed back and are still in the outbox.
    pub(super) fn handed_back(&self) -> HashSet<i64> {
        self.state().handed_back.clone()
    }

    /// Remembers which entries were handed back and are still in the outbox. Only the thread that has the turn changes them.
    pub(super) fn set_handed_back(&self, ids: HashSet<i64>) {
        self.state().handed_back = ids;
    }

    /// Records that this thread is the worker.
    pub(super) fn begin(&self) {
        self.state().worker = Some(thread::current().id());
    }

    /// Returns whether this thread is the worker, which cannot wait for itself.
    pub(super) fn is_worker(&self) -> bool {
        self.state().worker == Some(thread::current().id())
    }

    /// Adds what one delivery did.
    pub(super) fn record_report(&self, report: &Report, accepted: usize, rejected: usize) {
        self.count(|stats| {
            stats.sent += report.sent;
            stats.accepted += accepted;
            stats.rejected += rejected;
            stats.requests += report.requests;
            stats.retries += report.retries;
            stats.bytes += report.bytes;
        });
        self.progress.notify_all();
    }

    #[cfg(simulation)]
    pub(super) fn has_ended(&self) -> bool {
        self.state().phase == Phase::Ended
    }

    /// Records that the worker has ended, also by a panic.
    pub(super) fn end(&self) {
        self.close_gate();
        self.enter(&mut self.state(), Phase::Ended);
    }

    // What is counted.

    pub(super) fn count(&self, count: impl FnOnce(&mut Stats)) {
        count(&mut self.state().stats);
    }

    /// Notes for the log that entries were dropped. Returns whether they are the first since the worker's last task.
    pub(super) fn note_dropped(&self, count: usize) -> bool {
        let mut state = self.state();
        let is_first = state.dropped_unlogged.is_none();
        let unlogged = state.dropped_unlogged.get_or_insert(0);
        *unlogged += if is_first { 0 } else { count };
        is_first
    }

    /// Returns how many were dropped after the first, and begins again.
    pub(super) fn take_dropped(&self) -> usize {
        self.state().dropped_unlogged.take().unwrap_or_default()
    }

    pub(super) fn stats(&self) -> Stats {
        self.state().stats.clone()
    }
}

impl Turn<'_> {
    pub(super) fn is_taken_back(&self) -> bool {
        self.0.state().is_taken_back
    }

    pub(super) fn set_taken_back(&self) {
        self.0.state().is_taken_back = true;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.state().is_turn_taken = false;
        self.0.progress.notify_all();
    }
}

/// Lets a publisher out of the gate, also when an outbox panics.
struct LeaveGate<'a>(&'a Shared);

impl Drop for LeaveGate<'_> {
    fn drop(&mut self) {
        let left = self.0.gate.fetch_sub(APPENDING, Ordering::Release) - APPENDING;
        if left == CLOSED {
            self.0.enter(&mut self.0.state(), Phase::Draining);
        }
    }
}

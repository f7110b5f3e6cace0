//! What publishers, the callers of `flush` and `shutdown`, and the worker share. Every change of the state
//! is a method here.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::buffered::Stats;
use crate::client::records::MAX_RECORDS;
use crate::record::Report;

pub(super) struct Shared {
    state: Mutex<State>,
    /// Wakes the worker: there is a request.
    work: Condvar,
    /// Wakes the threads that wait for the worker: publishers without room, `flush` and `shutdown`.
    progress: Condvar,
    /// Counts the publishers that append right now, in steps of [`APPENDING`], beside the bit [`CLOSED`].
    /// Publishers take no lock for it.
    gate: AtomicUsize,
    /// Breaks off the delivery that is under way.
    cancel: AtomicBool,
    /// Updates published since the worker took a request. Publishers take no lock for it.
    published: AtomicUsize,
}

struct State {
    phase: Phase,
    request: Request,
    /// How many flushes were requested, and up to which one all are done.
    flushes: u64,
    flushes_done: u64,
    stats: Stats,
}

/// What the client is doing. It goes from one to the next and never back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// Updates can be published.
    Open,
    /// Everything that will be published is in the outbox; the worker sends it, and ends.
    ShuttingDown,
    /// The worker has ended.
    Ended,
}

/// What the worker is to do before its flush interval is over; the greater request replaces the lesser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Request {
    Nothing,
    /// A batch is full, or a publisher waits for room. After a failure the worker keeps its pause.
    Send,
    /// A flush, which ends a pause too: somebody waits for it, or a delivery was broken off.
    Flush,
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
                request: Request::Nothing,
                flushes: 0,
                flushes_done: 0,
                stats: Stats::default(),
            }),
            work: Condvar::new(),
            progress: Condvar::new(),
            gate: AtomicUsize::new(0),
            cancel: AtomicBool::new(false),
            published: AtomicUsize::new(0),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits on `condvar` until the condition holds, or until the deadline.
    fn wait_until(
        &self,
        condvar: &Condvar,
        deadline: Option<Instant>,
        condition: impl Fn(&State) -> bool,
    ) {
        let mut state = self.state();
        while !condition(&state) {
            let left = deadline.map_or(Duration::MAX, |deadline| {
                deadline.saturating_duration_since(Instant::now())
            });
            if left.is_zero() {
                return;
            }
            let waited = condvar.wait_timeout(state, left);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Requests the worker to do something; the greater request replaces the lesser.
    fn request(&self, state: &mut State, request: Request) {
        state.request = state.request.max(request);
        self.work.notify_one();
    }

    // What publishers do.

    /// Calls the function, which appends to the outbox; `None` if nothing more can be published. A shutdown
    /// waits for it, so that no update is left in an outbox that nobody takes from.
    pub(super) fn while_open<R>(&self, append: impl FnOnce() -> R) -> Option<R> {
        let before = self.gate.fetch_add(APPENDING, Ordering::Acquire);
        let _leave = LeaveGate(self);
        (before & CLOSED == 0).then(append)
    }

    /// Counts published updates, and wakes the worker at the one that makes a batch full.
    pub(super) fn note_published(&self, updates: usize) {
        let before = self.published.fetch_add(updates, Ordering::Relaxed);
        if before < MAX_RECORDS && before + updates >= MAX_RECORDS {
            self.request_send();
        }
    }

    /// Asks the worker to send now.
    pub(super) fn request_send(&self) {
        self.request(&mut self.state(), Request::Send);
    }

    /// Asks the worker to send now, and waits until it has done something, for that time at most.
    pub(super) fn wait_for_room(&self, time: Duration) {
        let mut state = self.state();
        if state.phase == Phase::Open {
            self.request(&mut state, Request::Send);
            drop(self.progress.wait_timeout(state, time));
        }
    }

    // What callers of `flush` and `shutdown` do.

    /// Asks for a flush, and waits until it is done, the worker has ended, or the deadline has come.
    pub(super) fn flush(&self, deadline: Option<Instant>) {
        let flush = self.request_flush();
        self.wait_until(&self.progress, deadline, |state| {
            state.flushes_done >= flush || state.phase == Phase::Ended
        });
    }

    fn request_flush(&self) -> u64 {
        let mut state = self.state();
        self.request(&mut state, Request::Flush);
        state.flushes += 1;
        state.flushes
    }

    /// Ends publishing, and waits until the worker has sent what waits and ended, or until the deadline.
    pub(super) fn shut_down(&self, deadline: Option<Instant>) {
        self.close_gate();
        self.wait_until(&self.progress, deadline, |_| self.is_gate_empty());
        self.enter(Phase::ShuttingDown);
        self.request_flush();
        self.wait_until(&self.progress, deadline, |state| {
            state.phase == Phase::Ended
        });
    }

    /// Breaks off the delivery that is under way, and waits for the worker to end, not for long.
    pub(super) fn break_off(&self, patience: Duration) {
        self.cancel_delivery();
        let deadline = Instant::now() + patience;
        self.wait_until(&self.progress, Some(deadline), |state| {
            state.phase == Phase::Ended && self.is_gate_empty()
        });
    }

    fn close_gate(&self) {
        self.gate.fetch_or(CLOSED, Ordering::Relaxed);
    }

    fn is_gate_empty(&self) -> bool {
        self.gate.load(Ordering::Acquire) == CLOSED
    }

    /// Goes on to a later phase. Publishers that wait for room find the client closed.
    fn enter(&self, phase: Phase) {
        let mut state = self.state();
        state.phase = state.phase.max(phase);
        self.progress.notify_all();
    }

    /// Breaks off the delivery that is under way.
    pub(super) fn cancel_delivery(&self) {
        let mut state = self.state();
        self.cancel.store(true, Ordering::Relaxed);
        self.request(&mut state, Request::Flush);
    }

    // What the worker does.

    /// Waits for a request, for that time at most, and takes it. `after_failure` it waits for nothing less
    /// than a flush. Returns the number of the last flush that this serves.
    pub(super) fn take_request(&self, pause: Duration, after_failure: bool) -> u64 {
        let enough = if after_failure {
            Request::Flush
        } else {
            Request::Send
        };
        let due = Instant::now().checked_add(pause);
        self.wait_until(&self.work, due, |state| state.request >= enough);
        self.published.store(0, Ordering::Relaxed);
        let mut state = self.state();
        state.request = Request::Nothing;
        state.flushes
    }

    /// Notes that everything up to this flush is sent.
    pub(super) fn note_flushed(&self, flush: u64) {
        self.state().flushes_done = flush;
        self.progress.notify_all();
    }

    /// Allows the next delivery after one was broken off, unless that was for a shutdown.
    pub(super) fn resume(&self) {
        let state = self.state();
        if state.phase == Phase::Open {
            self.cancel.store(false, Ordering::Relaxed);
        }
    }

    /// The flag that breaks off a delivery.
    pub(super) fn cancel_flag(&self) -> &AtomicBool {
        &self.cancel
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }

    pub(super) fn is_shutting_down(&self) -> bool {
        self.state().phase >= Phase::ShuttingDown
    }

    /// Notes that the worker has ended, also by a panic.
    pub(super) fn note_end(&self) {
        self.close_gate();
        self.enter(Phase::Ended);
    }

    // What is counted.

    /// Adds what one delivery did.
    pub(super) fn note_report(&self, report: &Report, accepted: usize, rejected: usize) {
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

    pub(super) fn count(&self, count: impl FnOnce(&mut Stats)) {
        count(&mut self.state().stats);
    }

    pub(super) fn stats(&self) -> Stats {
        self.state().stats.clone()
    }
}

/// Lets a publisher out of the gate, also when an outbox panics.
struct LeaveGate<'a>(&'a Shared);

impl Drop for LeaveGate<'_> {
    fn drop(&mut self) {
        let before = self.0.gate.fetch_sub(APPENDING, Ordering::Release);
        if before == APPENDING | CLOSED {
            drop(self.0.state());
            self.0.progress.notify_all();
        }
    }
}

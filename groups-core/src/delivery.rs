//! From batches to what became of every record: lanes that send side by side, each in order.
//!
//! The caller's thread fills batches and hands them to lanes; a lane is a thread with a connection
//! that delivers its batches one after the other. A group's records always take the same lane, so
//! their order holds while batches overlap. What lanes share is behind one lock, taken a few times
//! a request.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::compression::Compression;
use crate::random::random;
use crate::records::{Limits, Record, Records};
use crate::rejection::Rejection;
use crate::response::{Complaint, Verdict, interpret};
use crate::retry::{Retry, Step};
use crate::transport::{Request, Transport};
use crate::{Error, Progress, Report, Undelivered};

/// Where records go, and how.
#[derive(Clone)]
pub(crate) struct Route {
    pub(crate) url: String,
    /// The value of `Authorization`, a secret.
    pub(crate) authorization: Option<String>,
    /// How every record begins: its bracket and, for updates, the token; a secret.
    pub(crate) opening: Vec<u8>,
    pub(crate) limits: Limits,
    pub(crate) compression: Compression,
    pub(crate) retry: Retry,
}

/// One `send`.
pub(crate) struct Delivery<'a> {
    route: &'a Route,
    state: Mutex<State>,
    /// Notified at every change of the state that somebody may wait for.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    lanes: Vec<Lane>,
    /// Empty batches, for their buffers.
    spare: Vec<Records>,
    /// No further batch will come.
    closed: bool,
    /// Nothing more is to be sent, and why.
    stopped: Option<Error>,
    /// The server asked every lane to wait until then.
    resume: Option<Instant>,
    report: Report,
    undelivered: Undelivered,
}

/// One connection's work.
struct Lane {
    connection: Arc<dyn Transport>,
    queue: VecDeque<Records>,
    busy: bool,
    /// When the request that failed is sent again.
    backs_off: Option<Instant>,
}

/// How many full batches wait for a lane that is busy with another.
const QUEUE: usize = 1;

/// Some request gave up, was refused for good or was interrupted: the lane ends.
struct Stopped;

impl<'a> Delivery<'a> {
    /// A delivery with a lane for each connection.
    pub(crate) fn new(route: &'a Route, connections: Vec<Arc<dyn Transport>>) -> Self {
        let lanes = connections.into_iter().map(|connection| Lane {
            connection,
            queue: VecDeque::new(),
            busy: false,
            backs_off: None,
        });
        let state = State {
            lanes: lanes.collect(),
            ..State::default()
        };
        Self {
            route,
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    pub(crate) fn route(&self) -> &'a Route {
        self.route
    }

    /// How many lanes there are.
    pub(crate) fn lanes(&self) -> usize {
        self.state().lanes.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An empty batch.
    pub(crate) fn spare(&self) -> Records {
        self.state().spare.pop().unwrap_or_default()
    }

    /// Notes a record that cannot be sent.
    pub(crate) fn reject(&self, rejection: Rejection) {
        log::warn!("refused before sending: {rejection}");
        self.state().report.rejected.push(rejection);
    }

    /// Notes records that became part of others.
    pub(crate) fn note_folded(&self, records: usize) {
        self.state().report.folded += records;
    }

    /// Hands a batch to a lane if it has room; gives it back if not. When nothing more is to be
    /// sent, the batch is undelivered.
    pub(crate) fn offer(&self, lane: usize, batch: Records) -> Result<(), Records> {
        let mut state = self.state();
        if state.stopped.is_some() {
            state.hand_back(&batch, 0..batch.len(), &self.route.opening);
        } else if state.lanes[lane].queue.len() >= QUEUE {
            return Err(batch);
        } else {
            state.lanes[lane].queue.push_back(batch);
            self.changed.notify_all();
        }
        Ok(())
    }

    /// No further batch will come.
    pub(crate) fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }

    /// Ends the delivery: what is under way fails now, what waits is undelivered.
    pub(crate) fn stop(&self, error: Error) {
        let mut state = self.state();
        state.stopped.get_or_insert(error);
        for lane in &state.lanes {
            lane.connection.abort();
        }
        self.changed.notify_all();
    }

    /// Waits until something changes, for that long at most.
    pub(crate) fn wait(&self, time: Duration) {
        drop(self.changed.wait_timeout(self.state(), time));
    }

    /// Whether every lane has done its work.
    pub(crate) fn is_done(&self) -> bool {
        self.state()
            .lanes
            .iter()
            .all(|lane| !lane.busy && lane.queue.is_empty())
    }

    pub(crate) fn progress(&self) -> Progress {
        let state = self.state();
        let until = state.lanes.iter().filter_map(|lane| lane.backs_off).max();
        Progress {
            sent: state.report.sent,
            accepted: state.report.accepted,
            rejected: state.report.rejected.len(),
            retries: state.report.retries,
            bytes: state.report.bytes,
            backing_off: until.map(|until| until.saturating_duration_since(Instant::now())),
        }
    }

    /// What became of everything.
    pub(crate) fn finish(self) -> (Vec<Arc<dyn Transport>>, Result<Report, Error>) {
        let mut state = self
            .state
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        state
            .report
            .rejected
            .sort_by_key(|rejection| rejection.position);
        state.undelivered.sort();
        let result = match state.stopped {
            None => Ok(state.report),
            Some(error) => Err(error.with_delivery(state.report, state.undelivered)),
        };
        let connections = state
            .lanes
            .into_iter()
            .map(|lane| lane.connection)
            .collect();
        (connections, result)
    }

    /// Delivers a lane's batches until there are no more: the body of its thread.
    pub(crate) fn run_lane<R: Record>(&self, lane: usize) {
        let connection = Arc::clone(&self.state().lanes[lane].connection);
        let mut sender = Sender {
            delivery: self,
            lane,
            connection,
            most: self.route.limits.records,
            packed: Vec::new(),
        };
        while let Some(mut batch) = self.next(lane) {
            sender.deliver::<R>(&mut batch);
            let mut state = self.state();
            state.lanes[lane].busy = false;
            batch.clear();
            state.spare.push(batch);
            self.changed.notify_all();
        }
    }

    fn next(&self, lane: usize) -> Option<Records> {
        let mut state = self.state();
        loop {
            if let Some(batch) = state.lanes[lane].queue.pop_front() {
                state.lanes[lane].busy = true;
                self.changed.notify_all();
                return Some(batch);
            }
            if state.closed {
                return None;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl State {
    fn hand_back(&mut self, batch: &Records, range: Range<usize>, opening: &[u8]) {
        for index in range {
            self.undelivered.add(batch, index, opening);
        }
    }
}

/// Sends what one lane is given.
struct Sender<'a> {
    delivery: &'a Delivery<'a>,
    lane: usize,
    connection: Arc<dyn Transport>,
    /// How many records the server takes at once, as far as is known.
    most: usize,
    /// The buffer for compressed bodies.
    packed: Vec<u8>,
}

impl Sender<'_> {
    /// Brings every record of a batch to its place: accepted, rejected or undelivered.
    fn deliver<R: Record>(&mut self, batch: &mut Records) {
        let mut sent = 0;
        // Runs of records that wait for their turn, the next one last.
        let mut runs = Vec::new();
        runs.push(0..batch.len());
        while let Some(run) = runs.pop() {
            if run.len() > self.most {
                let rest = run.start + self.most..run.end;
                runs.extend([rest, run.start..run.start + self.most]);
                continue;
            }
            let newly_sent = run.end.saturating_sub(sent);
            sent = sent.max(run.end);
            let Ok(verdict) = self.exchange(batch, &run, newly_sent) else {
                let opening = &self.delivery.route.opening;
                let rest = run.start..batch.len();
                self.delivery.state().hand_back(batch, rest, opening);
                return;
            };
            match verdict {
                Verdict::Accepted => self.accept(run.len()),
                Verdict::Partly(complaints) => {
                    self.accept(run.len() - complaints.len());
                    for (index, complaint) in complaints {
                        self.reject::<R>(batch, run.start + index, complaint);
                    }
                }
                Verdict::Refused(message) | Verdict::TooLarge(message) if run.len() == 1 => {
                    let complaint = Complaint {
                        field: None,
                        message,
                    };
                    self.reject::<R>(batch, run.start, complaint);
                }
                verdict => {
                    let middle = run.start + run.len() / 2;
                    runs.extend([middle..run.end, run.start..middle]);
                    if matches!(verdict, Verdict::TooLarge(_)) {
                        self.most = run.len().div_ceil(2);
                    }
                }
            }
        }
    }

    fn accept(&self, records: usize) {
        self.delivery.state().report.accepted += records;
    }

    fn reject<R: Record>(&self, batch: &Records, index: usize, complaint: Complaint) {
        let json = &batch.json(index)[self.delivery.route.opening.len()..];
        let rejection = Rejection {
            position: batch.position(index),
            record: R::name(json),
            field: complaint.field,
            message: complaint.message,
            by_server: true,
        };
        log::warn!("refused by Mixpanel: {rejection}");
        self.delivery.state().report.rejected.push(rejection);
    }

    /// Sends one run, again and again if need be, until its fate is known.
    fn exchange(
        &mut self,
        batch: &mut Records,
        run: &Range<usize>,
        newly_sent: usize,
    ) -> Result<Verdict, Stopped> {
        let body = batch.body(run);
        let started = Instant::now();
        let mut newly_sent = newly_sent;
        for attempt in 1.. {
            self.pause(None)?;
            let (verdict, retry_after) = self.post(body, run.len(), newly_sent);
            newly_sent = 0;
            let (failure, error) = match verdict {
                Verdict::Again(failure, error) => (failure, error),
                Verdict::Final(error) => return Err(self.stop(error)),
                verdict => return Ok(verdict),
            };
            let elapsed = started.elapsed();
            let retry = self.delivery.route.retry;
            match retry.step(attempt, failure, retry_after, elapsed, random()) {
                Step::GiveUp => return Err(self.stop(error)),
                Step::After(wait) => {
                    log::info!("attempt {attempt} failed, the next in {wait:?}: {error}");
                    self.back_off(wait, error.is_rate_limited())?;
                }
            }
        }
        Err(Stopped)
    }

    /// One request.
    fn post(
        &mut self,
        body: &[u8],
        records: usize,
        newly_sent: usize,
    ) -> (Verdict, Option<Duration>) {
        let route = self.delivery.route;
        let gzip = route.compression.pack(body, &mut self.packed);
        let request = Request {
            url: &route.url,
            authorization: route.authorization.as_deref(),
            gzip,
            body: if gzip { &self.packed } else { body },
        };
        {
            let report = &mut self.delivery.state().report;
            report.sent += newly_sent;
            report.requests += 1;
            report.bytes += request.body.len() as u64;
        }
        match self.connection.post(request) {
            Ok(answer) => {
                let verdict = match interpret(answer.status, &answer.body, records) {
                    Verdict::Again(failure, error) => {
                        Verdict::Again(failure, error.with_retry_after(answer.retry_after))
                    }
                    verdict => verdict,
                };
                (verdict, answer.retry_after)
            }
            Err(broken) => (broken.into(), None),
        }
    }

    fn back_off(&self, wait: Duration, for_all: bool) -> Result<(), Stopped> {
        // A wait beyond all clocks is as good as none that ends.
        let until = Instant::now().checked_add(wait);
        let mut state = self.delivery.state();
        state.report.retries += 1;
        state.lanes[self.lane].backs_off = until;
        if for_all {
            state.resume = state.resume.max(until);
        }
        drop(state);
        let paused = self.pause(until);
        self.delivery.state().lanes[self.lane].backs_off = None;
        paused
    }

    /// Waits until that time, and until the server takes requests from any lane.
    fn pause(&self, until: Option<Instant>) -> Result<(), Stopped> {
        let mut state = self.delivery.state();
        loop {
            if state.stopped.is_some() {
                return Err(Stopped);
            }
            let until = until.max(state.resume);
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let Some(left) = left.filter(|left| !left.is_zero()) else {
                return Ok(());
            };
            let waited = self.delivery.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// No lane sends more; requests under way elsewhere are waited for.
    fn stop(&self, error: Error) -> Stopped {
        self.delivery.state().stopped.get_or_insert(error);
        self.delivery.changed.notify_all();
        Stopped
    }
}

impl From<crate::transport::Broken> for Verdict {
    fn from(broken: crate::transport::Broken) -> Self {
        match broken.failure {
            Some(failure) => Self::Again(failure, broken.error),
            None => Self::Final(broken.error),
        }
    }
}

//! Delivers batches: lanes that send in parallel, each in order.
//!
//! The caller's thread fills batches and hands them to lanes. A lane is a connection over which batches are delivered
//! one after the other: by a thread, or by the caller's where that has nothing else to do. A group's records always take
//! the same lane, so their order holds while batches overlap. What lanes share is behind one lock, taken a few times a
//! request.

use std::collections::VecDeque;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::client::Compression;
use crate::client::Progress;
use crate::client::RetryPolicy;
use crate::client::canceller::abort_all;
use crate::client::options::Permit;
use crate::client::records::{Limits, Records};
use crate::client::sender::Sender;
use crate::client::transport::Transport;
use crate::record::{Error, ErrorKind, RecordRef, Rejection, Report, Undelivered};
use crate::util::sync::{Condvar, Instant, Mutex, MutexGuard};

/// How long a thread waits between checks of its caller's flag for cancellation.
pub(super) const LOOK_EVERY: Duration =
    Duration::from_millis(if cfg!(simulation) { 1_000 } else { 10 });

/// Returns the error of a delivery that the caller cancelled.
pub(super) fn cancelled() -> Error {
    Error::new(ErrorKind::Cancelled, "cancelled while sending")
}

/// The route of a kind of records.
#[derive(Clone)]
pub(crate) struct Route {
    pub(crate) url: String,
    /// The value of `Authorization`, a secret.
    pub(crate) authorization: Option<String>,
    /// The beginning of every record: its bracket and, for updates, the token; a secret.
    pub(crate) opening: Vec<u8>,
    /// Returns what identifies a record that was written with these members.
    pub(crate) name: fn(&[u8]) -> RecordRef,
    pub(crate) limits: Limits,
    pub(crate) compression: Compression,
    pub(crate) retry: RetryPolicy,
}

impl Route {
    /// Returns the most bytes of a record with a bracket as its opening, so that it can be sent.
    pub(crate) fn most_bytes_a_record(&self) -> usize {
        let added = self.opening.len() - "{".len();
        self.limits.most_bytes_a_record().saturating_sub(added)
    }

    /// Returns a rejection if a record of these members is too large to be sent.
    pub(crate) fn check_size(&self, members: &[u8]) -> Result<(), Box<Rejection>> {
        let bytes = self.opening.len() + members.len();
        let most = self.limits.most_bytes_a_record();
        if bytes <= most {
            return Ok(());
        }
        let name = (self.name)(members);
        Err(Box::new(Rejection::too_large(name, bytes, most)))
    }
}

/// One `send`.
pub(crate) struct Delivery<'a> {
    pub(super) route: &'a Route,
    /// Returns whether a request may start that takes up to that time.
    pub(super) permit: Option<(&'a Permit<'a>, Duration)>,
    /// The flag that cancels it.
    pub(super) cancel: Option<&'a AtomicBool>,
    /// Set once nothing more is sent.
    pub(super) is_stopped: Option<&'a AtomicBool>,
    state: Mutex<State>,
    /// Wakes the caller: a lane has room or is done, or nothing more is sent.
    caller: Condvar,
    /// Wakes each lane: there is a batch, there will be none, or nothing more is sent.
    lanes: Vec<Condvar>,
}

pub(super) struct State {
    pub(super) lanes: Vec<Lane>,
    /// Whether the caller waits. To wake nobody is a system call all the same.
    caller_waits: bool,
    /// The largest request that the server accepts, as far as is known.
    most: Limits,
    /// Empty batches, for their buffers.
    spare: Vec<Records>,
    /// No further batch will come.
    closed: bool,
    /// Why nothing more is sent, once that is so.
    pub(super) stopped: Option<Error>,
    /// Why some records were handed back, while others are delivered.
    pub(super) set_aside: Option<Error>,
    /// The connections were aborted and cannot be used again.
    aborted: bool,
    /// The server requested that every lane wait until then.
    pub(super) resume: Option<Instant>,
    pub(super) report: Report,
}

/// One connection's work.
pub(super) struct Lane {
    pub(super) connection: Arc<dyn Transport>,
    queue: VecDeque<Records>,
    busy: bool,
    /// Whether its thread waits.
    waits: bool,
    /// When the request that failed is sent again.
    pub(super) backs_off: Option<Instant>,
    /// What the lane did not deliver, in order.
    pub(super) undelivered: Undelivered,
    /// The batches that came after that, when nothing more was sent.
    never_sent: Undelivered,
}

/// What a delivery works with, and what of it can be used again.
#[derive(Default)]
pub(crate) struct Resources {
    pub(crate) connections: Vec<Arc<dyn Transport>>,
    /// Empty batches, for their memory, which the system gives page by page.
    pub(crate) buffers: Vec<Records>,
}

#[cfg(any(test, fuzzing))]
impl Resources {
    pub(crate) fn of(connections: Vec<Arc<dyn Transport>>) -> Self {
        Self {
            connections,
            buffers: Vec::new(),
        }
    }
}

/// How many full batches wait for each lane that is busy with another.
const QUEUE: usize = 1;

/// Some request gave up, was refused for good or was interrupted: the lane ends.
pub(super) struct Stopped;

impl<'a> Delivery<'a> {
    /// Returns a delivery with a lane for each connection.
    pub(crate) fn new(route: &'a Route, resources: Resources) -> Self {
        let connections = resources.connections.into_iter();
        let lanes = connections.map(|connection| Lane {
            connection,
            queue: VecDeque::new(),
            busy: false,
            waits: false,
            backs_off: None,
            undelivered: Undelivered::default(),
            never_sent: Undelivered::default(),
        });
        let state = State::new(lanes.collect(), resources.buffers, route.limits);
        Self {
            route,
            permit: None,
            cancel: None,
            is_stopped: None,
            caller: Condvar::new(),
            lanes: state.lanes.iter().map(|_| Condvar::new()).collect(),
            state: Mutex::new(state),
        }
    }

    pub(crate) fn route(&self) -> &'a Route {
        self.route
    }

    /// Returns the number of lanes.
    pub(crate) fn lanes(&self) -> usize {
        self.state().lanes.len()
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns an empty batch.
    pub(crate) fn spare(&self) -> Records {
        self.state().spare.pop().unwrap_or_default()
    }

    /// Takes empty batches back.
    pub(crate) fn keep_spare(&self, batches: impl Iterator<Item = Records>) {
        self.state().spare.extend(batches);
    }

    /// Notes a record that cannot be sent.
    pub(crate) fn reject(&self, rejection: Rejection) {
        log::warn!("refused before sending: {rejection}");
        self.state().report.rejected.push(rejection);
    }

    /// Notes records that became part of others.
    pub(crate) fn note_coalesced(&self, records: usize) {
        self.state().report.coalesced += records;
    }

    /// Hands a batch to a lane if it has room; gives it back if not. When nothing more is to be
    /// sent, the batch is undelivered.
    pub(crate) fn offer(&self, lane: usize, batch: Records) -> Result<(), Records> {
        let mut state = self.state();
        if state.stopped.is_some() {
            hand_back(
                &mut state.lanes[lane].never_sent,
                &batch,
                0..batch.len(),
                self.route,
            );
        } else if state.has_room(lane) {
            state.lanes[lane].queue.push_back(batch);
            self.wake_lane(&state, lane);
        } else {
            return Err(batch);
        }
        Ok(())
    }

    /// Records that no further batch will come.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        self.wake_all(&state);
    }

    /// Ends the delivery: queued batches are undelivered, and requests in progress run to their end.
    pub(crate) fn stop(&self, error: Error) {
        let mut state = self.state();
        state.stopped.get_or_insert(error);
        if let Some(is_stopped) = self.is_stopped {
            is_stopped.store(true, Ordering::Relaxed);
        }
        self.wake_all(&state);
    }

    /// Ends the delivery and aborts the requests in progress.
    pub(crate) fn abort(&self, error: Error) {
        self.stop(error);
        let mut state = self.state();
        state.aborted = true;
        let connections = state.lanes.iter();
        let connections: Vec<_> = connections
            .map(|lane| Arc::clone(&lane.connection))
            .collect();
        drop(state);
        abort_all(&connections);
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancel.is_some_and(|flag| flag.load(Ordering::Relaxed))
    }

    /// Returns whether the next request may start.
    pub(super) fn is_permitted(&self) -> bool {
        self.permit.is_none_or(|(permit, time)| permit(time))
    }

    /// Lets the caller wait until a lane has room or is done, for that long at most.
    pub(crate) fn wait(&self, time: Duration) {
        let mut state = self.state();
        state.caller_waits = true;
        let waited = self.caller.wait_timeout(state, time);
        waited
            .unwrap_or_else(PoisonError::into_inner)
            .0
            .caller_waits = false;
    }

    /// Lets a lane wait until there is something for it, for that long at most.
    pub(super) fn wait_in_lane<'s>(
        &'s self,
        mut state: MutexGuard<'s, State>,
        lane: usize,
        time: Duration,
    ) -> MutexGuard<'s, State> {
        state.lanes[lane].waits = true;
        let waited = self.lanes[lane].wait_timeout(state, time);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.lanes[lane].waits = false;
        state
    }

    fn wake_caller(&self, state: &State) {
        if state.caller_waits {
            self.caller.notify_one();
        }
    }

    fn wake_lane(&self, state: &State, lane: usize) {
        if state.lanes[lane].waits {
            self.lanes[lane].notify_one();
        }
    }

    fn wake_all(&self, state: &State) {
        self.wake_caller(state);
        (0..self.lanes.len()).for_each(|lane| self.wake_lane(state, lane));
    }

    /// Returns whether every lane is done.
    pub(crate) fn is_done(&self) -> bool {
        self.state()
            .lanes
            .iter()
            .all(|lane| !lane.busy && lane.queue.is_empty())
    }

    pub(crate) fn progress(&self) -> Progress {
        let state = self.state();
        let next = state.lanes.iter().filter_map(|lane| lane.backs_off).min();
        let until = next.map(|next| state.resume.map_or(next, |resume| next.max(resume)));
        Progress {
            sent: state.report.sent,
            accepted: state.report.accepted,
            rejected: state.report.rejected.len(),
            retries: state.report.retries,
            bytes: state.report.bytes,
            backing_off: until.map(|until| until.saturating_duration_since(Instant::now())),
        }
    }

    /// Returns what can be used again, and the report, or an error if anything is undelivered.
    pub(crate) fn finish(self) -> (Resources, Result<Report, Error>) {
        let mut state = self
            .state
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        state
            .report
            .rejected
            .sort_by_key(|rejection| rejection.position);
        let parts = state.lanes.iter_mut().map(|lane| {
            let never_sent = std::mem::take(&mut lane.never_sent);
            [std::mem::take(&mut lane.undelivered), never_sent]
        });
        let mut undelivered = Undelivered::merge(parts.collect());
        if state.report.coalesced == 0 {
            undelivered.sort();
        }
        let result = match state.stopped.or(state.set_aside) {
            Some(error) if !undelivered.is_empty() => Err(error
                .with_report(state.report)
                .with_undelivered(undelivered)),
            _ => Ok(state.report),
        };
        let mut connections = Vec::new();
        if !state.aborted {
            connections.extend(state.lanes.into_iter().map(|lane| lane.connection));
        }
        let resources = Resources {
            connections,
            buffers: state.spare,
        };
        (resources, result)
    }

    /// Delivers a lane's batches until there are no more: the body of its thread.
    pub(crate) fn run_lane(&self, lane: usize) {
        let mut sender = Sender::new(self, lane, false);
        while let Some(batch) = self.next(lane) {
            self.run_batch(&mut sender, batch);
        }
    }

    /// Delivers the batches that wait for a lane, on the caller's thread.
    pub(super) fn run_queue(&self, sender: &mut Sender<'a>) {
        loop {
            let next = self.state().take_queued(sender.lane());
            let Some(batch) = next else { return };
            self.run_batch(sender, batch);
        }
    }

    /// Delivers a batch.
    ///
    /// A panic, of a logger for instance, must not lose what is not delivered yet.
    fn run_batch(&self, sender: &mut Sender<'_>, mut batch: Records) {
        let lane = sender.lane();
        let mut settled = 0;
        let deliver = || sender.deliver(&mut batch, &mut settled);
        if catch_unwind(AssertUnwindSafe(deliver)).is_err() {
            self.abort(Error::new(ErrorKind::Io, "a sending thread panicked"));
        }
        let mut state = self.state();
        let rest = settled..batch.len();
        hand_back(&mut state.lanes[lane].undelivered, &batch, rest, self.route);
        state.lanes[lane].busy = false;
        batch.clear();
        state.spare.push(batch);
        self.wake_caller(&state);
    }

    fn next(&self, lane: usize) -> Option<Records> {
        let mut state = self.state();
        loop {
            if let Some(batch) = state.take_queued(lane) {
                self.wake_caller(&state);
                return Some(batch);
            }
            if state.closed {
                return None;
            }
            state = self.wait_in_lane(state, lane, Duration::MAX);
        }
    }
}

pub(super) fn hand_back(to: &mut Undelivered, batch: &Records, range: Range<usize>, route: &Route) {
    for index in range {
        let members = &batch.json(index)[route.opening.len()..];
        to.push(batch.position(index), members, batch.encoded(index));
    }
}

impl State {
    fn new(lanes: Vec<Lane>, spare: Vec<Records>, most: Limits) -> Self {
        Self {
            lanes,
            caller_waits: false,
            most,
            spare,
            closed: false,
            stopped: None,
            set_aside: None,
            aborted: false,
            resume: None,
            report: Report::default(),
        }
    }

    fn take_queued(&mut self, lane: usize) -> Option<Records> {
        let batch = self.lanes[lane].queue.pop_front()?;
        self.lanes[lane].busy = true;
        Some(batch)
    }

    /// Returns whether one more batch may wait for the lane. A lane that backs off may take the room of others, so that they
    /// do not wait for it. A lane for which nothing waits always has room.
    fn has_room(&self, lane: usize) -> bool {
        let waiting: usize = self.lanes.iter().map(|lane| lane.queue.len()).sum();
        self.lanes[lane].queue.len() < QUEUE || waiting < QUEUE * self.lanes.len()
    }

    /// Returns whether a request must be split before it is sent. A 413 does not show whether the request had too many
    /// records or too many bytes, so one that has few of either is tried.
    pub(super) fn is_too_large(&self, records: usize, bytes: usize) -> bool {
        records > self.most.records && bytes > self.most.bytes
    }

    /// Halves the limits after the server refused a request as too large.
    pub(super) fn refused_as_too_large(&mut self, records: usize, bytes: usize) {
        self.most.records = self.most.records.min(records.div_ceil(2));
        self.most.bytes = self.most.bytes.min(bytes.div_ceil(2));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::batch::opening;
    use crate::client::transport::{Request, Response, TransportError};
    use crate::group::Group;
    use crate::record::{RecordRef, Update};
    use crate::util::sync::run_test;

    /// Accepts the first request, and panics then.
    struct Panicking(Mutex<usize>);

    impl Transport for Panicking {
        fn post(&self, _request: Request<'_>) -> Result<Response, TransportError> {
            let mut requests = self.0.lock().unwrap();
            *requests += 1;
            assert!(*requests < 2, "as ureq may when there is no thread");
            Ok(Response {
                status: 200,
                retry_after: None,
                body: b"1".to_vec(),
            })
        }

        fn abort(&self) {
            drop(self.0.lock().unwrap());
        }
    }

    fn route() -> Route {
        Route {
            url: String::new(),
            authorization: None,
            opening: opening("TOKEN"),
            name: Update::name,
            limits: Limits::default(),
            compression: Compression::None,
            retry: RetryPolicy::default(),
        }
    }

    /// Returns a batch of one update at that position.
    fn batch(route: &Route, position: usize) -> Records {
        let mut batch = Records::default();
        let update = Group::new("company", position).delete();
        let pushed = batch.push(position, &route.opening, &update);
        pushed.unwrap();
        batch
    }

    /// A connection over which nothing is sent.
    struct Idle;

    impl Transport for Idle {
        fn post(&self, _request: Request<'_>) -> Result<Response, TransportError> {
            unreachable!("nothing is sent")
        }

        fn abort(&self) {}
    }

    #[test]
    fn what_is_stopped_is_handed_back_and_its_connections_can_be_used_again() {
        run_test(|| {
            let route = route();
            let delivery =
                Delivery::new(&route, Resources::of(vec![Arc::new(Idle), Arc::new(Idle)]));
            assert_eq!(delivery.lanes(), 2);
            assert!(delivery.is_done());
            delivery.offer(0, batch(&route, 3)).unwrap();
            assert!(!delivery.is_done(), "a batch waits");
            let rejection = Rejection::new(RecordRef::unreadable(""), None, "no");
            delivery.reject(rejection.clone());
            delivery.note_coalesced(2);
            assert_eq!(delivery.progress().rejected, 1);
            delivery.stop(Error::new(ErrorKind::Network, "the first one"));
            delivery.stop(Error::new(ErrorKind::Network, "a later one"));
            delivery.offer(1, batch(&route, 2)).unwrap();
            delivery.close();
            delivery.run_lane(0);
            delivery.run_lane(1);
            assert!(delivery.is_done());
            assert_eq!(delivery.spare().len(), 0);
            let (resources, result) = delivery.finish();
            assert_eq!(resources.connections.len(), 2);
            let error = result.unwrap_err();
            assert_eq!(error.to_string(), "the first one (2 undelivered)");
            let report = error.report().unwrap();
            assert_eq!(
                (&report.rejected[..], report.coalesced),
                (&[rejection][..], 2)
            );
            let undelivered = error.into_undelivered();
            assert_eq!(undelivered.all_positions().collect::<Vec<_>>(), [2, 3]);
        });
    }

    #[test]
    fn progress_has_the_time_until_the_first_of_several_retries() {
        run_test(|| {
            let route = route();
            let connections: Vec<Arc<dyn Transport>> = vec![Arc::new(Idle), Arc::new(Idle)];
            let delivery = Delivery::new(&route, Resources::of(connections));
            let [soon, later, last] = [100, 200, 300].map(Duration::from_secs);
            let backing_off = || delivery.progress().backing_off;
            assert_eq!(backing_off(), None);
            let now = Instant::now();
            delivery.state().lanes[0].backs_off = Some(now + later);
            delivery.state().lanes[1].backs_off = Some(now + soon);
            assert!(backing_off().is_some_and(|wait| wait <= soon));
            // No connection sends before that.
            delivery.state().resume = Some(now + last);
            assert!(backing_off().is_some_and(|wait| later < wait && wait <= last));
        });
    }

    #[test]
    fn what_was_stopped_at_its_end_succeeded_and_aborted_connections_are_dropped() {
        run_test(|| {
            let route = route();
            let delivery = Delivery::new(&route, Resources::of(vec![Arc::new(Idle)]));
            delivery.abort(Error::new(ErrorKind::Cancelled, "cancelled"));
            let (resources, result) = delivery.finish();
            assert!(resources.connections.is_empty() && result.is_ok());
        });
    }

    #[test]
    fn a_batch_waits_for_each_lane_or_takes_the_place_of_another_lane() {
        run_test(|| {
            let route = route();
            let delivery =
                Delivery::new(&route, Resources::of(vec![Arc::new(Idle), Arc::new(Idle)]));
            let offer = |lane, position| delivery.offer(lane, batch(&route, position));
            assert!(offer(0, 0).is_ok() && offer(0, 1).is_ok());
            let back = offer(0, 2).unwrap_err();
            assert_eq!(back.position(0), 2, "there is no room");
            assert!(
                offer(1, 3).is_ok(),
                "a lane for which nothing waits has room"
            );
            assert!(offer(1, 4).is_err());
        });
    }

    #[test]
    fn a_panic_of_a_lane_loses_nothing_and_ends() {
        let route = route();
        let connection: Arc<dyn Transport> = Arc::new(Panicking(Mutex::new(0)));
        let delivery = Delivery::new(&route, Resources::of(vec![connection]));
        std::thread::scope(|scope| {
            scope.spawn(|| delivery.run_lane(0));
            for position in 0..3 {
                let mut batch = batch(&route, position);
                while let Err(back) = delivery.offer(0, batch) {
                    batch = back;
                    delivery.wait(Duration::from_millis(1));
                }
            }
            delivery.close();
        });
        assert!(delivery.is_done());
        let (resources, result) = delivery.finish();
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert_eq!(error.report().map(|report| report.accepted), Some(1));
        let undelivered = error.into_undelivered();
        let positions: Vec<_> = undelivered.positions().map(|(at, _)| at).collect();
        assert_eq!(positions, [1, 2]);
        assert!(
            resources.connections.is_empty(),
            "nobody knows what state it is in"
        );
    }

    #[test]
    fn a_request_is_split_if_both_its_records_and_its_bytes_are_known_to_be_too_many() {
        let limits = Limits {
            records: 2_000,
            bytes: 2_000_000,
        };
        let mut state = State::new(Vec::new(), Vec::new(), limits);
        assert!(!state.is_too_large(2_000, 2_000_000));
        // Two large records: it was their bytes, but who knows.
        state.refused_as_too_large(2, 1_500_000);
        assert!(!state.is_too_large(1, 2_000_000), "one is never split");
        assert!(!state.is_too_large(2_000, 750_000));
        assert!(state.is_too_large(2, 750_001));
        // It was their number.
        state.refused_as_too_large(2_000, 300_000);
        assert!(!state.is_too_large(2_000, 150_000));
        assert!(state.is_too_large(2, 150_001));
    }
}

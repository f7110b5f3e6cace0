//! The caller's side of a delivery.

use std::time::Duration;

use crate::client::SendOptions;
use crate::client::coalesce::coalesce;
use crate::client::delivery::{Delivery, LOOK_EVERY, cancelled};
use crate::client::records::Records;
use crate::client::sender::Sender;
use crate::record::Record;
use crate::record::{Error, ErrorKind};
use crate::util::sync::{Instant, Scope, spawn_scoped};

/// The shortest time between two calls of [`SendOptions::on_progress`].
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// Reads the records and fills a batch for each lane.
pub(super) struct Lanes<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    delivery: &'env Delivery<'env>,
    sending: SendOptions<'env>,
    filling: Vec<Filling<'env>>,
    cancelled: bool,
    progressed: Instant,
    finished: bool,
}

struct Filling<'env> {
    batch: Records,
    runs: Runs<'env>,
}

/// Where the requests of a lane run.
enum Runs<'env> {
    /// There was none so far.
    Nowhere,
    /// On the caller's thread, which fills no batch meanwhile.
    Here(Box<Sender<'env>>),
    OnItsThread,
}

impl<'scope, 'env> Lanes<'scope, 'env> {
    pub(super) fn new(
        scope: &'scope Scope<'scope, 'env>,
        delivery: &'env Delivery<'env>,
        sending: SendOptions<'env>,
    ) -> Self {
        let filling = (0..delivery.lanes()).map(|_| Filling {
            batch: delivery.spare(),
            runs: Runs::Nowhere,
        });
        Self {
            scope,
            delivery,
            sending,
            filling: filling.collect(),
            cancelled: false,
            progressed: Instant::now(),
            finished: false,
        }
    }

    /// Reads all records, but never more than the lanes can hold.
    pub(super) fn fill<R: Record>(&mut self, records: impl Iterator<Item = R>) {
        let route = self.delivery.route();
        let lanes = self.filling.len();
        for (position, record) in records.enumerate() {
            self.check_caller();
            let lane = if lanes > 1 {
                lane_of(record.group_hash(), lanes)
            } else {
                0
            };
            let batch = &mut self.filling[lane].batch;
            let (opening, limits, name) = (&route.opening, route.limits, route.name);
            match batch.push_within(position, opening, &record, limits, name) {
                Ok(true) => self.pushed(lane),
                Ok(false) => {}
                Err(rejection) => self.delivery.reject(*rejection),
            }
        }
        for lane in 0..self.filling.len() {
            self.coalesce(lane);
        }
        // A lane that is full does not keep the others waiting for their last batch.
        while !self.ship_the_rest() {
            self.wait();
        }
    }

    /// Ships each lane's last batch if there is room for it. Returns whether all are shipped.
    ///
    /// The very last one needs no thread: the caller's has nothing else to do.
    fn ship_the_rest(&mut self) -> bool {
        let is_left = |lane: &usize| !self.filling[*lane].batch.is_empty();
        let rest: Vec<_> = (0..self.filling.len()).filter(is_left).collect();
        let mut left = rest.len();
        for lane in rest {
            let batch = std::mem::take(&mut self.filling[lane].batch);
            match self.offer(lane, batch, left == 1) {
                Ok(()) => left -= 1,
                Err(back) => self.filling[lane].batch = back,
            }
        }
        left == 0
    }

    /// Ships the batch that a record was added to if that is full.
    fn pushed(&mut self, lane: usize) {
        let limits = self.delivery.route().limits;
        if self.filling[lane].batch.fits(limits) || self.coalesce(lane) {
            return;
        }
        // What is left after coalescing may fit whole, or take more than one request: then a merged record at the front
        // is larger than the one that was added.
        loop {
            let mut next = self.delivery.spare();
            let batch = &mut self.filling[lane].batch;
            next.reserve_as_much_as(batch);
            batch.move_rest_to(batch.fitting(limits), &mut next);
            let is_last = next.fits(limits);
            let full = std::mem::replace(batch, next);
            self.ship(lane, full);
            if is_last {
                return;
            }
        }
    }

    /// Coalesces a lane's batch, if that is set. Returns whether as much again would fit.
    fn coalesce(&mut self, lane: usize) -> bool {
        if !self.sending.coalesce {
            return false;
        }
        let route = self.delivery.route();
        let batch = &mut self.filling[lane].batch;
        let most = route.limits.most_bytes_a_record();
        let saved = coalesce(batch, route.opening.len(), most);
        self.delivery.note_coalesced(saved);
        batch.is_half_empty(route.limits)
    }

    fn ship(&mut self, lane: usize, mut batch: Records) {
        while let Err(back) = self.offer(lane, batch, false) {
            batch = back;
            self.wait();
        }
    }

    /// Hands a batch to a lane; gives it back if there is no room.
    ///
    /// The first one decides where the lane's requests run: on this thread if it `is_last`, or if there is one lane
    /// and one core, where a second thread would only take turns with this one. But a thread that looks at a flag or
    /// reports progress must not wait for a response, unless there is no other.
    fn offer(&mut self, lane: usize, batch: Records, is_last: bool) -> Result<(), Records> {
        let delivery = self.delivery;
        if matches!(self.filling[lane].runs, Runs::Nowhere) {
            let cancels = self.sending.cancel.is_some() && self.sending.canceller.is_none();
            let must_look = cancels || self.sending.progress.is_some();
            let is_alone = is_last || self.filling.len() == 1 && self.sending.client.has_one_core();
            let runs_here = is_alone && !must_look || !self.start_thread(lane);
            self.filling[lane].runs = if runs_here {
                Runs::Here(Box::new(Sender::new(
                    delivery,
                    lane,
                    self.sending.cancel.is_some(),
                )))
            } else {
                Runs::OnItsThread
            };
        }
        delivery.offer(lane, batch)?;
        if let Runs::Here(sender) = &mut self.filling[lane].runs {
            delivery.run_queue(sender);
        }
        Ok(())
    }

    /// Starts the thread of a lane. Returns whether there is one now: the system may refuse it.
    fn start_thread(&self, lane: usize) -> bool {
        let delivery = self.delivery;
        let name = format!("mixpanel-groups lane {lane}");
        let run = move || delivery.run_lane(lane);
        let started = spawn_scoped(self.scope, name, run);
        if let Err(error) = &started {
            log::warn!("cannot start a sending thread, so the caller's sends: {error}");
        }
        started.is_ok()
    }

    /// Waits for the lanes to finish.
    pub(super) fn finish(mut self) {
        self.delivery.close();
        while !self.delivery.is_done() {
            self.wait();
        }
        self.finished = true;
        let batches = self.filling.drain(..).map(|filling| filling.batch);
        self.delivery.keep_spare(batches);
        if let Some(callback) = &mut self.sending.progress {
            callback(&self.delivery.progress());
        }
    }

    fn wait(&mut self) {
        self.delivery.wait(LOOK_EVERY);
        self.check_caller();
    }

    /// Checks for cancellation and reports progress.
    fn check_caller(&mut self) {
        if !self.cancelled && self.delivery.is_cancelled() {
            self.cancelled = true;
            self.delivery.abort(cancelled());
        }
        if let Some(callback) = &mut self.sending.progress
            && self.progressed.elapsed() >= PROGRESS_EVERY
        {
            callback(&self.delivery.progress());
            self.progressed = Instant::now();
        }
    }
}

/// Returns the lane of a group, the same for all of its records: the upper bits of the hash, which depend on all bytes, as
/// a part of the number of lanes.
fn lane_of(group_hash: u64, lanes: usize) -> usize {
    let lane = (u128::from(group_hash) * lanes as u128) >> 64;
    usize::try_from(lane).expect("less than the number of lanes")
}

/// Ends the lanes' threads, also when the caller's iterator or callback panics.
impl Drop for Lanes<'_, '_> {
    fn drop(&mut self) {
        if !self.finished {
            self.delivery
                .abort(Error::new(ErrorKind::Cancelled, "the caller panicked"));
        }
        self.delivery.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::group_hash::hash;

    /// With random lanes, the fullest of eight has about 1.5 % more than its share of 80,000.
    #[test]
    fn groups_are_shared_out_evenly() {
        let ids: [fn(usize) -> String; 4] = [
            |number| format!("company_{number}"),
            |number| number.to_string(),
            |number| (number * 1_000).to_string(),
            |number| format!("{number:032x}.example"),
        ];
        for id in ids {
            for lanes in [2, 3, 8, 16] {
                let mut filled = vec![0; lanes];
                for number in 0..80_000 {
                    filled[lane_of(hash(id(number).as_bytes()), lanes)] += 1;
                }
                let fullest = filled.iter().max().unwrap() * lanes;
                assert!(fullest < 80_000 * 104 / 100, "{} {filled:?}", id(1));
            }
        }
    }

    #[test]
    fn short_ids_take_different_lanes() {
        for lanes in [2, 3] {
            let mut filled = vec![0; lanes];
            for id in 0..100 {
                filled[lane_of(hash(id.to_string().as_bytes()), lanes)] += 1;
            }
            let least = 100 / lanes * 2 / 3;
            assert!(filled.iter().all(|filled| *filled >= least), "{filled:?}");
        }
    }
}

#[cfg(all(test, not(simulation)))]
mod thread_tests {
    use std::collections::{BTreeSet, HashSet};
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};
    use std::thread::{self, ThreadId};

    use crate::client::ClientBuilder;
    use crate::client::canceller::Canceller;
    use crate::client::endpoint::Endpoint;
    use crate::client::transport::{Request, Response, Transport, TransportError};
    use crate::group::Group;

    /// Notes the connection and the thread of each request.
    struct Noting {
        connection: usize,
        requests: Arc<Mutex<Vec<(usize, ThreadId)>>>,
    }

    impl Transport for Noting {
        fn post(&self, _request: Request<'_>) -> Result<Response, TransportError> {
            let request = (self.connection, thread::current().id());
            self.requests.lock().unwrap().push(request);
            Ok(Response {
                status: 200,
                retry_after: None,
                body: b"1".to_vec(),
            })
        }

        fn abort(&self) {}
    }

    /// What is said or asked while it sends.
    #[derive(Clone, Copy)]
    enum Watches {
        Nothing,
        Progress,
        Flag,
        Canceller,
    }

    /// Returns how many connections and how many other threads a call with that many batches uses, and how many of its
    /// requests run on this thread.
    fn places(
        connections: usize,
        has_one_core: bool,
        batches: usize,
        watches: Watches,
    ) -> (usize, usize, usize) {
        let requests = Arc::new(Mutex::default());
        let next = AtomicUsize::new(0);
        let noted = Arc::clone(&requests);
        let open = Box::new(move || {
            let connection = next.fetch_add(1, Ordering::Relaxed);
            let requests = Arc::clone(&noted);
            Arc::new(Noting {
                connection,
                requests,
            }) as Arc<dyn Transport>
        });
        let builder = ClientBuilder::new("TOKEN".to_owned());
        let builder = builder.connections(connections).max_batch(10);
        let client = builder.connect(Endpoint::nowhere(), open);
        assert!(client.0.has_one_core.set(has_one_core).is_ok());
        let updates = (0..10 * batches).map(|id| Group::new("company", id).delete());
        let (flag, canceller) = (AtomicBool::new(false), Canceller::default());
        let sending = client.with_options();
        let sending = match watches {
            Watches::Nothing => sending,
            Watches::Progress => sending.on_progress(|_| {}),
            Watches::Flag => sending.cancel_on(&flag),
            Watches::Canceller => sending.cancelled_by(&canceller),
        };
        assert_eq!(sending.send(updates).unwrap().accepted, 10 * batches);
        let this = thread::current().id();
        let requests = requests.lock().unwrap();
        let used: BTreeSet<_> = requests.iter().map(|(connection, _)| connection).collect();
        let mut others: Vec<_> = requests.iter().map(|(_, thread)| *thread).collect();
        let all = others.len();
        others.retain(|thread| *thread != this);
        let here = all - others.len();
        let others: HashSet<_> = others.into_iter().collect();
        (used.len(), others.len(), here)
    }

    #[test]
    fn a_lane_has_a_thread_only_where_the_caller_has_something_else_to_do() {
        for (watches, one_batch) in [
            (Watches::Nothing, (1, 0, 1)),
            (Watches::Progress, (1, 1, 0)),
            (Watches::Flag, (1, 1, 0)),
            (Watches::Canceller, (1, 0, 1)),
        ] {
            assert_eq!(places(1, false, 1, watches), one_batch);
            let next_is_filled = (1, 1, 0);
            assert_eq!(places(1, false, 5, watches), next_is_filled);
            let on_one_core = if one_batch.1 == 0 {
                (1, 0, 5)
            } else {
                one_batch
            };
            assert_eq!(places(1, true, 5, watches), on_one_core);
        }
    }

    #[test]
    fn groups_take_all_connections() {
        let (connections, threads, _) = places(3, false, 30, Watches::Nothing);
        assert_eq!((connections, threads), (3, 3));
        let (connections, threads, here) = places(3, false, 1, Watches::Nothing);
        assert_eq!(
            (connections, threads, here),
            (3, 2, 1),
            "the last one is sent here"
        );
    }
}

//! One lane's requests.

use std::cell::Cell;
use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::client::compression::Packer;
use crate::client::delivery::{Delivery, LOOK_EVERY, Stopped, cancelled, hand_back};
use crate::client::records::Records;
use crate::client::response::{FailedRecord, Verdict, interpret};
use crate::client::retry::{Failure, Step};
use crate::client::transport::{Request, Transport, TransportError};
use crate::record::Rejection;
use crate::record::report::BlockedRecord;
use crate::record::{Error, ErrorKind};
use crate::util::random::{random, random_bits};
use crate::util::sync::{Instant, LONGEST_WAIT};

/// Sends what one lane is given.
pub(super) struct Sender<'a> {
    delivery: &'a Delivery<'a>,
    lane: usize,
    /// Whether nobody else looks whether the delivery is cancelled: the caller's thread is this one.
    looks: bool,
    connection: Arc<dyn Transport>,
    packer: Packer,
    /// The heads of groups of which an update was set aside: their later ones are not sent before it.
    held: HashSet<Vec<u8>>,
    /// Whether a compressed request was accepted.
    gzip_works: bool,
    /// How many records were set aside since the last one that was accepted.
    set_aside: usize,
    /// The number of the last request among those of all lanes.
    request: Cell<usize>,
    /// How many requests there had been when the first attempt of the last run was blocked.
    blocked_at: Cell<usize>,
}

/// After so many records that were blocked alone, with none delivered in between, another one shows whether it is their
/// text.
const MAX_SET_ASIDE: usize = 3;

/// The status that refuses a `Content-Encoding`, among others.
/// ([RFC 9110, 15.5.16](https://www.rfc-editor.org/rfc/rfc9110#section-15.5.16))
const NO_SUCH_ENCODING: u16 = 415;

impl<'a> Sender<'a> {
    pub(super) fn new(delivery: &'a Delivery<'a>, lane: usize, looks: bool) -> Self {
        Self {
            delivery,
            lane,
            looks,
            connection: Arc::clone(&delivery.state().lanes[lane].connection),
            packer: Packer::new(delivery.route.compression),
            held: HashSet::new(),
            gzip_works: false,
            set_aside: 0,
            request: Cell::new(0),
            blocked_at: Cell::new(0),
        }
    }

    pub(super) fn lane(&self) -> usize {
        self.lane
    }

    /// Delivers the records of a batch, one run after the other. When it returns, the first `settled` records are accepted,
    /// rejected or handed back, and no others that are left in the batch.
    pub(super) fn deliver(
        &mut self,
        batch: &mut Records,
        settled: &mut usize,
    ) -> Result<(), Stopped> {
        let mut sent = 0;
        // Whether a run was blocked at each attempt, so that its parts are tried once.
        let mut is_blocked = false;
        // Where the last run ends that was blocked as a whole, and how many requests there had been.
        let (mut blocked_until, mut requests_before) = (0, 0);
        // Runs of records that wait for their turn, the next one last.
        let mut runs = Vec::new();
        self.take_out_held(batch, 0);
        self.check_for_wall(batch, 0, &mut sent)?;
        runs.extend(whole(0..batch.len()));
        while let Some(run) = runs.pop() {
            let (records, bytes) = (run.len(), batch.bytes(&run));
            if self.delivery.state().is_too_large(records, bytes) {
                runs.extend(halves(&run));
                continue;
            }
            let newly_sent = run.end.saturating_sub(sent);
            sent = sent.max(run.end);
            let verdict = self.exchange(batch, &run, newly_sent, is_blocked)?;
            if matches!(verdict, Verdict::Blocked(_)) && run.start >= blocked_until {
                blocked_until = run.end;
                requests_before = self.blocked_at.get();
            }
            match failed_records(verdict, records) {
                Ok(failed_records) => {
                    self.settle(batch, &run, failed_records);
                    *settled = run.end;
                }
                Err(Verdict::Blocked(error)) if records == 1 => {
                    self.set_aside(batch, run.start, requests_before, error);
                    *settled = run.end;
                    let gone = self.take_out_held(batch, *settled);
                    let shifted = |at: usize| at - gone.partition_point(|gone| *gone < at);
                    let left = runs.into_iter().filter_map(|run: Range<usize>| {
                        whole(shifted(run.start)..shifted(run.end))
                    });
                    runs = left.collect();
                    (sent, blocked_until) = (shifted(sent), shifted(blocked_until));
                    if self.set_aside < MAX_SET_ASIDE {
                        continue;
                    }
                    self.check_for_wall(batch, *settled, &mut sent)?;
                    runs.clear();
                    runs.extend(whole(*settled..batch.len()));
                }
                Err(verdict) => {
                    is_blocked |= matches!(verdict, Verdict::Blocked(_));
                    if matches!(verdict, Verdict::TooLarge(_)) {
                        self.delivery.state().refused_as_too_large(records, bytes);
                    }
                    runs.extend(halves(&run));
                }
            }
        }
        Ok(())
    }

    /// Hands back a record that is blocked alone.
    fn set_aside(&mut self, batch: &Records, index: usize, requests_before: usize, error: Error) {
        let position = batch.position(index);
        log::warn!("record {position} was not delivered: {error:#}");
        self.hand_back(batch, index);
        let head = batch.head(index, self.delivery.route.opening.len());
        self.held.insert(head.to_vec());
        self.set_aside += 1;
        let mut state = self.delivery.state();
        state.report.blocked.push(BlockedRecord {
            position,
            requests_before,
        });
        state.set_aside.get_or_insert(error);
    }

    /// Stops all lanes if whatever is sent is blocked: as many records in a row were set aside as may be, and one of the rest
    /// is blocked too. Without a rest, the next batch shows it.
    fn check_for_wall(
        &mut self,
        batch: &mut Records,
        rest: usize,
        sent: &mut usize,
    ) -> Result<(), Stopped> {
        if self.set_aside < MAX_SET_ASIDE
            || rest == batch.len()
            || self.is_another_delivered(batch, rest, sent)?
        {
            return Ok(());
        }
        let mut state = self.delivery.state();
        state.report.is_all_blocked = true;
        let error = state.set_aside.take();
        drop(state);
        if let Some(error) = error {
            self.delivery.stop(error);
        }
        Err(Stopped)
    }

    /// Tries one of the records from `rest` on, to know whether those that were set aside are blocked for their text.
    /// One that is not blocked is settled, and taken out of the batch.
    ///
    /// Any of them, since the next ones may have such a text too, and those at the end: so a caller that sends
    /// again what comes back gets on. But no record is sent before another one of its group.
    fn is_another_delivered(
        &mut self,
        batch: &mut Records,
        rest: usize,
        sent: &mut usize,
    ) -> Result<bool, Stopped> {
        let opening = self.delivery.route.opening.len();
        let mut seen = HashSet::new();
        let is_first = |index: &usize| seen.insert(batch.head(*index, opening));
        let first: Vec<_> = (rest..batch.len()).filter(is_first).collect();
        let Some(index) = pick(&first) else {
            return Ok(false);
        };
        let run = index..index + 1;
        let newly_sent = usize::from(index >= *sent);
        let verdict = self.exchange(batch, &run, newly_sent, true)?;
        let Ok(failed_records) = failed_records(verdict, 1) else {
            return Ok(false);
        };
        self.settle(batch, &run, failed_records);
        self.set_aside = 0;
        batch.remove(&[index]);
        *sent -= usize::from(index < *sent);
        Ok(true)
    }

    /// Hands back the records from `first` on whose group has an earlier one that was set aside, and takes them out of the
    /// batch: they do not cut what is left into small requests. Returns where they were.
    fn take_out_held(&self, batch: &mut Records, first: usize) -> Vec<usize> {
        if self.held.is_empty() {
            return Vec::new();
        }
        let opening = self.delivery.route.opening.len();
        let is_held = |index: &usize| self.held.contains(batch.head(*index, opening));
        let held: Vec<_> = (first..batch.len()).filter(is_held).collect();
        for index in &held {
            self.hand_back(batch, *index);
        }
        batch.remove(&held);
        held
    }

    fn hand_back(&self, batch: &Records, index: usize) {
        let to = &mut self.delivery.state().lanes[self.lane].undelivered;
        hand_back(to, batch, index..index + 1, self.delivery.route);
    }

    /// Rejects the records of a run that failed, and accepts the others.
    fn settle(
        &mut self,
        batch: &Records,
        run: &Range<usize>,
        failed_records: BTreeMap<usize, FailedRecord>,
    ) {
        let opening = self.delivery.route.opening.len();
        let rejected: Vec<_> = failed_records
            .into_iter()
            .map(|(index, failed)| {
                let index = run.start + index;
                Rejection {
                    position: batch.position(index),
                    record: (self.delivery.route.name)(&batch.json(index)[opening..]),
                    field: failed.field,
                    message: failed.message,
                    by_server: true,
                }
            })
            .collect();
        for rejection in &rejected {
            log::warn!("Mixpanel rejected {rejection}");
        }
        let accepted = run.len() - rejected.len();
        if accepted > 0 {
            self.set_aside = 0;
        }
        let report = &mut self.delivery.state().report;
        report.accepted += accepted;
        if accepted > 0 {
            report.last_accepted = report.last_accepted.max(self.request.get());
        }
        report.rejected.extend(rejected);
    }

    /// Sends one run, with retries, until its outcome is known, or it was blocked at the last attempt, which is the first
    /// one if `once`.
    fn exchange(
        &mut self,
        batch: &mut Records,
        run: &Range<usize>,
        newly_sent: usize,
        once: bool,
    ) -> Result<Verdict, Stopped> {
        self.pause(None)?;
        self.exchange_from((1, Instant::now()), batch, run, newly_sent, once)
    }

    /// Continues an exchange with the attempt of that number. The first one was at that time.
    fn exchange_from(
        &mut self,
        (first, started): (u32, Instant),
        batch: &mut Records,
        run: &Range<usize>,
        newly_sent: usize,
        once: bool,
    ) -> Result<Verdict, Stopped> {
        let body = batch.body(run);
        let gzip = self.packer.pack(body);
        let body = if gzip { self.packer.packed() } else { body };
        let mut was_blocked = false;
        for attempt in first.. {
            if !self.delivery.is_permitted() {
                let message = "the lease on the outbox was not extended: no request was started";
                return Err(self.stop(Error::new(ErrorKind::Cancelled, message)));
            }
            if attempt == first {
                self.delivery.state().report.sent += newly_sent;
            }
            let verdict = self.post(gzip, body, run.len());
            if matches!(verdict, Verdict::Blocked(_)) && !was_blocked {
                was_blocked = true;
                self.blocked_at.set(self.delivery.state().report.requests);
            }
            if gzip && self.may_be_refused_for_gzip(&verdict) {
                self.packer.stop();
                self.delivery.state().report.retries += 1;
                let once = once || matches!(verdict, Verdict::Refused(_));
                self.pause(None)?;
                // The same attempt: gzip is what failed.
                let plain = self.exchange_from((attempt, started), batch, run, 0, once)?;
                let is_accepted = matches!(plain, Verdict::Accepted | Verdict::Partly(_));
                if matches!(verdict, Verdict::Refused(_)) && !is_accepted {
                    // It may be for a record, and says nothing of gzip.
                    self.packer.start(self.delivery.route.compression);
                    // One record has no halves, of which another would show what it is.
                    let is_blocked = run.len() == 1 && matches!(plain, Verdict::Blocked(_));
                    return Ok(if is_blocked { plain } else { verdict });
                }
                log::warn!("gzip is refused, so nothing more is compressed");
                return Ok(plain);
            }
            self.gzip_works |= gzip && matches!(verdict, Verdict::Accepted | Verdict::Partly(_));
            let (failure, error, is_blocked) = match verdict {
                Verdict::Again(failure, error) => (failure, error, false),
                Verdict::Blocked(error) if !once => (Failure::Overload, error, true),
                Verdict::Final(error) => return Err(self.stop(error)),
                verdict => return Ok(verdict),
            };
            let (asked, elapsed) = (error.retry_after(), started.elapsed());
            let Step::After(wait) =
                self.delivery
                    .route
                    .retry
                    .step(attempt, failure, asked, elapsed, random())
            else {
                if is_blocked {
                    return Ok(Verdict::Blocked(error));
                }
                return Err(self.stop(error));
            };
            if self.delivery.state().stopped.is_some() {
                return Err(Stopped); // What ended the delivery may have broken the connection too.
            }
            log::info!("attempt {attempt} failed, retrying in {wait:?}: {error:#}");
            self.back_off(wait, error.is_rate_limited())?;
            self.delivery.state().report.retries += 1;
        }
        Err(Stopped)
    }

    /// Returns whether a compressed request may be accepted without. That Mixpanel takes gzip for updates is only inferred,
    /// and what cannot read it may refuse it as it refuses records.
    fn may_be_refused_for_gzip(&self, verdict: &Verdict) -> bool {
        match verdict {
            Verdict::Blocked(error) => error.status() == Some(NO_SUCH_ENCODING),
            Verdict::Refused(_) => !self.gzip_works,
            _ => false,
        }
    }

    /// Posts one request.
    fn post(&self, gzip: bool, body: &[u8], records: usize) -> Verdict {
        let route = self.delivery.route;
        let request = Request {
            url: &route.url,
            authorization: route.authorization.as_deref(),
            gzip,
            body,
        };
        {
            let report = &mut self.delivery.state().report;
            report.requests += 1;
            report.bytes += body.len() as u64;
            self.request.set(report.requests);
        }
        match self.connection.post(request) {
            Err(_) if self.delivery.is_cancelled() => Verdict::Final(cancelled()),
            Err(broken) => broken.into(),
            Ok(response) => match interpret(&response, records, &*self.connection) {
                Verdict::Again(failure, error) => {
                    Verdict::Again(failure, error.with_retry_after(response.retry_after))
                }
                Verdict::Blocked(error) => {
                    Verdict::Blocked(error.with_retry_after(response.retry_after))
                }
                Verdict::TooLarge(said) => {
                    let (bytes, how) = (body.len(), if gzip { " (compressed)" } else { "" });
                    let message = "is too large for the server";
                    Verdict::TooLarge(format!(
                        "the request of {bytes} bytes{how} {message}: {said}"
                    ))
                }
                verdict => verdict,
            },
        }
    }

    fn back_off(&self, wait: Duration, for_all: bool) -> Result<(), Stopped> {
        let until = Instant::now() + wait.min(LONGEST_WAIT);
        let mut state = self.delivery.state();
        state.lanes[self.lane].backs_off = Some(until);
        if for_all {
            state.resume = state.resume.max(Some(until));
        }
        drop(state);
        let paused = self.pause(Some(until));
        self.delivery.state().lanes[self.lane].backs_off = None;
        paused
    }

    /// Waits until that time, and until the pause that the server requested of all lanes is over.
    fn pause(&self, until: Option<Instant>) -> Result<(), Stopped> {
        let mut state = self.delivery.state();
        loop {
            if state.stopped.is_some() {
                return Err(Stopped);
            }
            if self.delivery.is_cancelled() {
                drop(state);
                return Err(self.stop(cancelled()));
            }
            let until = until.max(state.resume);
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let Some(left) = left.filter(|left| !left.is_zero()) else {
                return Ok(());
            };
            let look = if self.looks {
                left.min(LOOK_EVERY)
            } else {
                left
            };
            state = self.delivery.wait_in_lane(state, self.lane, look);
        }
    }

    fn stop(&self, error: Error) -> Stopped {
        self.delivery.stop(error);
        Stopped
    }
}

/// Returns which records of a run failed, by their places in it; gives the verdict back if that is not known.
fn failed_records(
    verdict: Verdict,
    records: usize,
) -> Result<BTreeMap<usize, FailedRecord>, Verdict> {
    match verdict {
        Verdict::Accepted => Ok(BTreeMap::new()),
        Verdict::Partly(failed_records) => Ok(failed_records),
        Verdict::Refused(message) | Verdict::TooLarge(message) if records == 1 => {
            let field = None;
            Ok(BTreeMap::from([(0, FailedRecord { field, message })]))
        }
        verdict => Err(verdict),
    }
}

/// Returns a run, if there are records in it.
fn whole(run: Range<usize>) -> Option<Range<usize>> {
    (!run.is_empty()).then_some(run)
}

/// Returns any one of them.
fn pick(indices: &[usize]) -> Option<usize> {
    let place = random_bits().checked_rem(indices.len() as u64)?;
    indices.get(usize::try_from(place).ok()?).copied()
}

/// Returns the two halves of a run, the second one first, because the last one pushed is the next.
fn halves(run: &Range<usize>) -> [Range<usize>; 2] {
    let middle = run.start + run.len() / 2;
    [middle..run.end, run.start..middle]
}

impl From<TransportError> for Verdict {
    fn from(broken: TransportError) -> Self {
        match broken.failure {
            Some(failure) => Self::Again(failure, broken.error),
            None => Self::Final(broken.error),
        }
    }
}

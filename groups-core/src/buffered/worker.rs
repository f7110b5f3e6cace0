//! The worker: the thread that takes from the outbox, sends, and settles.

use std::collections::{HashMap, HashSet};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::buffered::kind::Kind;
use crate::buffered::portion::Portion;
use crate::buffered::publisher::Publisher;
use crate::buffered::settings::Settings;
use crate::buffered::state::{LOOK_AGAIN, Task, Turn};
use crate::buffered::{DeliveryEvent, OverflowPolicy};
use crate::client::coalesce::{Members, coalesce_with_members};
use crate::client::records::{Borrowed, Limits, Records};
use crate::outbox::OutboxEntry;
use crate::record::error::outcome;
use crate::record::report::BlockedRecord;
use crate::record::{Error, Rejection, Report};
use crate::util::panic::catch;
use crate::util::sync::Mutex;

/// How many entries are taken at once: enough for several connections to be busy.
const TAKE: usize = 20_000;

/// Returns how many entries are taken at once. With [`OverflowPolicy::DropOldest`] as many again can be dropped.
fn most_taken(settings: &Settings) -> usize {
    match settings.overflow {
        OverflowPolicy::DropOldest => TAKE.min(settings.capacity.updates.div_ceil(2)),
        OverflowPolicy::Block(_) | OverflowPolicy::Reject => TAKE,
    }
}

/// In how many deliveries an update is blocked, while others are accepted, before it is rejected.
const MAX_BLOCKED: u32 = 3;

/// The longest pause after failures, unless the flush interval is longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The longest pause that a server can ask for.
const LONGEST_REQUESTED_PAUSE: Duration = Duration::from_secs(3600);

/// The outcome of a turn of the worker.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// All that had been published before is settled.
    Done,
    /// Another process has taken what a flush or a shutdown waits for.
    Elsewhere,
    /// Something failed; the pause is the one that the server requested, if any.
    Failed(Option<Duration>),
    /// Nothing of a delivery was accepted in time, and the server requested no pause.
    TimedOut,
}

/// The outcome of an entry that was taken.
#[derive(Clone, Copy)]
enum Fate<'a> {
    Accepted,
    Rejected(&'a Rejection),
    Undelivered,
}

/// Runs the worker until it ends: the body of its thread.
pub(super) fn run<R: Kind>(publisher: &Publisher<R>) {
    publisher.shared.begin();
    if let Err(message) = catch(|| work(publisher)) {
        log::error!("the worker panicked, and queued records are not sent: {message}");
    }
    publisher.shared.end();
}

fn work<R: Kind>(publisher: &Publisher<R>) {
    let shared = &publisher.shared;
    let interval = publisher.settings.flush_interval;
    let mut failures = 0_u32;
    let mut pause = interval;
    let mut suspects = Suspects::default();
    let mut portion = Portion::new(most_taken(&publisher.settings));
    loop {
        let task = shared.take_task(pause, failures > 0);
        let outcome = send_all(publisher, &task, &mut portion, &mut suspects);
        failures = match outcome {
            Outcome::Failed(_) | Outcome::TimedOut => failures.saturating_add(1),
            Outcome::Done | Outcome::Elsewhere => 0,
        };
        if !shared.finish_task(&task, outcome == Outcome::Done) {
            return;
        }
        pause = interval.saturating_mul(2_u32.saturating_pow(failures));
        pause = pause.min(LONGEST_PAUSE.max(interval));
        match outcome {
            Outcome::Elsewhere => pause = pause.min(LOOK_AGAIN),
            Outcome::Failed(Some(requested)) => {
                pause = pause.max(requested.min(LONGEST_REQUESTED_PAUSE));
            }
            Outcome::Done | Outcome::Failed(None) | Outcome::TimedOut => {}
        }
    }
}

/// Sends what is queued, until nothing is left, or nothing from before the task that a flush waits for: so a flush ends,
/// however much is published meanwhile.
fn send_all<R: Kind>(
    publisher: &Publisher<R>,
    task: &Task,
    portion: &mut Portion,
    suspects: &mut Suspects,
) -> Outcome {
    while let Some(cancel) = publisher.shared.start_delivery() {
        let taken = match publisher.outbox.take(portion.now()) {
            Ok(taken) => taken,
            Err(error) => {
                publisher.notify(&DeliveryEvent::Outbox(&error));
                return Outcome::Failed(None);
            }
        };
        // What another process has taken concerns a flush or a shutdown alone.
        if taken.is_empty() && !(publisher.outbox.is_durable() && task.is_awaited) {
            return Outcome::Done;
        }
        if !taken.is_empty() {
            match send(publisher, &taken, cancel, suspects) {
                Outcome::Done => portion.succeeded(),
                // There is a line, only not for so much.
                Outcome::TimedOut if portion.timed_out(taken.len()) => {}
                Outcome::TimedOut => return Outcome::TimedOut,
                failed => {
                    portion.failed();
                    return failed;
                }
            }
        }
        if taken.is_empty() || task.is_flush() {
            match publisher.outbox.depth() {
                Ok(depth) if task.is_older_than(depth) => return Outcome::Done,
                Ok(_) if taken.is_empty() => return Outcome::Elsewhere,
                Ok(_) => {}
                Err(error) => {
                    publisher.notify(&DeliveryEvent::Outbox(&error));
                    return Outcome::Failed(None);
                }
            }
        }
    }
    Outcome::Failed(None)
}

/// Sends entries, and settles those whose fate is known: it is done if that is all of them.
fn send<R: Kind>(
    publisher: &Publisher<R>,
    taken: &[OutboxEntry<R>],
    cancel: &AtomicBool,
    suspects: &mut Suspects,
) -> Outcome {
    let is_cancelled = || cancel.load(Ordering::Relaxed);
    let most = R::route(&publisher.client).most_bytes_a_record();
    let most = publisher.settings.coalesce.then_some(most);
    let Some(batch) = TakenBatch::new(taken, most, &suspects.apart, &is_cancelled) else {
        let undelivered = vec![Fate::Undelivered; taken.len()];
        let _ = settle(publisher, taken, &undelivered, &Report::default());
        return Outcome::Failed(None);
    };
    let TakenBatch {
        merged,
        members,
        refused,
    } = batch;
    // Lanes ask for it, and hooks run on the worker.
    let not_held = Mutex::new(None);
    let permit = |time| {
        publisher.outbox.hold(time).unwrap_or_else(|error| {
            *not_held.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            false
        })
    };
    let options = publisher.client.with_options();
    let options = options.cancel_on(cancel).permit(&permit);
    let route = R::route(&publisher.client);
    let result = match &merged {
        Some(records) => options.run(route, records.written::<R>(OPENING)),
        None => options.run(route, readable(taken).map(|(_, update)| Borrowed(update))),
    };
    let (report, undelivered) = outcome(&result);
    let report = report.expect("a delivery has a report, however it ends");

    // What several were merged into may be refused for one of them: the others are not refused with it.
    let is_merged = |record: &usize| members.of(*record).len() > 1;
    let blocked = report.blocked.iter();
    let blocked = blocked.filter(|blocked| !is_merged(&blocked.position));
    let blocked = blocked.map(|blocked| BlockedRecord {
        position: members.of(blocked.position)[0],
        ..*blocked
    });
    let given_up = suspects.give_up(blocked, taken, &result);
    let rejected = report.rejected.iter().map(|rejection| rejection.position);
    let blocked = report.blocked.iter().map(|blocked| blocked.position);
    let stopped = rejected.filter(is_merged).chain(blocked);
    let stopped: Vec<usize> = stopped.collect();

    let mut fates = vec![Fate::Accepted; taken.len()];
    for rejection in &refused {
        fates[rejection.position] = Fate::Rejected(rejection);
    }
    for rejection in &report.rejected {
        for member in members.of(rejection.position) {
            fates[*member] = Fate::Rejected(rejection);
        }
    }
    for record in undelivered.all_positions().chain(stopped.iter().copied()) {
        for member in members.of(record) {
            fates[*member] = Fate::Undelivered;
        }
    }
    for rejection in &given_up {
        fates[rejection.position] = Fate::Rejected(rejection);
    }
    keep_order(taken, &mut fates);
    let stopped = stopped.into_iter().flat_map(|record| members.of(record));
    suspects.set_apart(stopped.copied(), taken, &fates);
    let settled = settle(publisher, taken, &fates, report);
    if let Err(error) = &result {
        publisher.notify(&DeliveryEvent::Undelivered(error));
    }
    let not_held = not_held.into_inner();
    let not_held = not_held.unwrap_or_else(PoisonError::into_inner);
    for error in not_held.iter().chain(settled.as_ref().err()) {
        publisher.notify(&DeliveryEvent::Outbox(error));
    }
    match (&result, &settled) {
        (Ok(_), Ok(())) => Outcome::Done,
        (Ok(_), Err(_)) => Outcome::Failed(None),
        (Err(error), _) => match error.retry_after() {
            None if error.is_timeout() && report.accepted == 0 => Outcome::TimedOut,
            pause => Outcome::Failed(pause),
        },
    }
}

/// Updates that were blocked or refused, remembered from one delivery to the next.
#[derive(Default)]
struct Suspects {
    /// Updates that something before Mixpanel blocks, such as a firewall that matches their text, and in how many
    /// deliveries. If everything is blocked, the text is not the reason. So an update counts from the first delivery in
    /// which others were accepted after it was blocked, be it in that one or in one before.
    blocked: HashMap<i64, u32>,
    /// Groups of which a merged update was refused, or any was blocked, by the bytes that identify them. Their updates are
    /// sent one by one: only those are refused that are refused alone, and none waits for one that was merged into a later
    /// one.
    apart: HashSet<Vec<u8>>,
}

impl Suspects {
    /// Counts the entries, and returns the rejections of those that were blocked often enough.
    fn give_up<R: Kind>(
        &mut self,
        blocked: impl Iterator<Item = BlockedRecord>,
        taken: &[OutboxEntry<R>],
        result: &Result<Report, Error>,
    ) -> Vec<Rejection> {
        let (report, _) = outcome(result);
        let last_accepted = report.map_or(0, |report| report.last_accepted);
        let is_all_blocked = report.is_some_and(|report| report.is_all_blocked);
        let mut given_up = Vec::new();
        let mut counts = HashMap::new();
        for blocked in blocked {
            let position = blocked.position;
            let (Some(entry), Err(error)) = (taken.get(position), result) else {
                continue;
            };
            // The number of the request after which it was known to be blocked.
            let (before, since) = match self.blocked.get(&entry.id) {
                Some(before) => (*before, 0),
                None => (0, blocked.requests_before),
            };
            let are_others_accepted = !is_all_blocked && last_accepted > since;
            let count = before + u32::from(before > 0 || are_others_accepted);
            match &entry.update {
                Ok(update) if count >= MAX_BLOCKED => {
                    let record = R::name(&update.as_json().as_bytes()[1..]);
                    let message = format!("blocked while others are accepted: {error:#}");
                    let mut rejection = Rejection::new(record, None, message);
                    rejection.position = position;
                    given_up.push(rejection);
                }
                _ => _ = counts.insert(entry.id, count),
            }
        }
        // Those that were not reached keep their counts.
        if !self.blocked.is_empty() {
            let mut left: HashSet<_> = taken.iter().map(|entry| entry.id).collect();
            for rejection in &given_up {
                left.remove(&taken[rejection.position].id);
            }
            self.blocked.retain(|id, _| left.contains(id));
        }
        self.blocked.extend(counts);
        given_up
    }

    /// Sets the groups of these entries apart. A group is no longer apart when nothing of it is undelivered.
    fn set_apart<R: Kind>(
        &mut self,
        stopped: impl Iterator<Item = usize>,
        taken: &[OutboxEntry<R>],
        fates: &[Fate<'_>],
    ) {
        let group = |entry: &OutboxEntry<R>| {
            let update = entry.update.as_ref().ok()?;
            update.group_bytes().map(<[u8]>::to_vec)
        };
        self.apart
            .extend(stopped.filter_map(|at| group(&taken[at])));
        if !self.apart.is_empty() {
            let undelivered = taken.iter().zip(fates);
            let undelivered = undelivered.filter(|(_, fate)| matches!(fate, Fate::Undelivered));
            let groups: HashSet<_> = undelivered.filter_map(|(entry, _)| group(entry)).collect();
            self.apart.retain(|apart| groups.contains(apart));
        }
    }
}

/// Keeps what follows an undelivered update of the same group, delivered or not: coalesced into others, it may have been
/// sent before what it follows, whose older values must not be the last ones when that is sent again.
fn keep_order<R: Kind>(taken: &[OutboxEntry<R>], fates: &mut [Fate<'_>]) {
    let mut kept = HashSet::new();
    for (entry, fate) in taken.iter().zip(fates) {
        let Some(group) = entry.update.as_ref().ok().and_then(R::group_bytes) else {
            continue;
        };
        match fate {
            Fate::Undelivered => _ = kept.insert(group),
            _ if kept.contains(group) => *fate = Fate::Undelivered,
            _ => {}
        }
    }
}

fn settle<R: Kind>(
    publisher: &Publisher<R>,
    taken: &[OutboxEntry<R>],
    fates: &[Fate<'_>],
    report: &Report,
) -> Result<(), Error> {
    let (mut accepted, mut rejected) = (Vec::new(), Vec::new());
    for (entry, fate) in taken.iter().zip(fates) {
        match fate {
            Fate::Accepted => accepted.push(entry.id),
            Fate::Rejected(rejection) => rejected.push((entry.id, *rejection)),
            Fate::Undelivered => {}
        }
    }
    let (settled, is_settled) = {
        let turn = publisher.shared.turn(None);
        let is_taken_back = turn.as_ref().is_none_or(Turn::is_taken_back);
        // What a shutdown has handed back is its caller's, delivered or not.
        let settled = (!is_taken_back).then(|| publisher.outbox.settle(&accepted, &rejected));
        // What is not settled is sent once more, and counted then.
        let (accepted, rejected) = match settled {
            Some(Ok(())) => (accepted.len(), rejected.len()),
            None | Some(Err(_)) => (0, 0),
        };
        publisher.shared.record_report(report, accepted, rejected);
        let is_settled = matches!(settled, Some(Ok(())));
        let settled = match settled {
            Some(settled) => settled.and_then(|()| publisher.outbox.release()),
            None => Ok(()),
        };
        (settled, is_settled)
    };
    for (entry, fate) in taken.iter().zip(fates) {
        if let Fate::Rejected(rejection) = fate
            && is_settled
        {
            publisher.notify(&DeliveryEvent::Rejected(entry.json(), rejection));
        }
    }
    settled
}

/// The first byte of each merged record; the client writes the token after it.
const OPENING: &[u8] = b"{";

/// The records to send for the entries that were taken.
struct TakenBatch {
    /// What is sent instead of the entries that can be read, if some of these were merged.
    merged: Option<Records>,
    /// The entries that each record stands for.
    members: Members,
    /// Entries that cannot be sent, each by its position.
    refused: Vec<Rejection>,
}

impl TakenBatch {
    /// Coalesces into records of so many bytes at most, if that is set, except for the groups `apart`. Returns `None` if it
    /// is cancelled meanwhile.
    fn new<R: Kind>(
        taken: &[OutboxEntry<R>],
        coalesce: Option<usize>,
        apart: &HashSet<Vec<u8>>,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Option<Self> {
        let mut refused = Vec::new();
        for (position, entry) in taken.iter().enumerate() {
            if let Err(unreadable) = &entry.update {
                log::warn!("rejected a row of the outbox: {unreadable}");
                let mut rejection = unreadable.rejection();
                rejection.position = position;
                refused.push(rejection);
            }
        }
        let coalesce = coalesce.filter(|_| R::CAN_COALESCE && has_a_group_twice(taken));
        let Some(most) = coalesce else {
            return Some(Self {
                merged: None,
                members: Members::each(readable(taken).map(|(position, _)| position)),
                refused,
            });
        };
        let unlimited = Limits {
            records: usize::MAX,
            bytes: usize::MAX,
        };
        let mut records = Records::default();
        for (position, update) in readable(taken) {
            if let Err(rejection) = records.push(position, OPENING, update, unlimited) {
                refused.push(*rejection);
            }
        }
        let opening = OPENING.len();
        let members = coalesce_with_members(&mut records, opening, most, apart, is_cancelled)?;
        Some(Self {
            merged: Some(records),
            members,
            refused,
        })
    }
}

/// Returns the entries that can be sent, each with its position.
fn readable<R: Kind>(taken: &[OutboxEntry<R>]) -> impl Iterator<Item = (usize, &R)> {
    let updates = taken.iter().map(|entry| entry.update.as_ref().ok());
    let updates = updates.enumerate();
    updates.filter_map(|(position, update)| Some((position, update?)))
}

fn has_a_group_twice<R: Kind>(taken: &[OutboxEntry<R>]) -> bool {
    let mut seen = HashSet::with_capacity(taken.len());
    let mut groups = readable(taken).filter_map(|(_, update)| update.group_bytes());
    groups.any(|group| !seen.insert(group))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{EncodedUpdate, ErrorKind};

    fn entry(id: i64, group: &str) -> OutboxEntry<EncodedUpdate> {
        let json =
            format!(r#"{{"$group_key":"company","$group_id":"{group}","$set":{{"number":{id}}}}}"#);
        OutboxEntry::read(id, &json)
    }

    #[test]
    fn what_is_blocked_while_others_are_accepted_is_given_up_in_the_third_delivery() {
        let taken = [entry(7, "one"), entry(8, "other")];
        let mut suspects = Suspects::default();
        // Blocked in the third request of a delivery; the last one of which something was accepted.
        let mut deliver = |positions: &[usize], last_accepted, is_all_blocked| {
            let blocked = positions.iter().map(|position| BlockedRecord {
                position: *position,
                requests_before: 3,
            });
            let report = Report {
                is_all_blocked,
                last_accepted,
                ..Report::default()
            };
            let result = Err(Error::new(ErrorKind::Server, "blocked").with_report(report));
            let given_up = suspects.give_up(blocked, &taken, &result);
            let given_up = given_up.into_iter().map(|rejection| rejection.position);
            given_up.collect::<Vec<_>>()
        };
        assert_eq!(deliver(&[1], 3, false), [0; 0], "it may have begun then");
        for _ in 0..5 {
            assert_eq!(deliver(&[1], 0, false), [0; 0], "nothing is accepted");
            assert_eq!(deliver(&[1], 4, true), [0; 0], "it began meanwhile");
        }
        assert_eq!(deliver(&[1], 1, false), [0; 0], "it was blocked before");
        assert_eq!(deliver(&[], 1, false), [0; 0], "it was not reached");
        assert_eq!(deliver(&[0, 1], 0, false), [0; 0], "it counts from then on");
        assert_eq!(deliver(&[0, 1], 0, false), [1]);
        for _ in 0..2 {
            assert_eq!(deliver(&[0, 1], 4, false), [0; 0], "both count from one");
        }
        assert_eq!(deliver(&[0], 0, true), [0]);
        assert_eq!(deliver(&[1], 0, false), [1]);
    }

    #[test]
    fn a_group_is_apart_until_nothing_of_it_is_undelivered() {
        let taken = ["one", "other", "one", "third"].map(|group| entry(7, group));
        let mut suspects = Suspects::default();
        let mut apart = |merged: &[usize], undelivered: &[usize]| {
            let mut fates = [Fate::Accepted; 4];
            for at in undelivered {
                fates[*at] = Fate::Undelivered;
            }
            suspects.set_apart(merged.iter().copied(), &taken, &fates);
            let groups = taken.iter().map(|entry| entry.update.as_ref().unwrap());
            let is_apart = |update: &EncodedUpdate| suspects.apart.contains(update.group_bytes());
            groups.map(is_apart).collect::<Vec<_>>()
        };
        assert_eq!(apart(&[], &[3]), [false; 4], "it was not merged");
        let one = [true, false, true, false];
        assert_eq!(apart(&[0, 2], &[0, 2, 3]), one);
        assert_eq!(apart(&[], &[2]), one);
        assert_eq!(apart(&[1], &[1]), [false, true, false, false]);
        assert_eq!(apart(&[], &[]), [false; 4]);
    }

    #[test]
    fn what_follows_an_undelivered_update_of_its_group_is_sent_again_with_it() {
        let groups = ["one", "other", "one", "other", "one"];
        let mut taken: Vec<_> = (0..)
            .zip(groups)
            .map(|(id, group)| entry(id, group))
            .collect();
        taken.push(OutboxEntry::unreadable(5, "{", "it is not JSON"));
        let mut fates = [Fate::Accepted; 6];
        fates[2] = Fate::Undelivered;
        keep_order(&taken, &mut fates);
        let undelivered = fates.map(|fate| matches!(fate, Fate::Undelivered));
        assert_eq!(undelivered, [false, false, true, false, true, false]);
    }
}

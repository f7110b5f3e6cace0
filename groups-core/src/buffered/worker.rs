//! The worker: the thread that takes from the outbox, sends, and settles.

use std::sync::PoisonError;
use std::time::Duration;

use crate::buffered::fate::{Fate, keep_order};
use crate::buffered::kind::Kind;
use crate::buffered::portion::Portion;
use crate::buffered::publisher::Publisher;
use crate::buffered::settings::Settings;
use crate::buffered::state::{LOOK_AGAIN, Task, Turn};
use crate::buffered::suspects::Suspects;
use crate::buffered::taken_batch::{OPENING, TakenBatch, readable};
use crate::buffered::{DeliveryEvent, OverflowPolicy};
use crate::client::canceller::Canceller;
use crate::client::records::Borrowed;
use crate::outbox::OutboxEntry;
use crate::record::error::outcome;
use crate::record::report::BlockedRecord;
use crate::record::{Error, ErrorKind, Report};
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

/// Takes what is sent next. With [`OverflowPolicy::DropOldest`], that is half of the bytes of the capacity at most, so that
/// as many can be dropped. An outbox takes by number: what is too much is released, and taken again without the rest.
fn take<R: Kind>(publisher: &Publisher<R>, most: usize) -> Result<Vec<OutboxEntry<R>>, Error> {
    let taken = publisher.outbox.take(most)?;
    if publisher.settings.overflow != OverflowPolicy::DropOldest {
        return Ok(taken);
    }
    let mut left = publisher.settings.capacity.bytes / 2;
    let fits = taken.iter().take_while(|entry| {
        let rest = left.checked_sub(entry.json().len());
        left = rest.unwrap_or_default();
        rest.is_some()
    });
    let fits = fits.count().max(1);
    if fits >= taken.len() {
        return Ok(taken);
    }
    // Not while a shutdown takes all of it back.
    let turn = publisher.shared.turn(Duration::MAX);
    if turn.as_ref().is_none_or(Turn::is_taken_back) {
        return Ok(Vec::new());
    }
    publisher.outbox.release()?;
    publisher.outbox.take(fits)
}

/// The longest pause after failures, unless the flush interval is longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The longest pause that a server can ask for.
const LONGEST_REQUESTED_PAUSE: Duration = Duration::from_secs(3600);

/// The outcome of a turn of the worker.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// All that had been published before is settled. The oldest of what is left has waited for so long.
    Done(Duration),
    /// Something failed; the pause is the one that the server requested, if any.
    Failed(Option<Duration>),
    /// Nothing of a delivery was accepted in time, and the server requested no pause.
    TimedOut,
}

/// Runs the worker until it ends: the body of its thread.
pub(super) fn run<R: Kind>(publisher: &Publisher<R>) {
    publisher.shared.begin();
    let ended = catch(|| work(publisher));
    publisher.shared.end();
    // The logger may be what panicked, and do so again.
    if let Err(message) = ended {
        log::error!("the worker panicked, and queued records are not sent: {message}");
    }
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
        publisher.report_dropped();
        let dropped = shared.take_dropped();
        if dropped > 0 {
            log::error!("{}", R::dropped(dropped));
        }
        failures = match outcome {
            Outcome::Failed(_) | Outcome::TimedOut => failures.saturating_add(1),
            Outcome::Done(_) => 0,
        };
        if !shared.finish_task(&task, matches!(outcome, Outcome::Done(_))) {
            return;
        }
        let longer = interval.saturating_mul(2_u32.saturating_pow(failures));
        let longer = longer.min(LONGEST_PAUSE.max(interval));
        pause = match outcome {
            Outcome::Done(waited) => interval.saturating_sub(waited),
            Outcome::Failed(Some(requested)) => longer.max(requested.min(LONGEST_REQUESTED_PAUSE)),
            Outcome::Failed(None) | Outcome::TimedOut => longer,
        };
    }
}

/// Sends what is queued, until nothing is left from before the task: so a task ends, however much is published meanwhile,
/// and what is published meanwhile waits for others to share its request.
fn send_all<R: Kind>(
    publisher: &Publisher<R>,
    task: &Task,
    portion: &mut Portion,
    suspects: &mut Suspects,
) -> Outcome {
    // The first entry of the last delivery, if it was settled.
    let mut gone = None;
    while let Some(canceller) = publisher.shared.start_delivery() {
        let taken = match take(publisher, portion.now()) {
            Ok(taken) => taken,
            Err(error) => {
                publisher.notify(&DeliveryEvent::Outbox(&error));
                return Outcome::Failed(None);
            }
        };
        // What another process has taken concerns a flush or a shutdown alone.
        if taken.is_empty() && !(publisher.outbox.is_durable() && task.is_awaited) {
            return Outcome::Done(Duration::ZERO);
        }
        if !taken.is_empty() {
            if taken.first() == gone.as_ref() {
                // For instance a database in which others may not delete. At least not without a pause.
                let message = "what was settled is still there, and will be sent again";
                let error = Error::new(ErrorKind::Io, message);
                let released = release(publisher, &taken).err();
                for error in std::iter::once(&error).chain(&released) {
                    publisher.notify(&DeliveryEvent::Outbox(error));
                }
                return Outcome::Failed(None);
            }
            match send(publisher, &taken, canceller, suspects, &mut gone) {
                Outcome::Done(_) => portion.succeeded(),
                // There is a line, only not for so much.
                Outcome::TimedOut if portion.timed_out(taken.len()) => {}
                Outcome::TimedOut => return Outcome::TimedOut,
                failed @ Outcome::Failed(_) => {
                    portion.failed();
                    return failed;
                }
            }
        }
        let age = task.age();
        match publisher.outbox.depth() {
            Ok(depth) if task.is_older_than(depth, age) => {
                return Outcome::Done(depth.oldest.unwrap_or_default());
            }
            // Another process has taken what a flush or a shutdown waits for. The task goes on: a new one would wait for what
            // was published since, and so on.
            Ok(_) if taken.is_empty() => {
                let pause = publisher.settings.flush_interval.min(LOOK_AGAIN);
                publisher.shared.wait_for_another(pause);
            }
            Ok(_) => {}
            // The next take shows what is left. If it is nothing, a flush or a shutdown waits for the depth.
            Err(error) => {
                publisher.notify(&DeliveryEvent::Outbox(&error));
                if taken.is_empty() {
                    return Outcome::Failed(None);
                }
            }
        }
    }
    Outcome::Failed(None)
}

/// Sends entries, and settles those whose fate is known: it is done if that is all of them. Sets `gone` to the first one if
/// that was settled.
fn send<R: Kind>(
    publisher: &Publisher<R>,
    taken: &[OutboxEntry<R>],
    canceller: &Canceller,
    suspects: &mut Suspects,
    gone: &mut Option<OutboxEntry<R>>,
) -> Outcome {
    let is_cancelled = || canceller.is_cancelled();
    let most = R::route(&publisher.client).most_bytes_a_record();
    let most = publisher.settings.coalesce.then_some(most);
    let Some(batch) = TakenBatch::new(taken, most, &suspects.apart, &is_cancelled) else {
        let _ = release(publisher, taken);
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
    let options = options.cancelled_by(canceller).permit(&permit);
    let route = R::route(&publisher.client);
    let result = match &merged {
        Some(records) => options.run(route, records.written(OPENING)),
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
    let given_up = suspects.give_up(blocked, taken, &result, route.name);
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
    let is_first_settled = settled.is_ok() && !matches!(fates[0], Fate::Undelivered);
    *gone = is_first_settled.then(|| taken[0].clone());
    if let Err(error) = &result {
        publisher.notify(&DeliveryEvent::Undelivered(error));
    }
    let not_held = not_held.into_inner();
    let not_held = not_held.unwrap_or_else(PoisonError::into_inner);
    for error in not_held.iter().chain(settled.as_ref().err()) {
        publisher.notify(&DeliveryEvent::Outbox(error));
    }
    let is_of_texts = || {
        let refused = report.rejected.iter().map(|rejection| rejection.position);
        let refused = refused.filter(is_merged).flat_map(|one| members.of(one));
        let known = given_up.iter().map(|rejection| rejection.position);
        suspects.explain(known.chain(refused.copied()), taken, &fates)
    };
    match (&result, &settled) {
        (Ok(_), Ok(())) => Outcome::Done(Duration::ZERO),
        (Ok(_), Err(_)) => Outcome::Failed(None),
        // A page about the text of updates does not stop the others, whatever it requests. A ban is the same to each
        // delivery, the next one at the latest.
        (Err(error), _)
            if error.kind() == ErrorKind::UnexpectedResponse
                && (report.accepted > 0 || is_of_texts()) =>
        {
            Outcome::Failed(None)
        }
        (Err(error), _) => match error.retry_after() {
            None if error.is_timeout() && report.accepted == 0 => Outcome::TimedOut,
            pause => Outcome::Failed(pause),
        },
    }
}

/// Makes available again what was taken and not sent.
fn release<R: Kind>(publisher: &Publisher<R>, taken: &[OutboxEntry<R>]) -> Result<(), Error> {
    let undelivered = vec![Fate::Undelivered; taken.len()];
    settle(publisher, taken, &undelivered, &Report::default())
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
        let turn = publisher.shared.turn(Duration::MAX);
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

//! The thread behind [`BufferedClient`](crate::BufferedClient): takes from the outbox, sends,
//! settles.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;

use super::settings::DeliveryEvent;
use super::shared::Shared;
use crate::client::coalesce::coalesce_with_members;
use crate::client::records::{Limits, Records};
use crate::outbox::OutboxEntry;
use crate::record::error::outcome;
use crate::record::{Error, Rejection, Report, Update};

/// How many updates are taken at once: enough for several connections to be busy.
const TAKE: usize = 20_000;

/// What became of an update that was taken.
#[derive(Clone, Copy)]
enum Fate<'a> {
    Accepted,
    Rejected(&'a Rejection),
    Undelivered,
}

pub(super) fn run_worker(shared: &Shared) {
    if catch_unwind(AssertUnwindSafe(|| relay(shared))).is_err() {
        log::error!("the thread that sends has panicked; what waits is not sent");
    }
    shared.note_end();
}

fn relay(shared: &Shared) {
    let (mut failures, mut flush) = (0_u32, 0);
    loop {
        flush = shared.wait_for_work(failures, flush);
        let is_empty = drain(shared);
        if is_empty {
            failures = 0;
            shared.note_flushed(flush);
        } else {
            failures = failures.saturating_add(1);
        }
        let is_over = is_empty || shared.cancel.load(Ordering::Relaxed);
        if is_over && shared.is_stopping() {
            return;
        }
    }
}

/// Sends all that waits; whether that worked.
fn drain(shared: &Shared) -> bool {
    loop {
        shared.resume();
        let taken = match shared.outbox.take(TAKE) {
            Ok(taken) if taken.is_empty() => return true,
            Ok(taken) => taken,
            Err(error) => {
                shared.tell(&DeliveryEvent::Outbox(&error));
                return false;
            }
        };
        if !send(shared, &taken) || shared.cancel.load(Ordering::Relaxed) {
            return false;
        }
    }
}

/// Sends what was taken, and settles what has found its fate; whether that is all of it.
fn send(shared: &Shared, taken: &[OutboxEntry]) -> bool {
    let (records, members, refused) = encode(taken, shared.settings.coalesce);
    let updates = (0..records.len()).map(|index| {
        let json = &records.json(index)[OPENING.len()..];
        Update::encoded(json, Ok(Some(records.encoded(index))))
    });
    let result = shared
        .client
        .with_options()
        .cancel_on(&shared.cancel)
        .send(updates);
    let (report, undelivered) = outcome(&result);
    let nothing = Report::default();
    let report = report.unwrap_or(&nothing);

    let mut fates = vec![Fate::Accepted; taken.len()];
    for rejection in &refused {
        fates[rejection.position] = Fate::Rejected(rejection);
    }
    for rejection in &report.rejected {
        for member in members.get(rejection.position).into_iter().flatten() {
            fates[*member] = Fate::Rejected(rejection);
        }
    }
    for (position, _) in undelivered.positions() {
        for member in members.get(position).into_iter().flatten() {
            fates[*member] = Fate::Undelivered;
        }
    }
    let settled = settle(shared, taken, &fates, report);
    if let Err(error) = &result {
        log::warn!("updates keep waiting: {error:#}");
        shared.tell(&DeliveryEvent::Undelivered(error));
    }
    if let Err(error) = &settled {
        log::error!("the outbox failed: {error:#}");
        shared.tell(&DeliveryEvent::Outbox(error));
    }
    result.is_ok() && settled.is_ok()
}

fn settle(
    shared: &Shared,
    taken: &[OutboxEntry],
    fates: &[Fate<'_>],
    report: &Report,
) -> Result<(), Error> {
    let (mut accepted, mut rejected) = (Vec::new(), Vec::new());
    for (waiting, fate) in taken.iter().zip(fates) {
        match fate {
            Fate::Accepted => accepted.push(waiting.id),
            Fate::Rejected(rejection) => {
                rejected.push((waiting.id, *rejection));
                shared.tell(&DeliveryEvent::Rejected(&waiting.update, rejection));
            }
            Fate::Undelivered => {}
        }
    }
    shared.outbox.settle(&accepted, &rejected)?;
    shared.outbox.release()?;
    shared.note_report(report, accepted.len(), rejected.len());
    Ok(())
}

/// How a record begins here; the client writes the token there.
const OPENING: &[u8] = b"{";

/// The updates to send, which of those taken each of them says, and what is wrong with the others.
fn encode(taken: &[OutboxEntry], coalesce: bool) -> (Records, Vec<Vec<usize>>, Vec<Rejection>) {
    let unlimited = Limits {
        records: usize::MAX,
        bytes: usize::MAX,
    };
    let mut records = Records::default();
    let (mut members, mut refused) = (Vec::new(), Vec::new());
    for (index, waiting) in taken.iter().enumerate() {
        match records.push(index, OPENING, &Update::from(&waiting.update), unlimited) {
            Ok(()) => members.push(vec![index]),
            Err(rejection) => refused.push(*rejection),
        }
    }
    if coalesce {
        let coalesced = coalesce_with_members(&mut records, OPENING.len(), unlimited);
        members = coalesced
            .into_iter()
            .map(|of| {
                of.into_iter()
                    .flat_map(|index| members[index].clone())
                    .collect()
            })
            .collect();
    }
    (records, members, refused)
}

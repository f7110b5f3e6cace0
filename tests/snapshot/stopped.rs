//! A run after which nothing more is sent: it reads no more than it has to.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};

use mixpanel_groups::{ErrorKind, Report};
use mixpanel_groups_emulator::{Emulator, Fault};

use crate::store::Memory;
use crate::{client, company};

/// More than a lane can hold of batches with one group each.
const FEW: usize = 20;

#[test]
fn a_run_that_cannot_send_stops_reading() {
    let (emulator, store) = (Emulator::start().unwrap(), Memory::default());
    let client = client(&emulator);
    emulator.fail_always(Fault::Status(401));
    let read = Cell::new(0);
    let companies = (0..=255).map(|id| {
        read.set(read.get() + 1);
        company(id)
    });
    let mut snapshot = store.open();
    let error = snapshot.sync(&client, companies).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert!(read.get() < FEW, "{} were read", read.get());
    // All that was read, but for the one at which it was seen.
    let undelivered = error.undelivered().len();
    assert!(undelivered >= 3 && undelivered <= 3 * read.get());
    // Each has a row of what was to be sent, and one that it is not certain.
    assert!(store.rows() < 2 * FEW + 2, "{} rows", store.rows());

    emulator.recover();
    let report = snapshot.sync(&client, (0..=255).map(company)).unwrap();
    assert_eq!(report.accepted, 256 * 3);
}

#[test]
fn groups_that_a_stopped_run_did_not_read_are_neither_gone_nor_forgotten() {
    let (emulator, store) = (Emulator::start().unwrap(), Memory::default());
    let client = client(&emulator);
    let changed = |id| {
        let mut company = company(id);
        company.plan = 2;
        company
    };
    let mut snapshot = store.open();
    let report = snapshot.sync(&client, (0..200).map(company)).unwrap();
    assert_eq!(report.accepted, 200 * 3);
    // 200 to 255 are new, and 150 to 199 are gone.
    let next = || {
        let known = (0..100).map(changed).chain((100..150).map(company));
        known.chain((200..=255).map(company))
    };
    emulator.fail_always(Fault::Status(401));
    assert!(snapshot.sync(&client, next()).is_err());
    emulator.recover();
    assert_eq!(emulator.profiles().len(), 200);
    assert_eq!(snapshot.len(), 200);

    drop(snapshot);
    let before = emulator.requests().len();
    let mut snapshot = store.open();
    let report = snapshot.sync(&client, next()).unwrap();
    assert_eq!(report.rejected, []);
    assert_eq!(emulator.profiles().len(), 206);
    // Only what the stopped run had read is sent whole.
    let sent = emulator.requests().split_off(before);
    let sent: String = sent.iter().map(|request| &*request.body).collect();
    assert!(sent.matches("$union").count() < FEW + 56);
    assert_eq!(snapshot.sync(&client, next()).unwrap(), Report::default());
}

#[test]
fn a_run_that_is_cancelled_stops_reading_also_where_nothing_has_changed() {
    let (emulator, store) = (Emulator::start().unwrap(), Memory::default());
    let client = client(&emulator);
    let mut snapshot = store.open();
    let all = || (0..200).map(company);
    assert!(snapshot.sync(&client, all()).is_ok());
    let (stop, read) = (AtomicBool::new(false), Cell::new(0));
    let options = || client.with_options().cancel_on(&stop);
    let until_cancelled = all().inspect(|company| {
        read.set(read.get() + 1);
        stop.store(company.id == 50, Ordering::Relaxed);
    });
    let error = snapshot.sync(options(), until_cancelled).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert_eq!(error.to_string(), "the run was stopped before its end");
    assert_eq!(read.get(), 51);
    // Before the first `$delete`.
    let error = snapshot.sync(options(), [company(1)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert_eq!((emulator.profiles().len(), snapshot.len()), (200, 200));
    stop.store(false, Ordering::Relaxed);
    assert_eq!(snapshot.sync(options(), all()).unwrap(), Report::default());
    // After the last group there was nothing to stop.
    let last = all().inspect(|company| stop.store(company.id == 199, Ordering::Relaxed));
    let mut snapshot = snapshot.delete_gone(false);
    let error = snapshot.sync(options(), last).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled, "it was not compared");
    let report = snapshot.sync(options(), all().take(0)).unwrap();
    assert_eq!(report, Report::default());
}

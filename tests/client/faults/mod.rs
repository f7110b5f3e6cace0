//! What happens when …: a test for each row of the table in the documentation of `Client::send`,
//! and for what lanes do to each other.

mod connections;
mod lanes;
pub(crate) mod raw;
mod responses;

use std::time::Duration;

use mixpanel_groups::{Client, ClientBuilder, Error, Group, RetryPolicy, Update};
use mixpanel_groups_emulator::{Emulator, Fault};
use serde_json::json;

const HOUR: Duration = Duration::from_secs(3600);

/// Retries, and does not wait long for it.
fn quick() -> RetryPolicy {
    RetryPolicy::default()
        .base_delay(Duration::from_millis(1))
        .max_delay(Duration::from_millis(2))
}

/// Retries only what needs no wait at all.
fn at_once() -> RetryPolicy {
    RetryPolicy::default().deadline(Duration::ZERO)
}

/// Waits for hours.
fn patient() -> RetryPolicy {
    RetryPolicy::default()
        .base_delay(HOUR)
        .max_delay(2 * HOUR)
        .deadline(100 * HOUR)
}

fn builder(endpoint: impl Into<String>) -> ClientBuilder {
    Client::builder("TOKEN").endpoint(endpoint).retry(quick())
}

fn client(emulator: &Emulator) -> Client {
    builder(emulator.endpoint()).build().unwrap()
}

fn update(id: usize) -> Update<'static> {
    Group::new("company", id).set(json!({"number": id}))
}

fn updates(count: usize) -> impl Iterator<Item = Update<'static>> {
    (0..count).map(update)
}

fn undelivered(error: &Error) -> Vec<usize> {
    let undelivered = error.undelivered();
    undelivered
        .positions()
        .map(|(position, _)| position)
        .collect()
}

/// Everything is delivered after that many retries.
#[track_caller]
fn assert_retried(faults: &[Fault]) {
    let emulator = Emulator::start().unwrap();
    for fault in faults {
        emulator.fail_next(fault.clone());
    }
    let report = client(&emulator).send(updates(3)).unwrap();
    let attempts = faults.len() + 1;
    assert_eq!(
        (
            report.sent,
            report.accepted,
            report.retries,
            report.requests
        ),
        (3, 3, faults.len(), attempts)
    );
    assert_eq!(emulator.profiles().len(), 3);
    assert_eq!(emulator.requests().len(), attempts);
}

/// The first response ends the delivery, and everything comes back.
#[track_caller]
fn assert_stops(fault: Fault) -> Error {
    let emulator = Emulator::start().unwrap();
    emulator.fail_next(fault);
    let error = client(&emulator).send(updates(3)).unwrap_err();
    assert_eq!(undelivered(&error), [0, 1, 2]);
    let report = error.report().unwrap();
    assert_eq!((report.sent, report.accepted, report.requests), (3, 0, 1));
    assert!(emulator.profiles().is_empty());
    error
}

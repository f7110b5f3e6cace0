//! What connections do to each other, and to the caller.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::iter;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use mixpanel_groups::{Client, Error, Group, RetryPolicy};
use mixpanel_groups_emulator::{Emulator, Fault};
use serde_json::json;

use super::raw::{Raw, read_request, response};
use super::{HOUR, builder, client, patient, quick, undelivered, update, updates};

/// The updates of 0 and on that go over one of two connections, and those that go over the other.
fn lanes_of_two() -> [Vec<usize>; 2] {
    let emulator = Emulator::start().unwrap();
    let client = builder(emulator.endpoint()).connections(2).max_batch(1);
    client
        .build()
        .unwrap()
        .send(updates(50))
        .unwrap()
        .into_result()
        .unwrap();
    let mut lanes = BTreeMap::<_, Vec<_>>::new();
    for request in emulator.requests() {
        let json: serde_json::Value = serde_json::from_str(&request.body).unwrap();
        let id = json[0]["$group_id"].as_str().unwrap().parse().unwrap();
        lanes.entry(request.connection).or_default().push(id);
    }
    lanes.into_values().collect::<Vec<_>>().try_into().unwrap()
}

/// Sends four updates over one connection, the first of which fails with that status, and then 300
/// over another; cancels when `is_enough` of what was accepted so far and the calls of progress
/// since the first one backs off.
fn send_while_one_backs_off(status: u16, is_enough: impl Fn(usize, usize) -> bool) -> Error {
    let [one, other] = lanes_of_two();
    let emulator = Emulator::start().unwrap();
    let after = HOUR.as_secs().to_string();
    emulator.fail_next(Fault::RetryAfter { status, after });
    emulator.fail_always(Fault::Delay(Duration::from_millis(1)));
    let (stop, calls) = (AtomicBool::new(false), Cell::new(0));
    let client = builder(emulator.endpoint())
        .connections(2)
        .max_batch(1)
        .retry(patient())
        .build()
        .unwrap();
    let others = (0..300).map(|number| {
        while emulator.requests().is_empty() {
            thread::yield_now();
        }
        update(other[number % other.len()])
    });
    client
        .with_options()
        .cancel_on(&stop)
        .on_progress(|progress| {
            calls.set(calls.get() + usize::from(progress.backing_off.is_some()));
            let is_enough = is_enough(progress.accepted, calls.get());
            stop.store(is_enough, Ordering::Relaxed);
        })
        .send((0..4).map(|_| update(one[0])).chain(others))
        .unwrap_err()
}

#[test]
fn a_connection_that_backs_off_does_not_stop_the_others() {
    let error = send_while_one_backs_off(503, |accepted, _| accepted == 300);
    assert!(error.is_cancelled());
    assert_eq!(undelivered(&error), [0, 1, 2, 3]);
}

#[test]
fn a_rate_limit_stops_all_connections() {
    // Long enough for all 300, if they were sent.
    let error = send_while_one_backs_off(429, |_, calls| calls == 15);
    assert!(error.is_cancelled());
    let report = error.report().unwrap();
    assert!(report.accepted < 250, "{report}");
    assert_eq!(report.accepted + undelivered(&error).len(), 304);
}

#[test]
fn updates_of_many_connections_come_back_in_order() {
    let emulator = Emulator::start().unwrap();
    emulator.fail_always(Fault::Status(500));
    let client = builder(emulator.endpoint())
        .connections(4)
        .max_batch(7)
        .retry(RetryPolicy::none())
        .build()
        .unwrap();
    let error = client.send(updates(500)).unwrap_err();
    assert_eq!(undelivered(&error), (0..500).collect::<Vec<_>>());
    emulator.recover();
    let report = client.send(&error.into_undelivered()).unwrap();
    assert_eq!(report.accepted, 500);
    assert_eq!(emulator.profiles().len(), 500);
}

#[test]
fn the_iterator_is_read_no_further_ahead_than_the_connections_hold() {
    let emulator = Emulator::start().unwrap();
    emulator.fail_always(Fault::Delay(HOUR));
    let (stop, read, read_then) = (AtomicBool::new(false), Cell::new(0), Cell::new(0));
    let client = builder(emulator.endpoint()).connections(3).max_batch(10);
    let error = client
        .build()
        .unwrap()
        .with_options()
        .cancel_on(&stop)
        .on_progress(|_| {
            if !stop.load(Ordering::Relaxed) {
                read_then.set(read.get());
                stop.store(emulator.requests().len() == 3, Ordering::Relaxed);
            }
        })
        .send(updates(5_000).inspect(|_| read.set(read.get() + 1)))
        .unwrap_err();
    // For each connection a batch under way, two that wait at most, and one that is filled.
    assert!(
        (30..=3 * 4 * 10 + 1).contains(&read_then.get()),
        "{read_then:?}"
    );
    assert_eq!(undelivered(&error).len(), 5_000);
}

fn assert_works(client: &Client) {
    assert_eq!(client.send(updates(10)).unwrap().accepted, 10);
}

#[test]
fn cancelling_breaks_off_a_request_under_way() {
    let emulator = Emulator::start().unwrap();
    emulator.fail_always(Fault::Delay(HOUR));
    let stop = AtomicBool::new(false);
    let client = builder(emulator.endpoint()).timeout(HOUR).connections(2);
    let client = client.build().unwrap();
    let started = Instant::now();
    let error = thread::scope(|scope| {
        scope.spawn(|| {
            while emulator.requests().len() < 2 {
                thread::yield_now();
            }
            stop.store(true, Ordering::Relaxed);
        });
        client
            .with_options()
            .cancel_on(&stop)
            .send(updates(10))
            .unwrap_err()
    });
    assert!(started.elapsed() < HOUR / 60);
    assert!(error.is_cancelled() && error.is_retryable());
    assert_eq!(undelivered(&error), (0..10).collect::<Vec<_>>());
    assert_eq!(error.report().unwrap().retries, 0);
    emulator.recover();
    assert_works(&client);
}

#[test]
fn while_the_iterator_waits_a_cancellation_lets_no_other_request_start() {
    let stop = Arc::new(AtomicBool::new(false));
    let (begun, begins) = mpsc::channel();
    let stops = Arc::clone(&stop);
    let raw = Raw::start(move |stream, _| {
        read_request(&stream).unwrap();
        let _ = begun.send(());
        stops.store(true, Ordering::Relaxed);
        let _ = (&stream).write_all(&response(200, "", "1"));
    });
    let waits = iter::from_fn(|| {
        begins.recv().unwrap();
        let another = begins.recv_timeout(Duration::from_millis(300));
        assert!(another.is_err(), "another request started");
        None
    });
    let client = builder(&raw.endpoint).max_batch(1).build().unwrap();
    let sending = client.with_options().cancel_on(&stop);
    let error = sending.send(updates(3).chain(waits)).unwrap_err();
    assert!(error.is_cancelled());
    assert_eq!(undelivered(&error), [1, 2]);
}

#[test]
fn cancelling_before_anything_is_sent_sends_nothing() {
    let emulator = Emulator::start().unwrap();
    let stop = AtomicBool::new(true);
    let client = client(&emulator);
    let error = client
        .with_options()
        .cancel_on(&stop)
        .send(updates(10))
        .unwrap_err();
    assert_eq!(undelivered(&error).len(), 10);
    assert_eq!(error.report(), Some(&mixpanel_groups::Report::default()));
    assert!(emulator.requests().is_empty());
}

#[test]
fn cancelling_when_nothing_is_left_is_no_error() {
    let emulator = Emulator::start().unwrap();
    let stop = AtomicBool::new(true);
    let client = client(&emulator);
    let nothing = [Group::new("company", "acme").set(json!({}))];
    let report = client
        .with_options()
        .cancel_on(&stop)
        .send(nothing)
        .unwrap();
    assert_eq!(report, mixpanel_groups::Report::default());
    assert_works(&client);
}

#[test]
fn an_iterator_that_panics_panics_the_caller_and_no_more() {
    let emulator = Emulator::start().unwrap();
    emulator.fail_always(Fault::Status(503));
    let client = builder(emulator.endpoint()).connections(2).max_batch(1);
    let client = client.retry(patient()).build().unwrap();
    // Few enough that the lanes take them, however the groups are shared out.
    let updates = (0..10).map(|id| {
        assert_ne!(id, 3, "the caller's");
        update(id)
    });
    let sent = catch_unwind(AssertUnwindSafe(|| client.send(updates)));
    assert!(sent.is_err());
    emulator.recover();
    assert_works(&client);
}

#[test]
fn a_callback_that_panics_panics_the_caller_and_no_more() {
    let emulator = Emulator::start().unwrap();
    emulator.fail_always(Fault::Status(503));
    let client = builder(emulator.endpoint()).connections(2).retry(patient());
    let client = client.build().unwrap();
    let sending = client
        .with_options()
        .on_progress(|_| panic!("the caller's"));
    let sent = catch_unwind(AssertUnwindSafe(|| sending.send(updates(10))));
    assert!(sent.is_err());
    emulator.recover();
    assert_works(&client);
}

/// As a guard does that sends what is left when the program panics.
#[test]
fn a_send_while_the_thread_panics_is_as_any_other() {
    struct SendsLast(Client);
    impl Drop for SendsLast {
        fn drop(&mut self) {
            assert_works(&self.0);
        }
    }
    let emulator = Emulator::start().unwrap();
    let last = SendsLast(client(&emulator));
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _last = last;
        panic!("the caller's");
    }));
    assert!(panicked.is_err());
    assert_eq!(emulator.profiles().len(), 10);
}

#[test]
fn progress_comes_at_the_end_and_counts_everything() {
    let emulator = Emulator::start().unwrap();
    emulator.fail_next(Fault::Status(503));
    emulator.fail_next(Fault::Reject(vec![1, 2]));
    let mut last = None;
    let client = builder(emulator.endpoint()).retry(quick()).build().unwrap();
    let sending = client
        .with_options()
        .on_progress(|progress| last = Some(progress.clone()));
    let report = sending.send(updates(10)).unwrap();
    let last = last.unwrap();
    assert_eq!((last.sent, last.accepted, last.rejected), (10, 8, 2));
    assert_eq!((last.retries, last.bytes), (1, report.bytes));
    assert_eq!(last.backing_off, None);
}

#[test]
fn progress_comes_every_tenth_of_a_second_at_most() {
    let emulator = Emulator::start().unwrap();
    emulator.fail_next(Fault::Delay(Duration::from_millis(350)));
    let (started, mut calls) = (Instant::now(), 0);
    let client = client(&emulator);
    let sending = client.with_options().on_progress(|_| calls += 1);
    sending.send(updates(10)).unwrap().into_result().unwrap();
    let tenths = started.elapsed().as_millis() / 100;
    assert!(
        (1..=tenths + 1).contains(&calls),
        "{calls} calls in {tenths} tenths"
    );
}

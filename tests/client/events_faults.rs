//! Events over a network that breaks: each is imported, and counts once.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use mixpanel_groups::{Client, Event, Group, RetryPolicy};
use mixpanel_groups_emulator::{Emulator, Fault};
use serde_json::Value;

fn client(emulator: &Emulator, connections: usize) -> Client {
    let retry = RetryPolicy::default()
        .attempts(20)
        .base_delay(Duration::from_micros(100))
        .max_delay(Duration::from_millis(1));
    Client::builder("TOKEN")
        .endpoint(emulator.endpoint())
        .connections(connections)
        .max_batch(50)
        .timeout(Duration::from_secs(20))
        .retry(retry)
        .build()
        .unwrap()
}

fn events(count: usize) -> Vec<Event> {
    let event = |number: usize| {
        Event::new("Document Opened")
            .distinct_id(format!("user {}", number % 7))
            .group(Group::new("workspace", number % 3))
            .property("number", number)
    };
    (0..count).map(event).collect()
}

/// How often each event's number is among these events.
fn numbers(events: &[Value]) -> HashMap<u64, usize> {
    let mut numbers = HashMap::new();
    for event in events {
        let number = event["properties"]["number"].as_u64().unwrap();
        *numbers.entry(number).or_default() += 1;
    }
    numbers
}

fn assert_each_once(emulator: &Emulator, count: usize) {
    let numbers = numbers(&emulator.events());
    assert_eq!(numbers.len(), count);
    assert!(numbers.values().all(|times| *times == 1), "{numbers:?}");
}

fn retry_after(status: u16) -> Fault {
    let after = "0".to_owned();
    Fault::RetryAfter { status, after }
}

#[test]
fn every_event_counts_exactly_once() {
    for connections in [1, 4] {
        let emulator = Emulator::start().unwrap();
        let faults = [
            Fault::CloseAfter,
            Fault::CloseBefore,
            Fault::CloseMidResponse,
            Fault::Status(500),
            retry_after(503),
            Fault::CloseAfter,
            Fault::CloseAfter,
            Fault::Html,
            Fault::TooLarge(20),
            retry_after(429),
            Fault::CloseMidResponse,
            Fault::Delay(Duration::from_millis(1)),
            Fault::CloseAfter,
        ];
        faults
            .into_iter()
            .for_each(|fault| emulator.fail_next(fault));
        let report = client(&emulator, connections)
            .import(events(1_000))
            .unwrap();
        assert_eq!((report.sent, report.accepted), (1_000, 1_000));
        assert_eq!(report.rejected, []);
        assert!(report.retries >= 11, "{report}");
        assert_each_once(&emulator, 1_000);

        // They had to be told from their doubles.
        let requests = emulator.requests();
        let applied = requests
            .iter()
            .filter(|request| request.status.is_none_or(|s| s == 200));
        let arrived: Vec<Value> = applied
            .filter_map(|request| serde_json::from_str::<Vec<Value>>(&request.body).ok())
            .flatten()
            .collect();
        assert!(arrived.len() > 1_000, "{}", arrived.len());
        let ids: HashSet<_> = arrived
            .iter()
            .map(|event| event["properties"]["$insert_id"].to_string())
            .collect();
        assert_eq!(ids.len(), 1_000);
    }
}

#[test]
fn what_could_not_be_imported_can_be_later_and_counts_once() {
    for fault in [
        Fault::CloseAfter,
        Fault::CloseMidResponse,
        Fault::CloseBefore,
        Fault::Status(503),
    ] {
        let emulator = Emulator::start().unwrap();
        let client = client(&emulator, 2);
        emulator.fail_next(Fault::Reject(vec![])); // the first request is as it should be
        emulator.fail_always(fault);
        let error = client.import(events(500)).unwrap_err();
        let report = error.report().unwrap();
        assert_eq!(report.accepted + error.undelivered().len(), 500);
        assert!(report.accepted > 0, "{report}");

        emulator.recover();
        let report = client.import(error.into_undelivered().events()).unwrap();
        assert_eq!(report.rejected, []);
        assert_each_once(&emulator, 500);
    }
}

//! Events through the background client: beside updates, neither waiting for the other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::{LONG, is_own_process};
use mixpanel_groups::buffered::{DeliveryEvent, OverflowPolicy};
use mixpanel_groups::record::{EncodedEvent, EncodedRecord, Undelivered};
use mixpanel_groups::{
    BufferedClient, Client, ClientBuilder, EncodedUpdate, ErrorKind, Event, Group, RetryPolicy,
    Update,
};
use mixpanel_groups_emulator::{Emulator, Fault};
use serde_json::json;

use common::faulty::Faulty;

fn builder(emulator: &Emulator) -> ClientBuilder {
    Client::builder("TOKEN")
        .endpoint(emulator.endpoint())
        .retry(RetryPolicy::none())
}

fn client(emulator: &Emulator) -> Client {
    builder(emulator).build().unwrap()
}

fn event(number: usize) -> Event {
    Event::new("Purchase")
        .distinct_id("user123")
        .insert_id(format!("event-{number}"))
        .group(Group::new("company", "acme"))
        .property("number", number)
}

fn update(number: usize) -> Update<'static> {
    Group::new("company", "acme").set(json!({"number": number}))
}

/// How often each event arrived, by its insert id.
fn arrivals(emulator: &Emulator) -> BTreeMap<String, usize> {
    let mut arrivals = BTreeMap::new();
    for event in emulator.events() {
        let id = event["properties"]["$insert_id"].as_str().unwrap();
        *arrivals.entry(id.to_owned()).or_default() += 1;
    }
    arrivals
}

#[test]
fn both_kinds_are_published_and_counted_apart() {
    let emulator = Emulator::start().unwrap();
    let buffered = client(&emulator).buffered().start().unwrap();
    buffered.publish(update(1)).unwrap();
    buffered.publish(event(1)).unwrap();
    let second = event(2);
    buffered.publish(&second).unwrap();
    buffered.publish_all((3..10).map(event)).unwrap();
    buffered.publish_all(event(10)).unwrap();
    buffered.publish_all([update(2), update(3)]).unwrap();
    let outcome = buffered.shutdown(LONG);
    assert!(outcome.is_complete(), "{outcome}");
    assert_eq!(
        (outcome.stats.accepted, outcome.event_stats.accepted),
        (3, 10)
    );
    assert_eq!(outcome.event_stats, buffered.event_stats());
    assert_eq!(outcome.to_string(), "nothing is left to send");
    let profile = emulator.profile("company", "acme").unwrap();
    assert_eq!(profile, json!({"number": 3}));
    assert_eq!(emulator.events_of("company", "acme").len(), 10);
    let imports = emulator.requests();
    let imports = imports.iter().filter(|request| request.path == "/import");
    assert_eq!(imports.count(), outcome.event_stats.requests);
}

#[test]
fn events_are_sent_in_batches() {
    let emulator = Emulator::start().unwrap();
    let buffered = client(&emulator).buffered().start().unwrap();
    buffered.publish_all((0..5_000).map(event)).unwrap();
    assert!(buffered.shutdown(LONG).is_complete());
    assert!(arrivals(&emulator).values().all(|count| *count == 1));
    assert_eq!(arrivals(&emulator).len(), 5_000);
    assert!(emulator.requests().len() < 10);
}

#[test]
fn a_blocked_import_leaves_updates_flowing_and_says_so() {
    let emulator = Emulator::builder()
        .service_account("SERVICE_ACCOUNT", "SECRET", 1)
        .start()
        .unwrap();
    let wrong = builder(&emulator).service_account("SERVICE_ACCOUNT", "WRONG", 1);
    let said = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&said);
    let buffered = wrong
        .build()
        .unwrap()
        .buffered()
        .flush_interval(Duration::from_millis(1))
        .on_error(move |event| log.lock().unwrap().push(event.to_string()))
        .start()
        .unwrap();
    for number in 0..100 {
        buffered.publish(event(number)).unwrap();
        buffered.publish(update(number)).unwrap();
    }
    while buffered.stats().accepted < 100 {
        std::thread::yield_now();
    }
    let outcome = buffered.flush(Duration::from_millis(50));
    assert_eq!(
        (outcome.stats.queued, outcome.event_stats.queued),
        (Some(0), Some(100))
    );
    assert!(!outcome.is_complete());
    assert_eq!(outcome.to_string(), "100 events still wait");
    assert_eq!(
        emulator.profile("company", "acme").unwrap(),
        json!({"number": 99})
    );

    let outcome = buffered.shutdown(Duration::ZERO);
    assert_eq!(
        (outcome.undelivered.len(), outcome.undelivered_events.len()),
        (0, 100)
    );
    let said = said.lock().unwrap();
    assert!(said[0].starts_with("events keep waiting: "), "{}", said[0]);
    assert!(said.iter().all(|line| !line.contains("WRONG")));

    // What came back can be imported by a client that may.
    let right = builder(&emulator).service_account("SERVICE_ACCOUNT", "SECRET", 1);
    let report = right.build().unwrap().import(outcome.undelivered_events);
    report.unwrap().into_result().unwrap();
    assert_eq!(arrivals(&emulator).len(), 100);
}

#[test]
fn an_event_that_is_sent_again_counts_once() {
    let emulator = Emulator::start().unwrap();
    emulator.fail_next(Fault::CloseAfter);
    let buffered = client(&emulator)
        .buffered()
        .flush_interval(Duration::from_millis(1))
        .start()
        .unwrap();
    buffered.publish_all((0..10).map(event)).unwrap();
    assert!(buffered.flush(LONG).is_complete());
    assert!(buffered.event_stats().requests >= 2);
    let arrivals = arrivals(&emulator);
    assert_eq!(arrivals.len(), 10);
    assert!(arrivals.values().all(|count| *count == 1), "{arrivals:?}");
}

#[test]
fn a_rejected_event_is_told_with_its_name_and_the_others_are_imported() {
    let emulator = Emulator::start().unwrap();
    emulator.fail_next(Fault::Reject(vec![1]));
    let said = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&said);
    let buffered = client(&emulator)
        .buffered()
        .on_error(move |event| {
            if let DeliveryEvent::Rejected(json, rejection) = event {
                log.lock()
                    .unwrap()
                    .push(((*json).to_owned(), rejection.record.to_string()));
            }
        })
        .start()
        .unwrap();
    buffered.publish_all((0..3).map(event)).unwrap();
    let outcome = buffered.shutdown(LONG);
    assert_eq!(
        (outcome.event_stats.accepted, outcome.event_stats.rejected),
        (2, 1)
    );
    assert_eq!(outcome.stats.rejected, 0);
    let said = said.lock().unwrap();
    let [(json, name)] = &said[..] else {
        panic!("{said:?}")
    };
    assert_eq!(*json, event_json(json));
    assert_eq!(name, "event \"Purchase\" event-1");
}

/// The event number 1 with the time of this JSON.
fn event_json(json: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(json).unwrap();
    let time = value["properties"]["time"].as_i64().unwrap();
    event(1).time(time).to_json().unwrap()
}

#[test]
fn an_invalid_event_is_an_error_at_once() {
    let emulator = Emulator::start().unwrap();
    let buffered = client(&emulator).buffered().start().unwrap();
    let error = buffered.publish(Event::new("Purchase")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidUpdate);
    assert!(
        error.to_string().contains("\"distinct_id\": missing"),
        "{error}"
    );
    let events = [event(1), event(2).property("$ignore", true), event(3)];
    let error = buffered.publish_all(events).unwrap_err();
    assert!(error.to_string().contains("$ignore"), "{error}");
    assert_eq!(error.undelivered().events().count(), 2);
    drop(buffered);
    assert!(emulator.requests().is_empty());
}

#[test]
fn undelivered_records_of_both_kinds_are_published_again() {
    let emulator = Emulator::start().unwrap();
    let encoded = EncodedUpdate::new(&update(1)).unwrap().unwrap();
    let records = [
        EncodedRecord::from(EncodedEvent::new(&event(1)).unwrap()),
        EncodedRecord::from(encoded),
        EncodedRecord::from(EncodedEvent::new(&event(2)).unwrap()),
    ];
    let undelivered: Undelivered = records.into_iter().collect();
    let buffered = client(&emulator).buffered().start().unwrap();
    buffered.publish_all(&undelivered).unwrap();
    let outcome = buffered.shutdown(LONG);
    assert!(outcome.is_complete(), "{outcome:?}");
    assert_eq!(
        (outcome.stats.accepted, outcome.event_stats.accepted),
        (1, 2)
    );
    assert_eq!(client(&emulator).send(&undelivered).unwrap().accepted, 1);
    assert_eq!(client(&emulator).import(&undelivered).unwrap().accepted, 2);
}

#[test]
fn the_capacity_is_each_kinds_own() {
    let emulator = Emulator::start().unwrap();
    emulator.fail_always(Fault::Status(503));
    let buffered = client(&emulator)
        .buffered()
        .capacity(3, 1 << 20)
        .overflow(OverflowPolicy::Reject)
        .start()
        .unwrap();
    buffered.publish_all((0..3).map(event)).unwrap();
    let error = buffered.publish(event(3)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full);
    assert!(
        error.to_string().contains("the queue of events is full"),
        "{error}"
    );
    assert_eq!(error.undelivered().events().count(), 1);
    buffered.publish_all((0..3).map(update)).unwrap();
    assert_eq!(
        buffered.publish(update(3)).unwrap_err().kind(),
        ErrorKind::Full
    );
    drop(buffered.shutdown(Duration::ZERO));
}

#[test]
fn the_oldest_events_are_dropped_to_make_room() {
    let emulator = Emulator::start().unwrap();
    emulator.fail_always(Fault::Status(503));
    let dropped = Arc::new(Mutex::new(0));
    let count = Arc::clone(&dropped);
    let buffered = client(&emulator)
        .buffered()
        .capacity(3, 1 << 20)
        .overflow(OverflowPolicy::DropOldest)
        .on_error(move |event| {
            if let DeliveryEvent::DroppedEvents(events) = event {
                *count.lock().unwrap() += events;
            }
        })
        .start()
        .unwrap();
    for number in 0..5 {
        buffered.publish(event(number)).unwrap();
    }
    let outcome = buffered.shutdown(Duration::ZERO);
    let lost = 5 - outcome.undelivered_events.len();
    assert_eq!(
        (outcome.event_stats.dropped, *dropped.lock().unwrap()),
        (lost, lost)
    );
    assert!(lost >= 2, "{lost}");
    assert_eq!(outcome.stats.dropped, 0);
}

#[test]
fn a_hook_sees_events_and_can_change_or_withhold_them() {
    let emulator = Emulator::start().unwrap();
    let buffered = client(&emulator)
        .buffered()
        .before_send(|json| {
            let Some(properties) = json.get_mut("properties") else {
                return true;
            };
            properties["seen"] = json!(true);
            properties["number"] != 2
        })
        .start()
        .unwrap();
    let exact = event(1)
        .property("ratio", 0.1 + 0.2)
        .property("large", u128::MAX);
    buffered.publish(&exact).unwrap();
    buffered.publish(event(2)).unwrap();
    buffered.publish(update(1)).unwrap();
    let outcome = buffered.shutdown(LONG);
    assert_eq!(
        (outcome.event_stats.accepted, outcome.event_stats.withheld),
        (1, 1)
    );
    assert_eq!((outcome.stats.accepted, outcome.stats.withheld), (1, 0));
    let requests = emulator.requests();
    let import = requests.iter().find(|request| request.path == "/import");
    let body = &import.unwrap().body;
    assert!(body.contains(r#""seen":true"#), "{body}");
    assert!(body.contains("0.30000000000000004"), "{body}");
    assert!(body.contains(&u128::MAX.to_string()), "{body}");
}

/// As an event with such a time cannot be published either.
#[test]
fn a_hook_cannot_move_an_event_to_a_time_that_is_too_far_ahead() {
    let emulator = Emulator::start().unwrap();
    let ahead = SystemTime::now() + Duration::from_secs(2 * 60 * 60);
    let ahead = ahead.duration_since(UNIX_EPOCH).unwrap().as_secs();
    let buffered = client(&emulator)
        .buffered()
        .before_send(move |json| {
            json["properties"]["time"] = json!(ahead);
            true
        })
        .start()
        .unwrap();
    let error = buffered.publish(event(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidUpdate);
    assert!(
        error.to_string().contains("more than an hour ahead"),
        "{error}"
    );
    assert!(buffered.shutdown(LONG).is_complete());
    assert!(emulator.requests().is_empty());
}

#[test]
fn three_hundred_groups_survive_the_way_back() {
    let emulator = Emulator::start().unwrap();
    let many = (0..300).fold(event(1), |event, id| event.group(Group::new("team", id)));
    emulator.fail_always(Fault::Status(503));
    let buffered = client(&emulator).buffered().start().unwrap();
    buffered.publish(&many).unwrap();
    let outcome = buffered.shutdown(Duration::ZERO);
    emulator.recover();
    let report = client(&emulator)
        .import(outcome.undelivered_events)
        .unwrap();
    assert_eq!(report.accepted, 1, "{report:?}");
    let teams = &emulator.events()[0]["properties"]["team"];
    assert_eq!(teams.as_array().unwrap().len(), 300);
}

#[test]
fn an_outbox_of_updates_alone_says_so() {
    let emulator = Emulator::start().unwrap();
    let buffered: BufferedClient = client(&emulator)
        .buffered()
        .outbox(Faulty::in_memory())
        .start()
        .unwrap();
    let error = buffered.publish(event(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(
        error.to_string().contains("does not keep events"),
        "{error}"
    );
    assert_eq!(error.undelivered().events().count(), 1);
    let error = buffered.publish_all([event(1), event(2)]).unwrap_err();
    assert_eq!(error.undelivered().events().count(), 2);
    buffered.publish(update(1)).unwrap();
    let outcome = buffered.shutdown(LONG);
    assert!(outcome.is_complete());
    assert_eq!(outcome.event_stats.queued, Some(0));
}

#[test]
fn a_publisher_of_updates_that_hangs_does_not_keep_a_shutdown_from_sending_events() {
    let emulator = Emulator::start().unwrap();
    let mut outbox = Faulty::in_memory();
    outbox.keeps_events = true;
    let faults = Arc::clone(&outbox.faults);
    let buffered = client(&emulator).buffered().outbox(outbox);
    let buffered = buffered.flush_interval(Duration::from_secs(3600));
    let buffered = buffered.outbox_timeout(LONG).start().unwrap();
    buffered.publish(event(1)).unwrap();
    faults.hang(&["append"]);
    let publisher = thread::spawn({
        let buffered = buffered.clone();
        move || buffered.publish(update(1))
    });
    faults.wait_for("append", 2); // After that of the event.
    let outcome = thread::scope(|scope| {
        let shutdown = scope.spawn(|| buffered.shutdown(LONG));
        let arrived = emulator.wait_for(LONG, |emulator| emulator.events().pop());
        faults.hang(&[]);
        arrived.expect("the event is sent while the publisher hangs");
        shutdown.join().unwrap()
    });
    assert_eq!(outcome.event_stats.accepted, 1, "{outcome}");
    drop(publisher.join().unwrap());
}

#[test]
fn a_flush_does_not_wait_for_the_depth_of_each_queue_in_turn() {
    let mut outbox = Faulty::in_memory();
    outbox.keeps_events = true;
    let faults = Arc::clone(&outbox.faults);
    let time = Duration::from_secs(6);
    let buffered = Client::disabled().buffered().outbox(outbox);
    let buffered = buffered.outbox_timeout(time).start().unwrap();
    faults.hang(&["depth"]);
    let start = Instant::now();
    let outcome = buffered.flush(time);
    assert!(start.elapsed() < time + time / 2, "{:?}", start.elapsed());
    assert_eq!(outcome.waiting, None);
    faults.hang(&[]);
}

/// What has no worker need not be waited for.
#[test]
fn a_worker_that_cannot_be_started_is_an_error_at_once() {
    // With one thread for tests, which is the main thread.
    let no_stack = (1_u64 << 60).to_string();
    if is_own_process(
        a_worker_that_cannot_be_started_is_an_error_at_once,
        &[("RUST_MIN_STACK", &no_stack)],
    ) {
        let start = Instant::now();
        let buffered = Client::disabled().buffered().drop_timeout(2 * LONG);
        let error = buffered.start().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        assert!(start.elapsed() < LONG, "{:?}", start.elapsed());
    }
}

/// What a hook, an outbox or `publish` itself made of an argument.
#[test]
fn encoded_records_are_published_as_what_they_were_made_of() {
    let emulator = Emulator::start().unwrap();
    let buffered = super::buffered(&emulator).start().unwrap();
    let update = EncodedUpdate::new(&super::set(1, 1)).unwrap().unwrap();
    let event = EncodedEvent::new(&Event::new("Signup").distinct_id("u")).unwrap();
    let records = [
        EncodedRecord::from(update.clone()),
        EncodedRecord::from(event.clone()),
    ];
    buffered.publish_all(&records).unwrap();
    buffered.publish_all(records.to_vec()).unwrap();
    buffered.publish_all([&update]).unwrap();
    buffered.publish(&event).unwrap();
    buffered.publish(event).unwrap();
    let late = r#"{"event":"E","properties":{"time":1,"distinct_id":"u","$insert_id":"i"}}"#;
    let late = EncodedRecord::from_json(late).unwrap();
    let error = buffered.publish(late).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidUpdate);
    let outcome = buffered.shutdown(LONG);
    assert_eq!(
        (outcome.stats.accepted, outcome.event_stats.accepted),
        (3, 4)
    );
}

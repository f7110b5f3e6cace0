//! A full queue: its bounds, what each policy does at them, and publishers that wait for room.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use common::{LONG, eventually};
use mixpanel_groups::buffered::OverflowPolicy;
use mixpanel_groups::outbox::Capacity;
use mixpanel_groups::{Client, EncodedUpdate, ErrorKind, Group, Outbox, RetryPolicy};
use mixpanel_groups_emulator::{Emulator, Fault};
use serde_json::json;

use common::faulty::Faulty;

use super::{buffered, fill, set};

#[test]
fn a_full_queue_follows_its_policy() {
    let emulator = Emulator::start().unwrap();
    emulator.fail_always(Fault::Status(500));
    let hour = Duration::from_secs(3600);
    let start = |overflow| {
        let buffered = buffered(&emulator)
            .flush_interval(hour)
            .capacity(10, 1 << 20);
        buffered.overflow(overflow).start().unwrap()
    };

    let rejecting = start(OverflowPolicy::Reject);
    fill(&rejecting, 10);
    let error = rejecting.publish(set(10, 10)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full);
    assert!(error.is_retryable());
    assert_eq!(error.undelivered().len(), 1, "the update comes back");
    assert_eq!(rejecting.shutdown(Duration::ZERO).undelivered.len(), 10);

    let blocking = start(OverflowPolicy::Block(Duration::from_millis(20)));
    fill(&blocking, 10);
    let error = blocking.publish(set(10, 10)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full);
    assert_eq!(blocking.shutdown(Duration::ZERO).undelivered.len(), 10);

    // What is being sent is not dropped, so a failure comes first, and an hour without another.
    let failures = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&failures);
    let dropping = buffered(&emulator)
        .flush_interval(hour)
        .capacity(10, 1 << 20)
        .overflow(OverflowPolicy::DropOldest)
        .on_error(move |_| _ = counted.fetch_add(1, Ordering::Relaxed));
    let dropping = dropping.start().unwrap();
    fill(&dropping, 5);
    eventually("failed", || failures.load(Ordering::Relaxed) > 0);
    (5..15).for_each(|id| dropping.publish(set(id, id)).unwrap());
    let outcome = dropping.shutdown(Duration::ZERO);
    assert_eq!(outcome.stats.dropped, 5);
    let left: Vec<_> = outcome
        .undelivered
        .iter()
        .map(|update| update.group().id().to_string())
        .collect();
    assert_eq!(
        left,
        ["5", "6", "7", "8", "9", "10", "11", "12", "13", "14"]
    );
}

#[test]
fn the_bound_on_bytes_holds_too() {
    let emulator = Emulator::start().unwrap();
    emulator.fail_always(Fault::Status(500));
    let buffered = buffered(&emulator)
        .capacity(1_000, 10_000)
        .overflow(OverflowPolicy::Reject);
    let buffered = buffered.start().unwrap();
    let big = Group::new("company", 1_u8).set(json!({"text": "x".repeat(4_900)}));
    buffered.publish(&big).unwrap();
    buffered.publish(&big).unwrap();
    assert_eq!(buffered.publish(&big).unwrap_err().kind(), ErrorKind::Full);
    assert_eq!(buffered.stats().queued, Some(2));
    assert_eq!(buffered.shutdown(Duration::ZERO).undelivered.len(), 2);
}

#[test]
fn room_that_becomes_free_unblocks() {
    let emulator = Emulator::start().unwrap();
    let buffered = buffered(&emulator)
        .capacity(10, 1 << 20)
        .overflow(OverflowPolicy::Block(LONG));
    let buffered = buffered.start().unwrap();
    fill(&buffered, 500);
    assert!(buffered.shutdown(LONG).is_complete());
    assert_eq!(emulator.profiles().len(), 500);
}

#[test]
fn publishing_may_wait_for_ever() {
    let emulator = Emulator::start().unwrap();
    let buffered = buffered(&emulator)
        .capacity(1, 1 << 20)
        .overflow(OverflowPolicy::Block(Duration::MAX));
    let buffered = buffered.start().unwrap();
    fill(&buffered, 20);
    assert!(buffered.shutdown(LONG).is_complete());
}

#[test]
fn many_at_once_pass_through_a_small_queue() {
    let emulator = Emulator::start().unwrap();
    for (updates, bytes) in [(3, usize::MAX), (usize::MAX, 2_000)] {
        let buffered = buffered(&emulator).capacity(updates, bytes);
        let buffered = buffered
            .overflow(OverflowPolicy::Block(LONG))
            .start()
            .unwrap();
        let many = (0..100).map(|id| set(id, 1));
        buffered.publish_all(many).unwrap();
        assert_eq!(buffered.shutdown(LONG).stats.accepted, 100);
    }
}

#[test]
fn what_can_never_fit_drops_nothing() {
    let emulator = Emulator::start().unwrap();
    emulator.fail_always(Fault::Status(503));
    let buffered = buffered(&emulator).capacity(10, 500);
    let buffered = buffered
        .overflow(OverflowPolicy::DropOldest)
        .start()
        .unwrap();
    buffered.publish(set(1, 1)).unwrap();
    let large = Group::new("company", "large").set(json!({"text": "x".repeat(500)}));
    let error = buffered.publish(large).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full);
    let why = "563 bytes of updates do not fit into a capacity of 500";
    assert!(error.to_string().starts_with(why), "{error}");
    let outcome = buffered.shutdown(Duration::from_millis(100));
    assert_eq!((outcome.stats.dropped, outcome.undelivered.len()), (0, 1));
}

#[test]
fn what_is_being_sent_leaves_room_for_the_newest() {
    let emulator = Emulator::start().unwrap();
    emulator.fail_next(Fault::Status(503));
    let hour = Duration::from_secs(3_600);
    let client = Client::builder("T").endpoint(emulator.endpoint());
    // A wait beyond the deadline would end the delivery.
    let retry = RetryPolicy::default().base_delay(hour).deadline(10 * hour);
    let client = client.retry(retry);
    let buffered = client.build().unwrap().buffered().capacity(10, 1 << 20);
    let buffered = buffered
        .overflow(OverflowPolicy::DropOldest)
        .start()
        .unwrap();
    buffered.publish_all((0..10).map(|id| set(id, id))).unwrap();
    let _ = buffered.flush(Duration::ZERO);
    let requests = emulator.wait_for(LONG, |emulator| emulator.requests().into_iter().next());
    requests.expect("the worker sends, and waits for an hour");
    for id in 10..20 {
        buffered.publish(set(id, id)).unwrap();
    }
    let at_once = (20..26).map(|id| set(id, id));
    buffered.publish_all(at_once).unwrap();
    let outcome = buffered.shutdown(Duration::ZERO);
    assert_eq!(outcome.stats.dropped, 16);
    let numbers = outcome.undelivered.iter();
    let numbers = numbers.map(|update| update.group().id().as_str().parse().unwrap());
    let numbers: Vec<usize> = numbers.collect();
    assert_eq!(numbers, (0..5).chain(21..26).collect::<Vec<_>>());
}

#[test]
fn a_queue_that_refuses_is_sent_at_once() {
    let emulator = Emulator::start().unwrap();
    let hour = Duration::from_secs(3_600);
    let outbox = Faulty::durable();
    let buffered = buffered(&emulator)
        .flush_interval(hour)
        .outbox(outbox.clone())
        .capacity(10, 1 << 20);
    let buffered = buffered.overflow(OverflowPolicy::Reject).start().unwrap();
    // Another process fills it.
    let ten: Vec<_> = (0..10).map(|id| set(id, id)).collect();
    let ten: Vec<_> = ten.iter().map(EncodedUpdate::new).collect();
    let ten: Vec<_> = ten.into_iter().map(|one| one.unwrap().unwrap()).collect();
    assert!(outbox.append(&ten, Capacity::default()).unwrap());
    assert_eq!(
        buffered.publish(set(10, 10)).unwrap_err().kind(),
        ErrorKind::Full
    );
    let sent = emulator.wait_for(LONG, |emulator| {
        (emulator.profiles().len() == 10).then_some(())
    });
    sent.expect("there is room again");
}

/// Otherwise the oldest would be dropped, or publishers wait, before the interval is over.
#[test]
fn a_small_queue_is_sent_when_it_is_half_full() {
    let large = Group::new("company", 1_u8).set(json!({"text": "x".repeat(5_000)}));
    for (capacity, updates) in [
        ((9, 1 << 20), (0..5).map(|id| set(id, id)).collect()),
        ((1_000, 10_000), vec![large]),
    ] {
        let emulator = Emulator::start().unwrap();
        let buffered = buffered(&emulator)
            .flush_interval(Duration::from_secs(3_600))
            .capacity(capacity.0, capacity.1)
            .overflow(OverflowPolicy::DropOldest);
        let buffered = buffered.start().unwrap();
        for update in &updates {
            buffered.publish(update).unwrap();
        }
        let arrived = emulator.wait_for(LONG, |emulator| {
            (emulator.profiles().len() == updates.len()).then_some(())
        });
        arrived.expect("half of the capacity is used");
    }
}

#[test]
fn publishers_that_wait_for_room_do_not_wake_each_other() {
    let emulator = Emulator::start().unwrap();
    emulator.fail_always(Fault::Status(503));
    let outbox = Faulty::durable();
    let buffered = buffered(&emulator)
        .flush_interval(Duration::from_secs(3600))
        .outbox(outbox.clone())
        .capacity(1, 1 << 20)
        .overflow(OverflowPolicy::Block(Duration::from_millis(200)));
    let buffered = buffered.start().unwrap();
    fill(&buffered, 1);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| buffered.publish(set(1, 1)).unwrap_err());
        }
    });
    let appends = outbox.faults.calls("append");
    assert!(appends < 100, "{appends} attempts");
    let _ = buffered.shutdown(Duration::ZERO);
}

#[test]
fn overflow_policies_as_text() {
    let block = |nanos| OverflowPolicy::Block(Duration::from_nanos(nanos));
    assert_eq!(OverflowPolicy::default().to_string(), "block:1");
    for (policy, text) in [
        (OverflowPolicy::Reject, "reject"),
        (OverflowPolicy::DropOldest, "drop_oldest"),
        (block(0), "block:0"),
        (block(30_000_000_000), "block:30"),
        (block(250_000_000), "block:0.25"),
        (block(1), "block:0.000000001"),
        (
            OverflowPolicy::Block(Duration::MAX),
            "block:18446744073709551615.999999999",
        ),
    ] {
        assert_eq!(policy.to_string(), text);
        assert_eq!(text.parse::<OverflowPolicy>().unwrap(), policy);
    }
    for text in [
        "",
        "Reject",
        "block",
        "block:",
        "block:1s",
        "block:-1",
        "block:+1",
        "block:1.",
        "block:.5",
        "block:1.+5",
        "block:0.0000000001",
        "block:1e3",
        "block:inf",
        "block: 1",
        "drop-oldest",
    ] {
        let error = text.parse::<OverflowPolicy>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert_eq!(
            error.to_string(),
            format!(
                "unknown overflow policy {text:?}: \
                 expected reject, drop_oldest or block: with seconds, such as block:1"
            )
        );
    }
}

//! Sending in the background: bounds, deadlines, hooks, and that nothing is lost on the way.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use common::{LONG, eventually};
use mixpanel_groups::buffered::{BufferedClientBuilder, DeliveryEvent, OverflowPolicy};
use mixpanel_groups::outbox::{Capacity, OutboxEntry};
use mixpanel_groups::{
    BufferedClient, Client, EncodedUpdate, ErrorKind, Group, MemoryOutbox, MixpanelGroup, Outbox,
    Profile, RetryPolicy, Update,
};
use mixpanel_groups_emulator::{Emulator, Fault};
use proptest::prelude::*;
use serde_json::{Value, json};

use common::faulty::{Faulty, METHODS};

fn client(emulator: &Emulator) -> Client {
    let retry = RetryPolicy::default()
        .attempts(2)
        .base_delay(Duration::from_millis(1));
    Client::builder("T")
        .endpoint(emulator.endpoint())
        .retry(retry)
        .build()
        .unwrap()
}

fn buffered(emulator: &Emulator) -> BufferedClientBuilder {
    client(emulator)
        .buffered()
        .flush_interval(Duration::from_millis(5))
}

fn set(id: usize, number: usize) -> Update<'static> {
    Group::new("company", id).set(json!({"number": number}))
}

fn fill(buffered: &BufferedClient, updates: usize) {
    (0..updates).for_each(|id| buffered.publish(set(id, id)).unwrap());
}

#[test]
fn what_is_published_arrives() {
    let emulator = Emulator::start().unwrap();
    let buffered = buffered(&emulator).start().unwrap();
    fill(&buffered, 5_000);
    let outcome = buffered.shutdown(LONG);
    assert!(outcome.is_complete(), "{outcome:?}");
    assert_eq!(
        (outcome.stats.accepted, outcome.stats.queued),
        (5_000, Some(0))
    );
    assert_eq!(emulator.profiles().len(), 5_000);
}

#[test]
fn a_flush_ends_while_others_publish() {
    let emulator = Emulator::start().unwrap();
    let buffered = buffered(&emulator).start().unwrap();
    let is_over = AtomicUsize::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            while is_over.load(Ordering::Relaxed) == 0 {
                buffered.publish(set(1, 1)).unwrap();
                thread::sleep(Duration::from_micros(200));
            }
        });
        buffered.publish(set(2, 2)).unwrap();
        let start = Instant::now();
        let outcome = buffered.flush(Duration::from_secs(60));
        let time = start.elapsed();
        is_over.store(1, Ordering::Relaxed);
        assert!(time < Duration::from_secs(60), "{outcome:?}");
    });
    assert!(emulator.profile("company", "2").is_some());
    assert!(buffered.shutdown(LONG).is_complete());
}

#[test]
fn an_update_that_a_firewall_dislikes_is_set_aside_and_the_others_go_on() {
    let emulator = Emulator::start().unwrap();
    for _ in 0..1_000 {
        emulator.fail_next(Fault::Firewall("<script>".to_owned()));
    }
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&told);
    let buffered = buffered(&emulator)
        .on_error(move |event| {
            if let DeliveryEvent::Rejected(json, rejection) = event {
                let rejected = (json.to_string(), rejection.to_string());
                tell.lock().unwrap().push(rejected);
            }
        })
        .start()
        .unwrap();
    fill(&buffered, 20);
    let acme = Group::new("company", "acme");
    buffered
        .publish(acme.set(json!({"name": "<script>"})))
        .unwrap();
    // The later update of the same group waits for it, and is sent then.
    buffered.publish(acme.unset(["plan"])).unwrap();
    let outcome = buffered.shutdown(Duration::from_secs(60));
    assert!(outcome.is_complete(), "{outcome:?}");
    assert_eq!((outcome.stats.accepted, outcome.stats.rejected), (21, 1));
    let told = told.lock().unwrap();
    let [(json, rejection)] = &told[..] else {
        panic!("{told:?}")
    };
    assert!(json.contains("<script>"), "{json}");
    assert!(
        rejection.contains("acme") && rejection.contains("others are accepted"),
        "{rejection}"
    );
    assert_eq!(emulator.profiles().len(), 20);
}

#[test]
fn it_arrives_without_a_flush() {
    let emulator = Emulator::start().unwrap();
    let buffered = buffered(&emulator).start().unwrap();
    buffered.publish(set(1, 1)).unwrap();
    let arrived = emulator.wait_for(LONG, |emulator| emulator.profile("company", "1"));
    arrived.expect("it is sent within the flush interval");
    assert!(buffered.flush(LONG).is_complete());
}

#[test]
fn a_full_batch_does_not_wait_for_the_interval() {
    let emulator = Emulator::start().unwrap();
    let hour = Duration::from_secs(3600);
    let buffered = buffered(&emulator).flush_interval(hour).start().unwrap();
    fill(&buffered, 2_000);
    let arrived = emulator.wait_for(LONG, |emulator| {
        (emulator.profiles().len() == 2_000).then_some(())
    });
    arrived.expect("the batch is full");
    buffered.publish(set(7, 8)).unwrap();
    assert!(buffered.flush(LONG).is_complete());
    assert_eq!(
        emulator.profile("company", "7").unwrap(),
        json!({"number": 8})
    );
}

#[test]
fn updates_of_a_group_are_coalesced_unless_disabled() {
    for coalesce in [true, false] {
        let emulator = Emulator::start().unwrap();
        let hour = Duration::from_secs(3600);
        let buffered = buffered(&emulator)
            .flush_interval(hour)
            .coalesce(coalesce)
            .start()
            .unwrap();
        (0..100).for_each(|number| buffered.publish(set(1, number)).unwrap());
        let outcome = buffered.shutdown(LONG);
        assert_eq!(outcome.stats.accepted, 100);
        assert_eq!(outcome.stats.sent, if coalesce { 1 } else { 100 });
        assert_eq!(
            emulator.profile("company", "1").unwrap(),
            json!({"number": 99})
        );
    }
}

#[test]
fn failed_deliveries_are_tried_again() {
    let emulator = Emulator::start().unwrap();
    for _ in 0..6 {
        emulator.fail_next(Fault::Status(500));
    }
    let failures = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&failures);
    let buffered = buffered(&emulator).on_error(move |event| {
        assert!(matches!(event, DeliveryEvent::Undelivered(error) if error.status() == Some(500)));
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let buffered = buffered.start().unwrap();
    fill(&buffered, 10);
    assert!(buffered.flush(LONG).is_complete());
    assert_eq!(emulator.profiles().len(), 10);
    assert!(failures.load(Ordering::Relaxed) >= 1);
}

#[test]
fn rejected_updates_are_reported_and_the_rest_is_sent() {
    let emulator = Emulator::start().unwrap();
    let notified = Arc::new(Mutex::new(Vec::new()));
    let its_notified = Arc::clone(&notified);
    let buffered = buffered(&emulator).on_error(move |event| {
        if let DeliveryEvent::Rejected(_, rejection) = event {
            let group = rejection.group().unwrap();
            its_notified
                .lock()
                .unwrap()
                .push((group.id().to_string(), rejection.message.clone()));
        }
    });
    let buffered = buffered.flush_interval(LONG).start().unwrap();
    // Valid as far as the client can check, but not for Mixpanel.
    let bad = Group::new("$company_id", "bad")
        .in_company("other")
        .set(json!({"a": 1}));
    buffered.publish_all([set(1, 1), bad, set(2, 2)]).unwrap();
    let outcome = buffered.shutdown(LONG);
    assert!(outcome.is_complete());
    assert_eq!((outcome.stats.accepted, outcome.stats.rejected), (2, 1));
    let notified = notified.lock().unwrap();
    assert_eq!(
        *notified,
        [(
            "bad".to_owned(),
            "a company's $group_id must be its $company_id".to_owned()
        )]
    );
}

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

    let dropping = start(OverflowPolicy::DropOldest);
    fill(&dropping, 15);
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
fn deadlines_hold_against_a_server_that_never_responds() {
    let emulator = Emulator::start().unwrap();
    emulator.fail_always(Fault::Delay(Duration::from_secs(3600)));
    let buffered = buffered(&emulator).start().unwrap();
    fill(&buffered, 100);
    let start = Instant::now();
    let flushed = buffered.flush(Duration::from_millis(200));
    assert_eq!(flushed.waiting, Some(100));
    let outcome = buffered.shutdown(Duration::from_millis(300));
    // Generous: a test machine may be busy with much else.
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    assert_eq!((outcome.undelivered.len(), outcome.waiting), (100, Some(0)));
    let ids: Vec<_> = outcome
        .undelivered
        .iter()
        .map(|update| update.group().id().to_string())
        .collect();
    assert_eq!(
        ids,
        (0..100).map(|id| id.to_string()).collect::<Vec<_>>(),
        "in order"
    );
}

#[test]
fn what_comes_back_can_be_sent_by_another_client() {
    let emulator = Emulator::start().unwrap();
    emulator.fail_always(Fault::Status(503));
    let buffered = buffered(&emulator).start().unwrap();
    fill(&buffered, 10);
    let outcome = buffered.shutdown(Duration::from_millis(50));
    emulator.recover();
    client(&emulator)
        .send(&outcome.undelivered)
        .unwrap()
        .into_result()
        .unwrap();
    assert_eq!(emulator.profiles().len(), 10);
}

#[test]
fn dropping_it_sends_what_waits() {
    let emulator = Emulator::start().unwrap();
    let hour = Duration::from_secs(3600);
    let buffered = buffered(&emulator).flush_interval(hour).start().unwrap();
    fill(&buffered, 10);
    drop(buffered);
    assert_eq!(emulator.profiles().len(), 10);
}

#[test]
fn hooks_may_change_and_withhold_and_panic() {
    let emulator = Emulator::start().unwrap();
    let buffered = buffered(&emulator)
        .before_send(|update| {
            assert!(update["$group_id"] != "panic");
            if let Some(Value::Object(properties)) = update.get_mut("$set") {
                properties.remove("email");
            }
            update["$group_id"] != "secret"
        })
        .on_error(|_| panic!("a hook may panic"));
    let buffered = buffered.start().unwrap();
    let update = |id: &'static str| {
        Group::new("company", id).set(json!({"plan": "free", "email": "someone@example.com"}))
    };
    let bad = Group::new("$company_id", "bad")
        .in_company("other")
        .delete();
    buffered
        .publish_all([update("acme"), update("secret"), update("panic"), bad])
        .unwrap();
    buffered.publish(update("globex")).unwrap();
    let outcome = buffered.shutdown(LONG);
    assert!(outcome.is_complete());
    assert_eq!((outcome.stats.withheld, outcome.stats.rejected), (2, 1));
    assert_eq!(
        emulator.profile("company", "acme").unwrap(),
        json!({"plan": "free"})
    );
    assert_eq!(
        emulator.profile("company", "globex").unwrap(),
        json!({"plan": "free"})
    );
    assert_eq!(emulator.profiles().len(), 2);
}

#[test]
fn an_update_that_cannot_be_sent_is_an_error_at_once() {
    let emulator = Emulator::start().unwrap();
    let buffered = buffered(&emulator).start().unwrap();
    let error = buffered
        .publish(Group::new("company", "").delete())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidUpdate);
    buffered
        .publish(Group::new("company", "acme").set(json!({})))
        .unwrap();
    let large = Group::new("company", "acme").set(json!({"text": "x".repeat(1_000_000)}));
    let error = buffered.publish(large).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidUpdate);
    assert!(error.to_string().contains("acme"), "{error}");
    assert_eq!(buffered.stats().queued, Some(0), "nothing to do");
}

#[test]
fn many_at_once_with_some_that_do_nothing_or_are_wrong() {
    let emulator = Emulator::start().unwrap();
    let buffered = buffered(&emulator).start().unwrap();
    let nothing = (0..5_000).map(|id| Group::new("company", id).set(json!({})));
    buffered.publish_all(nothing.chain([set(1, 1)])).unwrap();
    assert_eq!(buffered.flush(LONG).stats.accepted, 1);

    let wrong = Group::new("company", "").delete();
    let error = buffered
        .publish_all([set(2, 2), wrong, set(3, 3)])
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidUpdate);
    assert_eq!(error.undelivered().len(), 2, "those are right");
    buffered.publish_all(error.undelivered()).unwrap();
    assert_eq!(buffered.shutdown(LONG).stats.accepted, 3);
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
    assert_eq!(buffered.publish(large).unwrap_err().kind(), ErrorKind::Full);
    let outcome = buffered.shutdown(Duration::from_millis(100));
    assert_eq!((outcome.stats.dropped, outcome.undelivered.len()), (0, 1));
}

#[test]
fn what_is_being_sent_leaves_room_for_the_newest() {
    let emulator = Emulator::start().unwrap();
    emulator.fail_next(Fault::Status(503));
    let hour = Duration::from_secs(3_600);
    let client = Client::builder("T").endpoint(emulator.endpoint());
    let client = client.retry(RetryPolicy::default().base_delay(hour));
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
    let outcome = buffered.shutdown(Duration::ZERO);
    assert_eq!(outcome.stats.dropped, 10);
    let numbers = outcome.undelivered.iter();
    let numbers = numbers.map(|update| update.group().id().as_str().parse().unwrap());
    let numbers: Vec<usize> = numbers.collect();
    assert_eq!(numbers, (0..5).chain(15..20).collect::<Vec<_>>());
}

#[test]
fn the_worker_pauses_for_as_long_as_the_server_asks() {
    let emulator = Emulator::start().unwrap();
    emulator.fail_next(Fault::RetryAfter {
        status: 429,
        after: "1".to_owned(),
    });
    let client = Client::builder("T")
        .endpoint(emulator.endpoint())
        .retry(RetryPolicy::default().attempts(1));
    let buffered = client.build().unwrap().buffered();
    let buffered = buffered.flush_interval(Duration::from_millis(1));
    let buffered = buffered.start().unwrap();
    let start = Instant::now();
    fill(&buffered, 1);
    let requests = emulator.wait_for(LONG, |emulator| {
        let requests = emulator.requests();
        (requests.len() > 1).then_some(requests)
    });
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(requests.unwrap().len(), 2);
    assert_eq!(emulator.profiles().len(), 1);
}

#[test]
fn a_flush_does_not_wait_for_the_pause_after_a_failure() {
    let emulator = Emulator::start().unwrap();
    let fail = || (0..2).for_each(|_| emulator.fail_next(Fault::Status(503)));
    fail(); // Both attempts.
    let buffered = buffered(&emulator).flush_interval(Duration::from_secs(3_600));
    let buffered = buffered.start().unwrap();
    buffered.publish(set(1, 1)).unwrap();
    let failed = buffered.flush(Duration::from_secs(1));
    assert_eq!(failed.stats.accepted, 0, "that failed");
    assert_eq!(buffered.flush(LONG).stats.accepted, 1);
    buffered.publish(set(2, 2)).unwrap();
    fail();
    let _ = buffered.flush(Duration::from_secs(1));
    assert_eq!(buffered.shutdown(LONG).stats.accepted, 2);
}

#[test]
fn an_update_that_is_too_large_does_not_wait() {
    let emulator = Emulator::start().unwrap();
    let large = Group::new("company", "acme").set(json!({"text": "x".repeat(1_000_000)}));
    let buffered = buffered(&emulator).start().unwrap();
    let error = buffered.publish(&large).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidUpdate);
    let text = error.to_string();
    assert!(
        text.contains("company \"acme\"") && text.contains("the limit is 1000000"),
        "{text}"
    );
    let grown = |update: &mut serde_json::Map<String, Value>| {
        update["$set"] = json!({"text": "x".repeat(1_000_000)});
        true
    };
    let growing = client(&emulator)
        .buffered()
        .before_send(grown)
        .start()
        .unwrap();
    assert_eq!(
        growing.publish(set(1, 1)).unwrap_err().kind(),
        ErrorKind::InvalidUpdate
    );
    for buffered in [buffered, growing] {
        assert_eq!(buffered.shutdown(LONG).stats.accepted, 0);
    }
}

#[test]
fn what_is_too_large_for_mixpanel_is_rejected_and_reported() {
    let emulator = Emulator::start().unwrap();
    let text = "x".repeat(1_000_000);
    let row = json!({"$group_key": "company", "$group_id": "acme", "$set": {"text": text}});
    let outbox = MemoryOutbox::new();
    let large = EncodedUpdate::from_json(&format!(" {row}")).unwrap();
    assert_eq!(large.group().id().to_string(), "acme");
    let unlimited = Capacity::new(usize::MAX, usize::MAX);
    assert!(outbox.append(&[large], unlimited).unwrap());
    let notified = Arc::new(AtomicUsize::new(0));
    let its_notified = Arc::clone(&notified);
    let buffered = buffered(&emulator).outbox(outbox).on_error(move |event| {
        if matches!(event, DeliveryEvent::Rejected(..)) {
            its_notified.fetch_add(1, Ordering::SeqCst);
        }
    });
    let outcome = buffered.start().unwrap().shutdown(LONG);
    assert_eq!((outcome.stats.accepted, outcome.stats.rejected), (0, 1));
    assert_eq!(notified.load(Ordering::SeqCst), 1);
}

#[test]
fn after_a_panic_of_the_outbox_the_worker_goes_on() {
    let emulator = Emulator::start().unwrap();
    let takes = AtomicUsize::new(0);
    let outbox = Faulty::durable().taking(move |inner, most| {
        if takes.fetch_add(1, Ordering::Relaxed) < 3 {
            panic!("a mistake of the outbox");
        }
        inner.take(most)
    });
    let reported = Arc::new(Mutex::new(Vec::new()));
    let its_reported = Arc::clone(&reported);
    let buffered = buffered(&emulator)
        .outbox(outbox)
        .on_error(move |event| its_reported.lock().unwrap().push(event.to_string()))
        .start()
        .unwrap();
    buffered.publish(set(1, 1)).unwrap();
    let outcome = buffered.flush(LONG);
    assert!(outcome.is_complete(), "{outcome:?}");
    assert_eq!(outcome.stats.accepted, 1);
    let panicked = "the outbox failed: the outbox panicked: a mistake of the outbox";
    assert_eq!(*reported.lock().unwrap(), [panicked; 3]);
}

#[test]
fn a_derived_struct_is_published_without_being_kept() {
    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company")]
    struct Company {
        #[mixpanel(group_id)]
        id: String,
        plan: String,
    }
    let emulator = Emulator::start().unwrap();
    let buffered = buffered(&emulator).start().unwrap();
    {
        let acme = Company {
            id: "acme".into(),
            plan: "free".into(),
        };
        buffered.publish_all(acme.updates()).unwrap();
    }
    assert!(buffered.shutdown(LONG).is_complete());
    assert_eq!(
        emulator.profile("company", "acme").unwrap(),
        json!({"plan": "free"})
    );
}

#[test]
fn a_disabled_client_takes_everything_and_sends_nothing() {
    let client = Client::disabled();
    let report = client.send([set(1, 1), set(2, 2)]).unwrap();
    assert_eq!((report.accepted, report.rejected.len()), (2, 0));
    let buffered = client.buffered().start().unwrap();
    fill(&buffered, 10);
    assert!(buffered.shutdown(LONG).is_complete());
}

#[test]
fn many_threads_publish() {
    let emulator = Emulator::start().unwrap();
    let buffered = buffered(&emulator).start().unwrap();
    thread::scope(|scope| {
        for publisher in 0..8 {
            let buffered = &buffered;
            scope.spawn(move || {
                (0..1_000).for_each(|number| buffered.publish(set(publisher, number)).unwrap());
            });
        }
    });
    assert!(buffered.shutdown(LONG).is_complete());
    for publisher in 0..8 {
        let profile = emulator.profile("company", &publisher.to_string()).unwrap();
        assert_eq!(profile, json!({"number": 999}), "each thread's order holds");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Publish(u8, u8),
    Fail(Fault),
    Flush,
    Recover,
}

fn step() -> impl Strategy<Value = Step> {
    let fault = prop_oneof![
        Just(Fault::Status(500)),
        Just(Fault::CloseBefore),
        Just(Fault::CloseAfter),
        Just(Fault::Html),
        Just(Fault::Reject(vec![0])),
        Just(Fault::TooLarge(1)),
    ];
    prop_oneof![
        6 => (0..4_u8, any::<u8>()).prop_map(|(id, item)| Step::Publish(id, item)),
        2 => fault.prop_map(Step::Fail),
        1 => Just(Step::Flush),
        1 => Just(Step::Recover),
    ]
}

/// Waits until the emulator has applied what a shutdown has broken off, or never will: such a request
/// may still be on its way, and nobody can call it back.
fn wait_for_broken_off_requests(emulator: &Emulator) {
    // Connections are accepted in order, so all of them were once this one is.
    let last = client(emulator).send(Group::new("last", 1).delete());
    assert_eq!(last.unwrap().accepted, 1);
    eventually("closed", || emulator.open_connections() == 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn accepted_rejected_or_still_queued(
        steps in prop::collection::vec(step(), 0..40),
        coalesce in any::<bool>(),
        rejecting in any::<bool>(),
        timeout in 0..20_u64,
    ) {
        let emulator = Emulator::start().unwrap();
        let retry = RetryPolicy::default().attempts(2).base_delay(Duration::from_micros(100));
        let client = Client::builder("T").endpoint(emulator.endpoint()).retry(retry).max_batch(4);
        let buffered = client.build().unwrap().buffered();
        let rejected = Arc::new(Mutex::new(Vec::new()));
        let its_rejected = Arc::clone(&rejected);
        let buffered = buffered
            .flush_interval(Duration::from_millis(1))
            .coalesce(coalesce)
            .on_error(move |event| {
                if let DeliveryEvent::Rejected(json, _) = event {
                    its_rejected.lock().unwrap().push((*json).to_owned());
                }
            })
            .start()
            .unwrap();
        let mut published = Vec::new();
        for step in steps {
            match step {
                Step::Publish(id, item) => {
                    let group = Group::new("company", id);
                    let update = group.set(json!({"last": published.len(), "item": item}));
                    published.push((id, update.to_json().unwrap().unwrap()));
                    buffered.publish(update).unwrap();
                }
                // What was applied before its response was lost cannot be refused after that.
                Step::Fail(Fault::CloseAfter) if rejecting => {}
                Step::Fail(Fault::Reject(_)) if !rejecting => {}
                Step::Fail(fault) => emulator.fail_next(fault),
                Step::Flush => drop(buffered.flush(Duration::from_millis(2))),
                Step::Recover => emulator.recover(),
            }
        }
        let outcome = buffered.shutdown(Duration::from_millis(timeout));
        // With the connections that it keeps.
        drop(buffered);
        let rejected = rejected.lock().unwrap();
        let undelivered: Vec<_> =
            outcome.undelivered.iter().map(|update| update.as_json().to_owned()).collect();

        // Each in one place, and those that come back in order.
        let stats = &outcome.stats;
        prop_assert_eq!(stats.accepted + rejected.len() + undelivered.len(), published.len());
        let gone = |json: &String| undelivered.contains(json);
        let expected: Vec<_> =
            published.iter().map(|(_, json)| json).filter(|json| gone(json)).cloned().collect();
        prop_assert_eq!(&undelivered, &expected);

        // Sent after all, they make the profiles what they should be.
        emulator.recover();
        let mut profiles = BTreeMap::<u8, Profile>::new();
        for (id, json) in published.iter().filter(|(_, json)| !rejected.contains(json)) {
            let update: Value = serde_json::from_str(json).unwrap();
            let update = Group::new("company", *id).set(&update["$set"]);
            profiles.entry(*id).or_default().apply(&update).unwrap();
        }
        let profile = |id: &u8| emulator.profile("company", &id.to_string());
        wait_for_broken_off_requests(&emulator);
        self::client(&emulator).send(&outcome.undelivered).unwrap().into_result().unwrap();
        for (id, expected) in profiles {
            prop_assert_eq!(profile(&id), Some(expected), "company {}", id);
        }
    }
}

#[test]
fn an_unknown_depth_is_unknown_and_nothing_is_complete() {
    let emulator = Emulator::start().unwrap();
    let outbox = Faulty::durable();
    let faults = Arc::clone(&outbox.faults);
    let hour = Duration::from_secs(3600);
    let buffered = buffered(&emulator).flush_interval(hour).outbox(outbox);
    let buffered = buffered.start().unwrap();
    fill(&buffered, 1_000);
    assert_eq!(buffered.stats().queued, Some(1_000));

    faults.fail(&["take", "depth"]);
    let stats = buffered.stats();
    assert_eq!(
        (stats.queued, stats.queued_bytes, stats.oldest),
        (None, None, None)
    );
    assert_eq!(serde_json::to_value(&stats).unwrap()["queued"], json!(null));
    for outcome in [
        buffered.flush(Duration::from_millis(100)),
        buffered.shutdown(Duration::from_millis(100)),
    ] {
        assert_eq!(outcome.waiting, None);
        assert!(!outcome.is_complete(), "{outcome:?}");
        assert_eq!(
            outcome.to_string(),
            "an unknown number of updates still waits"
        );
    }
}

/// Whatever fails for a while, each update is accepted in the end, and each failure is reported.
#[test]
fn every_method_of_an_outbox_may_fail() {
    for method in METHODS {
        let emulator = Emulator::start().unwrap();
        let outbox = Faulty::durable();
        let faults = Arc::clone(&outbox.faults);
        let reported = Arc::new(Mutex::new(Vec::new()));
        let its_reported = Arc::clone(&reported);
        let buffered = buffered(&emulator)
            .outbox(outbox)
            .capacity(10, 1 << 20)
            .overflow(OverflowPolicy::DropOldest)
            .on_error(move |event| its_reported.lock().unwrap().push(event.to_string()))
            .start()
            .unwrap();
        faults.fail(&[method]);
        let mut back: Vec<EncodedUpdate> = Vec::new();
        for id in 0..10 {
            if let Err(error) = buffered.publish(set(id, id)) {
                assert_eq!(error.undelivered().len(), 1, "{method}");
                let updates = error.undelivered().updates();
                back.extend(updates.map(|update| EncodedUpdate::new(&update).unwrap().unwrap()));
            }
        }
        let outcome = buffered.flush(Duration::from_millis(200));
        // Without `append` nothing waits; what is settled needs no release, and nothing is to be dropped.
        let is_complete = ["append", "release", "drop_oldest"].contains(&method);
        assert_eq!(outcome.is_complete(), is_complete, "{method}: {outcome:?}");
        faults.fail(&[]);
        buffered.publish_all(back).unwrap();
        let outcome = buffered.flush(LONG);
        assert!(outcome.is_complete(), "{method}: {outcome:?}");
        assert_eq!(outcome.stats.accepted, 10, "{method}: {outcome:?}");
        assert_eq!(emulator.profiles().len(), 10, "{method}");
        let is_reported = reported
            .lock()
            .unwrap()
            .iter()
            .any(|event| event.contains(method));
        assert_eq!(
            is_reported,
            !["append", "drop_oldest"].contains(&method),
            "{method}: publishing returns its errors, the rest is reported"
        );
    }
}

#[test]
fn garbage_in_an_outbox_is_rejected_and_reported() {
    let emulator = Emulator::start().unwrap();
    let outbox = Faulty::durable().taking(|inner, most| {
        let mut entries = inner.take(most)?;
        for entry in entries.iter_mut().filter(|entry| entry.id % 2 == 1) {
            *entry = OutboxEntry::read(entry.id, "\u{0}garbage");
        }
        Ok(entries)
    });
    let reported = Arc::new(AtomicUsize::new(0));
    let its_reported = Arc::clone(&reported);
    let buffered = buffered(&emulator).outbox(outbox).on_error(move |event| {
        assert!(matches!(event, DeliveryEvent::Rejected(..)), "{event}");
        its_reported.fetch_add(1, Ordering::SeqCst);
    });
    let buffered = buffered.start().unwrap();
    fill(&buffered, 100);
    let outcome = buffered.shutdown(LONG);
    assert!(outcome.is_complete(), "{outcome:?}");
    assert_eq!((outcome.stats.accepted, outcome.stats.rejected), (50, 50));
    assert_eq!(reported.load(Ordering::SeqCst), 50);
}

#[test]
fn a_callback_may_call_what_fails() {
    let emulator = Emulator::start().unwrap();
    let outbox = Faulty::durable();
    outbox.faults.fail(&["depth"]);
    let slot: Arc<Mutex<Option<BufferedClient>>> = Arc::default();
    let (its_slot, calls) = (Arc::clone(&slot), Arc::new(AtomicUsize::new(0)));
    let its_calls = Arc::clone(&calls);
    let caller = thread::current().id();
    let buffered = buffered(&emulator).outbox(outbox).on_error(move |_| {
        thread_local!(static IS_CALLED: Cell<bool> = const { Cell::new(false) });
        assert!(
            !IS_CALLED.replace(true),
            "it is not called by what it calls"
        );
        // The worker may call it too, for the flush of this callback.
        if thread::current().id() == caller {
            its_calls.fetch_add(1, Ordering::SeqCst);
        }
        let buffered = its_slot.lock().unwrap().clone();
        if let Some(buffered) = buffered {
            assert_eq!(buffered.stats().queued, None);
            let _ = buffered.flush(Duration::ZERO);
        }
        IS_CALLED.set(false);
    });
    let buffered = buffered.start().unwrap();
    *slot.lock().unwrap() = Some(buffered.clone());
    assert_eq!(buffered.stats().queued, None);
    // A flush that it calls makes the worker look too, and report the same.
    assert!(calls.load(Ordering::SeqCst) >= 1);
    slot.lock().unwrap().take();
}

#[test]
fn clones_share_one_worker_and_any_of_them_shuts_it_down() {
    let emulator = Emulator::start().unwrap();
    let one = buffered(&emulator).start().unwrap();
    let other = one.clone();
    one.publish(set(1, 1)).unwrap();
    drop(one);
    // The other still works.
    other.publish(set(2, 2)).unwrap();
    let outcome = other.clone().shutdown(LONG);
    assert!(outcome.is_complete(), "{outcome:?}");
    assert_eq!(outcome.stats.accepted, 2);

    let error = other.publish(set(3, 3)).unwrap_err();
    assert_eq!(
        (error.kind(), error.undelivered().len()),
        (ErrorKind::Closed, 1)
    );
    let again = other.shutdown(LONG);
    assert!(
        again.is_complete() && again.stats.accepted == 2,
        "{again:?}"
    );
    assert!(other.flush(LONG).is_complete());
}

#[test]
fn dropping_the_last_clone_sends_what_waits() {
    let emulator = Emulator::start().unwrap();
    let hour = Duration::from_secs(3600);
    let one = buffered(&emulator).flush_interval(hour).start().unwrap();
    let other = one.clone();
    one.publish(set(1, 1)).unwrap();
    drop(one);
    assert!(emulator.profiles().is_empty());
    drop(other);
    assert_eq!(emulator.profiles().len(), 1);
}

#[test]
fn background_settings_that_make_no_sense_are_errors() {
    let builder = || Client::disabled().buffered();
    let rows = [
        (
            builder().flush_interval(Duration::ZERO),
            "invalid flush_interval: it is zero",
        ),
        (
            builder().capacity(0, 1),
            "invalid capacity of 0 updates and 1 bytes: neither can be zero",
        ),
        (
            builder().capacity(1, 0),
            "invalid capacity of 1 updates and 0 bytes: neither can be zero",
        ),
    ];
    for (builder, expected) in rows {
        let error = builder.start().err().unwrap();
        assert_eq!(
            (error.kind(), &*error.to_string()),
            (ErrorKind::Config, expected)
        );
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
fn a_shutdown_frees_publishers_that_wait_for_room() {
    let emulator = Emulator::start().unwrap();
    emulator.fail_always(Fault::Status(503));
    let outbox = Faulty::in_memory();
    let faults = Arc::clone(&outbox.faults);
    let buffered = buffered(&emulator)
        .flush_interval(Duration::from_secs(3600))
        .outbox(outbox)
        .capacity(1, 1 << 20)
        .overflow(OverflowPolicy::Block(Duration::MAX));
    let buffered = buffered.start().unwrap();
    fill(&buffered, 1);
    thread::scope(|scope| {
        let blocked = scope.spawn(|| buffered.publish(set(1, 1)).unwrap_err());
        faults.wait_for("append", 2); // There is no room for it.
        let outcome = buffered.shutdown(Duration::from_millis(20));
        assert_eq!(outcome.undelivered.len(), 1);
        let error = blocked.join().unwrap();
        assert_eq!(error.kind(), ErrorKind::Closed);
        assert_eq!(error.undelivered().len(), 1);
    });
}

#[test]
fn a_shutdown_waits_for_what_is_being_published() {
    let outbox = Faulty::in_memory();
    let faults = Arc::clone(&outbox.faults);
    faults.hang(&["append"]);
    let buffered = Client::disabled().buffered().outbox(outbox);
    let buffered = buffered.start().unwrap();
    thread::scope(|scope| {
        let publisher = scope.spawn(|| buffered.publish(set(1, 1)));
        faults.wait_for("append", 1);
        let (done, is_done) = mpsc::channel();
        let buffered = &buffered;
        scope.spawn(move || done.send(buffered.shutdown(LONG)).unwrap());
        let too_early = is_done.recv_timeout(Duration::from_millis(100));
        faults.hang(&[]);
        assert!(too_early.is_err(), "{too_early:?}");
        assert_eq!(is_done.recv().unwrap().stats.accepted, 1);
        publisher.join().unwrap().unwrap();
    });
    assert_eq!(buffered.stats().queued, Some(0));
}

#[test]
fn what_is_published_during_a_shutdown_is_delivered_or_comes_back() {
    for _ in 0..50 {
        let buffered = Client::disabled().buffered().coalesce(false);
        let buffered = buffered.start().unwrap();
        let published = AtomicUsize::new(0);
        thread::scope(|scope| {
            for publisher in 0..4 {
                let (clone, published) = (buffered.clone(), &published);
                scope.spawn(move || {
                    while clone.publish(set(publisher, 1)).is_ok() {
                        published.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            while published.load(Ordering::Relaxed) < 100 {
                thread::yield_now();
            }
            let outcome = buffered.shutdown(LONG);
            assert!(outcome.is_complete(), "{outcome:?}");
        });
        let stats = buffered.stats();
        assert_eq!(stats.accepted, published.into_inner(), "{stats:?}");
        assert_eq!(stats.queued, Some(0));
    }
}

#[test]
fn two_shutdowns_at_once_hand_back_each_update_once() {
    let emulator = Emulator::start().unwrap();
    emulator.fail_always(Fault::Delay(Duration::from_secs(3600)));
    let outbox = Faulty::in_memory().taking(|inner, most| {
        let taken = inner.take(most);
        thread::sleep(Duration::from_millis(10)); // So that the shutdowns meet.
        taken
    });
    let buffered = buffered(&emulator).outbox(outbox).start().unwrap();
    fill(&buffered, 10);
    let handed_back: Vec<_> = thread::scope(|scope| {
        let shutdown = || buffered.shutdown(Duration::from_millis(10)).undelivered;
        let threads = [(); 4].map(|()| scope.spawn(shutdown));
        let handed_back = threads.map(|thread| thread.join().unwrap());
        handed_back.into_iter().flatten().collect()
    });
    assert_eq!(handed_back.len(), 10, "{handed_back:?}");
}

#[test]
fn a_worker_that_hangs_is_left_behind_at_once_the_second_time() {
    let outbox = Faulty::durable();
    outbox.faults.hang(&["take"]);
    let buffered = Client::disabled().buffered().outbox(outbox);
    let buffered = buffered.start().unwrap();
    let clone = buffered.clone();
    let start = Instant::now();
    let _ = buffered.shutdown(Duration::from_millis(10));
    let _ = buffered.shutdown(LONG);
    let _ = buffered.flush(LONG);
    drop(buffered);
    drop(clone);
    assert!(start.elapsed() < LONG / 2, "{:?}", start.elapsed());
}

#[test]
fn an_outbox_wakes_the_worker() {
    let emulator = Emulator::start().unwrap();
    let outbox = Faulty::durable();
    let hour = Duration::from_secs(3600);
    let buffered = buffered(&emulator)
        .flush_interval(hour)
        .outbox(outbox.clone());
    let _buffered = buffered.start().unwrap();
    let update = EncodedUpdate::new(&set(1, 1)).unwrap().unwrap();
    outbox.append(&[update], Capacity::default()).unwrap();
    outbox.on_append.get().unwrap()();
    let arrived = emulator.wait_for(LONG, |emulator| emulator.profile("company", "1"));
    arrived.expect("the outbox called its hook");
}

#[test]
fn a_loss_breaks_off_the_delivery_and_what_is_left_is_taken_again() {
    for shuts_down in [false, true] {
        let emulator = Emulator::start().unwrap();
        emulator.fail_next(Fault::Delay(Duration::from_secs(3600)));
        let outbox = Faulty::durable();
        let hour = Duration::from_secs(3600);
        let buffered = buffered(&emulator)
            .flush_interval(hour)
            .outbox(outbox.clone());
        let buffered = buffered.start().unwrap();
        buffered.publish(set(1, 1)).unwrap();
        let outcome = thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                if shuts_down {
                    buffered.shutdown(LONG)
                } else {
                    buffered.flush(LONG)
                }
            });
            let received = emulator.wait_for(LONG, |emulator| emulator.requests().pop());
            received.expect("the request is under way");
            outbox.on_loss.get().unwrap()();
            waiting.join().unwrap()
        });
        assert!(outcome.is_complete(), "{outcome:?}");
        assert_eq!(outcome.stats.accepted, 1);
    }
}

#[test]
fn dropping_the_last_clone_takes_no_longer_than_its_timeout() {
    let emulator = Emulator::start().unwrap();
    emulator.fail_always(Fault::Delay(Duration::from_secs(3600)));
    let buffered = buffered(&emulator).drop_timeout(Duration::from_millis(100));
    let buffered = buffered.start().unwrap();
    fill(&buffered, 10);
    let start = Instant::now();
    drop(buffered);
    let took = start.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
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

#[test]
fn events_are_one_line_of_text() {
    let emulator = Emulator::start().unwrap();
    (0..2).for_each(|_| emulator.fail_next(Fault::Status(503)));
    let lines = Arc::new(Mutex::new(Vec::new()));
    let its_lines = Arc::clone(&lines);
    let buffered = buffered(&emulator)
        .on_error(move |event| its_lines.lock().unwrap().push(event.to_string()));
    let buffered = buffered.start().unwrap();
    let bad = Group::new("$company_id", "bad")
        .in_company("other")
        .set(json!({"a": 1}));
    buffered.publish(bad).unwrap();
    assert!(buffered.shutdown(LONG).is_complete());
    let lines = lines.lock().unwrap();
    let failed = "updates keep waiting: ";
    assert!(
        lines[0].starts_with(failed) && lines[0].contains("503"),
        "{lines:?}"
    );
    assert_eq!(
        lines.last().unwrap(),
        "rejected $set of $company_id \"bad\": \"$company_id\": a company's $group_id must be its $company_id"
    );
}

/// What is too large for one update with its token is not merged, and is refused when it is published.
#[test]
fn the_limit_of_an_update_counts_what_the_client_adds() {
    let emulator = Emulator::start().unwrap();
    let client = Client::builder("TOKEN")
        .endpoint(emulator.endpoint())
        .max_body(1_000)
        .build()
        .unwrap();
    let buffered = client.buffered().flush_interval(LONG).start().unwrap();
    let acme = Group::new("company", "acme");
    let of_length = |length: usize| acme.set(BTreeMap::from([("p", vec!["x".repeat(length)])]));
    let longest = (1..1_000)
        .rev()
        .find(|length| client.send(of_length(*length)).unwrap().accepted == 1);
    let longest = longest.unwrap();
    buffered.publish(of_length(longest)).unwrap();
    let error = buffered.publish(of_length(longest + 1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidUpdate);
    assert!(error.to_string().contains("the limit is 998"), "{error}");
    let all = buffered.publish_all([of_length(longest + 1), of_length(1)]);
    assert_eq!(all.unwrap_err().kind(), ErrorKind::InvalidUpdate);
    assert!(buffered.flush(LONG).is_complete());

    // Two that are one update without the token, and not always with it.
    for total in longest - 60..longest {
        for (name, length) in [("a", total / 2), ("b", total - total / 2)] {
            let part = BTreeMap::from([(name, vec!["x".repeat(length)])]);
            buffered.publish(acme.set(part)).unwrap();
        }
        assert!(buffered.flush(LONG).is_complete());
    }
    let stats = buffered.shutdown(LONG).stats;
    assert_eq!((stats.rejected, stats.accepted), (0, 121));
}

//! What is published arrives: in batches, in order, again after a failure, without a flush and with one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::LONG;
use mixpanel_groups::buffered::DeliveryEvent;
use mixpanel_groups::{Client, MixpanelGroup, RetryPolicy};
use mixpanel_groups_emulator::{Emulator, Fault};
use serde_json::json;

use super::{buffered, fill, set};

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

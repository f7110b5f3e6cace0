//! An outbox that fails, panics or yields garbage for a while, and one that wakes the worker.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use common::{LONG, eventually};
use mixpanel_groups::buffered::{DeliveryEvent, OverflowPolicy};
use mixpanel_groups::outbox::{Capacity, OutboxEntry};
use mixpanel_groups::{EncodedUpdate, Outbox};
use mixpanel_groups_emulator::Emulator;
use serde_json::json;

use common::faulty::{Faulty, METHODS};

use super::{buffered, fill, set};

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
fn a_panic_of_the_outbox_at_the_start_is_an_error_and_its_timeout_is_set_first() {
    let emulator = Emulator::start().unwrap();
    for method in ["set_timeout", "is_durable", "on_append", "events"] {
        let outbox = Faulty::durable();
        let faults = Arc::clone(&outbox.faults);
        faults.panic(&[method]);
        let error = buffered(&emulator).outbox(outbox).start().unwrap_err();
        faults.panic(&[]);
        assert_eq!(error.to_string(), "the outbox panicked", "{method}");
        assert_eq!(faults.first(), Some("set_timeout"), "{method}");
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

/// For instance a database in which this process may not delete.
#[test]
fn what_an_outbox_does_not_remove_is_not_sent_without_a_pause() {
    let emulator = Emulator::start().unwrap();
    let mut outbox = Faulty::durable();
    outbox.keeps_settled = true;
    let reported = Arc::new(Mutex::new(Vec::new()));
    let its_reported = Arc::clone(&reported);
    let hour = Duration::from_secs(3600);
    let buffered = buffered(&emulator)
        .flush_interval(hour)
        .outbox(outbox)
        .on_error(move |event| its_reported.lock().unwrap().push(event.to_string()))
        .start()
        .unwrap();
    buffered.publish(set(1, 1)).unwrap();
    let outcome = buffered.flush(Duration::from_millis(10));
    assert!(!outcome.is_complete(), "{outcome:?}");
    eventually("reported", || !reported.lock().unwrap().is_empty());
    assert_eq!(emulator.requests().len(), 1);
    let kept = "the outbox failed: what was settled is still there, and will be sent again";
    assert_eq!(*reported.lock().unwrap(), [kept]);
}

/// An outbox yields again what was taken, and drops it, only once it is released.
#[test]
fn what_an_outbox_does_not_remove_is_released() {
    let emulator = Emulator::start().unwrap();
    let mut outbox = Faulty::durable();
    outbox.keeps_settled = true;
    let (told, is_told) = mpsc::channel();
    let buffered = buffered(&emulator)
        .flush_interval(Duration::from_secs(3600))
        .capacity(1, 1 << 20)
        .overflow(OverflowPolicy::DropOldest)
        .outbox(outbox)
        .on_error(move |event| {
            if let DeliveryEvent::Outbox(_) = event {
                told.send(()).unwrap();
            }
        });
    let buffered = buffered.start().unwrap();
    buffered.publish(set(1, 1)).unwrap();
    is_told.recv_timeout(LONG).unwrap();
    buffered.publish(set(2, 2)).unwrap();
    assert_eq!(buffered.stats().dropped, 1);
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

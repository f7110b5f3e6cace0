//! Shutdown and drop: they end by their deadline, and each update is delivered or comes back.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use common::{LONG, eventually};
use mixpanel_groups::buffered::OverflowPolicy;
use mixpanel_groups::{Client, ErrorKind, Event};
use mixpanel_groups_emulator::{Emulator, Fault};

use common::faulty::Faulty;

use super::{buffered, client, fill, set};

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

/// A signal handler and `main` may both shut down: only one of them gets what is left.
#[test]
fn what_one_shutdown_has_handed_back_is_no_success_of_another() {
    let emulator = Emulator::start().unwrap();
    emulator.fail_always(Fault::Status(503));
    let buffered = buffered(&emulator).start().unwrap();
    fill(&buffered, 5);
    buffered
        .publish(Event::new("E").distinct_id("one"))
        .unwrap();
    let first = buffered.shutdown(Duration::ZERO);
    assert_eq!(
        (first.undelivered.len(), first.undelivered_events.len()),
        (5, 1)
    );
    for again in [buffered.shutdown(LONG), buffered.flush(LONG)] {
        assert!(
            again.undelivered.is_empty() && !again.is_complete(),
            "{again:?}"
        );
        assert_eq!(
            (again.stats.handed_back, again.event_stats.handed_back),
            (5, 1)
        );
        assert_eq!(again.to_string(), first.to_string());
        assert_eq!(
            again.to_string(),
            "5 updates were handed back, 1 event was handed back"
        );
    }
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
            eventually("published", || published.load(Ordering::Relaxed) >= 100);
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

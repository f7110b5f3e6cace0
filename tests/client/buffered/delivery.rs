//! What is published arrives: in batches, in order, again after a failure, without a flush and with one.

use std::cell::RefCell;
use std::fs;
use std::io::{self, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use common::{LONG, eventually, is_own_process};
use mixpanel_groups::buffered::DeliveryEvent;
use mixpanel_groups::{BufferedClient, Client, Group, MixpanelGroup, RetryPolicy};
use mixpanel_groups_emulator::{Emulator, Fault};
use serde_json::json;

use super::{buffered, fill, set};
use crate::faults::raw::{Raw, read_request, response};

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
fn a_batch_is_full_by_its_bytes_too() {
    let emulator = Emulator::start().unwrap();
    let hour = Duration::from_secs(3600);
    let buffered = buffered(&emulator).flush_interval(hour).start().unwrap();
    let large = |id: usize| Group::new("company", id).set(json!({"text": "x".repeat(100_000)}));
    for id in 0..20 {
        buffered.publish(large(id)).unwrap();
    }
    let arrived = emulator.wait_for(LONG, |emulator| {
        (emulator.profiles().len() == 20).then_some(())
    });
    arrived.expect("2,000,000 bytes are a full batch");
}

/// Keeps a connection open for longer than its client waits.
fn leave_unanswered(stream: TcpStream) {
    thread::spawn(move || {
        let _ = io::copy(&mut &stream, &mut io::sink());
    });
}

/// Returns a client that tries each request once, and does not wait for long.
fn impatient(raw: &Raw) -> BufferedClient {
    let client = Client::builder("T").endpoint(&raw.endpoint);
    let client = client.timeout(Duration::from_millis(200));
    let client = client.retry(RetryPolicy::none()).build().unwrap();
    let buffered = client.buffered().flush_interval(Duration::from_millis(1));
    buffered.start().unwrap()
}

/// On a slow line, a request with all of a backlog would never end in time.
#[test]
fn after_a_timeout_less_is_sent_at_once() {
    const MOST: usize = 2_000;
    let raw = Raw::start(|stream, _| {
        let Ok(body) = read_request(&stream) else {
            return;
        };
        if body.len() > MOST {
            leave_unanswered(stream);
            return;
        }
        let _ = (&stream).write_all(&response(200, "", "1"));
    });
    let buffered = impatient(&raw);
    buffered
        .publish_all((0..1_000).map(|id| set(id, 1)))
        .unwrap();
    let outcome = buffered.shutdown(LONG);
    assert!(outcome.is_complete(), "{outcome:?}");
    assert_eq!(outcome.stats.accepted, 1_000);
}

/// What a firewall blocks is given up where others are accepted, so it must not be all that is taken.
#[test]
fn a_blocked_update_does_not_stay_alone_after_timeouts() {
    let raw = Raw::start(|stream, number| {
        let Ok(body) = read_request(&stream) else {
            return;
        };
        if number < 6 {
            leave_unanswered(stream);
        } else if body.contains("{\"number\":0}") {
            let _ = (&stream).write_all(&response(403, "", "<html>"));
        } else {
            let _ = (&stream).write_all(&response(200, "", "1"));
        }
    });
    let buffered = impatient(&raw);
    buffered.publish_all((0..11).map(|id| set(id, id))).unwrap();
    eventually("given up", || {
        let _ = buffered.flush(Duration::from_millis(300));
        let stats = buffered.stats();
        (stats.accepted, stats.rejected) == (10, 1)
    });
}

/// The destructors of a thread's own values run one after the other, those of this library among them.
#[test]
fn a_thread_that_ends_may_publish() {
    struct Buffer(BufferedClient);
    impl Drop for Buffer {
        fn drop(&mut self) {
            self.0.publish_all([set(2, 2)]).unwrap();
            self.0.publish(set(3, 3)).unwrap();
        }
    }
    thread_local!(static BUFFER: RefCell<Option<Buffer>> = const { RefCell::new(None) });
    if !is_own_process(a_thread_that_ends_may_publish, &[]) {
        return;
    }
    for has_hook in [false, true] {
        let buffered = Client::disabled().buffered();
        let buffered = if has_hook {
            buffered.before_send(|_| true)
        } else {
            buffered
        };
        let buffered = buffered.start().unwrap();
        let its = buffered.clone();
        let thread = thread::spawn(move || {
            BUFFER.set(Some(Buffer(its.clone())));
            its.publish_all([set(1, 1)]).unwrap();
        });
        thread.join().unwrap();
        assert_eq!(buffered.shutdown(LONG).stats.accepted, 3);
    }
}

/// A service that publishes now and then does not start a thread for each request.
#[cfg(target_os = "linux")]
#[test]
fn a_request_needs_no_thread_beside_the_worker() {
    if !is_own_process(a_request_needs_no_thread_beside_the_worker, &[]) {
        return;
    }
    let (counted, counts) = mpsc::channel();
    let raw = Raw::start(move |stream, _| {
        let tasks = fs::read_dir("/proc/self/task").unwrap();
        let names = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("comm")));
        let is_ours =
            |name: &io::Result<String>| matches!(name, Ok(name) if name.starts_with("mixpanel"));
        counted.send(names.filter(is_ours).count()).unwrap();
        read_request(&stream).unwrap();
        let _ = (&stream).write_all(&response(200, "", "1"));
    });
    let client = Client::builder("TOKEN").endpoint(&raw.endpoint);
    let buffered = client.build().unwrap().buffered().start().unwrap();
    // The first flush ends when both workers have started.
    for number in 1..3 {
        buffered.publish(set(1, number)).unwrap();
        assert_eq!(buffered.flush(LONG).stats.accepted, number);
    }
    let last = counts.iter().take(2).last();
    assert_eq!(last, Some(2), "the workers of updates and events");
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
    [429, 408].into_iter().for_each(assert_paused);
}

fn assert_paused(status: u16) {
    let emulator = Emulator::start().unwrap();
    emulator.fail_next(Fault::RetryAfter {
        status,
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

/// Otherwise a callback that does so sends again and again, without a pause, to a server that fails.
#[test]
fn a_flush_within_on_error_keeps_the_pause_after_a_failure() {
    let emulator = Emulator::start().unwrap();
    emulator.fail_always(Fault::Status(503));
    let slot: Arc<Mutex<Option<BufferedClient>>> = Arc::default();
    let its_slot = Arc::clone(&slot);
    let (told, is_told) = mpsc::channel();
    let buffered = buffered(&emulator)
        .flush_interval(Duration::from_secs(3_600))
        .on_error(move |_| {
            if let Some(buffered) = &*its_slot.lock().unwrap() {
                let _ = buffered.flush(LONG);
            }
            told.send(()).unwrap();
        });
    let buffered = buffered.start().unwrap();
    *slot.lock().unwrap() = Some(buffered.clone());
    buffered.publish(set(1, 1)).unwrap();
    let _ = buffered.flush(Duration::ZERO);
    is_told.recv_timeout(LONG).unwrap();
    let again = is_told.recv_timeout(Duration::from_millis(100));
    *slot.lock().unwrap() = None;
    assert!(again.is_err(), "it was sent again at once");
    emulator.recover();
    assert!(buffered.shutdown(LONG).is_complete());
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

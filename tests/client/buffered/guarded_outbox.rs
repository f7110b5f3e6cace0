//! What a client does with an outbox that hangs or panics, and with hooks that call the client: every call returns by
//! its deadline, the process goes on, and each update is accounted for.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use common::{LONG, eventually, is_own_process};
use mixpanel_groups::buffered::{BufferedClientBuilder, DeliveryEvent, OverflowPolicy};
use mixpanel_groups::outbox::{Capacity, Depth, OutboxEntry};
use mixpanel_groups::{
    BufferedClient, Client, EncodedUpdate, Error, ErrorKind, Group, MemoryOutbox, Outbox,
    Rejection, RetryPolicy, Update,
};
use mixpanel_groups_emulator::{Emulator, Fault};
use serde_json::json;

use common::faulty::{Faulty, METHODS};

const SHORT: Duration = Duration::from_millis(20);

fn set(id: usize) -> Update<'static> {
    Group::new("company", id).set(json!({"number": id}))
}

fn start(outbox: &Faulty) -> BufferedClientBuilder {
    Client::disabled()
        .buffered()
        .outbox(outbox.clone())
        .outbox_timeout(SHORT)
        .drop_timeout(SHORT)
        .flush_interval(Duration::from_millis(1))
}

/// Every method hangs for ever, alone and with all others.
#[test]
fn every_call_returns_by_its_deadline_whatever_hangs() {
    let alone = METHODS.map(|method| vec![method]);
    let sets = alone.into_iter().chain([METHODS.to_vec(), vec!["drop"]]);
    for (hanging, is_durable) in sets.flat_map(|set| [(set.clone(), false), (set, true)]) {
        let mut outbox = Faulty::in_memory();
        outbox.is_durable = is_durable;
        for overflow in [OverflowPolicy::Reject, OverflowPolicy::DropOldest] {
            let buffered = start(&outbox).capacity(3, 1 << 20).overflow(overflow);
            let buffered = buffered.start().unwrap();
            outbox.faults.hang(&hanging);
            let started = Instant::now();
            for id in 0..5 {
                // The update is back, if it is not in the outbox.
                if let Err(error) = buffered.publish(set(id)) {
                    assert_eq!(error.undelivered().len(), 1);
                }
            }
            let stats = buffered.stats();
            assert!(stats.queued.is_none() || !hanging.contains(&"depth"));
            let _ = buffered.flush(SHORT);
            let _ = buffered.shutdown(SHORT);
            let _ = buffered.shutdown(SHORT);
            drop(buffered);
            assert!(started.elapsed() < LONG, "{hanging:?}");
            outbox.faults.hang(&[]);
        }
    }
}

/// Returns a client with two updates of which the second's `publish` gave up before the first was dropped for it, and how many
/// it has reported as dropped. Its worker hangs.
fn dropped_too_late(outbox: &Faulty) -> (BufferedClient, Arc<AtomicUsize>) {
    let reported = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&reported);
    // What is being sent is not dropped.
    outbox.faults.hang(&["take", "drop_oldest"]);
    let buffered = start(outbox)
        .outbox_timeout(Duration::from_secs(1))
        .capacity(1, 1 << 20)
        .overflow(OverflowPolicy::DropOldest)
        .on_error(move |event| {
            if let DeliveryEvent::Dropped(count) = event {
                counter.fetch_add(*count, Ordering::Relaxed);
            }
        });
    let buffered = buffered.start().unwrap();
    buffered.publish(set(0)).unwrap();
    let error = buffered.publish(set(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    outbox.faults.hang(&["take"]);
    eventually("counted", || buffered.stats().dropped == 1);
    (buffered, reported)
}

#[test]
fn what_is_dropped_too_late_is_counted_and_reported() {
    let outbox = Faulty::in_memory();
    let (buffered, reported) = dropped_too_late(&outbox);
    outbox.faults.hang(&[]);
    eventually("reported", || reported.load(Ordering::Relaxed) == 1);
    let outcome = buffered.shutdown(LONG);
    assert_eq!((outcome.waiting, outcome.stats.accepted), (Some(0), 0));
}

#[test]
fn what_is_dropped_too_late_for_the_worker_is_reported_by_a_shutdown() {
    let outbox = Faulty::in_memory();
    let (buffered, reported) = dropped_too_late(&outbox);
    let outcome = buffered.shutdown(SHORT);
    assert_eq!(outcome.stats.dropped, 1);
    assert_eq!(reported.load(Ordering::Relaxed), 1);
    outbox.faults.hang(&[]);
}

#[test]
fn dropping_the_last_clone_does_not_wait_for_an_outbox_that_hangs() {
    let outbox = Faulty::in_memory();
    let buffered = start(&outbox).start().unwrap();
    outbox.faults.hang(&METHODS);
    assert_eq!(
        buffered.publish(set(1)).unwrap_err().kind(),
        ErrorKind::Timeout
    );
    let started = Instant::now();
    drop(buffered);
    assert!(started.elapsed() < LONG);
    outbox.faults.hang(&[]);
}

/// A call that has not begun when its caller gives up never begins; so no late one overtakes what follows.
#[test]
fn publishers_of_an_outbox_that_hangs_wait_in_line_and_leave_nothing_behind() {
    let outbox = Faulty::in_memory();
    let buffered = start(&outbox).start().unwrap();
    outbox.faults.hang(&["append"]);
    thread::scope(|scope| {
        for id in 0..20 {
            let buffered = &buffered;
            scope.spawn(move || {
                let error = buffered.publish(set(id)).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
                assert_eq!(
                    error.to_string(),
                    "the outbox did not reply in time (1 undelivered)"
                );
            });
            // The first one is under way when the others come.
            outbox.faults.wait_for("append", 1);
        }
    });
    assert_eq!(outbox.faults.calls("append"), 1);
    assert!(outbox.faults.hung() <= 1, "one thread");
    outbox.faults.hang(&[]);
    let started = Instant::now();
    while buffered.publish(set(20)).is_err() {
        assert!(started.elapsed() < LONG);
    }
    let outcome = buffered.shutdown(LONG);
    assert!(outcome.is_complete(), "{outcome:?}");
    // The first one was in the outbox after all, and the last.
    assert_eq!(outcome.stats.accepted, 2);
}

/// What several publish while the outbox is busy is appended as one, if there is room; else each for itself.
#[test]
fn publishers_that_wait_for_the_outbox_share_a_call() {
    for (capacity, calls) in [(100, 2), (10, 22)] {
        let expected = (calls, 21_usize.saturating_sub(capacity));
        // Nothing shows that all of them wait in line; on a machine that is busy it takes longer.
        let mut pauses = [1, 10, 100, 1_000, 10_000].into_iter();
        let mut last = (0, 0);
        while last != expected {
            let pause = pauses.next().unwrap_or_else(|| panic!("{last:?}"));
            last = calls_of_many_publishers(capacity, Duration::from_millis(pause));
        }
    }
}

/// Publishes one update, whose `append` hangs for a while, and twenty others meanwhile. Returns how often `append` was
/// called, and how many were refused.
fn calls_of_many_publishers(capacity: usize, pause: Duration) -> (usize, usize) {
    let outbox = Faulty::durable();
    let hour = Duration::from_secs(3600);
    let buffered = start(&outbox).capacity(capacity, 1 << 20);
    let buffered = buffered.outbox_timeout(hour).flush_interval(hour);
    let buffered = buffered.overflow(OverflowPolicy::Reject).start().unwrap();
    outbox.faults.hang(&["append"]);
    let refused = thread::scope(|scope| {
        let first = scope.spawn(|| buffered.publish(set(0)));
        outbox.faults.wait_for("append", 1);
        let others: Vec<_> = (1..=20)
            .map(|id| {
                let buffered = &buffered;
                scope.spawn(move || buffered.publish(set(id)))
            })
            .collect();
        thread::sleep(pause);
        outbox.faults.hang(&[]);
        first.join().unwrap().unwrap();
        let results = others.into_iter().map(|other| other.join().unwrap());
        results.filter(|result| result.is_err()).count()
    });
    let calls = outbox.faults.calls("append");
    assert_eq!(buffered.shutdown(LONG).stats.accepted, 21 - refused);
    (calls, refused)
}

/// Panics of every method, as an error; afterwards the client goes on as if nothing had been.
#[test]
fn a_panic_in_an_outbox_is_an_error_and_nothing_is_lost() {
    for method in METHODS {
        let emulator = Emulator::start().unwrap();
        let outbox = Faulty::durable();
        let told = Arc::new(Mutex::new(Vec::new()));
        let tell = Arc::clone(&told);
        let client = Client::builder("T").endpoint(emulator.endpoint());
        let buffered = client.build().unwrap().buffered();
        let buffered = buffered
            .outbox(outbox.clone())
            .flush_interval(Duration::from_millis(1))
            .capacity(10, 1 << 20)
            .overflow(OverflowPolicy::DropOldest)
            .on_error(move |event| tell.lock().unwrap().push(event.to_string()))
            .start()
            .unwrap();
        outbox.faults.panic(&[method]);
        let mut back = Vec::new();
        for id in 0..10 {
            if let Err(error) = buffered.publish(set(id)) {
                assert_eq!(error.kind(), ErrorKind::Io);
                assert!(
                    error.to_string().starts_with("the outbox panicked"),
                    "{error}"
                );
                back.extend(error.into_undelivered().updates().map(Update::into_owned));
            }
        }
        assert_eq!(back.len(), if method == "append" { 10 } else { 0 });
        // Publishing returns its errors; what fails in the background is told.
        let is_told = || {
            let told = told.lock().unwrap();
            told.iter().any(|line| line.contains("panicked"))
        };
        let started = Instant::now();
        while !["append", "drop_oldest"].contains(&method) && !is_told() {
            assert!(started.elapsed() < LONG, "{method}");
            let _ = buffered.stats();
            let _ = buffered.flush(SHORT);
        }
        outbox.faults.panic(&[]);
        buffered.publish_all(back).unwrap();
        let outcome = buffered.shutdown(LONG);
        assert!(outcome.is_complete(), "{method}: {outcome:?}");
        assert_eq!(outcome.stats.accepted, 10, "{method}");
        assert_eq!(emulator.profiles().len(), 10, "{method}");
    }
}

/// A second panic while one is under way would abort the process.
#[test]
fn an_outbox_may_panic_while_its_client_is_dropped_by_a_panic() {
    let outbox = Faulty::in_memory();
    let buffered = start(&outbox).start().unwrap();
    outbox.faults.panic(&[&METHODS[..], &["drop"]].concat());
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _buffered = buffered;
        panic!("a mistake of the application");
    }));
    assert!(panicked.is_err());
    outbox.faults.panic(&[]);
}

/// The hook, on the worker, does each of these in turn.
#[test]
fn on_error_may_call_everything() {
    type Act = fn(Option<BufferedClient>) -> usize;
    let acts: [Act; 6] = [
        |client| {
            let error = client.unwrap().publish(set(2)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Full);
            error.undelivered().len()
        },
        |client| {
            drop(client.unwrap().stats());
            0
        },
        |client| {
            let _ = client.unwrap().flush(Duration::from_secs(3600));
            0
        },
        |client| {
            let outcome = client.unwrap().shutdown(Duration::from_secs(3600));
            outcome.undelivered.len()
        },
        |client| {
            drop(client);
            0
        },
        |client| {
            let _client = client;
            panic!("a mistake in the hook")
        },
    ];
    for (number, act) in acts.into_iter().enumerate() {
        let emulator = Emulator::start().unwrap();
        emulator.fail_always(Fault::Status(500));
        let slot: Arc<Mutex<Option<BufferedClient>>> = Arc::default();
        let (done, is_done) = mpsc::channel();
        let its_slot = Arc::clone(&slot);
        let hook = move |event: &DeliveryEvent<'_>| {
            assert!(matches!(event, DeliveryEvent::Undelivered(_)), "{event}");
            let client = its_slot.lock().unwrap().take();
            if client.is_some() {
                let handed_back = catch_unwind(AssertUnwindSafe(|| act(client)));
                done.send(handed_back.as_ref().ok().copied()).unwrap();
                handed_back.unwrap_or_else(|panic| resume_unwind(panic));
            }
        };
        let retry = RetryPolicy::default().attempts(1);
        let client = Client::builder("T")
            .endpoint(emulator.endpoint())
            .retry(retry);
        let buffered = client.build().unwrap().buffered().on_error(hook);
        let hour = Duration::from_secs(3600);
        let buffered = buffered.flush_interval(SHORT).drop_timeout(hour);
        let buffered = buffered.overflow(OverflowPolicy::Block(hour));
        let buffered = buffered.capacity(1, 1 << 20).start().unwrap();
        buffered.publish(set(1)).unwrap();
        *slot.lock().unwrap() = Some(buffered);
        let handed_back = [Some(1), Some(0), Some(0), Some(1), Some(0), None][number];
        assert_eq!(is_done.recv_timeout(LONG), Ok(handed_back), "act {number}");
        // The worker ends soon after its client, and the hook with it.
        if number >= 3 {
            eventually("ended", || Arc::strong_count(&slot) == 1);
        }
    }
}

#[test]
fn a_hook_that_publishes_many_gets_all_of_them_back() {
    let slot: Arc<Mutex<Option<BufferedClient>>> = Arc::default();
    let its_slot = Arc::clone(&slot);
    let given_back = Arc::new(AtomicUsize::new(0));
    let its_given_back = Arc::clone(&given_back);
    let buffered = Client::disabled().buffered().before_send(move |_| {
        let buffered = its_slot.lock().unwrap().take();
        let many = (2..5).map(set);
        let error = buffered.and_then(|buffered| buffered.publish_all(many).err());
        let undelivered = error.map_or(0, |error| error.undelivered().len());
        its_given_back.fetch_add(undelivered, Ordering::SeqCst);
        true
    });
    let buffered = buffered.start().unwrap();
    *slot.lock().unwrap() = Some(buffered.clone());
    buffered.publish(set(1)).unwrap();
    assert_eq!(given_back.load(Ordering::SeqCst), 3);
    assert_eq!(buffered.shutdown(LONG).stats.accepted, 1);
}

#[test]
fn a_hook_that_publishes_does_not_call_itself_for_ever() {
    let slot: Arc<Mutex<Option<BufferedClient>>> = Arc::default();
    let its_slot = Arc::clone(&slot);
    let errors = Arc::new(Mutex::new(Vec::new()));
    let its_errors = Arc::clone(&errors);
    let buffered = Client::disabled().buffered().before_send(move |_| {
        let buffered = its_slot.lock().unwrap().clone();
        let published = buffered.map(|buffered| buffered.publish(set(2)));
        let error = published.and_then(Result::err);
        its_errors
            .lock()
            .unwrap()
            .extend(error.map(|error| (error.kind(), error.to_string())));
        true
    });
    let buffered = buffered.start().unwrap();
    *slot.lock().unwrap() = Some(buffered.clone());
    buffered.publish(set(1)).unwrap();
    slot.lock().unwrap().take();
    let expected = (
        ErrorKind::Config,
        "`before_send` cannot publish (1 undelivered)".to_owned(),
    );
    assert_eq!(*errors.lock().unwrap(), [expected]);
    assert_eq!(buffered.shutdown(LONG).stats.accepted, 1);
}

/// Another client is not this one.
#[test]
fn a_hook_may_publish_to_another_client() {
    let audit = Client::disabled().buffered().before_send(|_| true);
    let audit = audit.start().unwrap();
    let its_audit = audit.clone();
    let buffered = Client::disabled().buffered().before_send(move |_| {
        its_audit.publish(set(2)).unwrap();
        true
    });
    let buffered = buffered.start().unwrap();
    buffered.publish(set(1)).unwrap();
    assert_eq!(buffered.shutdown(LONG).stats.accepted, 1);
    assert_eq!(audit.shutdown(LONG).stats.accepted, 1);
}

/// A shutdown that cannot wait for what it takes back leaves it where it is.
#[test]
fn what_comes_back_too_late_is_not_lost() {
    let outbox = Faulty::in_memory();
    let hour = Duration::from_secs(3600);
    let buffered = start(&outbox).outbox_timeout(LONG).flush_interval(hour);
    let buffered = buffered.start().unwrap();
    (0..3).for_each(|id| buffered.publish(set(id)).unwrap());
    outbox.faults.hang(&["take"]);
    assert!(buffered.shutdown(SHORT).undelivered.is_empty());
    outbox.faults.hang(&[]);
    let started = Instant::now();
    let mut handed_back = 0;
    while handed_back + buffered.stats().accepted < 3 {
        assert!(started.elapsed() < LONG, "{:?}", buffered.stats());
        handed_back += buffered.shutdown(SHORT).undelivered.len();
    }
    assert_eq!(buffered.stats().queued, Some(0));
}

/// What cannot be read does not vanish with an outbox that ends with the process.
#[test]
fn what_a_shutdown_takes_back_and_cannot_read_is_rejected_and_told() {
    let outbox = Faulty::in_memory().taking(|inner, most| {
        if most < usize::MAX {
            return Err(Error::new(ErrorKind::Io, "not for the worker"));
        }
        let entries = inner.take(most)?.into_iter();
        let read = |entry: OutboxEntry| match entry.id {
            1 => OutboxEntry::read(entry.id, "garbage"),
            _ => entry,
        };
        Ok(entries.map(read).collect())
    });
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&told);
    let buffered = Client::disabled().buffered().outbox(outbox);
    let buffered = buffered.on_error(move |event| {
        if let DeliveryEvent::Rejected(json, _) = event {
            tell.lock().unwrap().push((*json).to_owned());
        }
    });
    let buffered = buffered.start().unwrap();
    (0..3).for_each(|id| buffered.publish(set(id)).unwrap());
    let outcome = buffered.shutdown(SHORT);
    assert_eq!((outcome.undelivered.len(), outcome.stats.rejected), (2, 1));
    assert_eq!(*told.lock().unwrap(), ["garbage"]);
}

/// There may be no other shutdown that could hand it back.
#[test]
fn what_cannot_be_taken_back_at_once_is_tried_once_more() {
    let failures = Arc::new(AtomicUsize::new(0));
    let failed = Arc::clone(&failures);
    let outbox = Faulty::in_memory().taking(move |inner, most| {
        if most < usize::MAX || failed.fetch_add(1, Ordering::Relaxed) == 0 {
            return Err(Error::new(
                ErrorKind::Io,
                "not for the worker, nor at first",
            ));
        }
        inner.take(most)
    });
    let buffered = start(&outbox).outbox_timeout(LONG).start().unwrap();
    (0..3).for_each(|id| buffered.publish(set(id)).unwrap());
    let outcome = buffered.shutdown(SHORT);
    assert_eq!((outcome.undelivered.len(), outcome.waiting), (3, Some(0)));
}

/// A shutdown that cannot wait for what it takes back to be removed hands it back all the same.
#[test]
fn what_is_taken_back_and_removed_too_late_is_handed_back() {
    let outbox = Faulty::in_memory().taking(|inner, most| match most {
        usize::MAX => inner.take(most),
        _ => Err(Error::new(ErrorKind::Io, "not for the worker")),
    });
    let buffered = start(&outbox).outbox_timeout(LONG).start().unwrap();
    (0..3).for_each(|id| buffered.publish(set(id)).unwrap());
    outbox.faults.hang(&["settle"]);
    let outcome = buffered.shutdown(SHORT);
    outbox.faults.hang(&[]);
    assert_eq!(outcome.undelivered.len(), 3);
}

#[test]
fn what_is_taken_back_and_cannot_be_removed_is_handed_back_once() {
    let outbox = Faulty::in_memory();
    outbox.faults.fail(&["settle"]);
    let buffered = start(&outbox).outbox_timeout(LONG).start().unwrap();
    buffered.publish(set(0)).unwrap();
    assert_eq!(buffered.shutdown(Duration::ZERO).undelivered.len(), 1);
    outbox.faults.fail(&[]);
    let again = buffered.shutdown(LONG);
    assert_eq!((again.undelivered.len(), again.stats.handed_back), (0, 1));
    assert_eq!(again.waiting, Some(0), "it is removed now");
}

/// In memory, and called on the publishing threads. The first publisher's update is appended after a shutdown, with those of
/// a second publisher, which comes back before the first.
#[derive(Clone, Default)]
struct TwoLate {
    inner: Arc<MemoryOutbox>,
    client: Arc<OnceLock<BufferedClient>>,
    appends: Arc<AtomicUsize>,
    second: Arc<Mutex<Option<Error>>>,
}

impl Outbox for TwoLate {
    fn append(&self, updates: &[EncodedUpdate], capacity: Capacity) -> Result<bool, Error> {
        let client = self.client.get().unwrap();
        if self.appends.fetch_add(1, Ordering::Relaxed) == 0 {
            let second = client.publish_all([set(0), set(1)]);
            *self.second.lock().unwrap() = second.err();
            return Ok(true);
        }
        assert!(client.shutdown(SHORT).undelivered.is_empty());
        assert!(self.inner.append(&updates[..1], capacity)?);
        self.inner.append(updates, capacity)
    }

    fn take(&self, most: usize) -> Result<Vec<OutboxEntry>, Error> {
        self.inner.take(most)
    }

    fn settle(&self, accepted: &[i64], rejected: &[(i64, &Rejection)]) -> Result<(), Error> {
        self.inner.settle(accepted, rejected)
    }

    fn release(&self) -> Result<(), Error> {
        self.inner.release()
    }

    fn drop_oldest(&self, _: usize, _: usize, _: Capacity) -> Result<usize, Error> {
        Ok(0)
    }

    fn depth(&self) -> Result<Depth, Error> {
        self.inner.depth()
    }

    fn set_timeout(&self, _: Duration) -> bool {
        true
    }

    fn is_durable(&self) -> bool {
        false
    }
}

#[test]
fn of_equal_updates_that_came_too_late_each_publisher_gets_its_own() {
    let outbox = TwoLate::default();
    let buffered = Client::disabled().buffered().outbox(outbox.clone());
    let buffered = buffered.start().unwrap();
    assert!(outbox.client.set(buffered.clone()).is_ok());
    let first = buffered.publish(set(0)).unwrap_err();
    let second = outbox.second.lock().unwrap().take().unwrap();
    for (error, updates) in [(first, 1), (second, 2)] {
        assert_eq!(error.kind(), ErrorKind::Closed);
        assert_eq!(error.undelivered().len(), updates);
    }
    let outcome = buffered.shutdown(LONG);
    assert_eq!((outcome.undelivered.len(), outcome.waiting), (0, Some(0)));
}

/// What is sent again is told when it is known to be the last time.
#[test]
fn a_rejection_is_told_once_however_often_settling_fails() {
    let emulator = Emulator::start().unwrap();
    emulator.fail_always(Fault::Reject(vec![0]));
    let outbox = Faulty::in_memory();
    let told = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&told);
    let client = Client::builder("T").endpoint(emulator.endpoint());
    let buffered = client.build().unwrap().buffered().outbox(outbox.clone());
    let buffered = buffered.on_error(move |event| {
        if let DeliveryEvent::Rejected(..) = event {
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    let hour = Duration::from_secs(3600);
    let buffered = buffered.flush_interval(hour).start().unwrap();
    buffered.publish(set(1)).unwrap();
    outbox.faults.fail(&["settle"]);
    for requests in 1..3 {
        assert!(!buffered.flush(SHORT).is_complete());
        eventually("sent", || emulator.requests().len() >= requests);
    }
    outbox.faults.fail(&[]);
    eventually("settled", || buffered.flush(LONG).is_complete());
    assert_eq!(told.load(Ordering::Relaxed), 1);
    assert_eq!(buffered.stats().rejected, 1);
}

/// Its worker takes nothing, and neither it nor the publishers ask the outbox again and again.
#[test]
fn publishers_wait_for_room_that_another_process_makes() {
    let outbox = Faulty::durable().taking(|_, _| Ok(Vec::new()));
    let wait = Duration::from_millis(300);
    let buffered = Client::disabled().buffered().outbox(outbox.clone());
    let buffered = buffered
        .capacity(1, 1 << 20)
        .overflow(OverflowPolicy::Block(wait))
        .start()
        .unwrap();
    buffered.publish(set(1)).unwrap();
    let error = buffered.publish(set(2)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full);
    let appends = outbox.faults.calls("append");
    assert!(appends <= 6, "{appends}");
}

/// Another process sends what both publish, and something always waits.
#[test]
fn a_flush_and_a_shutdown_end_while_another_process_sends() {
    let shared = Arc::new(MemoryOutbox::new());
    let outbox = Faulty::over(Arc::clone(&shared) as _).taking(|_, _| Ok(Vec::new()));
    let buffered = Client::disabled().buffered().outbox(outbox);
    let buffered = buffered.start().unwrap();
    let next = EncodedUpdate::new(&set(1)).unwrap().unwrap();
    let is_over = AtomicBool::new(false);
    buffered.publish(set(2)).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let next = std::slice::from_ref(&next);
                assert!(shared.append(next, Capacity::default()).unwrap());
                let oldest = shared.take(1).unwrap()[0].id;
                shared.settle(&[oldest], &[]).unwrap();
                thread::sleep(Duration::from_micros(200));
            }
        });
        let times = [BufferedClient::flush, BufferedClient::shutdown].map(|wait| {
            let start = Instant::now();
            drop(wait(&buffered, LONG));
            start.elapsed()
        });
        is_over.store(true, Ordering::Relaxed);
        assert!(times.iter().all(|time| *time < LONG), "{times:?}");
    });
}

#[test]
fn what_never_has_room_is_not_waited_for() {
    let buffered = Client::disabled().buffered().capacity(10, 500);
    let buffered = buffered.overflow(OverflowPolicy::Block(Duration::MAX));
    let buffered = buffered.start().unwrap();
    let large = Group::new("company", "1").set(json!({"text": "x".repeat(600)}));
    let error = buffered.publish(large).unwrap_err();
    assert_eq!(
        (error.kind(), error.undelivered().len()),
        (ErrorKind::Full, 1)
    );
}

/// A fork has no worker, and its locks may be held by threads that it does not have.
#[cfg(unix)]
#[test]
fn a_forked_child_is_told_that_the_client_is_closed() {
    // In a process without other tests, since a fork also keeps their connections open.
    if !is_own_process(a_forked_child_is_told_that_the_client_is_closed, &[]) {
        return;
    }
    let emulator = Emulator::start().unwrap();
    let client = Client::builder("T").endpoint(emulator.endpoint());
    let buffered = client.build().unwrap().buffered().start().unwrap();
    buffered.publish(set(1)).unwrap();
    match fork::fork().unwrap() {
        fork::Fork::Child => {
            let is_told = catch_unwind(AssertUnwindSafe(|| {
                for error in [
                    buffered.publish(set(2)).unwrap_err(),
                    buffered.publish_all([set(3)]).unwrap_err(),
                ] {
                    assert_eq!(error.kind(), ErrorKind::Closed);
                    assert!(error.to_string().contains("start one after the fork"));
                    assert_eq!(error.undelivered().len(), 1);
                }
                assert_eq!(buffered.stats().queued, None);
                assert!(!buffered.flush(Duration::from_secs(3600)).is_complete());
                let outcome = buffered.shutdown(Duration::from_secs(3600));
                assert!(outcome.undelivered.is_empty(), "they are the parent's");
                drop(buffered);
            }));
            std::process::exit(i32::from(is_told.is_err()));
        }
        fork::Fork::Parent(child) => {
            assert_eq!(fork::waitpid(child).unwrap(), 0, "the child's exit status");
        }
    }
    buffered.publish(set(4)).unwrap();
    let outcome = buffered.shutdown(LONG);
    assert!(outcome.is_complete(), "{outcome:?}");
    assert_eq!(emulator.profiles().len(), 2);
}

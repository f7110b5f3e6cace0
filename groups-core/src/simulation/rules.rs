//! Rules of the background client, with an outbox that the test holds in its hands and a clock that stands still unless
//! somebody waits.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shuttle::thread;

use crate::buffered::{BufferedClientBuilder, OverflowPolicy};
use crate::client::Client;
use crate::group::Group;
use crate::outbox::{Capacity, Depth, MemoryOutbox, Outbox, OutboxEntry};
use crate::record::{EncodedUpdate, Error, ErrorKind, Rejection, Update};
use crate::util::simulated::{Instant, simulate_rule, sleep};

const SECOND: Duration = Duration::from_secs(1);
const FOREVER: Duration = Duration::MAX;
/// So many updates that several deliveries are not enough.
const MANY: u64 = 150;

/// What an outbox does, shared by its handles.
#[derive(Default)]
struct Script {
    /// Calls of these methods do not return.
    hanging: Mutex<Vec<&'static str>>,
    /// How many calls hang.
    hung: AtomicUsize,
    /// The methods that were called, and when.
    calls: Mutex<Vec<(&'static str, Instant)>>,
    /// Another process has taken what waits.
    is_elsewhere: AtomicBool,
    /// All that waits is taken at once, and a delivery takes time, a tenth of a second.
    is_slow: AtomicBool,
    /// The depth is read at once and returned late, after a tenth of a second.
    is_slow_to_count: AtomicBool,
    /// The depth is not known.
    fails_to_count: AtomicBool,
}

impl Script {
    fn hang(&self, methods: &[&'static str]) {
        *self.hanging.lock().unwrap() = methods.to_vec();
    }

    fn wait_until_one_hangs(&self) {
        while self.hung.load(Ordering::Relaxed) == 0 {
            thread::yield_now();
        }
    }

    /// Returns when the method was called.
    fn calls(&self, method: &str) -> Vec<Instant> {
        let calls = self.calls.lock().unwrap();
        let calls = calls.iter().filter(|(other, _)| *other == method);
        calls.map(|(_, time)| *time).collect()
    }

    fn call(&self, method: &'static str) {
        self.calls.lock().unwrap().push((method, Instant::now()));
        self.hung.fetch_add(1, Ordering::Relaxed);
        while self.hanging.lock().unwrap().contains(&method) {
            thread::yield_now();
        }
        self.hung.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An outbox that gives one update at a time, unless it is slow.
struct Scripted {
    inner: Arc<MemoryOutbox>,
    script: Arc<Script>,
    is_durable: bool,
}

impl Outbox for Scripted {
    fn append(&self, updates: &[EncodedUpdate], capacity: Capacity) -> Result<bool, Error> {
        self.script.call("append");
        self.inner.append(updates, capacity)
    }

    fn take(&self, most: usize) -> Result<Vec<OutboxEntry>, Error> {
        self.script.call("take");
        if self.script.is_elsewhere.load(Ordering::Relaxed) {
            return Ok(Vec::new());
        }
        // A shutdown takes all that is left.
        let is_all = most == usize::MAX || self.script.is_slow.load(Ordering::Relaxed);
        self.inner.take(if is_all { most } else { 1 })
    }

    fn settle(&self, accepted: &[i64], rejected: &[(i64, &Rejection)]) -> Result<(), Error> {
        self.script.call("settle");
        if self.script.is_slow.load(Ordering::Relaxed) {
            sleep(SECOND / 10);
        }
        self.inner.settle(accepted, rejected)
    }

    fn release(&self) -> Result<(), Error> {
        self.script.call("release");
        self.inner.release()
    }

    fn drop_oldest(&self, updates: usize, bytes: usize, most: Capacity) -> Result<usize, Error> {
        self.script.call("drop_oldest");
        if self.script.is_elsewhere.load(Ordering::Relaxed) {
            return Ok(0);
        }
        self.inner.drop_oldest(updates, bytes, most)
    }

    fn depth(&self) -> Result<Depth, Error> {
        self.script.call("depth");
        if self.script.fails_to_count.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Io, "the depth is not known"));
        }
        let depth = self.inner.depth();
        if self.script.is_slow_to_count.load(Ordering::Relaxed) {
            sleep(SECOND / 10);
        }
        depth
    }

    fn set_timeout(&self, _timeout: Duration) -> bool {
        true
    }

    fn is_durable(&self) -> bool {
        self.is_durable
    }
}

/// Returns a client that sends to nowhere, at once, when it is asked to.
fn client(script: &Arc<Script>, is_durable: bool) -> BufferedClientBuilder {
    client_over(&Arc::default(), script, is_durable)
}

/// Returns the same over what may be the outbox of others too.
fn client_over(
    inner: &Arc<MemoryOutbox>,
    script: &Arc<Script>,
    is_durable: bool,
) -> BufferedClientBuilder {
    let outbox = Scripted {
        inner: Arc::clone(inner),
        script: Arc::clone(script),
        is_durable,
    };
    let buffered = Client::disabled().buffered().outbox(outbox);
    buffered
        .flush_interval(FOREVER)
        .drop_timeout(Duration::ZERO)
}

fn update(id: u64) -> Update<'static> {
    Group::new("company", id).delete()
}

fn encoded(id: u64) -> EncodedUpdate {
    EncodedUpdate::new(&update(id)).unwrap().unwrap()
}

#[test]
fn a_flush_goes_on_until_all_that_waited_is_settled_however_little_is_taken_at_once() {
    simulate_rule(|| {
        let script = Arc::<Script>::default();
        let buffered = client(&script, false).start().unwrap();
        buffered.publish_all((0..5).map(update)).unwrap();
        let stats = buffered.stats();
        assert_eq!(
            (stats.queued, stats.oldest),
            (Some(5), Some(Duration::ZERO))
        );
        assert_eq!(stats.queued_bytes, Some(5 * encoded(0).as_json().len()));
        let outcome = buffered.flush(FOREVER);
        assert!(outcome.is_complete(), "{outcome}");
        assert_eq!(outcome.stats.accepted, 5);
        let calls = script.calls.lock().unwrap();
        for pair in calls.windows(2) {
            let [(before, then), (next, now)] = pair else {
                continue;
            };
            let is_pause = (*before, *next) == ("depth", "take") && then != now;
            assert!(!is_pause, "it does not pause before it takes more");
        }
        drop(calls);
    });
}

/// Publishes every fiftieth of a second, so often at most, and returns whether the wait was over before that.
fn ends_while_others_publish(publish: impl Fn(u64) + Send + 'static, wait: impl FnOnce()) -> bool {
    let is_over = Arc::new(AtomicBool::new(false));
    let ends = Arc::clone(&is_over);
    let others = thread::spawn(move || {
        (0..MANY).any(|number| {
            publish(number);
            sleep(SECOND / 50);
            ends.load(Ordering::Relaxed)
        })
    });
    wait();
    is_over.store(true, Ordering::Relaxed);
    others.join().unwrap()
}

#[test]
fn a_flush_during_a_delivery_ends_while_others_publish() {
    simulate_rule(|| {
        let script = Arc::<Script>::default();
        script.is_slow.store(true, Ordering::Relaxed);
        let buffered = client(&script, false).flush_interval(SECOND);
        let buffered = buffered.start().unwrap();
        let publisher = buffered.clone();
        let publish = move |number| publisher.publish(update(number)).unwrap();
        let ends = ends_while_others_publish(publish, || {
            while script.calls("settle").is_empty() {
                thread::yield_now();
            }
            let _ = buffered.flush(FOREVER);
        });
        assert!(ends);
    });
}

#[test]
fn a_shutdown_ends_while_other_processes_publish() {
    simulate_rule(|| {
        let script = Arc::<Script>::default();
        script.is_slow.store(true, Ordering::Relaxed);
        let shared = Arc::<MemoryOutbox>::default();
        let buffered = client_over(&shared, &script, true).start().unwrap();
        let append = move |number| {
            assert!(
                shared
                    .append(&[encoded(number)], Capacity::default())
                    .unwrap()
            );
        };
        let mut own = 0;
        let ends = ends_while_others_publish(append, || {
            for number in 0..5 {
                buffered.publish(update(number)).unwrap();
            }
            let outcome = buffered.shutdown(FOREVER);
            own = outcome.stats.accepted;
        });
        assert!(ends && own >= 5, "{own} accepted");
    });
}

#[test]
fn what_is_published_during_a_delivery_waits_for_the_interval_too() {
    simulate_rule(|| {
        let script = Arc::<Script>::default();
        script.is_slow.store(true, Ordering::Relaxed);
        let buffered = client(&script, false).flush_interval(SECOND);
        let buffered = buffered.start().unwrap();
        let start = Instant::now();
        for number in 0..MANY {
            buffered.publish(update(number)).unwrap();
            sleep(SECOND / 50);
        }
        let time = start.elapsed();
        let deliveries = script.calls("settle").len();
        // Where the clock moved before a publisher had appended, there is one more. With one delivery after the other, there
        // are twice as many.
        let most = time.as_secs() * 3 / 2;
        assert!(deliveries as u64 <= most, "{deliveries} in {time:?}");
    });
}

#[test]
fn a_flush_waits_for_what_another_process_sends_and_looks_now_and_then() {
    simulate_rule(|| {
        let script = Arc::<Script>::default();
        script.is_elsewhere.store(true, Ordering::Relaxed);
        let buffered = client(&script, true)
            .flush_interval(SECOND)
            .start()
            .unwrap();
        buffered.publish(update(0)).unwrap();
        sleep(5 * SECOND);
        assert_eq!(script.calls("depth").len(), 0, "nobody waits");
        let before = script.calls("take").len();
        let start = Instant::now();
        let outcome = buffered.flush(SECOND);
        assert_eq!(outcome.waiting, Some(1));
        assert!(start.elapsed() >= SECOND, "it may come back");
        for _ in 0..100 {
            thread::yield_now();
        }
        // One look may be due to the interval, and one at the same time to the flush.
        let looked = script.calls("take").split_off(before);
        let tenth = SECOND / 10;
        let is_apart = looked.windows(3).all(|three| three[0] + tenth <= three[2]);
        assert!(is_apart, "{looked:?}");
    });
}

#[test]
fn a_flush_ends_while_another_process_sends_and_something_always_waits() {
    simulate_rule(|| {
        let (script, inner) = (Arc::<Script>::default(), Arc::default());
        script.is_elsewhere.store(true, Ordering::Relaxed);
        let buffered = client_over(&inner, &script, true).start().unwrap();
        buffered.publish(update(0)).unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let is_other_over = Arc::clone(&is_over);
        let other = thread::spawn(move || {
            while !is_other_over.load(Ordering::Relaxed) {
                sleep(SECOND / 5);
                assert!(inner.append(&[encoded(1)], Capacity::default()).unwrap());
                let oldest = inner.take(1).unwrap()[0].id;
                inner.settle(&[oldest], &[]).unwrap();
            }
        });
        let outcome = buffered.flush(FOREVER);
        is_over.store(true, Ordering::Relaxed);
        assert!(outcome.waiting > Some(0), "{outcome}");
        other.join().unwrap();
    });
}

#[test]
fn what_was_published_during_a_delivery_has_waited_for_a_part_of_the_interval() {
    simulate_rule(|| {
        let waits_since_it_was_published = || {
            let script = Arc::<Script>::default();
            script.is_slow.store(true, Ordering::Relaxed);
            let buffered = client(&script, false).flush_interval(SECOND);
            let buffered = buffered.start().unwrap();
            buffered.publish(update(0)).unwrap();
            while script.calls("settle").is_empty() {
                thread::yield_now();
            }
            sleep(SECOND / 20);
            buffered.publish(update(1)).unwrap();
            let published = Instant::now();
            while script.calls("take").len() < 2 {
                thread::yield_now();
            }
            let depth = script.calls("depth").first().copied();
            let is_during = depth.is_some_and(|depth| published < depth);
            is_during && script.calls("take")[1] == published + SECOND
        };
        // The clock may move before a thread has done what it woke for.
        assert!((0..100).any(|_| waits_since_it_was_published()));
    });
}

#[test]
fn a_flush_waits_for_what_is_older_however_late_the_depth_is_known() {
    simulate_rule(|| {
        let script = Arc::<Script>::default();
        script.is_elsewhere.store(true, Ordering::Relaxed);
        script.is_slow_to_count.store(true, Ordering::Relaxed);
        let buffered = client(&script, true).start().unwrap();
        buffered.publish(update(0)).unwrap();
        let start = Instant::now();
        let _ = buffered.flush(SECOND);
        assert!(start.elapsed() >= SECOND, "another process may still fail");
    });
}

#[test]
fn a_shutdown_sends_what_it_can_though_the_depth_is_not_known() {
    simulate_rule(|| {
        let script = Arc::<Script>::default();
        script.fails_to_count.store(true, Ordering::Relaxed);
        let errors = Arc::new(AtomicUsize::new(0));
        let notes = Arc::clone(&errors);
        // A pause would be one without an end.
        let buffered = client(&script, false)
            .flush_interval(FOREVER)
            .on_error(move |_| _ = notes.fetch_add(1, Ordering::Relaxed));
        let buffered = buffered.start().unwrap();
        buffered.publish_all((0..5).map(update)).unwrap();
        assert_eq!(buffered.shutdown(FOREVER).stats.accepted, 5);
        assert!(errors.load(Ordering::Relaxed) >= 5);
    });
}

#[test]
fn where_the_oldest_are_dropped_the_rest_is_sent_at_once() {
    simulate_rule(|| {
        let script = Arc::<Script>::default();
        let shared = Arc::<MemoryOutbox>::default();
        let buffered = client_over(&shared, &script, true)
            .overflow(OverflowPolicy::DropOldest)
            .capacity(10, 1 << 20);
        let buffered = buffered.start().unwrap();
        // Other processes fill it.
        let ten: Vec<_> = (0..10).map(encoded).collect();
        assert!(shared.append(&ten, Capacity::default()).unwrap());
        buffered.publish(update(10)).unwrap();
        assert_eq!(buffered.stats().dropped, 1);
        let is_sent = (0..MANY).any(|_| {
            sleep(SECOND);
            script.calls("settle").len() == 10
        });
        assert!(is_sent);
    });
}

#[test]
fn what_is_being_sent_leaves_room_for_as_many_bytes() {
    simulate_rule(|| {
        let script = Arc::<Script>::default();
        script.is_slow.store(true, Ordering::Relaxed);
        let shared = Arc::<MemoryOutbox>::default();
        let ten: Vec<_> = (10..20).map(encoded).collect();
        let bytes = ten[0].as_json().len();
        let buffered = client_over(&shared, &script, false)
            .overflow(OverflowPolicy::DropOldest)
            .capacity(1_000, 10 * bytes);
        let buffered = buffered.start().unwrap();
        assert!(shared.append(&ten, Capacity::default()).unwrap());
        script.hang(&["settle"]);
        let _ = buffered.flush(Duration::ZERO);
        while script.calls("settle").is_empty() {
            thread::yield_now();
        }
        for id in 20..30 {
            buffered.publish(update(id)).unwrap();
        }
        assert_eq!(buffered.stats().dropped, 10);
        script.hang(&[]);
        let outcome = buffered.shutdown(FOREVER);
        assert_eq!(outcome.stats.accepted, 10);
    });
}

#[test]
fn the_oldest_are_dropped_at_once_and_only_if_there_are_any() {
    simulate_rule(|| {
        let script = Arc::<Script>::default();
        let dropped = Arc::new(AtomicUsize::new(0));
        let notes = Arc::clone(&dropped);
        let buffered = client(&script, true)
            .overflow(OverflowPolicy::DropOldest)
            .capacity(1, 1_000)
            .on_error(move |_| _ = notes.fetch_add(1, Ordering::Relaxed));
        let buffered = buffered.start().unwrap();
        // What is being sent is not dropped.
        script.hang(&["take"]);
        buffered.publish(update(0)).unwrap();
        buffered.publish(update(1)).unwrap();
        assert_eq!(script.calls("append").len(), 3, "without room, and with it");
        assert_eq!(script.calls("drop_oldest").len(), 1);
        assert_eq!(
            (buffered.stats().dropped, dropped.load(Ordering::Relaxed)),
            (1, 1)
        );
        script.is_elsewhere.store(true, Ordering::Relaxed);
        let error = buffered.publish(update(2)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Full);
        assert_eq!(
            (buffered.stats().dropped, dropped.load(Ordering::Relaxed)),
            (1, 1)
        );
        script.hang(&[]);
    });
}

/// An outbox that gives one update at a time, each with the same id.
#[derive(Default)]
struct OneId(MemoryOutbox);

impl Outbox for OneId {
    fn append(&self, updates: &[EncodedUpdate], capacity: Capacity) -> Result<bool, Error> {
        self.0.append(updates, capacity)
    }

    fn take(&self, _most: usize) -> Result<Vec<OutboxEntry>, Error> {
        let mut taken = self.0.take(1)?;
        taken.iter_mut().for_each(|entry| entry.id = 1);
        Ok(taken)
    }

    fn settle(&self, accepted: &[i64], _rejected: &[(i64, &Rejection)]) -> Result<(), Error> {
        let oldest = self.0.take(accepted.len())?;
        let ids: Vec<_> = oldest.iter().map(|entry| entry.id).collect();
        self.0.settle(&ids, &[])
    }

    fn release(&self) -> Result<(), Error> {
        self.0.release()
    }

    fn drop_oldest(&self, updates: usize, bytes: usize, most: Capacity) -> Result<usize, Error> {
        self.0.drop_oldest(updates, bytes, most)
    }

    fn depth(&self) -> Result<Depth, Error> {
        self.0.depth()
    }

    fn set_timeout(&self, _timeout: Duration) -> bool {
        true
    }
}

#[test]
fn another_update_with_the_id_of_one_that_was_settled_is_not_taken_for_that() {
    simulate_rule(|| {
        let buffered = Client::disabled().buffered().outbox(OneId::default());
        let buffered = buffered.flush_interval(FOREVER).start().unwrap();
        buffered.publish_all((0..5).map(update)).unwrap();
        assert_eq!(buffered.flush(FOREVER).stats.accepted, 5);
    });
}

#[test]
fn publishers_do_not_wait_for_a_worker_that_settles() {
    simulate_rule(|| {
        let script = Arc::<Script>::default();
        let buffered = client(&script, false).start().unwrap();
        buffered.publish(update(0)).unwrap();
        script.hang(&["settle"]);
        let _ = buffered.flush(Duration::ZERO);
        script.wait_until_one_hangs();
        buffered.publish(update(1)).unwrap();
        script.hang(&[]);
        assert!(buffered.shutdown(FOREVER).is_complete());
    });
}

#[test]
fn what_is_appended_after_a_shutdown_took_back_the_rest_is_given_back() {
    simulate_rule(|| {
        let script = Arc::<Script>::default();
        let buffered = client(&script, false).start().unwrap();
        script.hang(&["append"]);
        let publisher = buffered.clone();
        let publisher = thread::spawn(move || publisher.publish(update(0)));
        script.wait_until_one_hangs();
        let outcome = buffered.shutdown(Duration::ZERO);
        assert!(outcome.is_complete(), "it was not appended yet");
        script.hang(&[]);
        let error = publisher.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed);
        assert_eq!(error.undelivered().len(), 1);
        assert_eq!(buffered.stats().queued, Some(0));
    });
}

#[test]
fn dropping_a_client_that_was_shut_down_calls_nothing() {
    simulate_rule(|| {
        let script = Arc::<Script>::default();
        let buffered = client(&script, false).start().unwrap();
        assert!(!buffered.has_ended());
        assert!(buffered.shutdown(FOREVER).is_complete());
        while !buffered.has_ended() {
            thread::yield_now();
        }
        let before = script.calls.lock().unwrap().len();
        drop(buffered);
        assert_eq!(script.calls.lock().unwrap().len(), before);
    });
}

#[test]
fn as_text_it_and_its_builder_name_their_client() {
    simulate_rule(|| {
        let builder = client(&Arc::default(), false);
        let text = format!("{builder:?}");
        let start = "BufferedClientBuilder { client: Client {";
        assert!(text.starts_with(start), "{text}");
        let text = format!("{:?}", builder.start().unwrap());
        assert!(
            text.starts_with("BufferedClient { client: Client {"),
            "{text}"
        );
    });
}

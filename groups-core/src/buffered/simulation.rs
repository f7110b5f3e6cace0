//! The rules of the state that a client shares with its worker, in every interleaving and by an exact clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use shuttle::thread;

use crate::buffered::state::{LOOK_AGAIN, Shared, Task};
use crate::client::records::{Limits, MAX_RECORDS};
use crate::outbox::Depth;
use crate::record::Report;
use crate::util::simulated::{Instant, simulate_rule, sleep};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const FOREVER: Duration = Duration::MAX;

fn time_of(wait: impl FnOnce()) -> Duration {
    let start = Instant::now();
    wait();
    start.elapsed()
}

/// Returns whether there is a request for the worker, and takes it.
fn is_requested(shared: &Shared) -> bool {
    time_of(|| drop(shared.take_task(HOUR, false))).is_zero()
}

/// Runs the wait in one thread and does something after a second, and returns how long the wait was.
fn time_of_wait_until(
    shared: &Arc<Shared>,
    wait: impl FnOnce(&Shared) + Send + 'static,
    after_a_second: impl FnOnce(&Shared),
) -> Duration {
    let waiting = Arc::clone(shared);
    let start = Instant::now();
    let waiting = thread::spawn(move || {
        wait(&waiting);
        start.elapsed()
    });
    sleep(SECOND);
    after_a_second(shared);
    waiting.join().unwrap()
}

fn is_older(task: &Task, depth: Depth) -> bool {
    task.is_older_than(depth, task.age())
}

fn depth(oldest: Option<Duration>) -> Depth {
    let mut depth = Depth::new(1, 1);
    depth.oldest = oldest;
    depth
}

#[test]
fn a_task_is_over_when_what_is_left_is_newer() {
    simulate_rule(|| {
        let shared = Shared::new();
        let timer = shared.take_task(Duration::ZERO, false);
        assert!(!timer.is_awaited);
        sleep(SECOND);
        assert!(!is_older(&timer, depth(Some(SECOND))));
        let nanosecond = Duration::from_nanos(1);
        assert!(is_older(&timer, depth(Some(SECOND - nanosecond))));
        let flush = shared.request_flush(true);
        let task = shared.take_task(HOUR, false);
        assert!(task.is_awaited);
        sleep(SECOND);
        assert!(is_older(&task, Depth::default()));
        assert!(!is_older(&task, depth(None)), "it may be older");
        assert!(!is_older(&task, depth(Some(2 * SECOND))));
        assert!(is_older(&task, depth(Some(SECOND / 2))));
        let resolution = Duration::from_millis(20);
        assert!(!is_older(&task, depth(Some(SECOND - resolution))));
        let just_newer = SECOND - resolution - nanosecond;
        assert!(is_older(&task, depth(Some(just_newer))));

        assert!(shared.finish_task(&task, true), "the worker goes on");
        assert!(time_of(|| shared.wait_for_flush(flush, HOUR)).is_zero());
        assert!(!shared.take_task(Duration::ZERO, false).is_awaited);

        shared.close();
        let last = shared.take_task(HOUR, false);
        assert!(last.is_awaited);
        sleep(SECOND);
        assert!(!is_older(&last, depth(Some(SECOND))), "all is sent");
        let newer = depth(Some(SECOND / 2));
        assert!(is_older(&last, newer), "another process published it");
        assert!(shared.finish_task(&last, false), "it is tried again");
        assert!(!shared.finish_task(&last, true), "nothing follows");
    });
}

#[test]
fn a_full_batch_wakes_the_worker_once() {
    simulate_rule(|| {
        let shared = Shared::new();
        shared.count_published(MAX_RECORDS - 1, 0, Limits::default());
        // Taking a request begins a new batch.
        assert!(!is_requested(&shared));
        shared.count_published(MAX_RECORDS - 1, 0, Limits::default());
        shared.count_published(1, 0, Limits::default());
        assert!(is_requested(&shared));
        shared.count_published(MAX_RECORDS, 0, Limits::default());
        assert!(is_requested(&shared));
        shared.count_published(MAX_RECORDS - 1, 0, Limits::default());
        shared.count_published(2, 0, Limits::default());
        assert!(is_requested(&shared));

        shared.count_published(MAX_RECORDS, 0, Limits::default());
        // What follows does not wait for the lock, which is held here.
        shared.count(|_| shared.count_published(1, 0, Limits::default()));
    });
}

#[test]
fn after_a_failure_only_who_waits_ends_the_pause() {
    simulate_rule(|| {
        let shared = Shared::new();
        shared.request_send();
        assert!(time_of(|| drop(shared.take_task(SECOND, true))) == SECOND);
        shared.request_flush(true);
        shared.request_send();
        assert!(time_of(|| drop(shared.take_task(SECOND, true))).is_zero());
        assert!(time_of(|| drop(shared.take_task(SECOND, false))) == SECOND);

        let shared = Arc::new(shared);
        let pause = |time, after_failure, request: fn(&Shared)| {
            let wait = move |shared: &Shared| drop(shared.take_task(time, after_failure));
            time_of_wait_until(&shared, wait, request)
        };
        let flush: fn(&Shared) = |shared| _ = shared.request_flush(true);
        assert_eq!(pause(FOREVER, false, Shared::request_send), SECOND);
        assert_eq!(pause(FOREVER, true, flush), SECOND);
        let by_worker: fn(&Shared) = |shared| _ = shared.request_flush(false);
        assert_eq!(pause(FOREVER, false, by_worker), SECOND);
        assert!(pause(HOUR, true, by_worker) >= HOUR);
        assert!(pause(HOUR, true, Shared::request_send) >= HOUR);
    });
}

#[test]
fn each_flush_is_waited_for_until_it_is_done() {
    simulate_rule(|| {
        let shared = Arc::new(Shared::new());
        let one = shared.request_flush(true);
        let task = shared.take_task(HOUR, false);
        let two = shared.request_flush(true);
        let waited = time_of_wait_until(
            &shared,
            move |shared| shared.wait_for_flush(one, FOREVER),
            |shared| _ = shared.finish_task(&task, true),
        );
        assert_eq!(waited, SECOND);
        assert_eq!(
            time_of(|| shared.wait_for_flush(two, SECOND)),
            SECOND,
            "it was requested after the task began"
        );
        let task = shared.take_task(HOUR, false);
        let waited = time_of_wait_until(
            &shared,
            move |shared| shared.wait_for_flush(two, FOREVER),
            |shared| _ = shared.finish_task(&task, true),
        );
        assert_eq!(waited, SECOND);
        let three = shared.request_flush(true);
        assert!(three > two && two > one);
        let waited = time_of_wait_until(
            &shared,
            move |shared| shared.wait_for_flush(three, FOREVER),
            Shared::break_off,
        );
        assert_eq!(waited, SECOND, "it is never done");
    });
}

#[test]
fn a_publisher_waits_for_room_until_something_is_settled_or_it_looks_again() {
    simulate_rule(|| {
        let shared = Arc::new(Shared::new());
        assert_eq!(time_of(|| shared.wait_for_room(SECOND)), LOOK_AGAIN);
        assert!(is_requested(&shared), "the worker is to make room");
        let half = LOOK_AGAIN / 2;
        assert_eq!(time_of(|| shared.wait_for_room(half)), half);
        let task = shared.take_task(HOUR, false);
        let waited = time_of_wait_until(
            &shared,
            move |shared| {
                sleep(SECOND - half);
                shared.wait_for_room(FOREVER);
            },
            |shared| _ = shared.finish_task(&task, true),
        );
        assert!(waited >= SECOND + half, "nothing was settled");
        // Where it is not scheduled in time, its own time is over before it is woken.
        let is_woken = (0..50).any(|_| {
            let has_room = Arc::new(AtomicBool::new(false));
            let notes = Arc::clone(&has_room);
            let wait = move |shared: &Shared| {
                sleep(SECOND - half);
                shared.wait_for_room(FOREVER);
                notes.store(true, Ordering::Relaxed);
            };
            let waited = time_of_wait_until(&shared, wait, |shared| {
                while !has_room.load(Ordering::Relaxed) {
                    shared.record_report(&Report::default(), 0, 0);
                }
            });
            assert!(waited >= SECOND);
            waited == SECOND
        });
        assert!(is_woken, "what is settled wakes it");
        shared.close();
        let waited = time_of(|| shared.wait_for_room(SECOND));
        assert!(waited.is_zero(), "there will be no room");
    });
}

#[test]
fn a_shutdown_waits_for_who_appends_and_lets_nobody_else_in() {
    simulate_rule(|| {
        let shared = Arc::new(Shared::new());
        assert!(!shared.is_closed() && !shared.is_shut_down());
        let is_closed = shared.while_open(|| shared.is_closed());
        assert_eq!(is_closed, Some(false), "an append does not close it");
        let appending = shared.while_open(|| {
            shared.close();
            assert!(shared.is_closed() && shared.is_shut_down());
            assert_eq!(shared.while_open(|| ()), None);
            let task = shared.take_task(Duration::ZERO, false);
            assert!(!task.is_awaited, "more may be appended");
            assert_eq!(time_of(|| shared.wait_until_drained(SECOND)), SECOND);
        });
        assert!(appending.is_some());
        assert!(shared.is_closed());
        assert!(is_requested(&shared), "the worker is to send the rest");
        assert!(shared.take_task(Duration::ZERO, false).is_awaited);

        let (shared, start) = (Arc::new(Shared::new()), Instant::now());
        let is_inside = Arc::new(AtomicBool::new(false));
        let (its_shared, enters) = (Arc::clone(&shared), Arc::clone(&is_inside));
        let inside = thread::spawn(move || {
            its_shared.while_open(|| {
                enters.store(true, Ordering::Relaxed);
                sleep(SECOND);
            })
        });
        while !is_inside.load(Ordering::Relaxed) {
            thread::yield_now();
        }
        shared.close();
        let task = shared.take_task(FOREVER, true);
        assert!(start.elapsed() == SECOND && task.is_awaited);
        assert!(inside.join().unwrap().is_some());
    });
}

#[test]
fn a_refused_publisher_does_not_end_the_pause_after_a_failure() {
    simulate_rule(|| {
        let shared = Shared::new();
        shared.close();
        assert!(is_requested(&shared), "the worker is to send the rest");
        assert_eq!(shared.while_open(|| ()), None);
        assert_eq!(time_of(|| drop(shared.take_task(SECOND, true))), SECOND);
        shared.close();
        assert_eq!(time_of(|| drop(shared.take_task(SECOND, true))), SECOND);
        shared.break_off();
        assert!(time_of(|| drop(shared.take_task(SECOND, true))).is_zero());
    });
}

#[test]
fn the_time_to_drain_ends_though_a_publisher_hangs() {
    simulate_rule(|| {
        let shared = Arc::new(Shared::new());
        let hung = shared.while_open(|| {
            shared.close();
            assert_eq!(time_of(|| shared.wait_until_drained(SECOND)), SECOND);
            shared.break_off();
            assert!(shared.take_task(Duration::ZERO, false).is_awaited);
            shared.end();
            assert!(time_of(|| shared.wait_until_drained(SECOND)).is_zero());
            let waited = time_of(|| shared.wait_until_ended(SECOND));
            assert_eq!(waited, SECOND, "it may append yet");
        });
        assert!(hung.is_some());
        assert!(time_of(|| shared.wait_until_ended(SECOND)).is_zero());
    });
}

#[test]
fn a_delivery_is_aborted_at_the_end_and_not_by_a_shutdown() {
    simulate_rule(|| {
        let shared = Arc::new(Shared::new());
        let delivery = shared.start_delivery().expect("it is open");
        shared.close();
        assert!(!delivery.is_cancelled(), "it may take its time");
        assert!(shared.start_delivery().is_some());
        assert_eq!(time_of(|| shared.wait_until_drained(SECOND)), SECOND);
        let waited = time_of_wait_until(
            &shared,
            |shared| shared.wait_until_drained(FOREVER),
            Shared::break_off,
        );
        assert_eq!(waited, SECOND);
        assert!(delivery.is_cancelled());
        assert!(shared.start_delivery().is_none());
        assert!(!shared.has_ended());
        assert_eq!(time_of(|| shared.wait_until_ended(SECOND)), SECOND);
        let waited = time_of_wait_until(
            &shared,
            |shared| shared.wait_until_ended(FOREVER),
            Shared::end,
        );
        assert_eq!(waited, SECOND);
        assert!(shared.has_ended());
    });
}

#[test]
fn a_worker_that_ended_by_itself_lets_nobody_publish_and_was_not_shut_down() {
    simulate_rule(|| {
        let shared = Shared::new();
        let delivery = shared.start_delivery().expect("it is open");
        shared.end();
        assert!(shared.has_ended() && shared.is_closed() && !shared.is_shut_down());
        assert_eq!(shared.while_open(|| ()), None);
        assert!(!delivery.is_cancelled(), "there is none to abort");
        let flush = shared.request_flush(true);
        assert!(time_of(|| shared.wait_for_flush(flush, SECOND)).is_zero());
    });
}

#[test]
fn one_thread_at_a_time_has_the_turn() {
    simulate_rule(|| {
        let shared = Arc::new(Shared::new());
        let turn = shared.turn(FOREVER).expect("nobody has it");
        let waited = time_of(|| assert!(shared.turn(SECOND).is_none()));
        assert_eq!(waited, SECOND);
        assert!(!turn.is_taken_back());
        let waited = time_of_wait_until(
            &shared,
            |shared| assert!(shared.turn(FOREVER).is_some()),
            |_| drop(turn),
        );
        assert_eq!(waited, SECOND);
        let turn = shared.turn(FOREVER).expect("nobody has it");
        turn.set_taken_back();
        drop(turn);
        assert!(shared.turn(FOREVER).expect("nobody has it").is_taken_back());
    });
}

#[test]
fn the_worker_is_the_thread_that_began() {
    simulate_rule(|| {
        let shared = Arc::new(Shared::new());
        assert!(!shared.is_worker());
        let its_shared = Arc::clone(&shared);
        let worker = thread::spawn(move || {
            its_shared.begin();
            assert!(its_shared.is_worker());
        });
        worker.join().unwrap();
        assert!(!shared.is_worker());
    });
}

#[test]
fn deliveries_add_up() {
    simulate_rule(|| {
        let shared = Shared::new();
        let report = Report {
            sent: 5,
            requests: 3,
            retries: 2,
            bytes: 700,
            ..Report::default()
        };
        shared.record_report(&report, 4, 1);
        shared.record_report(&report, 3, 2);
        shared.count(|stats| stats.dropped += 1);
        let stats = shared.stats();
        assert_eq!((stats.sent, stats.accepted, stats.rejected), (10, 7, 3));
        assert_eq!((stats.requests, stats.retries, stats.bytes), (6, 4, 1_400));
        assert_eq!(stats.dropped, 1);
    });
}

#[test]
fn of_what_is_dropped_the_first_is_logged_at_once_and_the_others_together() {
    simulate_rule(|| {
        let shared = Shared::new();
        assert_eq!(shared.take_dropped(), 0);
        assert!(shared.note_dropped(1));
        assert_eq!(shared.take_dropped(), 0, "it is logged");
        assert!(shared.note_dropped(1) && !shared.note_dropped(2) && !shared.note_dropped(3));
        assert_eq!(shared.take_dropped(), 5);
        assert_eq!(shared.take_dropped(), 0);
    });
}

//! Who sends, and when: the lease, how it passes on, and clocks that are set back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use common::{LONG, eventually, is_own_process, said};
use mixpanel_groups::{Client, Group, Outbox};
use mixpanel_groups_emulator::{Emulator, Fault};
use mixpanel_groups_sqlite::SqliteOutbox;
use rusqlite::Connection;
use serde_json::json;

use super::{ROOM, folder, ids, spawn, take_when_free, update};
use crate::warnings::Warnings;

#[test]
fn one_process_takes_at_a_time_and_its_turn_ends_with_it() {
    let (_folder, path) = folder();
    let outbox = SqliteOutbox::open(&path).unwrap();
    let three: Vec<_> = (0..3).map(|number| update(0, number)).collect();
    assert!(outbox.append(&three, ROOM).unwrap());

    let mut child = spawn("take ", &path);
    let (_, took) = said(&mut child).find(|(word, _)| word == "took").unwrap();
    assert_eq!(took, "2");
    assert!(outbox.take(10).unwrap().is_empty());
    // The others go on publishing meanwhile.
    assert!(outbox.append(&[update(0, 3)], ROOM).unwrap());
    assert_eq!(outbox.depth().unwrap().updates, 4);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(take_when_free(&outbox).len(), 4);
}

#[test]
fn a_successor_takes_nothing_before_the_last_request_of_one_that_was_killed_can_have_ended() {
    let (_folder, path) = folder();
    let [killed, successor] = [(); 2].map(|()| SqliteOutbox::open(&path).unwrap());
    assert!(killed.append(&[update(0, 0)], ROOM).unwrap());
    assert_eq!(killed.take(10).unwrap().len(), 1);
    let request = Duration::from_millis(1_500);
    assert!(killed.hold(request).unwrap());
    let started = Instant::now();
    std::mem::forget(killed); // It does not say that it ends.
    assert_eq!(take_when_free(&successor).len(), 1);
    assert!(started.elapsed() >= request);
}

#[test]
fn one_that_was_paused_starts_no_request_after_another_took_over() {
    let (_folder, path) = folder();
    let [paused, other] = [(); 2].map(|()| SqliteOutbox::open(&path).unwrap());
    assert!(paused.append(&[update(0, 0)], ROOM).unwrap());
    let taken = paused.take(10).unwrap();
    assert!(paused.hold(Duration::from_millis(1)).unwrap());
    assert_eq!(take_when_free(&other), taken);
    assert!(!paused.hold(Duration::from_millis(1)).unwrap());
    // Nor when the other has sent and is done.
    other.settle(&ids(&taken), &[]).unwrap();
    assert!(!paused.hold(Duration::from_millis(1)).unwrap());
}

#[test]
fn a_lease_of_which_nobody_else_wants_to_know_is_extended_after_its_end() {
    let (_folder, path) = folder();
    let outbox = SqliteOutbox::open(&path).unwrap();
    assert!(outbox.append(&[update(0, 0)], ROOM).unwrap());
    assert!(
        !outbox.hold(Duration::from_secs(1)).unwrap(),
        "nothing was taken"
    );
    outbox.take(10).unwrap();
    let db = Connection::open(&path).unwrap();
    let earlier = "UPDATE mixpanel_outbox_lease SET since = since - 3600, until = until - 3600";
    assert_eq!(db.execute(earlier, []).unwrap(), 1);
    // Longer than it is known to last.
    assert!(outbox.hold(Duration::from_secs(60)).unwrap());
    assert!(outbox.hold(Duration::MAX).unwrap());
}

/// The lease that a process relies on is the one that the file has when it says so.
#[test]
fn a_lease_whose_extension_was_slow_covers_the_request_all_the_same() {
    // Longer than the first lease, with so little to spare that writing takes longer.
    const REQUEST: Duration = Duration::from_millis(1_200);
    let (_folder, path) = folder();
    let outbox = SqliteOutbox::open(&path).unwrap();
    assert!(outbox.append(&[update(0, 0)], ROOM).unwrap());
    assert!(outbox.set_timeout(Duration::from_secs(1)));
    outbox.take(10).unwrap();
    assert!(outbox.set_timeout(LONG));
    let db = Connection::open(&path).unwrap();
    // Slower the first time.
    db.execute_batch(
        "CREATE TABLE writes (number);
         CREATE TRIGGER slowly AFTER INSERT ON mixpanel_outbox_lease
         WHEN NOT EXISTS (SELECT 1 FROM writes) BEGIN
             INSERT INTO writes SELECT max(number) FROM (
                 WITH RECURSIVE numbers (number) AS (
                     SELECT 1 UNION ALL SELECT number + 1 FROM numbers WHERE number < 2000000
                 ) SELECT number FROM numbers
             );
         END",
    )
    .unwrap();
    let start = Instant::now();
    assert!(outbox.hold(REQUEST).unwrap(), "nobody else wants it");
    let held = Instant::now();
    let until = "SELECT until FROM mixpanel_outbox_lease";
    let until: f64 = db.query_row(until, [], |row| row.get(0)).unwrap();
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    let left = until - now + held.elapsed().as_secs_f64();
    let took = held - start;
    assert!(left >= REQUEST.as_secs_f64(), "{left} after {took:?}");
}

/// A call that is given no time to wait for others still does its work.
#[test]
fn what_may_not_wait_is_held_all_the_same() {
    let (_folder, path) = folder();
    let outbox = SqliteOutbox::open(&path).unwrap();
    assert!(outbox.append(&[update(0, 0)], ROOM).unwrap());
    for timeout in [Duration::from_micros(500), Duration::from_nanos(1)] {
        assert!(outbox.set_timeout(timeout));
        assert_eq!(outbox.take(10).unwrap().len(), 1);
        assert!(outbox.hold(LONG).unwrap(), "within {timeout:?}");
        outbox.release().unwrap();
    }
}

/// Reading what is taken may take longer than a second, too.
#[test]
fn a_lease_lasts_as_long_as_a_call_may_take_before_it_is_extended() {
    let (_folder, path) = folder();
    let outbox = SqliteOutbox::open(&path).unwrap();
    assert!(outbox.append(&[update(0, 0)], ROOM).unwrap());
    for (timeout, seconds) in [(7, 7.0), (0, 1.0), (3_600, 60.0)] {
        assert!(outbox.set_timeout(Duration::from_secs(timeout)));
        assert_eq!(outbox.take(10).unwrap().len(), 1);
        let db = Connection::open(&path).unwrap();
        let lasts = "SELECT until - since FROM mixpanel_outbox_lease";
        let lasts: f64 = db.query_row(lasts, [], |row| row.get(0)).unwrap();
        assert!((lasts - seconds).abs() < 0.001, "{lasts}");
        outbox.release().unwrap();
    }
}

#[test]
fn a_flush_waits_for_what_another_process_sends() {
    let (_folder, path) = folder();
    let [other, mine] = [(); 2].map(|()| SqliteOutbox::open(&path).unwrap());
    assert!(other.append(&[update(0, 0)], ROOM).unwrap());
    let taken = other.take(10).unwrap();
    assert!(other.hold(Duration::from_secs(60)).unwrap());
    let client = Client::disabled();
    let buffered = client.buffered().outbox(mine).start().unwrap();
    let flushed = buffered.flush(Duration::from_millis(300));
    assert_eq!(flushed.waiting, Some(1), "it is not said to be done");
    thread::scope(|scope| {
        let (start, is_started) = mpsc::channel();
        let buffered = &buffered;
        let flush = scope.spawn(move || {
            start.send(()).unwrap();
            buffered.flush(LONG)
        });
        is_started.recv().unwrap();
        other.settle(&ids(&taken), &[]).unwrap();
        assert!(flush.join().unwrap().is_complete());
    });
    assert_eq!(buffered.stats().accepted, 0, "the other sent it");
}

#[test]
fn a_shutdown_does_not_wait_for_what_others_publish_meanwhile() {
    let (_folder, path) = folder();
    let [other, mine] = [(); 2].map(|()| SqliteOutbox::open(&path).unwrap());
    let emulator = Emulator::start().unwrap();
    emulator.fail_always(Fault::Delay(Duration::from_millis(50)));
    let client = Client::builder("T").endpoint(emulator.endpoint());
    let buffered = client.build().unwrap().buffered().outbox(mine);
    let buffered = buffered.start().unwrap();
    let own = Group::new("company", "own").set(json!({"number": 1}));
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                other.append(&[update(0, 0)], ROOM).unwrap();
                thread::sleep(Duration::from_millis(1));
            }
        });
        buffered.publish(own).unwrap();
        eventually("sent", || !emulator.requests().is_empty());
        let start = Instant::now();
        let outcome = buffered.shutdown(LONG);
        let time = start.elapsed();
        is_over.store(true, Ordering::Relaxed);
        assert!(time < LONG, "{outcome}");
    });
    assert!(emulator.profile("company", "own").is_some());
}

#[test]
fn a_clock_that_was_set_back_holds_nobody_up() {
    let (_folder, path) = folder();
    let [gone, successor] = [(); 2].map(|()| SqliteOutbox::open(&path).unwrap());
    assert!(gone.append(&[update(0, 0)], ROOM).unwrap());
    gone.take(10).unwrap();
    std::mem::forget(gone);
    let db = Connection::open(&path).unwrap();
    let later = "UPDATE mixpanel_outbox_lease SET since = since + 3600, until = until + 3600";
    assert_eq!(db.execute(later, []).unwrap(), 1);
    assert_eq!(successor.take(10).unwrap().len(), 1);
}

#[test]
fn a_clock_that_was_set_back_a_little_ends_no_lease() {
    let (_folder, path) = folder();
    let [holder, other] = [(); 2].map(|()| SqliteOutbox::open(&path).unwrap());
    assert!(holder.append(&[update(0, 0)], ROOM).unwrap());
    holder.take(10).unwrap();
    let db = Connection::open(&path).unwrap();
    let later = "UPDATE mixpanel_outbox_lease SET since = since + 9, until = until + 3600";
    assert_eq!(db.execute(later, []).unwrap(), 1);
    assert!(
        other.take(10).unwrap().is_empty(),
        "its request is under way"
    );
}

/// A process that was killed, however long its requests could take, and a row that another program wrote.
#[test]
fn a_lease_of_far_more_than_an_hour_holds_nobody_up() {
    let (_folder, path) = folder();
    let [gone, successor] = [(); 2].map(|()| SqliteOutbox::open(&path).unwrap());
    assert!(gone.append(&[update(0, 0)], ROOM).unwrap());
    gone.take(10).unwrap();
    assert!(gone.hold(Duration::MAX).unwrap());
    assert!(gone.hold(Duration::MAX).unwrap(), "and once more");
    let db = Connection::open(&path).unwrap();
    let lasts = "SELECT until - since FROM mixpanel_outbox_lease";
    let lasts: f64 = db.query_row(lasts, [], |row| row.get(0)).unwrap();
    assert!((3_600.0..3_700.0).contains(&lasts), "{lasts}");
    assert!(successor.take(10).unwrap().is_empty());
    let longer = "UPDATE mixpanel_outbox_lease SET until = since + 1e9";
    assert_eq!(db.execute(longer, []).unwrap(), 1);
    assert_eq!(successor.take(10).unwrap().len(), 1);
}

#[test]
fn a_wait_for_another_process_is_logged_once() {
    // In a process of its own, which has one logger.
    if !is_own_process(a_wait_for_another_process_is_logged_once, &[]) {
        return;
    }
    let warnings = Warnings::keep_from(log::LevelFilter::Info);
    let (_folder, path) = folder();
    let [gone, successor] = [(); 2].map(|()| SqliteOutbox::open(&path).unwrap());
    assert!(gone.append(&[update(0, 0)], ROOM).unwrap());
    gone.take(10).unwrap();
    for (time, lines) in [(30, 1), (40, 1), (600, 2), (1_200, 2)] {
        assert!(gone.hold(Duration::from_secs(time)).unwrap());
        assert!(successor.take(10).unwrap().is_empty());
        assert_eq!(warnings.lines().len(), lines, "{time}");
    }
    let holder = format!("row \"{}-", std::process::id());
    for line in warnings.lines() {
        for part in [path.to_str().unwrap(), " s more: ", &holder] {
            assert!(line.contains(part), "{line}");
        }
    }
    // Where several send in turn, short waits are not a line for each turn.
    let db = Connection::open(&path).unwrap();
    let other = "UPDATE mixpanel_outbox_lease SET holder = 'other', until = since + 30";
    assert_eq!(db.execute(other, []).unwrap(), 1);
    assert!(successor.take(10).unwrap().is_empty());
    assert_eq!(warnings.lines().len(), 2);
}

#[test]
fn turns_pass_between_handles_when_all_is_settled_or_released() {
    let (_folder, path) = folder();
    let [one, other] = [(); 2].map(|()| SqliteOutbox::open(&path).unwrap());
    let four: Vec<_> = (0..4).map(|number| update(0, number)).collect();
    assert!(one.append(&four, ROOM).unwrap());

    let taken = one.take(2).unwrap();
    assert!(other.take(10).unwrap().is_empty());
    one.settle(&[taken[0].id], &[]).unwrap();
    assert!(other.take(10).unwrap().is_empty());
    one.settle(&[taken[1].id], &[]).unwrap();
    assert_eq!(other.take(1).unwrap()[0].update, Ok(four[2].clone()));
    assert!(one.take(10).unwrap().is_empty());
    other.release().unwrap();
    assert_eq!(one.take(10).unwrap().len(), 2);
    drop(one);
    assert_eq!(other.take(10).unwrap().len(), 2);
}

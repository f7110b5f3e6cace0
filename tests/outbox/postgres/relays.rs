//! Who sends what, and when: the lease, lost connections, news.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mixpanel_groups::{Client, Event, Group, Outbox, RetryPolicy};
use mixpanel_groups_emulator::{Emulator, Fault};
use mixpanel_groups_postgres::PostgresOutbox;
use postgres::NoTls;
use serde_json::json;

use common::postgres::{Harness, NO_LIMIT, drain, ids, outbox, read, seats, stored};
use common::{LONG, eventually};

/// An outbox with one update, and two relays.
fn two_relays(harness: &Harness) -> (PostgresOutbox, PostgresOutbox) {
    append(harness, 1);
    (harness.another(), harness.another())
}

fn append(harness: &Harness, number: u64) {
    let update = [stored("acme", number)];
    assert!(harness.outbox.append(&update, NO_LIMIT).unwrap());
}

fn sql(harness: &Harness, statement: &str) {
    harness.client().batch_execute(statement).unwrap();
}

#[test]
fn one_relay_at_a_time_sends() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let (one, other) = two_relays(&harness);
    let taken = one.take(10).unwrap();
    assert!(one.hold(Duration::from_secs(3_600)).unwrap());
    append(&harness, 2);
    assert!(other.take(10).unwrap().is_empty());
    // Whoever settles all that it has taken lets others go on.
    one.settle(&ids(&taken), &[]).unwrap();
    let next = other.take(10).unwrap();
    assert_eq!(read(&next), [("acme".to_owned(), 2)]);
    assert!(other.hold(Duration::MAX).unwrap());
    assert!(one.take(10).unwrap().is_empty());
    // So does one that ends.
    drop(other);
    assert_eq!(one.take(10).unwrap(), next);
}

/// Each is for a client, and clients of one process are like those of several.
#[test]
fn of_clones_one_at_a_time_sends() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let one = harness.another();
    let other = one.clone();
    append(&harness, 1);
    let taken = one.take(10).unwrap();
    assert!(one.hold(LONG).unwrap());
    append(&harness, 2);
    assert!(other.take(10).unwrap().is_empty());
    assert!(!other.hold(LONG).unwrap());
    assert!(other.settle(&ids(&taken), &[]).is_err());
    // Neither releases what the first one holds, nor does one that ends.
    other.release().unwrap();
    drop(other.clone());
    drop(other);
    assert!(one.clone().take(10).unwrap().is_empty());
    assert!(harness.another().take(10).unwrap().is_empty());
    one.settle(&ids(&taken), &[]).unwrap();
    let other = one.clone();
    assert_eq!(read(&other.take(10).unwrap()), [("acme".to_owned(), 2)]);
    assert!(one.take(10).unwrap().is_empty());
    // One that ends releases its own, though the others go on.
    drop(other);
    assert_eq!(drain(&one), [("acme".to_owned(), 2)]);
}

/// Events have a lease of their own, which all handles of one clone share.
#[test]
fn of_clones_one_at_a_time_sends_events() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let one = harness.another();
    let other = one.clone();
    let event = Event::new("Purchase").distinct_id("user123");
    one.publish_in(&mut harness.client(), event).unwrap();
    let taken = one.events().unwrap().take(10).unwrap();
    assert_eq!(taken.len(), 1);
    assert!(one.events().unwrap().hold(LONG).unwrap());
    assert!(other.events().unwrap().take(10).unwrap().is_empty());
    drop(other);
    let accepted = [taken[0].id];
    one.events().unwrap().settle(&accepted, &[]).unwrap();
    assert_eq!(one.events().unwrap().depth().unwrap().updates, 0);
}

/// A client that waits for its next attempt is not overtaken by one on a clone.
#[test]
fn clients_on_clones_keep_the_order() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let emulator = Emulator::start().unwrap();
    emulator.fail_next(Fault::RetryAfter {
        status: 503,
        after: "1".to_owned(),
    });
    let outbox = harness.another();
    let one = relay(&emulator, outbox.clone());
    let acme = Group::new("company", "acme");
    one.publish(acme.set(json!({"plan": "old"}))).unwrap();
    eventually("sends", || !emulator.requests().is_empty());
    let other = relay(&emulator, outbox);
    one.publish(acme.set(json!({"plan": "new"}))).unwrap();
    for relay in [other, one] {
        assert!(relay.flush(LONG).is_complete());
        assert!(relay.shutdown(LONG).is_complete());
    }
    let profile = emulator.profile("company", "acme").unwrap();
    assert_eq!(profile, json!({"plan": "new"}));
    // The one that failed, and one for each update.
    assert_eq!(emulator.requests().len(), 3);
}

#[test]
fn a_successor_sends_nothing_before_the_last_request_of_a_lost_relay_can_have_ended() {
    let Some(harness) = Harness::new() else {
        return;
    };
    append(&harness, 1);
    let mut config = harness.config.clone();
    config.application_name(&harness.schema);
    let (one, other) = (outbox(&config, &harness.schema), harness.another());
    let taken = one.take(10).unwrap();
    let request = Duration::from_millis(1_500);
    let held = Instant::now();
    assert!(one.hold(request).unwrap());
    // The first one's connections do not matter.
    sql(
        &harness,
        &format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{}'",
            harness.schema
        ),
    );
    eventually("taken over", || !other.take(10).unwrap().is_empty());
    assert!(held.elapsed() >= request, "{:?}", held.elapsed());
    // The first one starts no request from now on, and settles nothing.
    eventually("connected again", || one.hold(request).is_ok());
    assert!(!one.hold(request).unwrap());
    assert!(one.settle(&ids(&taken), &[]).is_err());
    assert_eq!(harness.outbox.depth().unwrap().updates, 1);
    assert_eq!(drain(&other).len(), 1);
}

/// The lease that a relay relies on is the one that the database has when it says so.
#[test]
fn a_lease_whose_extension_was_slow_covers_the_request_all_the_same() {
    const REQUEST: Duration = Duration::from_secs(2);
    let Some(harness) = Harness::new() else {
        return;
    };
    append(&harness, 1);
    let mut config = harness.config.clone();
    config.application_name(&harness.schema);
    let one = PostgresOutbox::builder(config, NoTls)
        .schema(&harness.schema)
        .timeout(LONG)
        .build()
        .unwrap();
    assert!(one.set_timeout(Duration::from_secs(1)));
    assert_eq!(one.take(10).unwrap().len(), 1);
    assert!(one.set_timeout(LONG));
    let mut administrator = harness.client();
    let mut transaction = administrator.transaction().unwrap();
    let lock = "SELECT FROM mixpanel_outbox_lease FOR UPDATE";
    transaction.execute(lock, &[]).unwrap();
    let held = thread::scope(|scope| {
        let hold = scope.spawn(|| (one.hold(REQUEST).unwrap(), Instant::now()));
        let waiting = "SELECT FROM pg_stat_activity
                       WHERE application_name = $1 AND wait_event_type = 'Lock'";
        let mut observer = harness.client();
        eventually("waits for the lock", || {
            let rows = observer.query(waiting, &[&harness.schema]);
            !rows.unwrap().is_empty()
        });
        // Longer than what the lease has to spare.
        thread::sleep(REQUEST / 2);
        transaction.commit().unwrap();
        let (is_held, at) = hold.join().unwrap();
        is_held.then_some(at)
    });
    let left = "SELECT extract(epoch FROM until - clock_timestamp())::float8
                FROM mixpanel_outbox_lease WHERE kind = 'update'";
    let left: f64 = harness.client().query_one(left, &[]).unwrap().get(0);
    let held = held.expect("nobody else wants it").elapsed().as_secs_f64();
    assert!(left + held >= REQUEST.as_secs_f64(), "{left} after {held}");
}

/// Another takes nothing while one still reads, also if that takes longer than a first lease lasts at least.
#[test]
fn a_take_that_is_slow_does_not_lose_its_lease() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let (one, other) = two_relays(&harness);
    let slow = "CREATE FUNCTION slowly() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
                    IF current_query() ~ 'body' THEN PERFORM pg_sleep(2.5); END IF;
                    RETURN true;
                END $$;
                ALTER TABLE mixpanel_outbox RENAME TO waiting;
                CREATE VIEW mixpanel_outbox AS SELECT * FROM waiting WHERE slowly()";
    sql(&harness, slow);
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        let take = scope.spawn(|| {
            let taken = one.take(10);
            is_done.store(true, Ordering::SeqCst);
            taken
        });
        let holder =
            "SELECT FROM mixpanel_outbox_lease WHERE kind = 'update' AND holder IS NOT NULL";
        let mut observer = harness.client();
        eventually("has the lease", || {
            !observer.query(holder, &[]).unwrap().is_empty()
        });
        while !is_done.load(Ordering::SeqCst) {
            assert!(other.take(10).unwrap().is_empty());
            thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(take.join().unwrap().unwrap().len(), 1);
    });
    assert!(one.hold(Duration::from_millis(1)).unwrap());
}

#[test]
fn one_that_was_killed_before_its_first_request_is_followed_soon() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let (one, other) = two_relays(&harness);
    assert_eq!(one.take(10).unwrap().len(), 1);
    std::mem::forget(one);
    let taken = Instant::now();
    eventually("taken over", || !other.take(10).unwrap().is_empty());
    assert!(
        taken.elapsed() < Duration::from_secs(30),
        "{:?}",
        taken.elapsed()
    );
}

/// A clock that was set back, as the table shows it, by more than the clocks of two servers differ.
#[test]
fn a_lease_from_the_future_is_not_believed() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let (one, other) = two_relays(&harness);
    assert_eq!(one.take(10).unwrap().len(), 1);
    assert!(one.hold(Duration::from_secs(3_600)).unwrap());
    let set_back = |seconds| {
        let update = format!(
            "UPDATE mixpanel_outbox_lease SET since = since + interval '{seconds} s', \
             until = until + interval '{seconds} s'"
        );
        sql(&harness, &update);
    };
    set_back(5);
    assert!(other.take(10).unwrap().is_empty());
    set_back(3_600);
    assert_eq!(other.take(10).unwrap().len(), 1);
}

/// A process that was killed, however long its requests could take, and a row that was changed by hand.
#[test]
fn a_lease_of_far_more_than_an_hour_holds_nobody_up() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let (gone, successor) = two_relays(&harness);
    assert_eq!(gone.take(10).unwrap().len(), 1);
    assert!(gone.hold(Duration::MAX).unwrap());
    assert!(gone.hold(Duration::MAX).unwrap(), "and once more");
    let within = "mixpanel_outbox_lease WHERE kind = 'update' AND until BETWEEN since + interval '60 min' AND since + interval '61 min'";
    assert_eq!(harness.count(within), 1);
    assert!(successor.take(10).unwrap().is_empty());
    sql(
        &harness,
        "UPDATE mixpanel_outbox_lease SET until = 'infinity' WHERE kind = 'update'",
    );
    assert_eq!(successor.take(10).unwrap().len(), 1);
}

#[test]
fn missing_rows_are_an_error_that_names_the_way_out() {
    let Some(harness) = Harness::new() else {
        return;
    };
    append(&harness, 1);
    sql(&harness, "DELETE FROM mixpanel_outbox_lease");
    let error = harness.outbox.take(1).unwrap_err();
    assert_eq!(error.kind(), mixpanel_groups::ErrorKind::Damaged);
    assert!(error.to_string().contains("migrate"), "{error}");
    harness.outbox.migrate().unwrap();
    assert_eq!(drain(&harness.outbox), [("acme".to_owned(), 1)]);
}

#[test]
fn commits_wake_the_relay_also_after_its_connection_was_cut() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let mut config = harness.config.clone();
    config.application_name(&harness.schema);
    let relay = outbox(&config, &harness.schema);
    let news = Arc::new(AtomicUsize::new(0));
    let its_news = Arc::clone(&news);
    relay.on_append(Arc::new(move || {
        its_news.fetch_add(1, Ordering::Relaxed);
    }));
    let news = || news.load(Ordering::Relaxed);
    let mut client = harness.client();
    let outbox = &harness.outbox;
    for number in 1..=2 {
        // A new connection is news, since no notification came for what was published before.
        eventually("listens", || news() == 2 * number - 1);
        let mut transaction = client.transaction().unwrap();
        let update = seats("acme", number as u64);
        outbox.publish_in(&mut transaction, &update).unwrap();
        transaction.rollback().unwrap();
        assert_eq!(news(), 2 * number - 1);
        outbox.publish_in(&mut client, &update).unwrap();
        eventually("woken", || news() == 2 * number);
        let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                   WHERE application_name = $1";
        let cut: i64 = client.query_one(sql, &[&harness.schema]).unwrap().get(0);
        assert_eq!(cut, 1);
    }
    // The connection ends with the outbox.
    drop(relay);
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1";
    eventually("ends", || {
        let left: i64 = client.query_one(sql, &[&harness.schema]).unwrap().get(0);
        left == 0
    });
}

fn relay(emulator: &Emulator, outbox: PostgresOutbox) -> mixpanel_groups::BufferedClient {
    Client::builder("TOKEN")
        .endpoint(emulator.endpoint())
        .retry(RetryPolicy::default())
        .build()
        .unwrap()
        .buffered()
        .flush_interval(Duration::from_millis(200))
        .outbox(outbox)
        .start()
        .unwrap()
}

#[test]
fn what_a_client_publishes_arrives_in_order() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let emulator = Emulator::start().unwrap();
    let relays = [(); 2].map(|()| relay(&emulator, harness.another()));
    for number in 0..300 {
        let group = Group::new("company", format!("group_{}", number % 7));
        let update = group.union(json!({"all": [number]}));
        relays[number % 2].publish(update).unwrap();
    }
    eventually("empty", || harness.outbox.depth().unwrap().updates == 0);
    for relay in relays {
        assert!(relay.shutdown(Duration::from_secs(30)).is_complete());
    }
    for group in 0..7 {
        let profile = emulator.profile("company", &format!("group_{group}"));
        let all: Vec<_> = (0..300).filter(|number| number % 7 == group).collect();
        assert_eq!(profile.unwrap(), json!({"all": all}));
    }
}

//! How much waits: counted as it changes, whoever changes it, and what happens at the bound.

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use mixpanel_groups::buffered::OverflowPolicy;
use mixpanel_groups::outbox::Capacity;
use mixpanel_groups::{Client, ErrorKind, Group, Outbox};
use mixpanel_groups_postgres::PostgresOutbox;
use postgres::NoTls;

use common::faulty::Faulty;
use common::postgres::{Harness, NO_LIMIT, drain, ids, seats, stored};
use common::{LONG, eventually};

/// Fills the outbox as fast as the server can.
fn fill(harness: &Harness, rows: usize) {
    let sql = format!(
        "INSERT INTO mixpanel_outbox (body)
         SELECT json_build_object('$group_key', 'company', '$group_id', n::text, '$set',
                                  json_build_object('seats', n))
         FROM generate_series(1, {rows}) AS n"
    );
    harness.client().batch_execute(&sql).unwrap();
}

fn assert_counted(harness: &Harness) -> usize {
    let sql = "SELECT count(*), coalesce(sum(bytes), 0)::bigint FROM mixpanel_outbox";
    let row = harness.client().query_one(sql, &[]).unwrap();
    let counted: [usize; 2] = [0, 1].map(|column| row.get::<_, i64>(column).try_into().unwrap());
    let depth = harness.outbox.depth().unwrap();
    assert_eq!([depth.updates, depth.bytes], counted);
    depth.updates
}

#[test]
fn every_change_is_counted_also_one_by_hand() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let mut client = harness.client();
    assert_eq!(assert_counted(&harness), 0);
    fill(&harness, 100);
    assert_eq!(assert_counted(&harness), 100);
    for (statement, left) in [
        ("DELETE FROM mixpanel_outbox WHERE id % 2 = 0", 50),
        ("DELETE FROM mixpanel_outbox WHERE false", 50),
        (
            "UPDATE mixpanel_outbox SET body = '{}' WHERE id % 3 = 0",
            50,
        ),
        ("BEGIN; DELETE FROM mixpanel_outbox; ROLLBACK", 50),
        (
            "WITH gone AS (DELETE FROM mixpanel_outbox WHERE id < 50 RETURNING body)
          INSERT INTO mixpanel_outbox (body) SELECT body FROM gone",
            50,
        ),
        ("TRUNCATE mixpanel_outbox", 0),
    ] {
        client.batch_execute(statement).unwrap();
        assert_eq!(assert_counted(&harness), left, "{statement}");
    }
}

/// After a clock was set back, or a switch to a standby whose clock is behind. A flush waits for what is not known to be new.
#[test]
fn an_age_below_zero_is_not_known() {
    let Some(harness) = Harness::new() else {
        return;
    };
    fill(&harness, 1);
    assert!(harness.outbox.depth().unwrap().oldest.is_some());
    let sql = "UPDATE mixpanel_outbox SET since = clock_timestamp() + interval '1 hour'";
    harness.client().batch_execute(sql).unwrap();
    let depth = harness.outbox.depth().unwrap();
    assert_eq!((depth.updates, depth.oldest), (1, None));
}

/// As an SQL statement on them by hand may leave them.
#[test]
fn counts_below_zero_are_an_error_until_they_are_migrated() {
    let Some(harness) = Harness::new() else {
        return;
    };
    fill(&harness, 10);
    let mut client = harness.client();
    for wrong in ["updates = -5", "bytes = -1000"] {
        let sql = format!("UPDATE mixpanel_outbox_count SET {wrong}");
        client.batch_execute(&sql).unwrap();
        let error = harness.outbox.depth().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{wrong}");
        assert!(error.to_string().contains("migrate"), "{error}");
        // Nothing that is sent depends on them.
        let capacity = Capacity::new(100, usize::MAX);
        let update = [stored("acme", 1)];
        assert!(harness.outbox.append(&update, capacity).unwrap());
        // A transaction that has published is not waited for, and counts once.
        let mut transaction = client.transaction().unwrap();
        let update = seats("globex", 1);
        harness.outbox.publish_in(&mut transaction, update).unwrap();
        harness.outbox.migrate().unwrap();
        transaction.commit().unwrap();
        assert_counted(&harness);
    }
    assert_eq!(assert_counted(&harness), 14);
}

/// Counts that are wrong although nothing waits, as after `DISABLE TRIGGER`.
fn break_counts(harness: &Harness) {
    harness
        .client()
        .batch_execute(
            "INSERT INTO mixpanel_outbox_count (kind, updates, bytes)
             VALUES ('update', 50, 5000), ('update', 7, -20), ('event', 3, 300)",
        )
        .unwrap();
}

/// A flush waits until nothing is counted.
#[test]
fn counts_that_are_too_high_are_corrected_when_nothing_waits() {
    let Some(harness) = Harness::new() else {
        return;
    };
    break_counts(&harness);
    let buffered = Client::disabled()
        .buffered()
        .outbox(harness.another())
        .start()
        .unwrap();
    buffered.publish(seats("acme", 1)).unwrap();
    let flushed = buffered.flush(LONG);
    assert!(flushed.is_complete(), "{flushed}");
    assert_eq!(assert_counted(&harness), 0);
    // Those below zero too.
    let sql = "UPDATE mixpanel_outbox_count SET updates = updates - 1";
    harness.client().batch_execute(sql).unwrap();
    let shut_down = buffered.shutdown(LONG);
    assert!(shut_down.is_complete(), "{shut_down}");
    assert_eq!(assert_counted(&harness), 0);
    let sql = "SELECT sum(updates) = 0 AND sum(bytes) = 0 FROM mixpanel_outbox_count";
    let row = harness.client().query_one(sql, &[]).unwrap();
    assert!(row.get::<_, bool>(0), "also of events");
}

/// Each correction is made once, also by several relays, and counts nothing that is published meanwhile.
#[test]
fn counts_are_corrected_once() {
    const RELAYS: usize = 8;
    let Some(harness) = Harness::new() else {
        return;
    };
    for round in 0..10 {
        break_counts(&harness);
        // What is not committed yet does not wait, and is not counted.
        let mut client = harness.client();
        let mut transaction = client.transaction().unwrap();
        let update = seats("acme", round);
        harness.outbox.publish_in(&mut transaction, update).unwrap();
        let barrier = Barrier::new(RELAYS);
        thread::scope(|scope| {
            for _ in 0..RELAYS {
                scope.spawn(|| {
                    let relay = harness.another();
                    // Its connections are open then.
                    relay.depth().unwrap();
                    relay.hold(Duration::ZERO).unwrap();
                    barrier.wait();
                    assert!(relay.take(1).unwrap().is_empty());
                });
            }
        });
        transaction.commit().unwrap();
        assert_eq!(assert_counted(&harness), 1);
        assert_eq!(drain(&harness.outbox), [("acme".to_owned(), round)]);
    }
}

/// Rows that count do not pile up where something relays or counts, and merging them loses none.
#[test]
fn counts_are_merged() {
    let Some(harness) = Harness::new() else {
        return;
    };
    thread::scope(|scope| {
        for thread in 0..4 {
            let harness = &harness;
            scope.spawn(move || {
                let mut client = harness.client();
                for number in 0..100 {
                    let update = seats(&format!("group_{thread}"), number);
                    harness.outbox.publish_in(&mut client, update).unwrap();
                }
            });
        }
        for _ in 0..2 {
            let outbox = harness.another();
            scope.spawn(move || {
                for _ in 0..100 {
                    outbox.depth().unwrap();
                }
            });
        }
    });
    assert_eq!(assert_counted(&harness), 400);
    assert!(harness.count("mixpanel_outbox_count") <= 101);
    // A relay merges without anyone who counts.
    for number in 0..200 {
        let update = seats("acme", number);
        harness
            .outbox
            .publish_in(&mut harness.client(), update)
            .unwrap();
    }
    let relay = harness.another();
    let taken = relay.take(1_000).unwrap();
    assert_eq!(taken.len(), 600);
    assert!(harness.count("mixpanel_outbox_count") <= 101);
    relay.settle(&ids(&taken), &[]).unwrap();
    assert_eq!(assert_counted(&harness), 0);
}

#[test]
fn the_oldest_are_dropped_in_chunks() {
    const WAITING: usize = 100_000;
    let Some(harness) = Harness::new() else {
        return;
    };
    fill(&harness, WAITING);
    let buffered = Client::disabled()
        .buffered()
        .flush_interval(Duration::from_secs(3_600))
        .capacity(WAITING, usize::MAX)
        .overflow(OverflowPolicy::DropOldest)
        // Nothing is relayed.
        .outbox(never_takes(harness.another()))
        .start()
        .unwrap();
    for number in 0..300 {
        let group = Group::new("company", "new");
        buffered
            .publish(group.set(serde_json::json!({"seats": number})))
            .unwrap();
    }
    let stats = buffered.stats();
    let waiting = assert_counted(&harness);
    assert_eq!(waiting, WAITING + 300 - stats.dropped);
    assert!(waiting <= WAITING);
    // As many as necessary, and for a thousandth of the capacity more.
    assert!(
        (300..=300 + WAITING / 1_000).contains(&stats.dropped),
        "{}",
        stats.dropped
    );
    let oldest = "SELECT min(id) FROM mixpanel_outbox";
    let oldest: i64 = harness.client().query_one(oldest, &[]).unwrap().get(0);
    assert_eq!(usize::try_from(oldest).unwrap(), stats.dropped + 1);
}

/// An outbox that another process relays.
fn never_takes(outbox: PostgresOutbox) -> Faulty {
    Faulty::over(Arc::new(outbox)).taking(|_, _| Ok(Vec::new()))
}

/// Neither lost nor counted as dropped: what is taken while the call waits for an append is sent.
#[test]
fn what_is_taken_meanwhile_is_not_dropped() {
    let Some(harness) = Harness::new() else {
        return;
    };
    fill(&harness, 10);
    let outbox = PostgresOutbox::builder(harness.config.clone(), NoTls)
        .schema(&harness.schema)
        .timeout(LONG)
        .build()
        .unwrap();
    let mut client = harness.client();
    let mut holder = client.transaction().unwrap();
    let update = seats("acme", 1);
    outbox.publish_in(&mut holder, &update).unwrap();
    // The holder and the thread append one each, and one more is to have room.
    let capacity = Capacity::new(11, usize::MAX);
    thread::scope(|scope| {
        scope.spawn(|| outbox.append(&[stored("acme", 2)], NO_LIMIT).unwrap());
        let waiting =
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'
                       AND transactionid = pg_current_xact_id()::xid";
        eventually("waits", || {
            let row = holder.query_one(waiting, &[]).unwrap();
            row.get::<_, i64>(0) > 0
        });
        let dropped = scope.spawn(|| outbox.drop_oldest(1, 0, capacity).unwrap());
        thread::sleep(Duration::from_millis(300));
        let taken = ids(&outbox.take(5).unwrap());
        holder.commit().unwrap();
        assert_eq!(dropped.join().unwrap(), 2);
        let left = ids(&outbox.take(100).unwrap());
        assert_eq!(left[..5], taken);
        assert_eq!(left.len(), 10);
    });
}

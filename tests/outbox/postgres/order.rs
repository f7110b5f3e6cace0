//! Commit order per group, whatever overlaps.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use mixpanel_groups::{Error, Outbox};
use postgres::error::SqlState;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use common::eventually;
use common::postgres::{Harness, drain, read, seats};

#[test]
fn commits_and_rolls_back_with_the_transaction() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let mut client = harness.client();
    client
        .batch_execute("CREATE TABLE company (id text, seats int)")
        .unwrap();
    for (number, commit) in [(1_i32, true), (2, false), (3, true)] {
        let mut transaction = client.transaction().unwrap();
        transaction
            .execute("INSERT INTO company VALUES ('acme', $1)", &[&number])
            .unwrap();
        let update = seats("acme", number.unsigned_abs().into());
        harness
            .outbox
            .publish_in(&mut transaction, &update)
            .unwrap();
        if commit {
            transaction.commit().unwrap();
        } else {
            transaction.rollback().unwrap();
        }
    }
    let rows = client.query("SELECT seats FROM company", &[]).unwrap();
    let rows: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(rows, [1, 3]);
    let sent = drain(&harness.outbox);
    assert_eq!(sent, [("acme".to_owned(), 1), ("acme".to_owned(), 3)]);
}

#[test]
fn a_savepoint_takes_its_updates_with_it() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let mut client = harness.client();
    let mut transaction = client.transaction().unwrap();
    let publish = |transaction: &mut postgres::Transaction<'_>, number| {
        let update = seats("acme", number);
        harness.outbox.publish_in(transaction, update).unwrap();
    };
    publish(&mut transaction, 1);
    let mut savepoint = transaction.transaction().unwrap();
    publish(&mut savepoint, 2);
    savepoint.rollback().unwrap();
    publish(&mut transaction, 3);
    transaction.commit().unwrap();
    let sent = drain(&harness.outbox);
    assert_eq!(sent, [("acme".to_owned(), 1), ("acme".to_owned(), 3)]);
}

#[test]
fn an_update_that_cannot_be_sent_leaves_the_transaction_as_it_is() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let mut client = harness.client();
    let mut transaction = client.transaction().unwrap();
    let error = harness
        .outbox
        .publish_in(&mut transaction, seats("", 1))
        .unwrap_err();
    assert_eq!(error.kind(), mixpanel_groups::ErrorKind::InvalidUpdate);
    harness
        .outbox
        .publish_in(&mut transaction, seats("acme", 1))
        .unwrap();
    transaction.commit().unwrap();
    assert_eq!(drain(&harness.outbox), [("acme".to_owned(), 1)]);
}

/// The second to publish waits for the first, whichever began first; others do not wait.
#[test]
fn who_publishes_second_commits_second() {
    let Some(harness) = Harness::new() else {
        return;
    };
    for second_begins_first in [false, true] {
        let (tell, told) = mpsc::channel();
        let mut client = harness.client();
        let mut first = client.transaction().unwrap();
        thread::scope(|scope| {
            let harness = &harness;
            let tell_it = tell.clone();
            let (publish, publish_now) = mpsc::channel::<()>();
            scope.spawn(move || {
                let mut client = harness.client();
                let mut second = client.transaction().unwrap();
                if second_begins_first {
                    // Has the older transaction id, too.
                    second.execute("SELECT pg_current_xact_id()", &[]).unwrap();
                    tell_it.send("begun").unwrap();
                }
                publish_now.recv().unwrap();
                let outbox = &harness.outbox;
                outbox.publish_in(&mut second, seats("acme", 2)).unwrap();
                tell_it.send("published").unwrap();
                second.commit().unwrap();
                tell_it.send("committed").unwrap();
            });
            if second_begins_first {
                assert_eq!(told.recv(), Ok("begun"));
            }
            let outbox = &harness.outbox;
            outbox.publish_in(&mut first, seats("acme", 1)).unwrap();
            publish.send(()).unwrap();
            eventually("waits", || {
                let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted
                    AND pid <> pg_backend_pid() AND locktype IN ('transactionid', 'tuple')";
                harness
                    .client()
                    .query_one(waiting, &[])
                    .unwrap()
                    .get::<_, i64>(0)
                    > 0
            });
            // Another group does not.
            harness
                .outbox
                .publish_in(&mut harness.client(), seats("globex", 0))
                .unwrap();
            assert_eq!(told.try_recv(), Err(mpsc::TryRecvError::Empty));
            first.commit().unwrap();
            assert_eq!(told.recv(), Ok("published"));
            assert_eq!(told.recv(), Ok("committed"));
        });
        let mut sent = drain(&harness.outbox);
        sent.retain(|(group, _)| group == "acme");
        assert_eq!(sent, [("acme".to_owned(), 1), ("acme".to_owned(), 2)]);
    }
}

/// Transactions of several threads, by chance of one update or many, alone or in batches, slow or
/// quick, committed or rolled back: the ids of each group are in the order in which the server says
/// that the transactions committed.
#[test]
fn ids_are_in_commit_order() {
    const GROUPS: [&str; 4] = ["acme", "globex", "initech", "umbrella"];
    let Some(harness) = Harness::new() else {
        return;
    };
    let setting = "SHOW track_commit_timestamp";
    let setting: String = harness.client().query_one(setting, &[]).unwrap().get(0);
    assert_eq!(setting, "on", "the test needs track_commit_timestamp");
    let script = prop::collection::vec(
        (
            prop::collection::vec(0..GROUPS.len(), 1..4),
            any::<bool>(), // in one batch
            0..4_u64,      // milliseconds before the end
            any::<bool>(), // committed
        ),
        120,
    );
    let mut runner = TestRunner::default();
    thread::scope(|scope| {
        for worker in 0..6 {
            let script = script.new_tree(&mut runner).unwrap().current();
            let harness = &harness;
            scope.spawn(move || {
                let mut client = harness.client();
                client
                    .batch_execute("SET deadlock_timeout = '10ms'")
                    .unwrap();
                for (number, (groups, batch, pause, commit)) in script.into_iter().enumerate() {
                    let number = worker * 1000 + number as u64;
                    let mut run = || -> Result<(), Error> {
                        let mut transaction = client.transaction().unwrap();
                        let mut updates = groups.iter().map(|group| seats(GROUPS[*group], number));
                        if batch {
                            harness.outbox.publish_all_in(&mut transaction, updates)?;
                        } else {
                            updates.try_for_each(|update| {
                                harness.outbox.publish_in(&mut transaction, update)
                            })?;
                        }
                        thread::sleep(Duration::from_millis(pause));
                        if commit {
                            transaction.commit().unwrap();
                        }
                        Ok(())
                    };
                    // Single calls may deadlock, with each other and with batches.
                    while let Err(error) = run() {
                        let source = error.source().unwrap().downcast_ref::<postgres::Error>();
                        let code = source.unwrap().code().unwrap();
                        assert_eq!(*code, SqlState::T_R_DEADLOCK_DETECTED, "{error:?}");
                    }
                }
            });
        }
    });
    let rows = harness
        .client()
        .query(
            "SELECT group_id, o.id, extract(epoch FROM pg_xact_commit_timestamp(o.xmin))::float8
             FROM mixpanel_outbox AS o JOIN mixpanel_outbox_waiting AS w USING (id) ORDER BY o.id",
            &[],
        )
        .unwrap();
    assert!(rows.len() > 200, "{}", rows.len());
    let mut last = BTreeMap::new();
    for row in rows {
        let (group, committed): (String, f64) = (row.get(0), row.get(2));
        let before = last.insert(group.clone(), committed).unwrap_or_default();
        assert!(before <= committed, "{group} {}", row.get::<_, i64>(1));
    }
}

/// What one transaction publishes stays in order, and what is read is the beginning of each
/// group's updates, also when it is cut.
#[test]
fn large_batches_are_read_in_order() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let mut client = harness.client();
    let mut transaction = client.transaction().unwrap();
    let updates = (0..25_000).map(|number| seats(&format!("group_{}", number % 700), number));
    let published = harness
        .outbox
        .publish_all_in(&mut transaction, updates)
        .unwrap();
    assert_eq!(published, 25_000);
    transaction.commit().unwrap();
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    let mut count = 0;
    loop {
        let taken = harness.outbox.take(999).unwrap();
        if taken.is_empty() {
            break;
        }
        assert!(taken.len() <= 999);
        for (group, number) in read(&taken) {
            let before = last.insert(group, number);
            assert_eq!(before.map_or(number % 700, |before| before + 700), number);
            count += 1;
        }
        let ids: Vec<_> = taken.iter().map(|waiting| waiting.id).collect();
        harness.outbox.settle(&ids, &[]).unwrap();
        harness.outbox.release().unwrap();
    }
    assert_eq!(count, 25_000);
}

/// Large updates are read some at a time, and one by one if they must be.
#[test]
fn large_updates_do_not_fill_the_memory() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let large = "x".repeat(900_000);
    let updates = (0..60).map(|number| {
        let group = mixpanel_groups::Group::new("company", format!("group_{}", number % 7));
        group.set(serde_json::json!({"seats": number, "large": large}))
    });
    let mut client = harness.client();
    harness.outbox.publish_all_in(&mut client, updates).unwrap();
    let taken = harness.outbox.take(1000).unwrap();
    let bytes: usize = taken.iter().map(|waiting| waiting.json().len()).sum();
    assert!(bytes > 16 << 20 && bytes < 34 << 20, "{bytes}");
    harness.outbox.release().unwrap();
    assert_eq!(drain(&harness.outbox).len(), 60);
}

/// Two transactions with different groups whose slots are the same ones, in another order of names.
#[test]
fn batches_of_different_groups_do_not_deadlock() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let sql = "WITH named AS (
                   SELECT name, hashtextextended('company ' || name, 0) & 16383 AS slot
                   FROM generate_series(10000, 12000) AS n, concat('group_', n) AS name
               ), shared AS (
                   SELECT slot, min(name) AS low, max(name) AS high FROM named GROUP BY slot HAVING count(*) > 1
               ) SELECT one.low, other.high, other.low, one.high FROM shared AS one, shared AS other
               WHERE one.slot <> other.slot AND one.low < other.high AND other.low < one.high LIMIT 1";
    let row = harness.client().query_one(sql, &[]).unwrap();
    let [a, c, b, d] = [0, 1, 2, 3].map(|column| row.get::<_, String>(column));
    let mut client = harness.client();
    let mut holder = client.transaction().unwrap();
    let outbox = &harness.outbox;
    outbox.publish_in(&mut holder, seats(&a, 0)).unwrap();
    thread::scope(|scope| {
        let both = [[&a, &c], [&b, &d]].map(|groups| {
            let harness = &harness;
            let name = format!("{}_{}", harness.schema, groups[0]);
            let named = name.clone();
            let publisher = scope.spawn(move || {
                let mut client = harness.client();
                let set_name = format!("SET application_name = '{named}'");
                client.batch_execute(&set_name).unwrap();
                let updates = groups.map(|group| seats(group, 1));
                harness.outbox.publish_all_in(&mut client, updates)
            });
            let waiting = "SELECT count(*) FROM pg_stat_activity
                           WHERE application_name = $1 AND wait_event_type = 'Lock'";
            let mut observer = harness.client();
            eventually("waits", || {
                let row = observer.query_one(waiting, &[&name]).unwrap();
                row.get::<_, i64>(0) == 1
            });
            publisher
        });
        holder.commit().unwrap();
        for publisher in both {
            assert_eq!(publisher.join().unwrap().unwrap(), 2);
        }
    });
    assert_eq!(drain(outbox).len(), 5);
}

//! Publishing while others hold locks: what waits for what.

use std::future::Future as _;
use std::iter;
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;

use mixpanel_groups::outbox::Capacity;
use mixpanel_groups::{ErrorKind, Group, Outbox};
use mixpanel_groups_postgres::PostgresOutbox;
use postgres::NoTls;
use serde_json::json;
use tokio::runtime::Builder;

use common::postgres::{Harness, NO_LIMIT, drain, ids, seats, stored};
use common::{LONG, eventually};

/// An outbox whose connections have the name of the schema, and that waits for as long as a test may take.
fn patient(harness: &Harness, options: &str) -> PostgresOutbox {
    let mut config = harness.config.clone();
    config.application_name(&harness.schema).options(options);
    PostgresOutbox::builder(config, NoTls)
        .schema(&harness.schema)
        .timeout(LONG)
        .build()
        .unwrap()
}

/// Waits until the outbox waits for a lock of that kind: `relation`, or `transactionid` for a row. Each migration also takes
/// one that all tests share, so any lock would not do.
fn eventually_locked(harness: &Harness, kind: &str) {
    let waiting = "SELECT count(*) FROM pg_stat_activity
                   WHERE application_name = $1 AND wait_event_type = 'Lock' AND wait_event = $2";
    let mut observer = harness.client();
    eventually("waits for a lock", || {
        let row = observer
            .query_one(waiting, &[&harness.schema, &kind])
            .unwrap();
        row.get::<_, i64>(0) > 0
    });
}

/// A call that gives up takes no other with it, also if it was the first of their transaction.
#[test]
fn a_call_that_gives_up_breaks_no_transaction_off() {
    let Some(harness) = Harness::new() else {
        return;
    };
    harness
        .client()
        .batch_execute(&format!(
            "CREATE TABLE gate (opened bigint); INSERT INTO gate VALUES (0);
             CREATE FUNCTION pass() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 WHILE (SELECT opened FROM {schema}.gate) < (new.body #>> '{{$set,seats}}')::bigint LOOP
                     PERFORM pg_sleep(0.01);
                 END LOOP;
                 RETURN new;
             END $$;
             CREATE TRIGGER pass BEFORE INSERT ON mixpanel_outbox FOR EACH ROW EXECUTE FUNCTION pass()",
            schema = harness.schema
        ))
        .unwrap();
    let path = format!("-c search_path={}", harness.schema);
    let outbox = patient(&harness, &path);
    let open = |number: i64| {
        let sql = "UPDATE gate SET opened = $1";
        harness.client().execute(sql, &[&number]).unwrap();
    };
    let is_at_the_gate = "SELECT count(*) FROM pg_stat_activity
                          WHERE application_name = $1 AND wait_event = 'PgSleep'";
    let publish = |group: &'static str, number| {
        let runtime = Builder::new_current_thread().build().unwrap();
        runtime.block_on(outbox.publish_async([seats(group, number)]))
    };
    thread::scope(|scope| {
        let first = scope.spawn(|| publish("first", 1));
        let mut observer = harness.client();
        eventually("writes", || {
            let row = observer.query_one(is_at_the_gate, &[&harness.schema]);
            row.unwrap().get::<_, i64>(0) == 1
        });
        assert!(outbox.set_timeout(Duration::from_secs(2)));
        let hasty = scope.spawn(|| outbox.append(&[stored("hasty", 2)], NO_LIMIT));
        thread::sleep(Duration::from_millis(300));
        let last = scope.spawn(|| publish("last", 2));
        thread::sleep(Duration::from_millis(300));
        open(1);
        first.join().unwrap().unwrap();
        let error = hasty.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        open(2);
        last.join().unwrap().unwrap();
    });
}

/// `stats`, a flush and a shutdown read it, whatever else waits.
#[test]
fn the_depth_waits_for_no_publisher() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let outbox = patient(&harness, "");
    let mut client = harness.client();
    let mut holder = client.transaction().unwrap();
    outbox.publish_in(&mut holder, seats("acme", 1)).unwrap();
    thread::scope(|scope| {
        let append = scope.spawn(|| outbox.append(&[stored("acme", 2)], NO_LIMIT));
        eventually_locked(&harness, "transactionid");
        let depth = outbox.depth();
        let events = outbox.events().unwrap().depth();
        // Before an assertion may fail, for the other thread to end.
        holder.commit().unwrap();
        assert!(append.join().unwrap().unwrap());
        assert_eq!(depth.unwrap().updates, 0);
        assert_eq!(events.unwrap().updates, 0);
    });
    assert_eq!(outbox.depth().unwrap().updates, 2);
}

/// Calls that wait are written in order, and some at a time if they are large.
#[test]
fn many_calls_are_several_transactions() {
    const GROUPS: u64 = 3;
    let Some(harness) = Harness::new() else {
        return;
    };
    let outbox = patient(&harness, "");
    let large = "x".repeat(900_000);
    let large = |number| {
        let group = Group::new("company", format!("group_{}", number % GROUPS));
        vec![group.set(json!({"seats": number, "large": large}))]
    };
    let many = |call: u64| {
        let numbers = call * 4_000..(call + 1) * 4_000;
        numbers
            .map(|number| seats(&format!("group_{}", number % GROUPS), number))
            .collect()
    };
    let calls: Vec<Vec<_>> = (0..30).map(large).chain((1..6).map(many)).collect();
    let mut client = harness.client();
    let mut holder = client.transaction().unwrap();
    let first = seats("first", 0);
    outbox.publish_in(&mut holder, &first).unwrap();
    // While the first call waits for the lock, the others are queued.
    let mut calls: Vec<_> = iter::once(vec![first])
        .chain(calls)
        .map(|call| Box::pin(outbox.publish_async(call)))
        .collect();
    for (number, call) in calls.iter_mut().enumerate() {
        let mut context = Context::from_waker(Waker::noop());
        assert!(call.as_mut().poll(&mut context).is_pending());
        if number == 0 {
            eventually_locked(&harness, "transactionid");
        }
    }
    holder.commit().unwrap();
    let runtime = Builder::new_current_thread().build().unwrap();
    for call in calls {
        runtime.block_on(call).unwrap();
    }
    let sql = "SELECT count(*), sum(bytes)::bigint FROM mixpanel_outbox GROUP BY xmin::text";
    for row in harness.client().query(sql, &[]).unwrap() {
        let (rows, bytes): (i64, i64) = (row.get(0), row.get(1));
        assert!(
            rows <= 10_000 && bytes <= 8 << 20,
            "{rows} of {bytes} bytes"
        );
    }
    let mut last = [None; GROUPS as usize];
    for (group, number) in drain(&harness.outbox) {
        if group != "first" {
            let last = &mut last[usize::try_from(number % GROUPS).unwrap()];
            assert!(last.replace(number) < Some(number), "{number}");
        }
    }
    assert_eq!(last, [Some(23_997), Some(23_998), Some(23_999)]);
}

/// However many calls shared a transaction, nothing is left of them that what comes next would wait for.
#[test]
fn calls_that_were_written_leave_nothing_behind() {
    const CALLS: u64 = 9_000;
    let Some(harness) = Harness::new() else {
        return;
    };
    let outbox = patient(&harness, "");
    let mut client = harness.client();
    let runtime = Builder::new_current_thread().build().unwrap();
    for _ in 0..5 {
        let mut holder = client.transaction().unwrap();
        outbox.publish_in(&mut holder, seats("acme", 0)).unwrap();
        let mut calls: Vec<_> = (0..CALLS)
            .map(|number| Box::pin(outbox.publish_async([seats("acme", number)])))
            .collect();
        for call in &mut calls {
            let mut context = Context::from_waker(Waker::noop());
            assert!(call.as_mut().poll(&mut context).is_pending());
        }
        holder.commit().unwrap();
        for call in calls {
            runtime.block_on(call).unwrap();
        }
    }
    assert!(outbox.set_timeout(Duration::from_secs(5)));
    assert_eq!(outbox.drop_oldest(1, 1, NO_LIMIT).unwrap(), 0);
}

/// A transaction that has read a view holds up the migration, which holds up nothing meanwhile.
#[test]
fn migrating_again_holds_up_neither_relays_nor_publishers() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let outbox = &harness.outbox;
    assert!(outbox.append(&[stored("acme", 1)], NO_LIMIT).unwrap());
    let taken = outbox.take(1).unwrap();
    let mut client = harness.client();
    let mut reader = client.transaction().unwrap();
    reader
        .batch_execute("SELECT FROM mixpanel_outbox_waiting")
        .unwrap();
    let migrating = patient(&harness, "");
    thread::scope(|scope| {
        let migrate = scope.spawn(|| migrating.migrate());
        eventually_locked(&harness, "relation");
        let settled = outbox.settle(&ids(&taken), &[]);
        let appended = outbox.append(&[stored("acme", 2)], NO_LIMIT);
        assert!(migrating.set_timeout(Duration::from_secs(5)));
        let of_its_own = migrating.append(&[stored("acme", 3)], NO_LIMIT);
        let waiting = outbox.take(10);
        // Before an assertion may fail, for the other thread to end.
        reader.commit().unwrap();
        migrate.join().unwrap().unwrap();
        settled.unwrap();
        assert!(appended.unwrap());
        assert!(of_its_own.unwrap());
        assert_eq!(waiting.unwrap().len(), 2);
    });
}

/// Also with transactions of the application that do not lock in the order of the others.
#[test]
fn a_deadlock_fails_neither_side() {
    for options in ["", "-c deadlock_timeout=200ms"] {
        let Some(harness) = Harness::new() else {
            return;
        };
        let outbox = patient(&harness, options);
        let mut client = harness.client();
        // The outbox is to notice it.
        client.batch_execute("SET deadlock_timeout = '1h'").unwrap();
        let sql = "SELECT name FROM unnest(ARRAY['acme', 'globex']) AS name
                   ORDER BY hashtextextended('company ' || name, 0) & 16383";
        let names = client.query(sql, &[]).unwrap();
        let [low, high] = [0, 1].map(|row: usize| names[row].get::<_, String>(0));
        let mut transaction = client.transaction().unwrap();
        outbox
            .publish_in(&mut transaction, seats(&high, 1))
            .unwrap();
        thread::scope(|scope| {
            let both = [stored(&low, 2), stored(&high, 2)];
            let outbox = &outbox;
            let append = scope.spawn(move || outbox.append(&both, NO_LIMIT));
            eventually_locked(&harness, "transactionid");
            outbox.publish_in(&mut transaction, seats(&low, 1)).unwrap();
            transaction.commit().unwrap();
            assert!(append.join().unwrap().unwrap());
        });
        let expected = [(&high, 1), (&low, 1), (&low, 2), (&high, 2)];
        let expected = expected.map(|(group, number)| (group.clone(), number));
        assert_eq!(drain(&harness.outbox), expected);
    }
}

/// Each statement is a transaction of the outbox's own, so it repeats what the server has rolled back.
#[test]
fn what_the_server_rolls_back_is_repeated() {
    for state in ["40P01", "40001"] {
        let Some(harness) = Harness::new() else {
            return;
        };
        // Each first change of a table fails.
        harness
            .client()
            .batch_execute(&format!(
                "CREATE SEQUENCE changes;
                 CREATE SEQUENCE changes_of_the_lease;
                 CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                     IF nextval(TG_ARGV[0]) % 2 = 1 THEN RAISE SQLSTATE '{state}'; END IF;
                     RETURN NULL;
                 END $$;
                 CREATE TRIGGER fail AFTER INSERT OR DELETE ON mixpanel_outbox
                     FOR EACH STATEMENT EXECUTE FUNCTION fail('{schema}.changes');
                 CREATE TRIGGER fail AFTER UPDATE ON mixpanel_outbox_lease
                     FOR EACH STATEMENT EXECUTE FUNCTION fail('{schema}.changes_of_the_lease')",
                schema = harness.schema
            ))
            .unwrap();
        let outbox = patient(&harness, "");
        let updates = [stored("acme", 1), stored("globex", 2), stored("acme", 3)];
        assert!(outbox.append(&updates, NO_LIMIT).unwrap(), "{state}");
        let capacity = Capacity::new(3, usize::MAX);
        assert_eq!(outbox.drop_oldest(1, 0, capacity).unwrap(), 1, "{state}");
        let taken = outbox.take(10).unwrap();
        assert!(outbox.hold(2 * LONG).unwrap(), "{state}");
        outbox.settle(&ids(&taken)[..1], &[]).unwrap();
        outbox.release().unwrap();
        assert_eq!(
            drain(&harness.another()),
            [("acme".to_owned(), 3)],
            "{state}"
        );
    }
}

//! A backlog for which a call has not enough time: it is sent all the same, in parts.

use std::time::Duration;

use mixpanel_groups::outbox::Capacity;
use mixpanel_groups::{Client, Outbox};
use mixpanel_groups_emulator::Emulator;
use mixpanel_groups_postgres::PostgresOutbox;
use postgres::NoTls;

use common::postgres::{Harness, NO_LIMIT, Proxy, drain, ids, stored};
use common::{LONG, eventually};

/// As many as the worker takes at once.
const MOST: usize = 20_000;

/// Four seconds for 200 rows.
const SLOW_TO_DELETE: &str = "CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN PERFORM pg_sleep(0.02); RETURN old; END';
    CREATE TRIGGER slowly BEFORE DELETE ON mixpanel_outbox FOR EACH ROW EXECUTE FUNCTION slowly()";

const FAST_TO_DELETE: &str = "DROP TRIGGER slowly ON mixpanel_outbox";

/// An outbox that waits for a second at most, and whose server reads rows in the order of their ids, without a look at more.
fn impatient(harness: &Harness) -> PostgresOutbox {
    let mut config = harness.config.clone();
    config.options("-c enable_seqscan=off -c enable_bitmapscan=off");
    PostgresOutbox::builder(config, NoTls)
        .schema(&harness.schema)
        .timeout(Duration::from_secs(1))
        .build()
        .unwrap()
}

/// An outbox with that many updates, on a server that has then run the statements.
fn start(number: u64, statements: &str) -> Option<Harness> {
    let harness = Harness::new()?;
    let updates: Vec<_> = (0..number).map(|number| stored("acme", number)).collect();
    assert!(harness.outbox.append(&updates, NO_LIMIT).unwrap());
    harness.client().batch_execute(statements).unwrap();
    Some(harness)
}

/// Takes and settles all that it can. Returns the most that one call has taken.
fn send_some(outbox: &PostgresOutbox) -> usize {
    let mut most = 0;
    while let Ok(taken) = outbox.take(MOST)
        && !taken.is_empty()
        && outbox.settle(&ids(&taken), &[]).is_ok()
    {
        most = most.max(taken.len());
    }
    // As the worker does, and as for a database that failed.
    let _ = outbox.release();
    most
}

#[test]
fn what_takes_too_long_to_read_is_read_in_parts() {
    // Four seconds for all.
    let slow = "CREATE FUNCTION slowly() RETURNS boolean LANGUAGE plpgsql AS
                    'BEGIN PERFORM pg_sleep(0.02); RETURN true; END';
                ALTER TABLE mixpanel_outbox RENAME TO waiting;
                CREATE VIEW mixpanel_outbox AS SELECT * FROM waiting WHERE slowly()";
    let Some(harness) = start(200, slow) else {
        return;
    };
    let outbox = impatient(&harness);
    eventually("is read", || {
        outbox.take(MOST).is_ok_and(|taken| !taken.is_empty())
    });
    let fast = "CREATE OR REPLACE FUNCTION slowly() RETURNS boolean LANGUAGE sql AS 'SELECT true'";
    harness.client().batch_execute(fast).unwrap();
    eventually("is sent", || {
        send_some(&outbox);
        harness.count("waiting") == 0
    });
}

#[test]
fn what_takes_too_long_to_settle_is_settled_in_parts_and_taken_at_once_again_later() {
    let Some(harness) = start(200, SLOW_TO_DELETE) else {
        return;
    };
    let outbox = impatient(&harness);
    eventually("is sent", || {
        send_some(&outbox);
        harness.outbox.depth().unwrap().updates == 0
    });
    harness.client().batch_execute(FAST_TO_DELETE).unwrap();
    let updates: Vec<_> = (0..1_000).map(|number| stored("acme", number)).collect();
    eventually("takes all at once", || {
        harness.outbox.append(&updates, NO_LIMIT).unwrap();
        send_some(&outbox) >= updates.len()
    });
}

#[test]
fn what_takes_too_long_to_drop_is_dropped_in_parts() {
    let Some(harness) = start(1_200, SLOW_TO_DELETE) else {
        return;
    };
    let outbox = impatient(&harness);
    let capacity = Capacity::new(1_000, usize::MAX);
    eventually("has room", || {
        let _ = outbox.drop_oldest(0, 0, capacity);
        harness.outbox.depth().unwrap().updates <= capacity.updates
    });
    harness.client().batch_execute(FAST_TO_DELETE).unwrap();
    assert_eq!(drain(&harness.outbox)[0], ("acme".to_owned(), 200));
}

/// Each part is a transaction of its own.
#[test]
fn what_was_dropped_counts_although_a_later_part_fails() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let updates: Vec<_> = (0..40).map(|number| stored("acme", number)).collect();
    assert!(harness.outbox.append(&updates, NO_LIMIT).unwrap());
    let mut client = harness.client();
    let mut keep = |from: i64| {
        let sql = format!(
            "CREATE OR REPLACE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF old.id >= {from} THEN RAISE 'it stays'; END IF;
                 RETURN old;
             END $$;
             CREATE OR REPLACE TRIGGER keep BEFORE DELETE ON mixpanel_outbox
                 FOR EACH ROW EXECUTE FUNCTION keep()"
        );
        client.batch_execute(&sql).unwrap();
    };
    let capacity = Capacity::new(20, usize::MAX);
    let drop_oldest = || harness.outbox.drop_oldest(1, 0, capacity);
    let waiting = || harness.outbox.depth().unwrap().updates;
    keep(0);
    // With each failure, the parts become smaller.
    (0..10).for_each(|_| drop(drop_oldest().unwrap_err()));
    assert_eq!(waiting(), updates.len());
    let sql = "SELECT min(id) FROM mixpanel_outbox";
    let first: i64 = harness.client().query_one(sql, &[]).unwrap().get(0);
    keep(first + 15);
    let dropped = drop_oldest().unwrap();
    assert!((1..=15).contains(&dropped), "{dropped}");
    assert_eq!(waiting(), updates.len() - dropped);
}

/// The function that publishes does not check sizes.
#[test]
fn a_row_that_takes_too_long_to_read_is_rejected_and_holds_no_other_up() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let sql = "SELECT mixpanel_outbox_publish(json_build_object('$group_key', 'company', '$group_id', 'acme',
                   '$set', json_build_object('large', repeat('x', 12000000)))::text)";
    harness.client().batch_execute(sql).unwrap();
    let update = [stored("acme", 1)];
    assert!(harness.outbox.append(&update, NO_LIMIT).unwrap());
    // Twelve seconds for the large one.
    let proxy = Proxy::slow(&harness.config, 1_000_000);
    let outbox = PostgresOutbox::builder(proxy.config(&harness.config), NoTls)
        .schema(&harness.schema)
        .timeout(Duration::from_secs(3))
        .build()
        .unwrap();
    let emulator = Emulator::start().unwrap();
    let client = Client::builder("TOKEN").endpoint(emulator.endpoint());
    let relay = client.build().unwrap().buffered();
    let relay = relay.outbox(outbox).start().unwrap();
    let ended = relay.shutdown(LONG);
    assert_eq!((ended.stats.accepted, ended.stats.rejected), (1, 1));
    let sql = "SELECT message, length(body::text) FROM mixpanel_outbox_rejected";
    let rejected = harness.client().query_one(sql, &[]).unwrap();
    assert!(rejected.get::<_, &str>(0).contains("limit is 1000000"));
    assert!(rejected.get::<_, i32>(1) > 12_000_000, "it is kept whole");
}

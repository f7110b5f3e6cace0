//! What is deleted after its time, and that neither its number nor its locks hold up what is to be sent.

use std::time::Duration;

use mixpanel_groups::record::EncodedEvent;
use mixpanel_groups::{Event, Outbox};
use mixpanel_groups_postgres::PostgresOutbox;
use postgres::NoTls;

use common::postgres::{Harness, NO_LIMIT, ids, stored};
use common::{LONG, eventually};

/// A relay that keeps nothing and waits for a second at most.
fn impatient(harness: &Harness) -> PostgresOutbox {
    PostgresOutbox::builder(harness.config.clone(), NoTls)
        .schema(&harness.schema)
        .keep_accepted(Duration::from_secs(3_600))
        .keep_rejected(Duration::from_secs(3_600))
        .timeout(Duration::from_secs(1))
        .build()
        .unwrap()
}

/// An outbox with one update, and so many that were accepted and rejected years ago.
fn start(harness: &Harness, old: u32) {
    let sql = format!(
        "INSERT INTO mixpanel_outbox_accepted (id, kind, since, accepted_at, body)
             SELECT -n, 'update', '2001-01-01', '2001-01-01', '{{}}' FROM generate_series(1, {old}) AS n;
         INSERT INTO mixpanel_outbox_rejected (id, kind, since, rejected_at, message, body)
             SELECT -n, 'update', '2001-01-01', '2001-01-01', '', '{{}}' FROM generate_series(1, {old}) AS n"
    );
    harness.client().batch_execute(&sql).unwrap();
    let update = [stored("acme", 1)];
    assert!(harness.outbox.append(&update, NO_LIMIT).unwrap());
}

fn old(harness: &Harness) -> i64 {
    harness.count("mixpanel_outbox_accepted") + harness.count("mixpanel_outbox_rejected")
}

fn take(outbox: &PostgresOutbox) {
    assert_eq!(outbox.take(10).unwrap().len(), 1);
    outbox.release().unwrap();
}

#[test]
fn more_than_one_call_can_delete_holds_nothing_up() {
    let Some(harness) = Harness::new() else {
        return;
    };
    start(&harness, 150);
    let slow = "CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS
                    'BEGIN PERFORM pg_sleep(0.01); RETURN old; END';
                CREATE TRIGGER slowly BEFORE DELETE ON mixpanel_outbox_accepted
                    FOR EACH ROW EXECUTE FUNCTION slowly()";
    harness.client().batch_execute(slow).unwrap();
    let outbox = impatient(&harness);
    eventually("deleted", || {
        take(&outbox);
        old(&harness) == 0
    });
}

#[test]
fn a_large_number_is_deleted_in_parts() {
    let Some(harness) = Harness::new() else {
        return;
    };
    start(&harness, 3_500);
    let outbox = harness.another();
    eventually("deleted", || {
        take(&outbox);
        old(&harness) == 0
    });
}

#[test]
fn a_row_that_is_locked_holds_nothing_up() {
    let Some(harness) = Harness::new() else {
        return;
    };
    start(&harness, 3);
    let mut operator = harness.client();
    let mut transaction = operator.transaction().unwrap();
    let lock = "SELECT FROM mixpanel_outbox_rejected WHERE id = -2 FOR UPDATE";
    transaction.execute(lock, &[]).unwrap();
    take(&impatient(&harness));
    assert_eq!(old(&harness), 1);
    transaction.commit().unwrap();
    take(&impatient(&harness));
    assert_eq!(old(&harness), 0);
}

#[test]
fn tables_that_are_locked_hold_nothing_up() {
    let Some(harness) = Harness::new() else {
        return;
    };
    start(&harness, 3);
    let many = "INSERT INTO mixpanel_outbox_count (kind, updates, bytes)
                SELECT 'update', 0, 0 FROM generate_series(1, 200)";
    let mut operator = harness.client();
    operator.batch_execute(many).unwrap();
    let outbox = impatient(&harness);
    let mut transaction = operator.transaction().unwrap();
    let lock = "LOCK TABLE mixpanel_outbox_rejected, mixpanel_outbox_count IN SHARE MODE";
    transaction.batch_execute(lock).unwrap();
    take(&outbox);
    assert_eq!(outbox.depth().unwrap().updates, 1);
    transaction.commit().unwrap();
    eventually("deleted", || {
        take(&outbox);
        old(&harness) == 0
    });
}

/// Also where a call has less time than deleting: the client has set a shorter timeout than the builder.
#[test]
fn tables_that_are_locked_hold_nothing_up_in_a_shorter_time() {
    let Some(harness) = Harness::new() else {
        return;
    };
    start(&harness, 3);
    let outbox = harness.another();
    assert!(outbox.set_timeout(Duration::from_secs(1)));
    let mut operator = harness.client();
    let mut transaction = operator.transaction().unwrap();
    let lock = "LOCK TABLE mixpanel_outbox_rejected IN SHARE MODE";
    transaction.batch_execute(lock).unwrap();
    eventually("taken", || {
        outbox.take(10).is_ok_and(|taken| taken.len() == 1)
    });
    outbox.release().unwrap();
    transaction.commit().unwrap();
    eventually("deleted", || {
        take(&outbox);
        old(&harness) == 0
    });
}

fn keeping_all(harness: &Harness) -> PostgresOutbox {
    PostgresOutbox::builder(harness.config.clone(), NoTls)
        .schema(&harness.schema)
        .keep_accepted(Duration::MAX)
        .keep_rejected(Duration::MAX)
        .build()
        .unwrap()
}

/// The sender's settings count, not those of the processes that stand by.
#[test]
fn a_process_that_stands_by_deletes_nothing() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let updates = [stored("acme", 1), stored("acme", 2)];
    assert!(harness.outbox.append(&updates, NO_LIMIT).unwrap());
    let sender = keeping_all(&harness);
    let taken = ids(&sender.take(2).unwrap());
    assert!(sender.hold(LONG).unwrap());
    // While another sends, and while nothing waits.
    for (id, kept) in taken.into_iter().zip(1..) {
        sender.settle(&[id], &[]).unwrap();
        assert!(harness.another().take(1).unwrap().is_empty());
        assert_eq!(harness.count("mixpanel_outbox_accepted"), kept);
    }
    // One that sends events deletes none of the updates.
    let events = harness.another().events().unwrap();
    let event = EncodedEvent::new(&Event::new("Signup").distinct_id("1")).unwrap();
    assert!(events.append(&[event], NO_LIMIT).unwrap());
    assert_eq!(events.take(1).unwrap().len(), 1);
    assert_eq!(harness.count("mixpanel_outbox_accepted"), 2);
}

#[test]
fn the_last_sender_deletes_also_while_nothing_waits() {
    let Some(harness) = Harness::new() else {
        return;
    };
    start(&harness, 5_500);
    let deletes = harness.another();
    let taken = ids(&deletes.take(1).unwrap());
    deletes.settle(&taken, &[]).unwrap();
    let all = old(&harness);
    eventually("deletes", || {
        assert!(deletes.take(1).unwrap().is_empty());
        old(&harness) < all
    });
    let keeps = keeping_all(&harness);
    assert!(keeps.append(&[stored("acme", 2)], NO_LIMIT).unwrap());
    let taken = ids(&keeps.take(1).unwrap());
    assert!(keeps.hold(LONG).unwrap());
    let left = old(&harness);
    assert!(left > 0);
    assert!(deletes.take(1).unwrap().is_empty());
    assert_eq!(old(&harness), left);
    keeps.settle(&taken, &[]).unwrap();
    assert!(deletes.take(1).unwrap().is_empty());
    assert_eq!(old(&harness), left + 1, "and the accepted one");
}

//! How much waits, whoever changes the rows, and how much of it is taken at once.

use std::time::Duration;

use common::LONG;
use mixpanel_groups::outbox::{Capacity, Depth};
use mixpanel_groups::record::EncodedEvent;
use mixpanel_groups::{Client, EncodedUpdate, ErrorKind, Event, Group, Outbox};
use mixpanel_groups_emulator::Emulator;
use mixpanel_groups_sqlite::SqliteOutbox;
use rusqlite::Connection;
use serde_json::json;

use super::{ROOM, count, folder, ids, stored, update};

#[test]
fn no_more_is_taken_at_once_than_fits_into_memory() {
    let (_folder, path) = folder();
    let outbox = SqliteOutbox::open(&path).unwrap();
    let text = "x".repeat(900_000);
    let large = |number| stored(&Group::new("company", number).set(json!({"text": text})));
    let all: Vec<_> = (0..30).map(large).collect();
    assert!(outbox.append(&all, ROOM).unwrap());
    let mut left = all.len();
    while left > 0 {
        let taken = outbox.take(20_000).unwrap();
        let bytes: usize = taken.iter().map(|entry| entry.json().len()).sum();
        assert!(bytes <= 16 << 20);
        assert!(taken.len() == left || bytes > 15 << 20, "as much as fits");
        left -= taken.len();
        outbox.settle(&ids(&taken), &[]).unwrap();
    }
}

#[test]
fn the_depth_is_right_whoever_changes_the_rows() {
    let (_folder, path) = folder();
    let outbox = SqliteOutbox::open(&path).unwrap();
    let three: Vec<_> = (0..3).map(|number| update(0, number)).collect();
    assert!(outbox.append(&three, ROOM).unwrap());
    let db = Connection::open(&path).unwrap();
    db.execute("DELETE FROM mixpanel_outbox WHERE id = 1", [])
        .unwrap();
    db.execute(
        "UPDATE mixpanel_outbox SET body = body || '  é' WHERE id = 2",
        [],
    )
    .unwrap();
    let bytes = three[1].as_json().len() + three[2].as_json().len() + 4;
    let depth = outbox.depth().unwrap();
    assert_eq!((depth.updates, depth.bytes), (2, bytes));
    // Not a time, or one in the future: nobody knows how long it has waited.
    for since in ["soon", "2999-01-01T00:00:00.000Z"] {
        db.execute("UPDATE mixpanel_outbox SET since = ?1", [since])
            .unwrap();
        assert_eq!(outbox.depth().unwrap().oldest, None, "{since}");
    }
}

/// A call has a deadline.
#[test]
fn the_oldest_are_dropped_some_at_a_time() {
    const WAITING: u32 = 60_000;
    let (_folder, path) = folder();
    let outbox = SqliteOutbox::open(&path).unwrap();
    let sql = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?1)
               INSERT INTO mixpanel_outbox (body) SELECT n FROM n";
    let db = Connection::open(&path).unwrap();
    db.execute(sql, [WAITING]).unwrap();
    let capacity = Capacity::new(48_000, usize::MAX);
    let dropped = [(); 3].map(|()| outbox.drop_oldest(1, 0, capacity).unwrap());
    assert_eq!(dropped, [10_000, 2_001, 0]);
    let sql = "SELECT min(id) FROM mixpanel_outbox";
    let oldest: u32 = db.query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(oldest, 12_002);
}

#[test]
fn counts_below_zero_are_counted_again() {
    let (_folder, path) = folder();
    let outbox = SqliteOutbox::open(&path).unwrap();
    let two = [update(0, 0), update(0, 1)];
    assert!(outbox.append(&two, ROOM).unwrap());
    let bytes: usize = two.iter().map(EncodedUpdate::len).sum();
    let db = Connection::open(&path).unwrap();
    db.execute(
        "UPDATE mixpanel_outbox_state SET updates = -5, bytes = -7",
        [],
    )
    .unwrap();
    let depth = outbox.depth().unwrap();
    assert_eq!((depth.updates, depth.bytes), (2, bytes));
    // The bound holds, and the counts are right from then on.
    assert!(
        !outbox
            .append(&[update(0, 2)], Capacity::new(2, usize::MAX))
            .unwrap()
    );
    assert!(
        outbox
            .append(&[update(0, 2)], Capacity::new(3, usize::MAX))
            .unwrap()
    );
    let sql = "SELECT updates FROM mixpanel_outbox_state";
    let updates: i64 = db.query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(updates, 3);
    // What is not a number at all is an error, not a default.
    db.execute("UPDATE mixpanel_outbox_state SET bytes = 'many'", [])
        .unwrap();
    assert_eq!(outbox.depth().unwrap_err().kind(), ErrorKind::Damaged);
    assert_eq!(
        outbox.append(&[update(0, 3)], ROOM).unwrap_err().kind(),
        ErrorKind::Damaged
    );
}

/// `OR REPLACE` removes rows without their triggers, for example. A flush waits until the count is zero.
#[test]
fn counts_that_are_too_high_are_corrected_when_nothing_waits() {
    let (_folder, path) = folder();
    let outbox = SqliteOutbox::open(&path).unwrap();
    let events = outbox.events().unwrap();
    let event = Event::new("Purchase").distinct_id("user123");
    let two = [(); 2].map(|()| EncodedEvent::new(&event).unwrap());
    assert!(events.append(&two, ROOM).unwrap());
    let two = [update(0, 0), update(0, 1)];
    assert!(outbox.append(&two, ROOM).unwrap());
    let db = Connection::open(&path).unwrap();
    for table in ["mixpanel_outbox", "mixpanel_outbox_event"] {
        let replace = format!("INSERT OR REPLACE INTO {table} SELECT id, since, body FROM {table}");
        db.execute(&replace, []).unwrap();
    }
    assert_eq!(outbox.depth().unwrap().updates, 4);
    assert_eq!(events.depth().unwrap().updates, 4);
    // Not while something waits: a count takes time.
    let taken = outbox.take(10).unwrap();
    assert_eq!(outbox.depth().unwrap().updates, 4);
    outbox.settle(&ids(&taken), &[]).unwrap();

    let emulator = Emulator::start().unwrap();
    let client = Client::builder("T").endpoint(emulator.endpoint());
    let buffered = client.build().unwrap().buffered().outbox(outbox);
    let buffered = buffered.start().unwrap();
    let outcome = buffered.flush(Duration::from_secs(20));
    assert!(outcome.is_complete(), "{outcome:?}");
    assert_eq!(outcome.event_stats.accepted, 2);
    assert_eq!(events.depth().unwrap(), Depth::default());
    let outcome = buffered.shutdown(LONG);
    assert!(outcome.is_complete(), "{outcome:?}");
    for table in ["mixpanel_outbox_state", "mixpanel_outbox_event_state"] {
        let right = format!("{table} WHERE updates = 0 AND bytes = 0");
        assert_eq!(count(&db, &right), 1);
    }
}

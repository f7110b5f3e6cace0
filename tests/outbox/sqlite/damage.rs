//! A table of waiting updates of which nothing can be read.

use std::fs;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use common::LONG;
use mixpanel_groups::{ErrorKind, Outbox};
use mixpanel_groups_sqlite::SqliteOutbox;
use rusqlite::Connection;

use super::file::{ROOM, count, folder, update};

/// Makes a file in which one update waits, on the root page of its table, and damages that page.
fn make_damaged(path: &Path) {
    let outbox = SqliteOutbox::open(path).unwrap();
    assert!(outbox.append(&[update(0, 0)], ROOM).unwrap());
    drop(outbox);
    let db = Connection::open(path).unwrap();
    let sql = "SELECT rootpage FROM sqlite_schema WHERE name = 'mixpanel_outbox'";
    let root: u32 = db.query_row(sql, [], |row| row.get(0)).unwrap();
    drop(db);
    let mut bytes = fs::read(path).unwrap();
    let page = (root as usize - 1) * 4096;
    bytes[page..page + 4096].fill(0x5a);
    fs::write(path, bytes).unwrap();
}

/// A few updates are on one page.
#[test]
fn an_outbox_of_one_page_goes_on_after_damage() {
    let (_folder, path) = folder();
    make_damaged(&path);
    let outbox = SqliteOutbox::open(&path).unwrap();
    let (ended, has_ended) = mpsc::channel();
    thread::spawn(move || {
        let taken = outbox.take(10);
        ended.send((outbox, taken)).unwrap();
    });
    let (outbox, taken) = has_ended.recv_timeout(LONG).expect("an end");
    let error = taken.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(error.to_string().contains("_damaged_"), "{error}");
    assert!(outbox.append(&[update(0, 1)], ROOM).unwrap());
    let taken = outbox.take(10).unwrap();
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].id, 2, "an id is not used twice");
}

/// The counts are for publishers: whether something was lost does not depend on them.
#[test]
fn what_cannot_be_read_is_set_aside_also_if_it_was_not_counted() {
    let (_folder, path) = folder();
    make_damaged(&path);
    let db = Connection::open(&path).unwrap();
    db.execute("UPDATE mixpanel_outbox_state SET updates = 0", [])
        .unwrap();
    let outbox = SqliteOutbox::open(&path).unwrap();
    let error = outbox.take(10).unwrap_err();
    assert!(error.to_string().contains("_damaged_"), "{error}");
    assert!(outbox.append(&[update(0, 1)], ROOM).unwrap());
    assert_eq!(outbox.take(10).unwrap().len(), 1);
}

/// Another writer is in the way of setting it aside: that lasts as long as the other's transaction.
#[test]
fn damage_that_is_set_aside_at_the_second_try_is_over() {
    let (_folder, path) = folder();
    make_damaged(&path);
    let outbox = SqliteOutbox::open(&path).unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    outbox.set_timeout(Duration::ZERO);
    let error = outbox.take(10).unwrap_err();
    assert!(!error.to_string().contains("_damaged_"), "{error}");
    other.execute_batch("COMMIT").unwrap();
    outbox.set_timeout(LONG);
    let error = outbox.take(10).unwrap_err();
    assert!(error.to_string().contains("_damaged_"), "{error}");
    assert!(outbox.append(&[update(0, 1)], ROOM).unwrap());
}

/// And so is damage that another process has set aside meanwhile, whatever became of the rest.
#[test]
fn damage_that_another_set_aside_is_over() {
    let (_folder, path) = folder();
    make_damaged(&path);
    let [outbox, other] = [(); 2].map(|()| SqliteOutbox::open(&path).unwrap());
    let writer = Connection::open(&path).unwrap();
    writer.execute_batch("BEGIN IMMEDIATE").unwrap();
    outbox.set_timeout(Duration::ZERO);
    assert!(outbox.take(10).is_err());
    writer.execute_batch("COMMIT").unwrap();
    outbox.set_timeout(LONG);
    assert!(other.take(10).is_err());
    assert!(outbox.take(10).unwrap().is_empty());
    assert!(outbox.append(&[update(0, 1)], ROOM).unwrap());
}

/// Both have read the table before one of them sets it aside.
#[test]
fn two_that_set_the_same_damage_aside_agree() {
    let (_folder, path) = folder();
    make_damaged(&path);
    let both = [(); 2].map(|()| SqliteOutbox::open(&path).unwrap());
    let writer = Connection::open(&path).unwrap();
    writer.execute_batch("BEGIN IMMEDIATE").unwrap();
    let errors = thread::scope(|scope| {
        let takers = both.each_ref().map(|outbox| {
            outbox.set_timeout(LONG);
            scope.spawn(|| outbox.take(10).map_err(|error| error.to_string()))
        });
        // Long enough to read the table, as a rule.
        thread::sleep(Duration::from_millis(300));
        writer.execute_batch("COMMIT").unwrap();
        // One that is late takes from the new table.
        takers.map(|taker| taker.join().unwrap().err())
    });
    let errors: Vec<_> = errors.iter().flatten().collect();
    assert!(errors[0].contains("_damaged_"), "{errors:?}");
    assert!(errors.iter().all(|error| *error == errors[0]), "{errors:?}");
    let aside = "sqlite_schema WHERE name LIKE 'mixpanel_outbox_damaged_%'";
    assert_eq!(count(&writer, aside), 1);
    for (number, outbox) in both.iter().enumerate() {
        assert!(outbox.append(&[update(0, number)], ROOM).unwrap());
    }
    assert_eq!(both[0].take(10).unwrap().len(), 2);
}

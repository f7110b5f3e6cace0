//! Damaged files: what can be read is sent, the rest is set aside, and publishing goes on.

use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;
use std::{fs, thread};

use common::{LONG, say_missing};
use mixpanel_groups::record::EncodedEvent;
use mixpanel_groups::{Client, Error, ErrorKind, Event, Group, Outbox};
use mixpanel_groups_emulator::Emulator;
use mixpanel_groups_sqlite::SqliteOutbox;
use rusqlite::Connection;
use serde_json::json;

use super::{ROOM, count, folder, ids, numbers, rejection, stored, take_when_free, update};

#[test]
fn a_damaged_file_is_an_error() {
    let (_folder, path) = folder();
    let outbox = SqliteOutbox::open(&path).unwrap();
    let many: Vec<_> = (0..2_000).map(|number| update(0, number)).collect();
    assert!(outbox.append(&many, ROOM).unwrap());
    drop(outbox);
    let mut bytes = fs::read(&path).unwrap();
    let end = bytes.len();
    bytes[4096..end].fill(0x5a);
    fs::write(&path, bytes).unwrap();
    let error = SqliteOutbox::open(&path)
        .and_then(|outbox| outbox.take(usize::MAX).map(drop))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    assert!(
        error.to_string().contains(path.to_str().unwrap()),
        "{error}"
    );
}

/// One page of the table is damaged: all that is on others is sent, in order, and publishing goes on.
#[test]
fn what_a_damaged_page_holds_is_set_aside_and_the_rest_goes_on() {
    const UPDATES: usize = 20_000;
    // Also with the last page of the table, with two at once, and where the rows are larger than a page.
    for (pages, large) in [
        (vec![50], false),
        (vec![30, 31, 70], false),
        (vec![99], false),
        (vec![50], true),
    ] {
        let (_folder, path) = folder();
        let outbox = SqliteOutbox::open(&path).unwrap();
        let updates = if large { 200 } else { UPDATES };
        let text = "x".repeat(if large { 10_000 } else { 0 });
        let many = (0..updates).map(|number| {
            let group = Group::new("company", (number % 10).to_string());
            stored(&group.set(json!({"number": number, "text": text})))
        });
        assert!(outbox.append(&many.collect::<Vec<_>>(), ROOM).unwrap());
        drop(outbox);
        let mut bytes = fs::read(&path).unwrap();
        for percent in &pages {
            let page = bytes.len() / 4096 * percent / 100 * 4096;
            bytes[page..page + 4096].fill(0x5a);
        }
        fs::write(&path, bytes).unwrap();

        let outbox = SqliteOutbox::open(&path).unwrap();
        assert!(outbox.append(&[update(0, updates)], ROOM).unwrap());
        let emulator = Emulator::start().unwrap();
        let client = Client::builder("T").endpoint(emulator.endpoint());
        let buffered = client.build().unwrap().buffered().outbox(outbox);
        let buffered = buffered.start().unwrap();
        let outcome = buffered.flush(Duration::from_secs(1));
        let outcome = if outcome.is_complete() {
            outcome
        } else {
            buffered.flush(LONG)
        };
        assert!(outcome.is_complete(), "{pages:?}: {outcome:?}");
        let lost = updates + 1 - outcome.stats.accepted;
        assert!((1..updates / 20).contains(&lost), "{pages:?}: {lost} lost");
        let set = Group::new("company", "0").set(json!({"number": updates + 1}));
        buffered.publish(set).unwrap();
        assert!(buffered.shutdown(LONG).is_complete());
        let newest = emulator.profile("company", "0").unwrap();
        assert_eq!(newest.get("number"), Some(&json!(updates + 1)));
        let db = Connection::open(&path).unwrap();
        let aside = count(
            &db,
            "sqlite_schema WHERE name LIKE 'mixpanel_outbox_damaged%'",
        );
        // Where the page has only text, SQLite sees no damage, and the row is not an update.
        let rejected = count(&db, "mixpanel_outbox_rejected");
        assert_eq!(aside, usize::from(rejected == 0), "{pages:?}: {rejected}");
        assert!(!large || rejected <= 1, "{rejected}");
    }
}

/// The queue of events has tables of its own, also where they are damaged: the error names the one that is there.
#[test]
fn a_damaged_page_of_events_is_set_aside_and_leaves_updates_alone() {
    let (_folder, path) = folder();
    let event = |number: usize| {
        let event = Event::new("Purchase").distinct_id("user123");
        EncodedEvent::new(&event.insert_id(format!("event-{number}"))).unwrap()
    };
    let outbox = SqliteOutbox::open(&path).unwrap();
    let events = outbox.events().unwrap();
    let many: Vec<_> = (0..5_000).map(event).collect();
    assert!(events.append(&many, ROOM).unwrap());
    drop((events, outbox));
    let mut bytes = fs::read(&path).unwrap();
    let page = bytes.len() / 4096 / 2 * 4096;
    bytes[page..page + 4096].fill(0x5a);
    fs::write(&path, bytes).unwrap();

    let outbox = SqliteOutbox::open(&path).unwrap();
    let events = outbox.events().unwrap();
    assert!(outbox.append(&[update(0, 0)], ROOM).unwrap());
    let (mut arrived, mut errors) = (0, Vec::new());
    while errors.is_empty() || events.depth().unwrap().updates > 0 {
        let entries = match events.take(usize::MAX) {
            Ok(entries) => entries,
            Err(error) => {
                errors.push(error.to_string());
                assert!(errors.len() < 10, "{errors:?}");
                continue;
            }
        };
        arrived += entries.len();
        let entries: Vec<_> = entries.iter().map(|entry| entry.id).collect();
        events.settle(&entries, &[]).unwrap();
    }
    assert!((4_500..5_000).contains(&arrived), "{arrived} arrived");
    let db = Connection::open(&path).unwrap();
    let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name LIKE '%damaged%'";
    let aside: Vec<String> = db
        .prepare(sql)
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let [aside] = &aside[..] else {
        panic!("{aside:?}")
    };
    assert!(
        aside.starts_with("mixpanel_outbox_event_damaged_"),
        "{aside}"
    );
    let [error] = &errors[..] else {
        panic!("{errors:?}")
    };
    assert!(error.contains(&format!("table {aside} ")), "{error}");
    // New ones have new ids, and the updates are as they were.
    assert!(events.append(&[event(5_000)], ROOM).unwrap());
    assert_eq!(events.take(1).unwrap()[0].id, 5_001);
    assert_eq!(outbox.take(10).unwrap().len(), 1);
}

/// What cannot be set aside makes publishing fail, so that it is not said to be kept.
#[test]
fn damage_elsewhere_makes_publishing_fail() {
    let (_folder, path) = folder();
    let outbox = SqliteOutbox::open(&path).unwrap();
    let rejected: Vec<_> = (0..1_000).map(|number| update(0, number)).collect();
    assert!(outbox.append(&rejected, ROOM).unwrap());
    let (taken, rejection) = (ids(&outbox.take(1_000).unwrap()), rejection());
    let settled: Vec<_> = taken.iter().map(|id| (*id, &rejection)).collect();
    outbox.settle(&[], &settled).unwrap();
    drop(outbox);
    let db = Connection::open(&path).unwrap();
    let sql = "SELECT rootpage FROM sqlite_schema WHERE name = 'mixpanel_outbox_rejected'";
    let root: i64 = db.query_row(sql, [], |row| row.get(0)).unwrap();
    drop(db);
    let mut bytes = fs::read(&path).unwrap();
    let page = usize::try_from(root - 1).unwrap() * 4096;
    bytes[page..page + 4096].fill(0x5a);
    fs::write(&path, bytes).unwrap();

    let outbox = SqliteOutbox::open(&path).unwrap();
    assert!(outbox.append(&[update(0, 0), update(0, 1)], ROOM).unwrap());
    let taken = ids(&outbox.take(10).unwrap());
    let settled = outbox.settle(&taken[..1], &[(taken[1], &rejection)]);
    assert_eq!(settled.unwrap_err().kind(), ErrorKind::Damaged);
    let error = outbox.append(&[update(0, 2)], ROOM).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(error.to_string().contains("nothing is sent"), "{error}");
    can_be_repaired(&path, &error);
    // Accepted updates can be settled, and then it goes on.
    outbox.settle(&taken, &[]).unwrap();
    assert!(outbox.append(&[update(0, 2)], ROOM).unwrap());
}

/// Runs the command that the error names, if its program is there: what waits is in the file that it writes.
fn can_be_repaired(path: &Path, error: &Error) {
    if Command::new("sqlite3").arg("--version").output().is_err() {
        say_missing("the repair of a damaged outbox: sqlite3 is not installed");
        return;
    }
    let message = error.to_string();
    let command = message.split('`').nth(1).unwrap();
    let repaired = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(repaired.status.success(), "{message}: {repaired:?}");
    let outbox = SqliteOutbox::open(path.with_extension("db.repaired")).unwrap();
    assert_eq!(outbox.depth().unwrap().updates, 2);
    // The lease of this process, which goes on, is in the file as well.
    let taken = take_when_free(&outbox);
    let found: Vec<_> = taken
        .iter()
        .map(|entry| numbers(entry.update.as_ref().unwrap()))
        .collect();
    assert_eq!(found, [(0, 0), (0, 1)]);
    outbox.settle(&ids(&taken), &[]).unwrap();
    assert!(outbox.append(&[update(0, 2)], ROOM).unwrap());
    assert!(
        outbox.take(1).unwrap()[0].id > taken[1].id,
        "an id is not used twice"
    );
}

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
    // A count below zero is corrected elsewhere, by counting the rows, which cannot be read here.
    for counted in [0, -1] {
        let (_folder, path) = folder();
        make_damaged(&path);
        let db = Connection::open(&path).unwrap();
        db.execute("UPDATE mixpanel_outbox_state SET updates = ?1", [counted])
            .unwrap();
        let outbox = SqliteOutbox::open(&path).unwrap();
        let error = outbox.take(10).unwrap_err();
        assert!(
            error.to_string().contains("_damaged_"),
            "{counted}: {error}"
        );
        assert!(outbox.append(&[update(0, 1)], ROOM).unwrap());
        assert_eq!(outbox.take(10).unwrap().len(), 1);
    }
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

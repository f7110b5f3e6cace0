//! Transactions of others on the file: what waits for them and until when, and how seldom they wait for the relay.

use std::thread;
use std::time::{Duration, Instant};

use common::LONG;
use mixpanel_groups::buffered::OverflowPolicy;
use mixpanel_groups::{Client, ErrorKind, Group, Outbox};
use mixpanel_groups_emulator::Emulator;
use mixpanel_groups_sqlite::SqliteOutbox;
use rusqlite::{Connection, TransactionBehavior};
use serde_json::json;

use super::{ROOM, all_numbers, count, folder, update};

#[test]
fn every_call_of_a_client_returns_by_its_deadline_while_another_writes() {
    let (_folder, path) = folder();
    let outbox = SqliteOutbox::open(&path).unwrap();
    assert!(outbox.append(&[update(0, 0)], ROOM).unwrap());
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let short = Duration::from_millis(100);
    let buffered = Client::disabled().buffered().outbox(outbox);
    let buffered = buffered
        .outbox_timeout(short)
        .drop_timeout(short)
        .overflow(OverflowPolicy::Reject)
        .start()
        .unwrap();
    // Each by itself takes less than the 5 s that an outbox has by default.
    let is_in_time = |start: Instant| start.elapsed() < Duration::from_secs(4);
    thread::scope(|scope| {
        for number in 1..9 {
            let buffered = &buffered;
            scope.spawn(move || {
                let set = Group::new("company", "0").set(json!({"number": number}));
                let start = Instant::now();
                let error = buffered.publish(set).unwrap_err();
                assert!(is_in_time(start), "{error}");
                assert_eq!(
                    (error.kind(), error.undelivered().len()),
                    (ErrorKind::Timeout, 1)
                );
                // The thread that waits for the file says why; those that wait for that thread do not know.
                let why = format!("{error:#}");
                let is_known = why.ends_with("database is locked");
                assert!(is_known || why.contains("others write to it"), "{why}");
            });
        }
    });
    // It waits for nobody.
    assert_eq!(buffered.stats().queued, Some(1));
    let start = Instant::now();
    assert_eq!(buffered.flush(short).waiting, Some(1));
    assert!(is_in_time(start));
    let start = Instant::now();
    assert_eq!(buffered.shutdown(short).waiting, Some(1));
    drop(buffered);
    assert!(is_in_time(start));
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(
        all_numbers(&path),
        [(0, 0)],
        "what was refused is not there"
    );
}

/// The connection that publishes waits as long as its application lets it, here not at all.
#[test]
fn a_transaction_that_waits_for_another_one_in_vain_is_a_timeout() {
    let (_folder, path) = folder();
    drop(SqliteOutbox::open(&path).unwrap());
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut db = Connection::open(&path).unwrap();
    db.busy_timeout(Duration::ZERO).unwrap();
    let transaction = db.transaction().unwrap();
    let update = Group::new("company", "acme").delete();
    let error = SqliteOutbox::publish_in(&transaction, &update).unwrap_err();
    assert!(error.is_timeout(), "{error:#}");
    // One that has begun to read cannot write after another one has written.
    let sql = "SELECT updates FROM mixpanel_outbox_state";
    let updates: i64 = transaction.query_one(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(updates, 0);
    other
        .execute_batch("CREATE TABLE of_the_other (id); COMMIT")
        .unwrap();
    for _ in 0..2 {
        let error = SqliteOutbox::publish_in(&transaction, &update).unwrap_err();
        assert!(error.is_timeout() && error.is_retryable(), "{error:#}");
    }
    // As a whole, it can.
    transaction.rollback().unwrap();
    let transaction = db.transaction().unwrap();
    let updates: i64 = transaction.query_one(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(updates, 0);
    SqliteOutbox::publish_in(&transaction, &update).unwrap();
    transaction.commit().unwrap();
}

#[test]
fn appending_waits_for_a_transaction_of_others() {
    let (_folder, path) = folder();
    let outbox = SqliteOutbox::open(&path).unwrap();
    let mut db = Connection::open(&path).unwrap();
    let transaction = db
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .unwrap();
    thread::scope(|scope| {
        let appended = scope.spawn(|| outbox.append(&[update(0, 1)], ROOM));
        thread::sleep(Duration::from_millis(50));
        assert!(!appended.is_finished());
        let update = Group::new("company", "0").set(json!({"number": 0}));
        SqliteOutbox::publish_in(&transaction, &update).unwrap();
        transaction.commit().unwrap();
        assert!(appended.join().unwrap().unwrap());
    });
    assert_eq!(all_numbers(&path), [(0, 0), (0, 1)]);
}

/// Each call gives up at its own deadline, however many wait for the same connection.
#[test]
fn the_timeouts_of_many_threads_do_not_add_up() {
    let (_folder, path) = folder();
    let outbox = SqliteOutbox::open(&path).unwrap();
    outbox.append(&[update(0, 1)], ROOM).unwrap();
    assert!(outbox.set_timeout(Duration::from_secs(1)));
    let mut db = Connection::open(&path).unwrap();
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate);
    let start = Instant::now();
    thread::scope(|scope| {
        for number in 0..30 {
            let outbox = &outbox;
            scope.spawn(move || {
                let error = match number % 2 {
                    0 => outbox.append(&[update(0, number)], ROOM).unwrap_err(),
                    _ => outbox.drop_oldest(1, 1, ROOM).unwrap_err(),
                };
                assert_eq!(error.kind(), ErrorKind::Timeout);
            });
        }
    });
    // One after the other, they would take half a minute.
    assert!(start.elapsed() < Duration::from_secs(10));
    drop(transaction);
    assert_eq!(all_numbers(&path), [(0, 1)]);
}

/// Diesel's defaults: no patience at all, and transactions that take the write lock at their first write.
fn refused_transactions(interval: Duration) -> usize {
    const TRANSACTIONS: usize = 2_000;
    let (_folder, path) = folder();
    let outbox = SqliteOutbox::open(&path).unwrap();
    let emulator = Emulator::start().unwrap();
    let client = Client::builder("T").endpoint(emulator.endpoint());
    let buffered = client.build().unwrap().buffered().outbox(outbox);
    let buffered = buffered.flush_interval(interval).start().unwrap();
    let mut db = Connection::open(&path).unwrap();
    db.busy_timeout(Duration::ZERO).unwrap();
    db.execute_batch("CREATE TABLE companies (id INTEGER, plan TEXT)")
        .unwrap();
    let mut refused = 0;
    for number in 0..TRANSACTIONS {
        let mut publish = || -> Result<(), Box<dyn std::error::Error>> {
            let transaction = db.transaction()?;
            transaction.execute("INSERT INTO companies VALUES (?1, 'pro')", [number as i64])?;
            let company = Group::new("company", number % 50);
            SqliteOutbox::publish_in(&transaction, company.set(json!({"number": number})))?;
            Ok(transaction.commit()?)
        };
        refused += usize::from(publish().is_err());
        thread::sleep(Duration::from_millis(1)); // What else the application does.
    }
    let outcome = buffered.shutdown(Duration::from_secs(60));
    assert!(outcome.is_complete(), "{outcome:?}");
    assert_eq!(outcome.stats.accepted, TRANSACTIONS - refused);
    refused
}

/// Each time that it takes the write lock, it may be in somebody's way.
#[test]
fn a_round_of_the_relay_takes_the_lease_and_settles_and_no_more() {
    let (_folder, path) = folder();
    let outbox = SqliteOutbox::open(&path).unwrap();
    let db = Connection::open(&path).unwrap();
    db.execute_batch(
        "CREATE TABLE written (at INTEGER PRIMARY KEY);
         CREATE TRIGGER lease_written AFTER INSERT ON mixpanel_outbox_lease BEGIN
             INSERT INTO written VALUES (NULL);
         END;",
    )
    .unwrap();
    let emulator = Emulator::start().unwrap();
    let client = Client::builder("T").endpoint(emulator.endpoint());
    let buffered = client.build().unwrap().buffered().outbox(outbox);
    let buffered = buffered.start().unwrap();
    let flush = || {
        let acme = Group::new("company", "acme");
        buffered.publish(acme.set(json!({"plan": "pro"}))).unwrap();
        assert!(buffered.flush(LONG).is_complete());
        count(&db, "written")
    };
    // In the first round it does not know yet how long a request can take.
    let first = flush();
    assert!(first <= 2, "{first}");
    (0..9).for_each(|_| _ = flush());
    let ten_more = flush();
    assert!(ten_more - first <= 10, "{ten_more}");
    // Where nothing waits it writes nothing, nor where another holds the lease.
    let other = SqliteOutbox::open(&path).unwrap();
    assert!(buffered.flush(LONG).is_complete());
    let waiting = SqliteOutbox::open(&path).unwrap();
    drop(buffered);
    assert!(other.append(&[update(0, 0)], ROOM).unwrap());
    let taken = other.take(10).unwrap();
    let before = count(&db, "written");
    db.execute_batch("BEGIN IMMEDIATE").unwrap();
    waiting.set_timeout(Duration::ZERO);
    assert_eq!(taken.len(), 1);
    assert!(waiting.take(10).unwrap().is_empty());
    db.execute_batch("COMMIT").unwrap();
    assert_eq!(count(&db, "written"), before);
}

#[test]
fn an_application_without_patience_is_hardly_refused_by_the_relay() {
    for (interval, most) in [(1_000, 100), (10, 700)] {
        let refused = refused_transactions(Duration::from_millis(interval));
        println!("interval {interval} ms: {refused} of 2000 transactions were refused");
        assert!(refused <= most, "{refused} at an interval of {interval} ms");
    }
}

//! What people and programs do with the tables: their transactions, their rows, and the rejected updates.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::LONG;
use mixpanel_groups::buffered::DeliveryEvent;
use mixpanel_groups::outbox::Depth;
use mixpanel_groups::record::EncodedEvent;
use mixpanel_groups::{Client, ErrorKind, Event, Group, Outbox};
use mixpanel_groups_emulator::Emulator;
use mixpanel_groups_sqlite::SqliteOutbox;
use rusqlite::Connection;
use serde_json::json;

use super::{ROOM, count, folder, ids, rejection, stored, update};

#[test]
fn a_table_that_somebody_removed_is_an_error() {
    let (_folder, path) = folder();
    let outbox = SqliteOutbox::open(&path).unwrap();
    let db = Connection::open(&path).unwrap();
    db.execute("DROP TABLE mixpanel_outbox", []).unwrap();
    let error = outbox.append(&[update(0, 0)], ROOM).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(
        format!("{error:#}").contains("no such table: mixpanel_outbox"),
        "{error:#}"
    );
}

/// As a program in a language without types may bind it.
#[test]
fn a_body_that_is_not_text_is_rejected_with_a_reason_for_a_person() {
    let (_folder, path) = folder();
    let outbox = SqliteOutbox::open(&path).unwrap();
    let db = Connection::open(&path).unwrap();
    let insert = "INSERT INTO mixpanel_outbox (body) VALUES (x'7b7d'), (CAST(x'ff' AS TEXT))";
    assert_eq!(db.execute(insert, []).unwrap(), 2);
    let buffered = Client::disabled().buffered().outbox(outbox);
    let outcome = buffered.start().unwrap().shutdown(LONG);
    assert_eq!(outcome.stats.rejected, 2);
    let mut select = db
        .prepare("SELECT message FROM mixpanel_outbox_rejected")
        .unwrap();
    let messages = select.query_map([], |row| row.get(0)).unwrap();
    let messages: Vec<String> = messages.map(Result::unwrap).collect();
    assert_eq!(
        messages,
        [
            "the body is a BLOB, not text",
            "the body is not valid UTF-8"
        ]
    );
}

#[test]
fn an_update_in_a_transaction_of_the_user_shares_its_fate() {
    let (_folder, path) = folder();
    let mut db = Connection::open(&path).unwrap();
    db.execute_batch("CREATE TABLE companies (id TEXT)")
        .unwrap();
    let outbox = SqliteOutbox::open(&path).unwrap();
    let acme = Group::new("company", "acme");
    for commit in [false, true] {
        let transaction = db.transaction().unwrap();
        transaction
            .execute("INSERT INTO companies VALUES ('acme')", [])
            .unwrap();
        let update = acme.set(json!({"plan": "pro"}));
        SqliteOutbox::publish_in(&transaction, &update).unwrap();
        SqliteOutbox::publish_in(&transaction, acme.set(json!({}))).unwrap();
        SqliteOutbox::publish_in(&transaction, stored(&acme.delete())).unwrap();
        let wrong = acme.set(17);
        let error = SqliteOutbox::publish_in(&transaction, wrong).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidUpdate);
        assert_eq!(outbox.depth().unwrap(), Depth::default());
        if commit {
            transaction.commit().unwrap();
        } else {
            transaction.rollback().unwrap();
        }
        let rows = count(&db, "companies");
        assert_eq!(rows, usize::from(commit));
        assert_eq!(outbox.depth().unwrap().updates, rows * 2);
    }
    let waiting = outbox.take(10).unwrap();
    assert_eq!(
        waiting[0].update,
        Ok(stored(&acme.set(json!({"plan": "pro"}))))
    );
    assert_eq!(waiting[1].update, Ok(stored(&acme.delete())));
}

#[test]
fn an_event_commits_and_rolls_back_with_the_applications_transaction() {
    let (_folder, path) = folder();
    let outbox = SqliteOutbox::open(&path).unwrap();
    let mut db = Connection::open(&path).unwrap();
    let event = |id: &str| Event::new("Purchase").distinct_id("user123").insert_id(id);
    let lost = db.transaction().unwrap();
    SqliteOutbox::publish_in(&lost, event("lost")).unwrap();
    lost.rollback().unwrap();
    let kept = db.transaction().unwrap();
    let purchase = event("kept");
    SqliteOutbox::publish_in(&kept, &purchase).unwrap();
    SqliteOutbox::publish_in(&kept, Group::new("company", "acme").delete()).unwrap();
    let error = SqliteOutbox::publish_in(&kept, Event::new("Purchase")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidUpdate);
    kept.commit().unwrap();

    assert_eq!(outbox.depth().unwrap().updates, 1);
    let events = outbox.events().unwrap();
    let taken = events.take(10).unwrap();
    let taken: Vec<_> = taken.iter().map(|entry| entry.update.clone()).collect();
    assert_eq!(taken, [Ok(EncodedEvent::new(&purchase).unwrap())]);
}

#[test]
fn a_transaction_on_another_file_is_an_error() {
    let (_folder, path) = folder();
    let mut db = Connection::open(&path).unwrap();
    let transaction = db.transaction().unwrap();
    let update = Group::new("company", "acme").delete();
    let error = SqliteOutbox::publish_in(&transaction, &update).unwrap_err();
    assert!(
        format!("{error:#}").contains("no such table: mixpanel_outbox"),
        "{error:#}"
    );
    assert!(
        error.to_string().contains(path.to_str().unwrap()),
        "{error}"
    );
    // The tables can be made by the user's own migration.
    transaction.execute_batch(SqliteOutbox::SCHEMA).unwrap();
    SqliteOutbox::publish_in(&transaction, &update).unwrap();
    transaction.commit().unwrap();
    assert_eq!(
        SqliteOutbox::open(&path).unwrap().depth().unwrap().updates,
        1
    );
}

#[test]
fn a_row_of_another_driver_is_an_update_or_an_event() {
    let (_folder, path) = folder();
    let outbox = SqliteOutbox::open(&path).unwrap();
    let update = update(0, 0);
    let event = EncodedEvent::new(&Event::new("Purchase").distinct_id("user123")).unwrap();
    let db = Connection::open(&path).unwrap();
    for (table, json) in [
        ("mixpanel_outbox", update.as_json()),
        ("mixpanel_outbox_event", event.as_json()),
    ] {
        let sql = format!("INSERT INTO {table} (body) VALUES (?1)");
        db.execute(&sql, [json]).unwrap();
    }
    assert_eq!(outbox.take(10).unwrap()[0].update, Ok(update));
    let events = outbox.events().unwrap();
    assert_eq!(events.take(10).unwrap()[0].update, Ok(event));
}

#[test]
fn rows_that_are_not_updates_are_rejected_counted_and_reported() {
    let (_folder, path) = folder();
    let outbox = SqliteOutbox::open(&path).unwrap();
    let db = Connection::open(&path).unwrap();
    let good = update(0, 0);
    for row in [
        "'text'",
        "'{}'",
        "''",
        "x'ff00'",
        "17",
        "CAST(x'ff' AS TEXT)",
        // As on Mixpanel's page.
        r#"'{"$token":"A_SECRET","$group_key":"company","$group_id":"a","$delete":""}'"#,
        // Encoded twice, and as Python shows it.
        r#"'"{\"$token\":\"A_SECRET\"}"'"#,
        r#"'{''$token'': ''A_SECRET''}'"#,
    ] {
        let sql = format!("INSERT INTO mixpanel_outbox (body) VALUES ({row})");
        db.execute(&sql, []).unwrap();
    }
    assert!(outbox.append(std::slice::from_ref(&good), ROOM).unwrap());
    let entries = format!("{:?}", outbox.take(9).unwrap());
    assert!(!entries.contains("A_SECRET"), "{entries}");
    outbox.release().unwrap();

    let emulator = Emulator::start().unwrap();
    let client = Client::builder("T").endpoint(emulator.endpoint());
    let reported = Arc::new(Mutex::new(Vec::new()));
    let its_reported = Arc::clone(&reported);
    let buffered = client.build().unwrap().buffered().outbox(outbox);
    let buffered = buffered.on_error(move |event| {
        assert!(matches!(event, DeliveryEvent::Rejected(..)));
        assert!(!format!("{event:?}").contains("A_SECRET"), "{event:?}");
        its_reported.lock().unwrap().push(event.to_string());
    });
    let outcome = buffered.start().unwrap().shutdown(Duration::from_secs(20));
    assert!(outcome.is_complete(), "{outcome:?}");
    assert_eq!((outcome.stats.accepted, outcome.stats.rejected), (1, 9));
    let reported = reported.lock().unwrap();
    assert_eq!(reported.len(), 9, "{reported:#?}");
    assert!(
        !format!("{reported:?}").contains("A_SECRET"),
        "{reported:#?}"
    );
    assert_eq!(
        reported[6],
        r#"rejected unreadable "{\"$": not an update: `$token` is added by the client"#
    );
    assert_eq!(
        reported[1],
        "rejected unreadable \"{}\": not an update: `$group_key` is missing"
    );
    assert_eq!(
        count(
            &db,
            "mixpanel_outbox_rejected WHERE message <> '' AND message NOT LIKE '%A_SECRET%'"
        ),
        9
    );
    assert_eq!(count(&db, "mixpanel_outbox"), 0);
}

#[test]
fn rejected_updates_are_kept_for_a_person_to_look_at() {
    let (_folder, path) = folder();
    let outbox = SqliteOutbox::open(&path).unwrap();
    let two = [update(0, 0), update(0, 1)];
    assert!(outbox.append(&two, ROOM).unwrap());
    let taken = ids(&outbox.take(2).unwrap());
    outbox
        .settle(&taken[..1], &[(taken[1], &rejection())])
        .unwrap();
    assert_eq!(outbox.depth().unwrap(), Depth::default());

    let db = Connection::open(&path).unwrap();
    let sql = "SELECT id, field, message, body, since <= rejected_at AND rejected_at LIKE '20__-__-__T__:__:__.___Z'
               FROM mixpanel_outbox_rejected";
    let row: (i64, String, String, String, bool) = db
        .query_one(sql, [], |row| {
            Ok((
                row.get(0)?,
                row.get(1)?,
                row.get(2)?,
                row.get(3)?,
                row.get(4)?,
            ))
        })
        .unwrap();
    let (field, message) = ("$group_id".to_owned(), "the id is empty".to_owned());
    assert_eq!(
        row,
        (taken[1], field, message, two[1].as_json().to_owned(), true)
    );

    // They can be tried once more, in plain SQL.
    db.execute_batch(
        "BEGIN; INSERT INTO mixpanel_outbox (body) SELECT body FROM mixpanel_outbox_rejected ORDER BY rowid;
         DELETE FROM mixpanel_outbox_rejected; COMMIT",
    )
    .unwrap();
    assert_eq!(outbox.depth().unwrap().updates, 1);
    assert_eq!(outbox.take(1).unwrap()[0].update, Ok(two[1].clone()));
}

#[test]
fn the_newest_rejected_updates_are_kept() {
    let (_folder, path) = folder();
    let outbox = SqliteOutbox::open(&path).unwrap();
    let db = Connection::open(&path).unwrap();
    db.execute_batch(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)
         INSERT INTO mixpanel_outbox_rejected (id, since, message, body) SELECT -i, '', '', '' FROM n",
    )
    .unwrap();
    assert!(outbox.append(&[update(0, 0)], ROOM).unwrap());
    let taken = ids(&outbox.take(1).unwrap());
    outbox.settle(&[], &[(taken[0], &rejection())]).unwrap();
    assert_eq!(count(&db, "mixpanel_outbox_rejected"), 100_000);
    assert_eq!(count(&db, "mixpanel_outbox_rejected WHERE id = -1"), 0);
    assert_eq!(count(&db, "mixpanel_outbox_rejected WHERE id = 1"), 1);
}

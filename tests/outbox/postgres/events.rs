//! Events in PostgreSQL: from SQL, beside updates, in tables of any name.

use mixpanel_groups::outbox::OutboxEntry;
use mixpanel_groups::record::{EncodedEvent, EncodedRecord, RecordRef};
use mixpanel_groups::{EncodedUpdate, Event, Group, Outbox, Rejection};
use mixpanel_groups_postgres::PostgresOutbox;
use postgres::NoTls;
use serde_json::{Value, json};

use common::postgres::{Harness, NO_LIMIT};

fn event(number: usize) -> Event {
    Event::new("Purchase")
        .distinct_id("user123")
        .insert_id(format!("event-{number}"))
        .group(Group::new("company", "acme"))
}

fn event_json(number: usize) -> String {
    event(number).to_json().unwrap()
}

fn update_json(number: usize) -> String {
    let update = Group::new("company", "acme").set(json!({"number": number}));
    let update = EncodedUpdate::new(&update).unwrap().unwrap();
    update.as_json().to_owned()
}

/// Which of them wait, in the order in which they are taken; every row can be read.
fn insert_ids(outbox: &PostgresOutbox) -> Vec<String> {
    let queue = outbox.events().unwrap();
    let entries: Vec<OutboxEntry<EncodedEvent>> = queue.take(100).unwrap();
    queue.release().unwrap();
    let ids = entries.into_iter().map(|entry| {
        let event = entry.update.unwrap();
        let json: Value = serde_json::from_str(event.as_json()).unwrap();
        json["properties"]["$insert_id"]
            .as_str()
            .unwrap()
            .to_owned()
    });
    ids.collect()
}

fn numbers(outbox: &PostgresOutbox) -> Vec<u64> {
    let entries = outbox.take(100).unwrap();
    outbox.release().unwrap();
    let numbers = entries.into_iter().map(|entry| {
        let update = entry.update.unwrap();
        let json: Value = serde_json::from_str(update.as_json()).unwrap();
        json["$set"]["number"].as_u64().unwrap()
    });
    numbers.collect()
}

#[test]
fn an_array_from_sql_may_mix_both_kinds() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let mut client = harness.client();
    let mixed = [
        update_json(1),
        event_json(1),
        update_json(2),
        event_json(2),
        update_json(3),
    ];
    let sql = "SELECT mixpanel_outbox_publish($1::text[])";
    client.execute(sql, &[&&mixed[..]]).unwrap();
    client.execute(sql, &[&&mixed[1..2]]).unwrap();
    client.execute(sql, &[&Vec::<String>::new()]).unwrap();
    client.execute(sql, &[&None::<Vec<String>>]).unwrap();
    assert_eq!(numbers(&harness.outbox), [1, 2, 3]);
    assert_eq!(
        insert_ids(&harness.outbox),
        ["event-1", "event-2", "event-1"]
    );
    // With an element that is not there, nothing is published.
    let error = client
        .execute(
            sql,
            &[&vec![Some(event_json(3)), None, Some(update_json(4))]],
        )
        .unwrap_err();
    let error = error.as_db_error().unwrap();
    assert!(error.message().contains("NULL"), "{error}");
    assert_eq!(harness.outbox.depth().unwrap().updates, 3);
    assert_eq!(insert_ids(&harness.outbox).len(), 3);
}

/// What the relay could not read as an event is an error where it is published, not a row among the rejected ones.
#[test]
fn an_event_that_cannot_be_sent_is_an_error_of_the_function() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let mut client = harness.client();
    let properties = json!({"time": 1_700_000_000, "distinct_id": "user123", "$insert_id": "id"});
    let with = |name: &str, value: Value| {
        let mut properties = properties.clone();
        properties[name] = value;
        json!({"event": "Purchase", "properties": properties}).to_string()
    };
    let without = |name: &str| {
        let mut properties = properties.clone();
        properties.as_object_mut().unwrap().remove(name);
        json!({"event": "Purchase", "properties": properties}).to_string()
    };
    let invalid = [
        r#"{"event":"Purchase"}"#.to_owned(),
        r#"{"event":"Purchase","properties":null}"#.to_owned(),
        r#"{"event":"Purchase","properties":"text"}"#.to_owned(),
        r#"{"event":"Purchase","properties":["$insert_id"]}"#.to_owned(),
        json!({"event": "", "properties": properties}).to_string(),
        json!({"event": 5, "properties": properties}).to_string(),
        json!({"event": null, "properties": properties}).to_string(),
        without("$insert_id"),
        without("time"),
        without("distinct_id"),
        with("$insert_id", json!(5)),
        with("distinct_id", json!(5)),
        with("distinct_id", json!(null)),
        with("time", json!("2026-01-01")),
        with("time", json!(1_700_000_000.5)),
        with("time", json!(1e12)),
    ];
    for json in &invalid {
        assert!(EncodedRecord::from_json(json).is_err(), "{json}");
        let published = client.execute("SELECT mixpanel_outbox_publish($1::text)", &[json]);
        let error = published.expect_err(json);
        let error = error.as_db_error().unwrap();
        assert!(
            error.message().contains("not an event for the outbox"),
            "{error}"
        );
    }
    let of_no_user = with("distinct_id", json!(""));
    let sql = "SELECT mixpanel_outbox_publish($1::text)";
    client.execute(sql, &[&of_no_user]).unwrap();
    assert_eq!(insert_ids(&harness.outbox), ["id"]);
}

#[test]
fn tables_of_other_names_keep_both_kinds_apart() {
    let Some(harness) = Harness::new() else {
        return;
    };
    // Words that stand in statements too.
    for table in [
        "kind",
        "update",
        "event",
        "events_public",
        "mixpanel_outbox_event",
    ] {
        let builder = PostgresOutbox::builder(harness.config.clone(), NoTls);
        let outbox = builder
            .schema(&harness.schema)
            .table(table)
            .build()
            .unwrap();
        outbox.migrate().unwrap();
        outbox.migrate().unwrap();
        let mut client = harness.client();
        let mut transaction = client.transaction().unwrap();
        outbox.publish_in(&mut transaction, event(0)).unwrap();
        transaction.rollback().unwrap();
        let mut transaction = client.transaction().unwrap();
        outbox.publish_in(&mut transaction, event(1)).unwrap();
        let update = Group::new("company", "acme").set(json!({"number": 1}));
        outbox.publish_in(&mut transaction, update).unwrap();
        transaction.commit().unwrap();
        let queue = outbox.events().unwrap();
        let two = EncodedEvent::new(&event(2)).unwrap();
        assert!(queue.append(&[two], NO_LIMIT).unwrap());
        assert_eq!(insert_ids(&outbox), ["event-1", "event-2"], "{table}");
        assert_eq!(numbers(&outbox), [1], "{table}");
        let entries = queue.take(2).unwrap();
        assert!(queue.hold(std::time::Duration::from_secs(10)).unwrap());
        let rejection = Rejection::new(RecordRef::event("Purchase", "event-1"), None, "no");
        let settled = queue.settle(&[entries[1].id], &[(entries[0].id, &rejection)]);
        settled.unwrap();
        assert_eq!(queue.depth().unwrap().updates, 0, "{table}");
        assert_eq!(outbox.depth().unwrap().updates, 1, "{table}");
        let sql = format!("SELECT kind, message FROM {table}_rejected");
        let row = client.query_one(&sql, &[]).unwrap();
        assert_eq!((row.get(0), row.get(1)), ("event", "no"), "{table}");
        let sql = format!("SELECT kind, waiting FROM {table}_status ORDER BY kind");
        let rows = client.query(&sql, &[]).unwrap();
        let rows: Vec<(String, i64)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        let expected = [("event".to_owned(), 0), ("update".to_owned(), 1)];
        assert_eq!(rows, expected, "{table}");
    }
}

//! The function that publishes, called from SQL: by any role, in any session and transaction.

use std::path::Path;
use std::process::Command;
use std::thread;

use mixpanel_groups::{ErrorKind, Outbox as _};
use serde_json::json;

use common::postgres::server::programs;
use common::postgres::{Harness, drain, seats, stored};

const GUIDE: &str = include_str!("../../../groups-core/guide/12_with_diesel_sqlx_and_others.md");
const ACME: &str = r#"{"$group_key":"company","$group_id":"acme","$set":{"seats":1}}"#;
const GLOBEX: &str = r#"{"$group_key":"company","$group_id":"globex","$set":{"seats":2}}"#;

fn both() -> [(String, u64); 2] {
    [("acme".to_owned(), 1), ("globex".to_owned(), 2)]
}

#[test]
fn one_or_many_from_psql() {
    let (Some(harness), Some(programs)) = (Harness::new(), programs()) else {
        return;
    };
    let psql = |sql: &str| {
        let config = common::postgres::server::connection_string().unwrap();
        let mut psql = Command::new(Path::new(&programs).join("psql"));
        let psql = psql.args([
            "--no-psqlrc",
            "--set=ON_ERROR_STOP=1",
            &config,
            "--command",
            sql,
        ]);
        let output = psql.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            Ok(())
        } else {
            Err(errors)
        }
    };
    let schema = &harness.schema;
    psql(&format!(
        "SELECT {schema}.mixpanel_outbox_publish('{ACME}')"
    ))
    .unwrap();
    psql(&format!(
        "SELECT {schema}.mixpanel_outbox_publish(ARRAY['{GLOBEX}'], false)"
    ))
    .unwrap();
    // Arguments that are JSON become text.
    let built = "json_build_object('$group_key', 'company', '$group_id', 'acme', '$set', '{\"seats\": 3}'::jsonb)";
    psql(&format!(
        "SELECT {schema}.mixpanel_outbox_publish({built}::text)"
    ))
    .unwrap();
    psql(&format!(
        "SELECT {schema}.mixpanel_outbox_publish('{{}}'::text[])"
    ))
    .unwrap();
    let error = psql(&format!(
        "SELECT {schema}.mixpanel_outbox_publish('{{\"a\": 1}}')"
    ))
    .unwrap_err();
    assert!(
        error.contains("not an update for the outbox: {\"a\": 1}"),
        "{error}"
    );
    assert!(error.contains("HINT:  Expected an object"), "{error}");
    let expected = [&both()[..], &[("acme".to_owned(), 3)]].concat();
    assert_eq!(drain(&harness.outbox), expected);
}

#[test]
fn what_is_not_an_update_is_an_error() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let mut client = harness.client();
    let mut publish = |body: Option<&str>| {
        client
            .execute("SELECT mixpanel_outbox_publish($1)", &[&body])
            .map_err(|error| {
                assert!(!format!("{error:?}").contains("A_SECRET"), "{error:?}");
                error.code().unwrap().code().to_owned()
            })
    };
    for invalid in [
        Some(r#"["$group_key"]"#),
        Some("null"),
        Some(r#"{"$group_key":"company","$group_id":"","$set":{}}"#),
        Some(r#"{"$group_key":"company","$group_id":7,"$set":{}}"#),
        Some(r#"{"$group_key":null,"$group_id":"acme","$set":{}}"#),
        Some(r#"{"$group_key":"company","$group_id":"acme"}"#),
        Some(r#"{"$group_key":"company","$group_id":"acme","$set":{},"$union":{}}"#),
        Some(r#"{"$group_key":"company","$group_id":"acme","$set":{},"$token":"A_SECRET"}"#),
        Some(r#"{"event":"Signup","properties":{"token":"A_SECRET","time":1}}"#),
        None,
    ] {
        assert_eq!(publish(invalid), Err("22023".to_owned()), "{invalid:?}");
    }
    for not_json in [
        "",
        "{",
        r#"{"$group_key":"company","$group_id":"\x","$set":{}}"#,
    ] {
        assert_eq!(
            publish(Some(not_json)),
            Err("22P02".to_owned()),
            "{not_json}"
        );
    }
    assert_eq!(harness.outbox.depth().unwrap().updates, 0);
}

/// The guide's triggers, for each statement and for each row, in the schema of a test.
fn guides_triggers(schema: &str) -> [String; 2] {
    let blocks = GUIDE.split("```sql\n").skip(1).map(|block| {
        let (block, _) = block.split_once("```").unwrap();
        block.replace("public.", &format!("{schema}."))
    });
    let blocks: Vec<_> = blocks.collect();
    blocks.try_into().unwrap()
}

#[test]
fn from_a_trigger_for_each_statement_or_row() {
    for trigger in [0, 1] {
        let Some(harness) = Harness::new() else {
            return;
        };
        let triggers = guides_triggers(&harness.schema);
        let mut client = harness.client();
        client
            .batch_execute(&format!(
                "CREATE TABLE company (id bigint PRIMARY KEY, plan text, seats int);
                 {}
                 INSERT INTO company VALUES (67890, NULL, NULL);
                 INSERT INTO company VALUES (12345, 'pro', NULL), (54321, NULL, NULL)",
                triggers[trigger]
            ))
            .unwrap();
        client
            .batch_execute("BEGIN; UPDATE company SET plan = 'free'; ROLLBACK")
            .unwrap();
        client
            .batch_execute(
                "UPDATE company SET seats = 1 WHERE id IN (12345, 67890);
                 UPDATE company SET seats = 2 WHERE false",
            )
            .unwrap();
        let taken = harness.outbox.take(10).unwrap();
        let published = taken.iter().map(|entry| serde_json::from_str(entry.json()));
        let published: Vec<serde_json::Value> = published.collect::<Result<_, _>>().unwrap();
        let update =
            |id, properties| json!({"$group_key": "company", "$group_id": id, "$set": properties});
        assert_eq!(published[0], update("12345", json!({"plan": "pro"})));
        assert_eq!(published.len(), 3);
        for expected in [
            update("12345", json!({"plan": "pro", "seats": 1})),
            update("67890", json!({"seats": 1})),
        ] {
            assert!(published[1..].contains(&expected), "{published:?}");
        }
    }
}

/// Each locks the slots of many groups, and many of them are the other's too.
#[test]
fn statements_that_change_many_rows_do_not_deadlock() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let [for_each_statement, _] = guides_triggers(&harness.schema);
    harness
        .client()
        .batch_execute(&format!(
            "CREATE TABLE company (id bigint PRIMARY KEY, plan text, seats int);
             INSERT INTO company SELECT generate_series(0, 5999);
             {for_each_statement}"
        ))
        .unwrap();
    thread::scope(|scope| {
        for first in [0, 3_000] {
            let mut client = harness.client();
            let update = format!(
                "UPDATE company SET seats = id WHERE id BETWEEN {first} AND {first} + 2999"
            );
            scope.spawn(move || {
                for _ in 0..5 {
                    client.batch_execute(&update).unwrap();
                }
            });
        }
    });
    assert_eq!(harness.outbox.depth().unwrap().updates, 2 * 5 * 3_000);
}

/// Sessions that make every unqualified name and every backslash mean something else.
#[test]
fn in_any_session_and_isolation_level() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let mut client = harness.client();
    client
        .batch_execute(
            "CREATE FUNCTION strpos(text, text) RETURNS int LANGUAGE sql AS 'SELECT 1 / 0';
             CREATE FUNCTION json_typeof(json) RETURNS text LANGUAGE sql AS 'SELECT NULL';
             CREATE FUNCTION now() RETURNS timestamptz LANGUAGE sql AS 'SELECT NULL::timestamptz';
             CREATE FUNCTION count_any(state int, any_value anyelement) RETURNS int LANGUAGE sql AS 'SELECT 1 / 0';
             CREATE TABLE unnest (); CREATE TABLE pg_class ();
             CREATE OPERATOR = (LEFTARG = text, RIGHTARG = text, FUNCTION = pg_catalog.textne)",
        )
        .unwrap();
    let schema = &harness.schema;
    let mut expected = Vec::new();
    for (number, (settings, isolation)) in [
        (
            format!("SET search_path = {schema}, pg_catalog"),
            "READ COMMITTED",
        ),
        ("SET search_path = ''".to_owned(), "REPEATABLE READ"),
        (
            "SET standard_conforming_strings = off".to_owned(),
            "SERIALIZABLE",
        ),
        (
            "SET default_transaction_isolation = 'serializable'".to_owned(),
            "SERIALIZABLE",
        ),
    ]
    .iter()
    .enumerate()
    {
        client.batch_execute("RESET ALL").unwrap();
        client.batch_execute(settings).unwrap();
        client
            .batch_execute(&format!("BEGIN ISOLATION LEVEL {isolation}; SELECT 1"))
            .unwrap();
        // Another transaction has published for the group since the snapshot.
        harness
            .outbox
            .append(&[stored("\\é", 0)], common::postgres::NO_LIMIT)
            .unwrap();
        let update = seats("\\é", number as u64 + 1);
        harness.outbox.publish_in(&mut client, update).unwrap();
        client.batch_execute("COMMIT").unwrap();
        expected.extend([0, number as u64 + 1]);
    }
    let sent = drain(&harness.outbox);
    assert_eq!(
        sent.iter().map(|(_, number)| *number).collect::<Vec<_>>(),
        expected
    );
}

/// Psycopg 3 passes a list as text of an unknown type.
#[test]
fn an_array_without_its_type_gets_a_hint() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let mut client = harness.client();
    let array = [ACME, GLOBEX].map(|body| body.replace('"', "\\\""));
    let array = format!(r#"{{"{}"}}"#, array.join(r#"",""#));
    let publish = |cast| format!("SELECT mixpanel_outbox_publish('{array}'{cast})");
    let error = client.batch_execute(&publish("")).unwrap_err();
    let hint = error.as_db_error().unwrap().hint().unwrap_or_default();
    assert!(hint.contains("::text[]"), "{error:?}");
    client.batch_execute(&publish("::text[]")).unwrap();
    assert_eq!(drain(&harness.outbox), both());
}

/// A token is a secret, and rejected rows are kept.
#[test]
fn a_token_is_an_error_however_it_is_written() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let mut client = harness.client();
    for token in [
        r"$token",
        r"\u0024token",
        r"\u0024\u0074\u006f\u006B\u0065\u006e",
        r"$toke\u006E",
    ] {
        let body = format!(
            r#"{{"$group_key":"company","$group_id":"acme","$set":{{"a":"\u0000\ud83e"}},"{token}":"A_SECRET"}}"#
        );
        let error = client
            .execute("SELECT mixpanel_outbox_publish($1)", &[&body])
            .unwrap_err();
        assert_eq!(error.code().unwrap().code(), "22023", "{token}");
        assert!(!format!("{error:?}").contains("A_SECRET"), "{error:?}");
    }
    let no_token = r#"{"$group_key":"company","$group_id":"acme","$set":{"seats":1,"\u0024token":"\u0000"},"\u0000\ud83e":1}"#;
    client
        .execute("SELECT mixpanel_outbox_publish($1)", &[&no_token])
        .unwrap();
}

#[test]
fn in_a_transaction_that_is_prepared() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let mut client = harness.client();
    let name = format!("prepared_{}", harness.schema);
    let mut prepare = |notify: bool| {
        client.batch_execute(&format!(
            "BEGIN; SELECT mixpanel_outbox_publish('{ACME}', {notify}); PREPARE TRANSACTION '{name}'"
        ))
    };
    // With a notification PostgreSQL does not.
    assert!(prepare(true).is_err());
    prepare(false).unwrap();
    // It keeps the lock of the group.
    let mut other = harness.client();
    other.batch_execute("SET lock_timeout = '100ms'").unwrap();
    assert!(
        harness
            .outbox
            .publish_in(&mut other, seats("acme", 2))
            .is_err()
    );
    harness
        .outbox
        .publish_in(&mut other, seats("globex", 2))
        .unwrap();
    other
        .batch_execute(&format!("COMMIT PREPARED '{name}'"))
        .unwrap();
    assert_eq!(drain(&harness.outbox), both());
}

/// However a group's name is written, it is the same group.
#[test]
fn escapes_do_not_make_another_group() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let mut client = harness.client();
    let mut group_of = |id: &str| -> String {
        let body = format!(
            r#"{{"$set":{{"a":"\ud83e\u0000"}},"$group_key":"company","$group_id":"{id}"}}"#
        );
        let row = client.query_one("SELECT mixpanel_outbox_group_of($1)", &[&body]);
        row.unwrap().get(0)
    };
    for same in [
        &[
            "é\\\"🦀",
            r"\u00e9\\\u0022🦀",
            r"\u00E9\\\u0022\uD83E\udd80",
        ][..],
        &[r"a\\u0041", r"a\u005cu0041"],
        &[r"a\/b", "a/b", r"\u0061/b"],
    ] {
        let groups: Vec<_> = same
            .iter()
            .map(|id| group_of(&id.replace("\\\"", "\\\\\\\"")))
            .collect();
        assert!(groups.iter().all(|group| *group == groups[0]), "{groups:?}");
    }
    // What PostgreSQL has no text for is a group all the same.
    assert_ne!(group_of(r"a\u0000"), group_of("a"));
    assert_eq!(group_of(r"a\u0000\ud83e"), group_of(r"a\u0000\uD83E"));
}

#[test]
fn rows_without_slots_are_not_published() {
    let Some(harness) = Harness::new() else {
        return;
    };
    harness
        .client()
        .batch_execute("DELETE FROM mixpanel_outbox_slot")
        .unwrap();
    let mut client = harness.client();
    let error = harness
        .outbox
        .publish_in(&mut client, seats("acme", 1))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
}

/// As after a switch to a logical replica: the rows are there, and the sequence is at its beginning.
#[test]
fn migrating_sets_ids_above_what_waits() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let mut client = harness.client();
    for number in 1..=3 {
        harness
            .outbox
            .publish_in(&mut client, seats("acme", number))
            .unwrap();
    }
    client
        .batch_execute("SELECT setval('mixpanel_outbox_id_seq', 1, false)")
        .unwrap();
    harness.outbox.migrate().unwrap();
    harness
        .outbox
        .publish_in(&mut client, seats("acme", 4))
        .unwrap();
    let numbers: Vec<_> = drain(&harness.outbox)
        .into_iter()
        .map(|(_, number)| number)
        .collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
}

/// Also where one row waits, with the first id, and for the rows that count.
#[test]
fn migrating_sets_each_id_above_those_in_use() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let mut client = harness.client();
    let outbox = &harness.outbox;
    for number in 1..=3 {
        outbox
            .publish_in(&mut client, seats("acme", number))
            .unwrap();
        client
            .batch_execute(
                "SELECT setval('mixpanel_outbox_id_seq', 1, false), setval('mixpanel_outbox_count_id_seq', 1, false)",
            )
            .unwrap();
        outbox.migrate().unwrap();
    }
    // Where they are above, they stay.
    let next = "SELECT nextval('mixpanel_outbox_id_seq'), nextval('mixpanel_outbox_count_id_seq')";
    let next = |client: &mut postgres::Client| {
        let row = client.query_one(next, &[]).unwrap();
        [0, 1].map(|column| row.get::<_, i64>(column))
    };
    assert_eq!(next(&mut client), [4, 4]);
    outbox.migrate().unwrap();
    assert_eq!(next(&mut client), [5, 5]);
    let sent = drain(outbox).into_iter().map(|(_, number)| number);
    assert!(sent.eq(1..=3));
}

/// What was rejected before a switch to a logical replica is kept for its time: no later id replaces it.
#[test]
fn migrating_sets_ids_above_what_is_kept() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let mut client = harness.client();
    for (table, columns, id) in [
        ("rejected", "id, kind, since, message, body", 7),
        ("accepted", "id, kind, since, body", 9),
    ] {
        let message = if table == "rejected" { "'no', " } else { "" };
        client
            .batch_execute(&format!(
                "INSERT INTO mixpanel_outbox_{table} ({columns}) VALUES ({id}, 'event', now(), {message}'{{}}')"
            ))
            .unwrap();
        harness.outbox.migrate().unwrap();
        harness
            .outbox
            .publish_in(&mut client, seats("acme", 1))
            .unwrap();
        let last = "SELECT max(id) FROM mixpanel_outbox";
        let last: i64 = client.query_one(last, &[]).unwrap().get(0);
        assert_eq!(last, id + 1, "{table}");
    }
}

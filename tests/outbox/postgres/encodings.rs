//! Databases whose encoding is not UTF-8.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use mixpanel_groups::{Client as Mixpanel, Event, Group, Outbox as _};
use mixpanel_groups_emulator::{Emulator, Fault};
use mixpanel_groups_postgres::PostgresOutbox;
use postgres::{Client, NoTls};
use serde_json::json;

use common::LONG;
use common::postgres::{Harness, NO_LIMIT, encoded, ids, outbox, read, seats};

/// Runs a test in a database of each encoding.
fn in_databases(encodings: &[&str], test: impl Fn(&str, &PostgresOutbox, &mut Client)) {
    let Some(harness) = Harness::new() else {
        return;
    };
    for encoding in encodings {
        let database = format!("{}_{}", harness.schema, encoding.to_lowercase());
        let mut server = harness.client();
        server
            .batch_execute(&format!(
                "CREATE DATABASE {database} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"
            ))
            .unwrap();
        let mut config = harness.config.clone();
        config.dbname(&database);
        let mut client: Client = config.connect(NoTls).unwrap();
        let outbox = outbox(&config, "public");
        outbox.migrate().unwrap();
        let tested = catch_unwind(AssertUnwindSafe(|| test(encoding, &outbox, &mut client)));
        drop((outbox, client));
        server
            .batch_execute(&format!("DROP DATABASE {database} WITH (FORCE)"))
            .unwrap();
        tested.unwrap_or_else(|panic| resume_unwind(panic));
    }
}

/// An update with the byte, as SQL that calls a function with it.
fn with_byte(byte: &str) -> String {
    let body = format!(
        r#"'{{"$group_key":"company","$group_id":"acme","$set":{{"name":"a' || {byte} || '"}}}}'"#
    );
    format!("({body})")
}

/// A byte that is in the encoding, and not in Unicode.
fn byte(encoding: &str) -> &'static str {
    match encoding {
        // As text it is valid there.
        "WIN1252" => "convert_from('\\x81', 'WIN1252')",
        _ => "convert_from('\\xe9', 'SQL_ASCII')",
    }
}

/// In a database that has no character for it, a name with an emoji does not abort the application's transaction.
#[test]
fn a_name_that_the_database_has_no_characters_for() {
    in_databases(&["LATIN1", "SQL_ASCII"], |_, outbox, client| {
        let update = |number: u64| {
            let group = Group::new("företag 🦀", "Ω & é 🦀");
            group.set(json!({"seats": number, "name": "ACME 🦀 \u{0} é"}))
        };
        let mut transaction = client.transaction().unwrap();
        outbox.publish_in(&mut transaction, update(1)).unwrap();
        transaction.commit().unwrap();
        outbox.append(&[encoded(&update(2))], NO_LIMIT).unwrap();
        let waiting = client.query("SELECT * FROM mixpanel_outbox_waiting", &[]);
        assert_eq!(waiting.unwrap().len(), 2);
        let taken = outbox.take(10).unwrap();
        for (entry, number) in taken.iter().zip(1..) {
            let sent: serde_json::Value = serde_json::from_str(entry.json()).unwrap();
            let expected = encoded(&update(number));
            let expected: serde_json::Value = serde_json::from_str(expected.as_json()).unwrap();
            assert_eq!(sent, expected);
            assert_eq!(
                entry.update.as_ref().unwrap().group(),
                Group::new("företag 🦀", "Ω & é 🦀")
            );
        }
    });
}

/// Its escapes in the table are three times as long, and are not what is sent.
#[test]
fn an_update_of_any_characters_may_be_as_large_as_elsewhere() {
    in_databases(&["LATIN1", "UTF8"], |_, outbox, client| {
        let large = "ж".repeat(490_000);
        let update = Group::new("company", "acme").set(json!({"v": large}));
        outbox.publish_in(client, &update).unwrap();
        outbox.append(&[encoded(&update)], NO_LIMIT).unwrap();
        let event = Event::new("Purchase").distinct_id("user123");
        let event = event.property("v", &large).group(Group::new("a", "🦀"));
        outbox.publish_in(client, &event).unwrap();
        let taken = outbox.take(10).unwrap();
        assert_eq!(taken.len(), 2);
        for entry in taken {
            assert_eq!(entry.update.unwrap(), encoded(&update));
        }
        let taken = outbox.events().unwrap().take(10).unwrap();
        let event = taken[0].update.as_ref().unwrap();
        assert!(event.as_json().contains(&large) && event.as_json().contains("🦀"));
    });
}

/// What is an escape, and what only looks like one, is the same after the relay has read it.
#[test]
fn escapes_mean_the_same_when_they_are_sent() {
    in_databases(&["LATIN1", "UTF8"], |_, outbox, client| {
        let value = r#""\\u00e9 \\\u00e9 \u20AC \ud83e\udd80 \ud83e \udd80 \ud83e\ud83e\udd80 \u0041\u0000\n\"\/ \ud83e\u00e9""#;
        let body =
            format!(r#"{{"$group_key":"company","$group_id":"acme","$set":{{"v":{value}}}}}"#);
        let publish = "SELECT mixpanel_outbox_publish($1)";
        client.execute(publish, &[&body]).unwrap();
        let entry = outbox.take(1).unwrap().remove(0);
        let json = entry.json();
        assert!(
            json.contains(
                r#""\\u00e9 \\é € 🦀 \ud83e \udd80 \ud83e🦀 \u0041\u0000\n\"\/ \ud83eé""#
            ),
            "{json}"
        );
    });
}

/// However a group's name is written, it is the same group, also where the encoding lacks one of its characters.
#[test]
fn escapes_do_not_make_another_group_in_any_encoding() {
    in_databases(&["LATIN1", "UTF8"], |encoding, _, client| {
        let mut group_of = |id: &str| -> String {
            let body = format!(r#"{{"$group_key":"company","$group_id":"{id}","$set":{{}}}}"#);
            let row = client.query_one("SELECT mixpanel_outbox_group_of($1)", &[&body]);
            row.unwrap().get(0)
        };
        for same in [
            [r"É\u20ac", r"\u00c9\u20AC", r"\u00C9\u20ac"],
            [r"É\ud83e", r"\u00c9\ud83E", r"\u00C9\uD83e"],
            [
                r"é\u0000\\u00E9",
                r"\u00e9\u0000\\u00E9",
                r"\u00E9\u0000\\u00E9",
            ],
            [
                r"aÉ\ud83e\udd80",
                r"\u0061\u00c9\ud83E\udD80",
                r"a\u00C9\uD83E\uDD80",
            ],
        ] {
            let groups = same.map(&mut group_of);
            assert!(
                groups.iter().all(|group| *group == groups[0]),
                "{encoding}: {groups:?}"
            );
        }
        assert_ne!(group_of(r"É\u0000"), group_of(r"é\u0000"));
        assert_ne!(group_of(r"\\u00E9\u0000"), group_of(r"\\u00e9\u0000"));
        group_of(r"\b\u0000 \f \b\\");
    });
}

/// Written by hand, or published with the function.
#[test]
fn a_row_that_is_not_in_unicode_is_rejected_and_holds_no_other_up() {
    in_databases(&["SQL_ASCII", "WIN1252"], |encoding, outbox, client| {
        let publish = |client: &mut Client, number| {
            outbox.publish_in(client, seats("acme", number)).unwrap();
        };
        let insert = format!(
            "INSERT INTO mixpanel_outbox (body) VALUES ({}::json)",
            with_byte(byte(encoding))
        );
        for number in 1..=5 {
            publish(client, number);
        }
        client.batch_execute(&insert).unwrap();
        publish(client, 6);
        client.batch_execute(&insert).unwrap();

        let mut sent = Vec::new();
        let mut unreadable = 0;
        loop {
            let taken = outbox.take(100).unwrap();
            if taken.is_empty() {
                break;
            }
            match &taken[0].update {
                Ok(_) => sent.extend(read(&taken)),
                Err(why) => {
                    unreadable += 1;
                    assert!(why.json.contains(r#""$group_id":"acme""#), "{}", why.json);
                    assert!(why.reason.contains("UTF"), "{why}");
                }
            }
            outbox.settle(&ids(&taken), &[]).unwrap();
        }
        let numbers: Vec<_> = sent.into_iter().map(|(_, number)| number).collect();
        assert_eq!((numbers, unreadable), ((1..=6).collect(), 2));
    });
}

/// A message of Mixpanel's has characters that the database has not.
#[test]
fn a_rejection_with_any_message_is_settled() {
    in_databases(
        &["LATIN1", "SQL_ASCII", "UTF8"],
        |encoding, outbox, client| {
            let acme = Group::new("company", "acme").set(json!({"Ω": "é"}));
            outbox.publish_in(client, acme).unwrap();
            let emulator = Emulator::start().unwrap();
            let report = r#"{"code":400,"status":"Bad Request","error":"é Ω 🦀","num_records_imported":0,
            "failed_records":[{"index":0,"field":"Ω","message":"é Ω 🦀"}]}"#;
            emulator.fail_next(Fault::Response {
                status: 400,
                body: report.to_owned(),
            });
            let mixpanel = Mixpanel::builder("TOKEN").endpoint(emulator.endpoint());
            let relay = mixpanel.build().unwrap().buffered();
            let relay = relay.outbox(outbox.clone()).start().unwrap();
            let ended = relay.shutdown(LONG);
            assert!(ended.is_complete(), "{encoding}: {ended}");
            assert_eq!(ended.stats.rejected, 1);
            let sql = "SELECT message FROM mixpanel_outbox_rejected";
            let message: String = client.query_one(sql, &[]).unwrap().get(0);
            let expected = match encoding {
                "LATIN1" => r"\u03a9: \u00e9 \u03a9 \ud83e\udd80",
                _ => "Ω: é Ω 🦀",
            };
            assert_eq!(message, expected);
        },
    );
}

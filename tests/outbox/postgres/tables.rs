//! What is in the tables, and what people see of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use mixpanel_groups::outbox::Capacity;
use mixpanel_groups::{Client, ErrorKind, Group, Outbox};
use mixpanel_groups_emulator::{Emulator, Fault};
use mixpanel_groups_postgres::PostgresOutbox;
use postgres::{Config, NoTls};
use serde_json::json;

use common::eventually;
use common::postgres::{Harness, NO_LIMIT, drain, ids, outbox, seats, stored};

#[test]
fn processes_may_migrate_at_a_time_and_again() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let table = |name: &str| {
        PostgresOutbox::builder(harness.config.clone(), NoTls)
            .schema(&harness.schema)
            .table(name)
            .build()
            .unwrap()
    };
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| table("updates").migrate().unwrap());
        }
    });
    let (one, other) = (&harness.outbox, table("updates"));
    other.append(&[stored("acme", 1)], NO_LIMIT).unwrap();
    table("updates").migrate().unwrap();
    assert_eq!(one.depth().unwrap().updates, 0);
    assert_eq!(drain(&other), [("acme".to_owned(), 1)]);
    // Nothing has the default name but what is to have it.
    assert!(!other.migration().contains("mixpanel_outbox"));
    assert!(!other.migration().contains("public."));
}

/// A transaction that has published and stays open holds up no migration, behind which others would wait.
#[test]
fn migrating_again_waits_for_no_publisher() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let mut client = harness.client();
    let mut transaction = client.transaction().unwrap();
    let outbox = &harness.outbox;
    outbox
        .publish_in(&mut transaction, seats("acme", 1))
        .unwrap();
    let mut config = harness.config.clone();
    config.options("-c lock_timeout=20s");
    common::postgres::outbox(&config, &harness.schema)
        .migrate()
        .unwrap();
    transaction.commit().unwrap();
    assert_eq!(drain(outbox), [("acme".to_owned(), 1)]);
}

#[test]
fn the_migration_runs_as_it_is_printed() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let sql = PostgresOutbox::MIGRATION;
    assert!(sql.contains("public.mixpanel_outbox_rejected"));
    let mut client = harness.client();
    let mut transaction = client.transaction().unwrap();
    transaction.batch_execute(sql).unwrap();
    transaction.rollback().unwrap();
}

/// A setting of old databases, with which a backslash in a plain text is an escape.
#[test]
fn the_migration_does_not_depend_on_what_a_backslash_means() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let mut config = harness.config.clone();
    config.options("-c standard_conforming_strings=off");
    let outbox = outbox(&config, &harness.schema);
    outbox.migrate().unwrap();
    let mut client = harness.client();
    let setting = "SET standard_conforming_strings = off";
    client.batch_execute(setting).unwrap();
    let update = r#"{"$group_key":"company","$group_id":"\\u00e9\u00e9","$set":{"seats":1}}"#;
    let publish = "SELECT mixpanel_outbox_publish($1)";
    client.execute(publish, &[&update]).unwrap();
    let view = "SELECT group_id FROM mixpanel_outbox_waiting";
    let group: String = client.query_one(view, &[]).unwrap().get(0);
    assert_eq!(group, "\\u00e9é");
    assert_eq!(drain(&outbox), [("\\u00e9é".to_owned(), 1)]);
}

/// Where another tool ran the migration as it is printed, a relay listens to what it notifies.
#[test]
fn a_relay_is_woken_where_the_migration_ran_as_it_is_printed() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let database = format!("{}_printed", harness.schema);
    let mut server = harness.client();
    server
        .batch_execute(&format!("CREATE DATABASE {database}"))
        .unwrap();
    let mut config = harness.config.clone();
    config.dbname(&database);
    let mut client = config.connect(NoTls).unwrap();
    client.batch_execute(PostgresOutbox::MIGRATION).unwrap();
    let outbox = PostgresOutbox::new(config, NoTls).unwrap();
    let is_woken = woken_by(&outbox);
    eventually("listens", || is_woken(1));
    outbox.publish_in(&mut client, seats("acme", 1)).unwrap();
    eventually("is woken by a publisher", || is_woken(2));
    drop((outbox, client));
    server
        .batch_execute(&format!("DROP DATABASE {database} WITH (FORCE)"))
        .unwrap();
}

/// Listens, and returns a function that returns whether the outbox has woken so many times.
fn woken_by(outbox: &PostgresOutbox) -> impl Fn(usize) -> bool + use<> {
    let woken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&woken);
    outbox.on_append(Arc::new(move || {
        count.fetch_add(1, Ordering::Relaxed);
    }));
    move |times| woken.load(Ordering::Relaxed) >= times
}

#[test]
fn a_timeout_of_zero_is_an_error() {
    let builder = PostgresOutbox::builder(Config::new(), NoTls);
    let error = builder.timeout(Duration::ZERO).build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("timeout"), "{error}");
}

#[test]
fn names_are_plain() {
    let build = |schema: &str, table: &str| {
        PostgresOutbox::builder(Config::new(), NoTls)
            .schema(schema)
            .table(table)
            .build()
    };
    build("app", "outbox_2").unwrap();
    let long = "x".repeat(31);
    for name in ["", "a b", "a\"b", "a;b", "Outbox", "2nd", "ä", &long] {
        assert_eq!(build(name, "t").unwrap_err().kind(), ErrorKind::Config);
        assert_eq!(build("s", name).unwrap_err().kind(), ErrorKind::Config);
    }
}

/// The statements quote what could be read as a keyword.
#[test]
fn names_may_be_reserved_words() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let mut client = harness.client();
    client
        .batch_execute("DROP SCHEMA IF EXISTS \"user\" CASCADE; CREATE SCHEMA \"user\"")
        .unwrap();
    let outbox = PostgresOutbox::builder(harness.config.clone(), NoTls)
        .schema("user")
        .table("order")
        .build()
        .unwrap();
    outbox.migrate().unwrap();
    assert!(outbox.append(&[stored("acme", 1)], NO_LIMIT).unwrap());
    let is_woken = woken_by(&outbox);
    eventually("listens", || is_woken(1));
    outbox.publish_in(&mut client, seats("acme", 2)).unwrap();
    eventually("is woken by a publisher", || is_woken(2));
    let expected = [1, 2].map(|seats| ("acme".to_owned(), seats));
    assert_eq!(drain(&outbox), expected);
    assert_eq!(
        outbox.drop_oldest(1, 1, NO_LIMIT).unwrap(),
        0,
        "there is room"
    );
    drop(outbox);
    client
        .batch_execute("DROP SCHEMA \"user\" CASCADE")
        .unwrap();
}

#[test]
fn errors_are_plain_and_show_no_password() {
    let config: Config =
        "host=127.0.0.1 port=1 user=u password=PASSWORD dbname=d connect_timeout=2"
            .parse()
            .unwrap();
    let outbox = PostgresOutbox::new(config, NoTls).unwrap();
    for error in [
        outbox.take(1).unwrap_err(),
        outbox.depth().unwrap_err(),
        outbox.migrate().unwrap_err(),
        outbox.append(&[stored("acme", 1)], NO_LIMIT).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains("connect"), "{error}");
        assert!(!format!("{error} {error:?} {outbox:?}").contains("PASSWORD"));
    }
    let Some(harness) = Harness::new() else {
        return;
    };
    let missing = PostgresOutbox::builder(harness.config.clone(), NoTls)
        .schema(&harness.schema)
        .table("missing")
        .build()
        .unwrap();
    let error = missing.take(1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("migrate"), "{error}");
}

#[test]
fn an_incomplete_table_of_slots_is_an_error() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let mut client = harness.client();
    client
        .execute("DELETE FROM mixpanel_outbox_slot", &[])
        .unwrap();
    let publish = || harness.outbox.append(&[stored("acme", 1)], NO_LIMIT);
    let error = publish().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert_eq!(harness.outbox.depth().unwrap().updates, 0);
    harness.outbox.migrate().unwrap();
    publish().unwrap();
}

/// Sends what waits, through a client, to an emulator that refuses the first of each two.
fn send_with_a_rejection(outbox: PostgresOutbox) {
    let emulator = Emulator::start().unwrap();
    emulator.fail_next(Fault::Reject(vec![0]));
    let client = Client::builder("TOKEN")
        .endpoint(emulator.endpoint())
        .build()
        .unwrap();
    let buffered = client.buffered().outbox(outbox).start().unwrap();
    let drained = buffered.flush(Duration::from_secs(30));
    assert_eq!((drained.waiting, drained.stats.rejected), (Some(0), 1));
    assert_eq!(drained.stats.accepted, 1);
    assert!(buffered.shutdown(Duration::from_secs(30)).is_complete());
}

#[test]
fn rejected_updates_are_kept_with_the_message() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let updates = [stored("acme", 1), stored("globex", 2)];
    harness.outbox.append(&updates, NO_LIMIT).unwrap();
    send_with_a_rejection(harness.another());
    let sql = "SELECT body ->> '$group_id', message, rejected_at >= since \
               FROM mixpanel_outbox_rejected";
    let rejected = harness.client().query_one(sql, &[]).unwrap();
    assert_eq!(rejected.get::<_, &str>(0), "acme");
    assert!(!rejected.get::<_, &str>(1).is_empty());
    assert!(rejected.get::<_, bool>(2));
    assert_eq!(harness.count("mixpanel_outbox_accepted"), 0);

    // They can be tried once more, in plain SQL; none of them is nothing.
    for waiting in [vec![("acme".to_owned(), 1)], Vec::new()] {
        harness
            .client()
            .batch_execute(
                "WITH again AS (DELETE FROM mixpanel_outbox_rejected RETURNING id, body)
                 SELECT mixpanel_outbox_publish(array_agg(body::text ORDER BY id)) FROM again",
            )
            .unwrap();
        assert_eq!(harness.count("mixpanel_outbox_rejected"), 0);
        assert_eq!(drain(&harness.outbox), waiting);
    }
}

#[test]
fn what_is_kept_is_kept_for_its_time() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let keep = |time| {
        PostgresOutbox::builder(harness.config.clone(), NoTls)
            .schema(&harness.schema)
            .keep_accepted(time)
            .keep_rejected(time)
            .build()
            .unwrap()
    };
    let updates = [stored("acme", 1), stored("globex", 2)];
    harness.outbox.append(&updates, NO_LIMIT).unwrap();
    send_with_a_rejection(keep(Duration::from_secs(3600)));
    let count =
        || ["accepted", "rejected"].map(|table| harness.count(&format!("mixpanel_outbox_{table}")));
    assert_eq!(count(), [1, 1]);
    // The time of the process that sends counts.
    harness.outbox.append(&updates[..1], NO_LIMIT).unwrap();
    for (time, kept) in [
        (Duration::from_secs(3600), 1),
        (Duration::from_millis(1), 0),
    ] {
        assert_eq!(keep(time).take(1).unwrap().len(), 1);
        assert_eq!(count(), [kept; 2]);
    }
}

#[test]
fn every_text_passes_and_people_can_look() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let texts = [
        "plain",
        "nul \0 nul",
        "\\u0000",
        "quote \" \\ ' $1",
        "émoji 🦀",
        "\u{7f}\u{1}",
    ];
    let mut client = harness.client();
    for text in texts {
        let update = Group::new("company", text).set(json!({text: text}));
        harness.outbox.publish_in(&mut client, &update).unwrap();
    }
    let view = "SELECT group_key, group_id, body::text FROM mixpanel_outbox_waiting";
    let rows = client.query(view, &[]).unwrap();
    assert_eq!(rows.len(), texts.len());
    assert_eq!(rows[0].get::<_, &str>(0), "company");
    assert_eq!(rows[0].get::<_, &str>(1), "plain");
    let taken = harness.outbox.take(100).unwrap();
    let status = "SELECT waiting, waiting_bytes > 0, oldest >= '0 s'::interval, rejected,
                         sender IS NOT NULL, sender_for > '0 s'::interval FROM mixpanel_outbox_status
                  WHERE kind = 'update'";
    let row = client.query_one(status, &[]).unwrap();
    assert_eq!((row.get(0), row.get(3)), (6_i64, 0_i64));
    assert!(
        [1, 2, 4, 5]
            .map(|column| row.get(column))
            .iter()
            .all(|is_so| *is_so)
    );
    let mut sent: Vec<_> = taken
        .iter()
        .map(|waiting| waiting.update.as_ref().unwrap().group())
        .collect();
    let mut groups: Vec<_> = texts.map(|text| Group::new("company", text)).into();
    sent.sort_by_key(|group| group.id().to_string());
    groups.sort_by_key(|group| group.id().to_string());
    assert_eq!(sent, groups);
}

/// Of both kinds, also of one that was never sent.
#[test]
fn the_status_can_be_read_before_anything_was_sent_and_after() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let mut client = harness.client();
    let mut status = || {
        let rows = client.query("SELECT * FROM mixpanel_outbox_status ORDER BY kind", &[]);
        let rows = rows.unwrap().into_iter();
        rows.map(|row| (row.get("kind"), row.get("waiting"), row.get("sender")))
            .collect::<Vec<(String, i64, Option<String>)>>()
    };
    let [event, update] = ["event", "update"].map(|kind| (kind.to_owned(), 0, None));
    assert_eq!(status(), [event.clone(), update.clone()]);
    harness
        .outbox
        .append(&[stored("acme", 1)], NO_LIMIT)
        .unwrap();
    assert_eq!(harness.outbox.take(1).unwrap().len(), 1);
    let [of_events, of_updates] = <[_; 2]>::try_from(status()).unwrap();
    assert_eq!(of_events, event);
    assert_eq!(of_updates.1, 1);
    assert!(of_updates.2.is_some());
    drain(&harness.outbox);
    assert_eq!(status(), [event, update]);
}

/// A row that was written by hand and is not an update does not hold up the others.
#[test]
fn a_row_that_is_not_an_update_is_rejected_and_counted() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let mut client = harness.client();
    let by_hand = "INSERT INTO mixpanel_outbox (body) VALUES ('{\"a\": 1}'), \
                   ('{\"$group_key\": \"a\\u0000\", \"$group_id\": \"\", \"$set\": {}}'), \
                   ('{\"$group_key\": \"company\", \"$group_id\": \"acme\", \
                         \"$set\": {\"seats\": 5}}')";
    client.execute(by_hand, &[]).unwrap();

    let emulator = Emulator::start().unwrap();
    let client = Client::builder("TOKEN").endpoint(emulator.endpoint());
    let buffered = client.build().unwrap().buffered();
    let buffered = buffered.outbox(harness.another()).start().unwrap();
    let outcome = buffered.shutdown(Duration::from_secs(30));
    assert!(outcome.is_complete(), "{outcome:?}");
    assert_eq!((outcome.stats.accepted, outcome.stats.rejected), (1, 2));
    assert_eq!(
        emulator.profile("company", "acme").unwrap(),
        serde_json::json!({"seats": 5})
    );
    assert_eq!(harness.count("mixpanel_outbox_rejected"), 2);
    assert_eq!(harness.count("mixpanel_outbox"), 0);
}

#[test]
fn what_is_settled_may_be_kept_for_ever() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let outbox = PostgresOutbox::builder(harness.config.clone(), NoTls)
        .schema(&harness.schema)
        .keep_accepted(Duration::MAX)
        .keep_rejected(Duration::MAX)
        .build()
        .unwrap();
    let mut application = harness.client();
    outbox
        .publish_in(&mut application, seats("acme", 1))
        .unwrap();
    assert_eq!(drain(&outbox), [("acme".to_owned(), 1)]);
    assert_eq!(harness.count("mixpanel_outbox_accepted"), 1);
}

#[test]
fn appending_keeps_within_the_capacity() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let outbox = &harness.outbox;
    let three: Vec<_> = (0..3).map(|number| stored("acme", number)).collect();
    let bytes = three[0].as_json().len();
    let capacity = |updates, updates_of_bytes| Capacity::new(updates, updates_of_bytes * bytes);
    assert!(outbox.append(&three, capacity(3, 3)).unwrap());
    for full in [capacity(5, 100), capacity(100, 5)] {
        assert!(!outbox.append(&three, full).unwrap());
        assert_eq!(outbox.depth().unwrap().updates, 3);
    }
    assert_eq!(
        outbox.drop_oldest(3, 3 * bytes, capacity(5, 100)).unwrap(),
        1
    );
    assert_eq!(
        outbox.drop_oldest(3, 3 * bytes, capacity(100, 4)).unwrap(),
        1
    );
    assert!(outbox.append(&three, capacity(4, 4)).unwrap());
    // Not what was taken, as long as that is not settled.
    let taken = outbox.take(1).unwrap();
    let dropped = outbox.drop_oldest(9, 9 * bytes, capacity(9, 100)).unwrap();
    assert_eq!(dropped, 3);
    outbox.settle(&ids(&taken), &[]).unwrap();
    let depth = outbox.depth().unwrap();
    assert_eq!((depth.updates, depth.bytes, depth.oldest), (0, 0, None));
}

/// The application's role needs no more than the docs say, and no other has that.
#[test]
fn a_role_without_other_rights_will_do() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let schema = &harness.schema;
    let [app, relay] = ["app", "relay"].map(|name| format!("{schema}_{name}"));
    let mut client = harness.client();
    client
        .batch_execute(&format!(
            "CREATE ROLE {app} LOGIN; CREATE ROLE {relay} LOGIN;
             GRANT USAGE ON SCHEMA {schema} TO {app}, {relay};
             GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {relay}"
        ))
        .unwrap();
    let [app_config, relay_config] = [&app, &relay].map(|role| {
        let mut config = harness.config.clone();
        config.user(role);
        config
    });
    let mut application = app_config.connect(NoTls).unwrap();
    let mut publish = |number| {
        let update = seats("acme", number);
        harness.outbox.publish_in(&mut application, update)
    };
    let error = publish(0).unwrap_err();
    let source = std::error::Error::source(&error).unwrap();
    assert!(
        format!("{source:?}").contains("permission denied"),
        "{source:?}"
    );
    assert!(
        error.to_string().contains("the role lacks a privilege"),
        "{error}"
    );
    client
        .batch_execute(&format!(
            "GRANT EXECUTE ON FUNCTION mixpanel_outbox_publish(text[], boolean) TO {app}"
        ))
        .unwrap();
    publish(1).unwrap();
    // One that monitors reads the views and no table.
    client
        .batch_execute(&format!(
            "GRANT SELECT ON mixpanel_outbox_status, mixpanel_outbox_waiting TO {app}"
        ))
        .unwrap();
    for (table, is_allowed) in [("status", true), ("waiting", true), ("rejected", false)] {
        let sql = format!("SELECT * FROM {schema}.mixpanel_outbox_{table}");
        let read = app_config.connect(NoTls).unwrap().batch_execute(&sql);
        assert_eq!(read.is_ok(), is_allowed, "{table}: {read:?}");
    }
    let error = outbox(&relay_config, schema).migrate().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "it is the owner's: {error:#}");
    assert_eq!(
        drain(&outbox(&relay_config, schema)),
        [("acme".to_owned(), 1)]
    );
    // What was granted stays, also to everybody, when an owner's process migrates again.
    client
        .batch_execute(&format!(
            "REVOKE EXECUTE ON FUNCTION mixpanel_outbox_publish(text[], boolean) FROM {app};
             GRANT EXECUTE ON FUNCTION mixpanel_outbox_publish(text[], boolean) TO PUBLIC"
        ))
        .unwrap();
    harness.outbox.migrate().unwrap();
    publish(2).unwrap();
    // A function that was missing is the owner's again.
    client
        .batch_execute("DROP FUNCTION mixpanel_outbox_publish(text[], boolean)")
        .unwrap();
    harness.outbox.migrate().unwrap();
    drop(publish(3).unwrap_err());
    assert_eq!(drain(&harness.outbox), [("acme".to_owned(), 2)]);
    drop(application);
    client
        .batch_execute(&format!(
            "DROP OWNED BY {app}, {relay}; DROP ROLE {app}, {relay}"
        ))
        .unwrap();
}

/// A new role that may use the tables, and does not own them, and an outbox of it.
fn of_another_role(harness: &Harness) -> (String, PostgresOutbox) {
    let schema = &harness.schema;
    let role = format!("{schema}_relay");
    let sql = format!(
        "CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA {schema} TO {role};
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role}"
    );
    harness.client().batch_execute(&sql).unwrap();
    let mut config = harness.config.clone();
    config.user(&role);
    let relay = outbox(&config, schema);
    (role, relay)
}

/// Nothing says that all is sent while rows wait that the relay's role cannot see.
#[test]
fn rows_that_row_level_security_hides_are_an_error() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let mut client = harness.client();
    let mut execute = |sql: String| client.batch_execute(&sql).unwrap();
    let (role, relay) = of_another_role(&harness);
    let is_hidden = |error: mixpanel_groups::Error| {
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains("row-level security"), "{error}");
    };
    for (number, table) in (1..).zip(["mixpanel_outbox", "mixpanel_outbox_lease"]) {
        harness
            .outbox
            .append(&[stored("acme", number)], NO_LIMIT)
            .unwrap();
        execute(format!("ALTER TABLE {table} ENABLE ROW LEVEL SECURITY"));
        is_hidden(relay.take(1).unwrap_err());
        assert_eq!(relay.depth().unwrap().updates, 1);
        // With a policy it sends, and corrects no counts by what it may not see.
        execute(format!(
            "CREATE POLICY none ON {table} FOR SELECT TO {role} USING (false)"
        ));
        drop(relay.take(1));
        assert_eq!(relay.depth().unwrap().updates, 1);
        execute(format!(
            "CREATE POLICY all_rows ON {table} TO {role} USING (true)"
        ));
        assert_eq!(drain(&relay), [("acme".to_owned(), number)]);
    }
    let enable = "ALTER TABLE mixpanel_outbox_count ENABLE ROW LEVEL SECURITY";
    execute(enable.to_owned());
    is_hidden(relay.depth().unwrap_err());
    drop(relay);
    execute(format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

/// A policy for some commands alone would let a relay send the same update in each round, or nothing at all, and PostgreSQL
/// reports neither.
#[test]
fn policies_that_lack_a_command_of_the_relay_are_an_error() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let mut client = harness.client();
    let mut execute = |sql: String| client.batch_execute(&sql).unwrap();
    let user = harness.config.get_user().unwrap();
    let (role, relay) = of_another_role(&harness);
    for (number, (table, commands)) in (1..).zip([
        ("mixpanel_outbox", ["SELECT", "DELETE"]),
        ("mixpanel_outbox_lease", ["SELECT", "UPDATE"]),
    ]) {
        harness
            .outbox
            .append(&[stored("acme", number)], NO_LIMIT)
            .unwrap();
        execute(format!("ALTER TABLE {table} ENABLE ROW LEVEL SECURITY"));
        // One for another role does not count.
        execute(format!("CREATE POLICY others ON {table} TO {user}"));
        for command in commands {
            let error = relay.take(1).unwrap_err();
            assert!(error.to_string().contains("row-level security"), "{error}");
            // It does not keep one that may send from it.
            assert_eq!(harness.outbox.take(1).unwrap().len(), 1);
            harness.outbox.release().unwrap();
            execute(format!(
                "CREATE POLICY of_{command} ON {table} FOR {command} USING (true)"
            ));
        }
        assert_eq!(drain(&relay), [("acme".to_owned(), number)]);
    }
    drop(relay);
    execute(format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

/// A table that somebody emptied, with its ids, while a relay was sending: what was published since is not what was sent.
#[test]
fn ids_that_start_again_while_a_relay_sends() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let taken_again = |sql: &str| {
        let outbox = &harness.outbox;
        assert!(outbox.append(&[stored("acme", 1)], NO_LIMIT).unwrap());
        let sent = outbox.take(1).unwrap();
        harness.client().batch_execute(sql).unwrap();
        assert!(outbox.append(&[stored("acme", 2)], NO_LIMIT).unwrap());
        // Another relay does not overtake the request of this one.
        let other = harness.another();
        assert!(other.take(1).unwrap().is_empty());
        drop(outbox.settle(&[sent[0].id], &[]));
        assert_eq!(drain(outbox), [("acme".to_owned(), 2)]);
    };
    taken_again("TRUNCATE mixpanel_outbox RESTART IDENTITY");
    taken_again("TRUNCATE mixpanel_outbox");
}

/// A sequence that somebody set back does not hold up the relay.
#[test]
fn an_id_that_was_rejected_before_is_rejected_again() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let settle = |seats_now: u64| {
        harness
            .outbox
            .append(&[stored("acme", seats_now)], NO_LIMIT)
            .unwrap();
        let taken = harness.outbox.take(1).unwrap();
        let nowhere = Client::builder("TOKEN").endpoint("http://127.0.0.1:1");
        let invalid = [Group::new("company", "").delete()];
        let report = nowhere.build().unwrap().send(invalid).unwrap();
        let rejected = [(taken[0].id, &report.rejected[0])];
        harness.outbox.settle(&[], &rejected).unwrap();
    };
    settle(1);
    harness
        .client()
        .batch_execute("TRUNCATE mixpanel_outbox RESTART IDENTITY")
        .unwrap();
    settle(2);
    assert_eq!(harness.count("mixpanel_outbox_rejected"), 1);
    assert_eq!(harness.outbox.depth().unwrap().updates, 0);
}

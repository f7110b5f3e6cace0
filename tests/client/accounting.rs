//! Accepted, rejected with a reason, or handed back: also for JSON that was written elsewhere, for values
//! that few can read, and for numbers that must not change on the way.

use common::LONG;
use mixpanel_groups::{Client, EncodedUpdate, Error, ErrorKind, Group, MixpanelGroup, Operation};
use mixpanel_groups_emulator::Emulator;
use serde_json::{Value, json};

fn from_json(json: &str) -> Result<EncodedUpdate, Error> {
    EncodedUpdate::from_json(json)
}

#[test]
fn what_another_program_wrote_is_kept_whole() {
    let rows = [
        // Members in another order come in ours; values stay as they are written.
        (
            r#" {"$set": {"a": 0.30000000000000004, "b": 340282366920938463463374607431768211455 },
                "$group_id":"acme", "$group_key" : "company"} "#,
            r#"{"$group_key":"company","$group_id":"acme","$set":{"a": 0.30000000000000004, "b": 340282366920938463463374607431768211455 }}"#,
        ),
        (
            r#"{"$group_key":"$group_id","$group_id":"acme","$company_id":"x","$time":7,"$ip":"1.2.3.4","$ignore_time":true,"$unset":["a"]}"#,
            r#"{"$group_key":"$group_id","$group_id":"acme","$company_id":"x","$time":7,"$ip":"1.2.3.4","$ignore_time":true,"$unset":["a"]}"#,
        ),
        (
            r#"{"$group_key":"company","$group_id":"acme","$set":{"a":null}}"#,
            r#"{"$group_key":"company","$group_id":"acme","$set":{"a":null}}"#,
        ),
        (
            r#"{"\u0024group_key":"company","$group_id":"\u00e9","$delete":null}"#,
            r#"{"$group_key":"company","$group_id":"é","$delete":null}"#,
        ),
    ];
    for (json, expected) in rows {
        let update = from_json(json).unwrap();
        assert_eq!(update.as_json(), expected);
        assert_eq!(from_json(update.as_json()).unwrap(), update);
    }
    let update = from_json(rows[1].0).unwrap();
    assert_eq!(update.operation(), Operation::Unset);
    assert_eq!(update.group().company_id().unwrap().as_str(), "x");
}

#[test]
fn what_is_not_an_update_says_why() {
    let rows = [
        (
            "[]",
            "not an update: not a JSON object: invalid type: sequence, expected an object at line 1 column 0",
        ),
        (
            "{",
            "not an update: not a JSON object: EOF while parsing an object at line 1 column 1",
        ),
        (
            r#"{"$group_id":"a","$delete":""}"#,
            "not an update: `$group_key` is missing",
        ),
        (
            r#"{"$group_key":"company","$delete":""}"#,
            "not an update: `$group_id` is missing",
        ),
        (
            r#"{"$group_key":"company","$group_id":7,"$delete":""}"#,
            "not an update: `$group_id` is not text: 7",
        ),
        // A token is not shown.
        (
            r#"{"$group_key":"company","$group_id":{"$token":"T"},"$delete":""}"#,
            "not an update: `$group_id` is not text: an object",
        ),
        (
            r#"{"$group_key":"company","$group_id":"a","$company_id":["T"],"$delete":""}"#,
            "not an update: `$company_id` is not text: a list",
        ),
        (
            r#"{"$group_key":"company","$group_id":"a"}"#,
            "not an update: missing operation",
        ),
        (
            r#"{"$group_key":"company","$group_id":"a","$set":{},"$unset":["b"]}"#,
            "not an update: two operations, $set and $unset",
        ),
        (
            r#"{"$group_key":"company","$group_id":"a","$set":{"a":1},"$set":{"a":2}}"#,
            r#"not an update: duplicate key "$set""#,
        ),
        (
            r#"{"$group_key":"company","$group_id":"a","$set":{},"plan":"free"}"#,
            r#"not an update: unknown key "plan""#,
        ),
        (
            r#"{"$token":"T","$group_key":"company","$group_id":"a","$set":{}}"#,
            "not an update: `$token` is added by the client",
        ),
        (
            r#"{"$group_key":"company","$group_id":"","$delete":""}"#,
            r#"$delete of company "": "$group_id": the id is empty"#,
        ),
        (
            r#"{"$group_key":"company","$group_id":"a","$set":["b"]}"#,
            r#"$set of company "a": `$set` takes an object of properties"#,
        ),
        (
            r#"{"$group_key":"company","$group_id":"a","$unset":[]}"#,
            r#"$unset of company "a": `$unset` takes at least one property name"#,
        ),
        (
            r#"{"$group_key":"company","$group_id":"a","$union":{"tags":["x",[]]}}"#,
            r#"$union of company "a": "tags": `$union` takes a list of at least one text or number"#,
        ),
        (
            r#"{"$group_key":"company","$group_id":"a","$remove":{"tags":["x"]}}"#,
            r#"$remove of company "a": "tags": `$remove` takes one item, not a list or an object"#,
        ),
        (
            r#"{"$group_key":"company","$group_id":"a","$set":{"b":1,"b":2}}"#,
            r#"$set of company "a": "b": two properties have this name"#,
        ),
    ];
    for (json, expected) in rows {
        let error = from_json(json).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidUpdate);
        assert_eq!(format!("{error:#}"), expected, "{json}");
    }
}

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Company {
    #[mixpanel(group_id)]
    id: u64,
    share: f64,
    large: u128,
    #[mixpanel(union)]
    shares: Vec<f64>,
    #[mixpanel(union)]
    numbers: Vec<u128>,
}

fn company(number: u64) -> Company {
    Company {
        id: number,
        share: number as f64 / 7.0,
        large: u128::MAX - u128::from(number),
        shares: vec![number as f64 / 7.0, 0.1],
        numbers: vec![u128::MAX, 1],
    }
}

fn client(emulator: &Emulator) -> Client {
    let builder = Client::builder("T").endpoint(emulator.endpoint());
    builder.build().unwrap()
}

/// Returns all updates that arrived, as they were written.
fn received(emulator: &Emulator) -> String {
    emulator
        .requests()
        .iter()
        .map(|request| request.body.as_str())
        .collect()
}

#[test]
fn a_hook_that_changes_nothing_changes_no_byte() {
    let emulator = Emulator::start().unwrap();
    let buffered = client(&emulator)
        .buffered()
        .coalesce(false)
        .before_send(|_| true);
    let buffered = buffered.start().unwrap();
    let mut expected = Vec::new();
    for number in 0..2_000 {
        let company = company(number);
        buffered.publish_all(company.updates()).unwrap();
        expected.extend(
            company
                .updates()
                .map(|update| update.to_json().unwrap().unwrap()),
        );
    }
    assert!(buffered.shutdown(LONG).is_complete());
    let received = received(&emulator);
    let missing: Vec<_> = expected
        .iter()
        .filter(|json| !received.contains(&json[1..]))
        .collect();
    assert!(
        missing.is_empty(),
        "{} changed, such as {}",
        missing.len(),
        missing[0]
    );
}

#[test]
fn a_hook_changes_what_it_touches_and_nothing_else() {
    let emulator = Emulator::start().unwrap();
    let hook = |update: &mut serde_json::Map<String, Value>| {
        if let Some(set) = update.get_mut("$set") {
            set["plan"] = json!("secret");
            set["id"] = json!(7);
        }
        update.insert("$ignore_time".to_owned(), json!(true));
        true
    };
    let buffered = client(&emulator)
        .buffered()
        .before_send(hook)
        .start()
        .unwrap();
    let large = u128::MAX;
    let update = Group::new("company", "acme")
        .set(json!({"share": 3.0 / 7.0, "plan": "free", "list": [0.1, 3.0 / 7.0]}));
    buffered.publish(update).unwrap();
    let once = Company {
        large,
        ..company(3)
    };
    buffered.publish(once.set()).unwrap();
    assert!(buffered.shutdown(LONG).is_complete());
    let received = received(&emulator);
    for part in [
        r#""$ignore_time":true,"$set":{"id":7,"list":[0.1,0.42857142857142855],"plan":"secret","share":0.42857142857142855}"#,
        &format!(r#""large":{large},"#),
    ] {
        assert!(received.contains(part), "{part} in {received}");
    }
}

#[test]
fn neighboring_numbers_are_changes() {
    let with = |share, large| Company {
        share,
        large,
        shares: vec![share],
        numbers: vec![large],
        id: 1,
    };
    let changes = |new: &Company, old: &Company| {
        let changes = new
            .changes_since(old)
            .map(|update| update.to_json().unwrap().unwrap());
        changes
            .map(|json| json["{\"$group_key\":\"company\",\"$group_id\":\"1\",".len()..].to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        changes(&with(0.099_999_999_999_999_99, 7), &with(0.1, 7)),
        [
            r#""$set":{"share":0.09999999999999999}}"#,
            r#""$remove":{"shares":0.1}}"#,
            r#""$union":{"shares":[0.09999999999999999]}}"#,
        ]
    );
    assert_eq!(
        changes(&with(0.5, u128::MAX - 1), &with(0.5, u128::MAX)),
        [
            r#""$set":{"large":340282366920938463463374607431768211454}}"#,
            r#""$remove":{"numbers":340282366920938463463374607431768211455}}"#,
            r#""$union":{"numbers":[340282366920938463463374607431768211454]}}"#,
        ]
    );
}

#[test]
fn the_emulator_holds_the_floats_that_were_sent() {
    let emulator = Emulator::start().unwrap();
    let client = client(&emulator);
    let update =
        |number: u64| Group::new("company", number).set(json!({"share": number as f64 / 7.0}));
    client
        .send((0..2_000).map(update))
        .unwrap()
        .into_result()
        .unwrap();
    for number in 0..2_000_u64 {
        let profile = emulator.profile("company", &number.to_string()).unwrap();
        assert_eq!(profile, json!({"share": number as f64 / 7.0}));
    }
}

#[test]
fn coalescing_keeps_neighboring_numbers_apart() {
    let emulator = Emulator::start().unwrap();
    let group = Group::new("company", "acme");
    let union = |items: Vec<u128>| group.union(std::collections::BTreeMap::from([("n", items)]));
    let updates = [
        union(vec![u128::MAX, 1]),
        union(vec![u128::MAX - 1]),
        group.remove("n", u128::MAX),
    ];
    let report = client(&emulator)
        .with_options()
        .coalesce()
        .send(updates)
        .unwrap();
    report.into_result().unwrap();
    let sent = received(&emulator);
    assert!(sent.contains(&(u128::MAX - 1).to_string()), "{sent}");
}

/// Lists in lists, as many as `levels`.
fn nested(levels: usize) -> String {
    "[".repeat(levels) + &"]".repeat(levels)
}

/// What few can read is refused where it is made, with group and property, whatever way it would take.
#[test]
fn one_rule_for_every_route() {
    let folder = tempfile::tempdir().unwrap();
    let group = Group::new("company", "acme");
    let rows = [
        (nested(200), "nested in more than 120 levels"),
        ("\"\\ud800\"".to_owned(), "not readable JSON: "),
        ("1e400".to_owned(), "not readable JSON: number out of range"),
    ];
    for (raw, reason) in rows {
        let Ok(raw) = serde_json::value::RawValue::from_string(raw.clone()) else {
            panic!("{raw}");
        };
        let update = || group.set(std::collections::BTreeMap::from([("odd", &raw)]));
        let expected = format!(r#"$set of company "acme": "odd": {reason}"#);
        let check = |route: &str, message: String| {
            assert!(message.contains(&expected), "{route}: {message}");
        };

        let emulator = Emulator::start().unwrap();
        let client = client(&emulator);
        let report = client.send(update()).unwrap();
        check("send", report.rejected[0].to_string());
        check("to_json", update().to_json().unwrap_err().to_string());
        let outbox =
            mixpanel_groups_sqlite::SqliteOutbox::open(folder.path().join("o.db")).unwrap();
        for (route, builder) in [
            ("memory", client.buffered()),
            ("hook", client.buffered().before_send(|_| true)),
            ("sqlite", client.buffered().outbox(outbox)),
        ] {
            let buffered = builder.start().unwrap();
            check(route, buffered.publish(update()).unwrap_err().to_string());
            assert!(buffered.shutdown(LONG).is_complete(), "{route}");
        }
        let json = format!(
            r#"{{"$group_key":"company","$group_id":"acme","$set":{{"odd":{}}}}}"#,
            raw.get()
        );
        check("from_json", from_json(&json).unwrap_err().to_string());
    }
    // What is nested less deep can be read by all.
    let deep: Value = serde_json::from_str(&nested(119)).unwrap();
    let update = group.set(json!({"deep": deep}));
    let emulator = Emulator::start().unwrap();
    client(&emulator)
        .send(&update)
        .unwrap()
        .into_result()
        .unwrap();
    let encoded = EncodedUpdate::new(&update).unwrap().unwrap();
    assert_eq!(from_json(encoded.as_json()).unwrap(), encoded);
}

/// A map as a `Serialize` with a mistake passes it: these keys, or values where there is none.
struct Mistaken(&'static [Option<&'static str>]);

impl serde::Serialize for Mistaken {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap as _;
        let mut map = to.serialize_map(None)?;
        for key in self.0 {
            match key {
                Some(key) => map.serialize_key(key)?,
                None => map.serialize_value(&1)?,
            }
        }
        map.end()
    }
}

/// What it passes would not be JSON: the server could not read the request, nor this library the update.
#[test]
fn a_serialize_that_mixes_up_keys_and_values_is_an_error() {
    let emulator = Emulator::start().unwrap();
    let client = client(&emulator);
    let buffered = client.buffered().before_send(|_| true).start().unwrap();
    let acme = Group::new("company", "acme");
    for (keys, reason) in [
        (
            &[Some("a"), Some("b"), None][..],
            "passes a key without a value",
        ),
        (&[Some("a")], "passes a key without a value"),
        (&[None], "passes a value without a key"),
        (&[Some("a"), None, None], "passes a value without a key"),
    ] {
        let within = || std::collections::BTreeMap::from([("odd", Mistaken(keys))]);
        let list = std::collections::BTreeMap::from([("odd", [Mistaken(keys)])]);
        for update in [
            acme.set(Mistaken(keys)),
            acme.set(within()),
            acme.set_once(within()),
            acme.union(list),
        ] {
            let report = client.send(&update).unwrap();
            let rejection = report.rejected[0].to_string();
            assert!(rejection.contains(reason), "{rejection}");
            let error = buffered.publish(&update).unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
        }
    }
    buffered.publish(acme.set(json!({"fine": true}))).unwrap();
    assert_eq!(buffered.shutdown(LONG).stats.accepted, 1);
    assert_eq!(emulator.requests().len(), 1);
}

#[test]
fn a_refusal_by_the_server_names_the_group_whatever_the_properties_hold() {
    let emulator = Emulator::start().unwrap();
    emulator.fail_next(mixpanel_groups_emulator::Fault::Reject(vec![0]));
    let update =
        Group::new("company", "acme").set(json!({"large": u64::MAX, "text": "\u{0}\u{ffff}"}));
    let report = client(&emulator).send(update).unwrap();
    let group = report.rejected[0].group().unwrap();
    assert_eq!((group.key(), group.id().as_str()), ("company", "acme"));
}

#[test]
fn reserved_names_are_refused() {
    let group = Group::new("company", "acme");
    for name in ["$group_key", "$group_id"] {
        for update in [
            group.set(json!({name: 1})),
            group.unset([name]),
            group.remove(name, 1),
            group.union(json!({name: [1]})),
        ] {
            let message = update.to_json().unwrap_err().to_string();
            let reason = format!("\"{name}\": a property cannot have this name: Mixpanel uses it");
            assert!(message.ends_with(&reason), "{message}");
        }
    }
    for name in ["$ignore", "bucket"] {
        let event = mixpanel_groups::Event::new("Purchase")
            .distinct_id("u")
            .property(name, 1);
        let message = event.to_json().unwrap_err().to_string();
        let reason = format!("\"{name}\": a property cannot have this name: Mixpanel uses it");
        assert!(message.ends_with(&reason), "{message}");
    }
    // They are group keys in the wild.
    let segment = Group::new("$group_id", "acme");
    assert!(segment.delete().to_json().is_ok());
    let event = mixpanel_groups::Event::new("Purchase")
        .distinct_id("u")
        .group(&segment);
    assert!(event.to_json().unwrap().contains(r#""$group_id":"acme""#));
}

#[test]
fn events_do_not_get_the_place_of_the_server() {
    let event = || mixpanel_groups::Event::new("Purchase").distinct_id("u");
    assert!(event().to_json().unwrap().contains(r#","ip":0"#));
    let with = event().property("ip", "203.0.113.7").to_json().unwrap();
    assert!(
        with.contains(r#""ip":"203.0.113.7""#) && !with.contains(r#""ip":0"#),
        "{with}"
    );
}

//! Which records are valid, by the documented table.

use mixpanel_groups_emulator::Emulator;
use serde_json::{Value, json};

use crate::wire::{Sender, update};

/// The `field` of the failed record; nothing if it is valid.
fn failed_field(record: &Value) -> Option<String> {
    let emulator = Emulator::start().unwrap();
    let response = Sender::new(&emulator).send("strict=1", &json!([record]));
    if response.status == 200 {
        return None;
    }
    assert!(emulator.profiles().is_empty());
    let failed = response.json()["failed_records"][0].clone();
    assert_eq!(failed["index"], 0);
    assert!(!failed["message"].as_str().unwrap().is_empty());
    Some(failed["field"].as_str().unwrap().to_owned())
}

/// A valid record with these members replaced, or taken out where they are null.
fn with(members: Value) -> Value {
    let mut record = update("acme", "$set", json!({"plan": "free"}));
    let record_members = record.as_object_mut().unwrap();
    let Value::Object(members) = members else {
        panic!("members are an object")
    };
    for (name, value) in members {
        if value.is_null() {
            record_members.remove(&name);
        } else {
            record_members.insert(name, value);
        }
    }
    record
}

#[test]
fn valid_records() {
    let valid = [
        with(json!({})),
        with(json!({"$group_key": "$group_id"})),
        with(json!({"$set": {"a": null, "b": [], "c": {"d": [1]}}})),
        update("acme", "$set_once", json!({"a": true})),
        update("acme", "$unset", json!(["a", "b"])),
        update("acme", "$union", json!({"a": [1, "x", 2.5], "b": [-1]})),
        update("acme", "$remove", json!({"a": 1, "b": "x", "c": true})),
        update("acme", "$delete", json!("")),
        update("acme", "$delete", json!({"ignored": ["entirely"]})),
        with(json!({
            "$time": 1, "$ip": "1.2.3.4", "$ignore_time": true, "$latitude": 1.5, "$longitude": 2
        })),
        with(
            json!({"$ignore_alias": true, "$mp_metadata": {"$mp_event_id": "6e0c", "$mp_session_seq_id": 0}}),
        ),
        with(json!({"$company_id": "globex"})),
        with(json!({"$group_key": "$company_id", "$company_id": "acme"})),
        with(json!({"$group_key": "$user_id", "$company_id": "globex"})),
    ];
    for record in valid {
        assert_eq!(failed_field(&record), None, "{record}");
    }
}

#[test]
fn invalid_records() {
    let invalid = [
        (json!("text"), ""),
        (json!(null), ""),
        (json!([]), ""),
        (with(json!({"$token": null})), "$token"),
        (with(json!({"$token": ""})), "$token"),
        (with(json!({"$token": 1})), "$token"),
        (with(json!({"$group_key": null})), "$group_key"),
        (with(json!({"$group_key": ""})), "$group_key"),
        (with(json!({"$group_key": ["company"]})), "$group_key"),
        (with(json!({"$group_id": null})), "$group_id"),
        (with(json!({"$group_id": ""})), "$group_id"),
        (with(json!({"$group_id": 12345})), "$group_id"),
        (with(json!({"$set": null})), ""),
        (with(json!({"$unset": ["a"]})), "$unset"),
        (with(json!({"plan": "free"})), "plan"),
        (with(json!({"$append": {"a": 1}})), "$append"),
        (update("acme", "$add", json!({"a": 1})), "$add"),
        (with(json!({"$set": []})), "$set"),
        (with(json!({"$set": "plan"})), "$set"),
        (update("acme", "$set_once", json!(1)), "$set_once"),
        (update("acme", "$unset", json!([])), "$unset"),
        (update("acme", "$unset", json!("a")), "$unset"),
        (update("acme", "$unset", json!([{}])), "$unset"),
        (update("acme", "$unset", json!({"a": 1})), "$unset"),
        (with(json!({"$set": {}})), "$set"),
        (update("acme", "$set_once", json!({})), "$set_once"),
        (update("acme", "$union", json!({})), "$union"),
        (update("acme", "$union", json!(["a"])), "$union"),
        (update("acme", "$union", json!({"a": []})), "$union.a"),
        (update("acme", "$union", json!({"a": "x"})), "$union.a"),
        (
            update("acme", "$union", json!({"a": [1], "b": [true]})),
            "$union.b",
        ),
        (update("acme", "$union", json!({"a": [null]})), "$union.a"),
        (update("acme", "$union", json!({"a": [[1]]})), "$union.a"),
        (update("acme", "$union", json!({"a": [{}]})), "$union.a"),
        (update("acme", "$remove", json!(["a"])), "$remove"),
        (update("acme", "$remove", json!({"a": [1]})), "$remove.a"),
        (update("acme", "$remove", json!({"a": {}})), "$remove.a"),
        (with(json!({"$set": {"": 1}})), "$set"),
        (with(json!({"$set": {"$group_id": 1}})), "$set"),
        (
            update("acme", "$union", json!({"$group_key": [1]})),
            "$union",
        ),
        (update("acme", "$unset", json!([""])), "$unset"),
        (with(json!({"$company_id": ""})), "$company_id"),
        (with(json!({"$company_id": 5})), "$company_id"),
        (with(json!({"$group_key": "$company_id"})), "$company_id"),
        (with(json!({"$group_key": "$user_id"})), "$company_id"),
        (
            with(json!({"$group_key": "$company_id", "$company_id": "globex"})),
            "$company_id",
        ),
    ];
    for (record, field) in invalid {
        assert_eq!(failed_field(&record).as_deref(), Some(field), "{record}");
    }
}

#[test]
fn an_invalid_record_is_dropped_without_strict_too() {
    let emulator = Emulator::start().unwrap();
    let body = json!([with(json!({"$group_id": 12345})), with(json!({}))]);
    assert_eq!(Sender::new(&emulator).send("", &body).body, "1");
    assert_eq!(emulator.profiles().len(), 1);
}

/// "Creating a group needs at least one property": an empty update of a group that exists creates none.
#[test]
fn an_empty_update_is_valid_where_the_group_exists() {
    let emulator = Emulator::start().unwrap();
    let sender = Sender::new(&emulator);
    let body = json!([
        update("acme", "$set", json!({})),
        update("acme", "$set", json!({"a": null})),
        update("acme", "$set_once", json!({})),
        update("acme", "$set", json!({})),
    ]);
    let response = sender.send("strict=1", &body).json();
    assert_eq!(response["num_records_imported"], 3);
    assert_eq!(response["failed_records"][0]["index"], 0);
    assert_eq!(response["failed_records"].as_array().unwrap().len(), 1);
    // `null` is a value, which Mixpanel shows as "(not set)".
    assert_eq!(
        emulator.profile("company", "acme").unwrap(),
        json!({"a": null})
    );
}

#[test]
fn add_is_refused_with_the_reason() {
    let emulator = Emulator::start().unwrap();
    let body = json!([update("acme", "$add", json!({"a": 1}))]);
    let response = Sender::new(&emulator).send("strict=1", &body).json();
    let message = "documented by name only, so not supported here";
    assert_eq!(response["failed_records"][0]["message"], message);
}

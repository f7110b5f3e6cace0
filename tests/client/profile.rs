//! What an operation does to a profile.
#![allow(clippy::needless_pass_by_value)] // `json!(…)` reads best as an argument.

use mixpanel_groups::{Group, Operation, Profile, Update};
use serde_json::{Value, json};

fn acme() -> Group<'static> {
    Group::new("company", "acme")
}

/// The profile of these properties; of no group for `null`.
fn profile(properties: Value) -> Profile {
    match properties {
        Value::Object(properties) => properties.into_iter().collect(),
        _ => Profile::default(),
    }
}

/// The update turns the one into the other, and changes nothing when it comes a second time.
#[track_caller]
fn assert_turns(before: Value, update: &Update<'_>, after: Value) {
    let mut profile = profile(before);
    profile.apply(update).unwrap();
    assert_eq!(profile, after);
    let once = profile.clone();
    profile.apply(update).unwrap();
    assert_eq!(profile, once);
}

#[test]
fn set() {
    let update = acme().set(json!({"a": 1, "b": [1]}));
    assert_turns(json!(null), &update, json!({"a": 1, "b": [1]}));
    assert_turns(
        json!({"a": "old", "c": 3}),
        &update,
        json!({"a": 1, "b": [1], "c": 3}),
    );
}

#[test]
fn set_once() {
    let update = acme().set_once(json!({"a": 1, "b": 2}));
    assert_turns(json!(null), &update, json!({"a": 1, "b": 2}));
    let kept = json!({"a": null, "b": [], "c": 3});
    assert_turns(kept.clone(), &update, kept);
}

#[test]
fn unset() {
    let update = acme().unset(["a", "b"]);
    assert_turns(json!({"a": 1, "c": 3}), &update, json!({"c": 3}));
    assert_turns(json!({"a": 1}), &update, json!({}));
    assert_turns(json!(null), &update, json!(null));
}

#[test]
fn union() {
    let update = acme().union(json!({"list": [2, "2", 2]}));
    assert_turns(json!(null), &update, json!({"list": [2, "2"]}));
    assert_turns(
        json!({"list": [3, 2, 1]}),
        &update,
        json!({"list": [3, 2, 1, "2"]}),
    );
    // Each item is kept once, also one that `$set` had put there twice.
    assert_turns(
        json!({"list": [1, 1, 2.0]}),
        &update,
        json!({"list": [1, 2.0, 2, "2"]}),
    );
    // Not a list: left alone.
    for other in [json!("text"), json!(2), json!(null), json!({"2": 2})] {
        let before = json!({"list": other});
        assert_turns(before.clone(), &update, before);
    }
}

#[test]
fn what_an_operation_does_not_take_changes_nothing() {
    for value in [json!({"tags": "slack"}), json!({"tags": []}), json!(7)] {
        let mut profile = Profile::default();
        profile.change(Operation::Union, value);
        assert!(!profile.exists());
    }
    let before = json!({"a": [[1], 2, {}], "b": 1});
    let mut profile = Profile::from_iter(before.as_object().unwrap().clone());
    profile.change(Operation::Remove, json!({"a": [1]}));
    profile.change(Operation::Remove, json!({"a": {}}));
    profile.change(Operation::Union, json!({"b": [1], "c": 1}));
    assert_eq!(profile, before);
}

#[test]
fn union_of_a_long_list() {
    let items: Vec<u32> = (0..100_000).collect();
    let update = acme().union(json!({"list": items}));
    let mut long = Profile::default();
    long.apply(&update).unwrap();
    long.apply(&update).unwrap();
    assert_eq!(long, json!({"list": items}));
}

#[test]
fn remove() {
    let update = acme().remove("list", 2);
    assert_turns(json!({"list": [1, 2, 3]}), &update, json!({"list": [1, 3]}));
    assert_turns(
        json!({"list": [2, "2", 2, 2.0]}),
        &update,
        json!({"list": ["2", 2.0]}),
    );
    assert_turns(json!({"list": [2]}), &update, json!({"list": []}));
    assert_turns(json!({"other": [2]}), &update, json!({"other": [2]}));
    assert_turns(json!({"list": 2}), &update, json!({"list": 2}));
    assert_turns(json!(null), &update, json!(null));
}

#[test]
fn delete() {
    let update = acme().delete();
    assert_turns(json!({"a": 1}), &update, json!(null));
    assert_turns(json!(null), &update, json!(null));
}

#[test]
fn an_update_with_nothing_to_say_changes_nothing() {
    assert_turns(json!(null), &acme().set(json!({})), json!(null));
    assert_turns(json!({"a": 1}), &acme().unset([""; 0]), json!({"a": 1}));
}

#[test]
fn an_update_that_cannot_be_sent_is_an_error_and_changes_nothing() {
    let mut acme = profile(json!({"a": 1}));
    let nameless = Group::new("company", "");
    assert!(acme.apply(&nameless.set(json!({"a": 2}))).is_err());
    assert_eq!(acme, json!({"a": 1}));
}

#[test]
fn no_group_and_no_properties_are_not_the_same() {
    let none = Profile::default();
    let empty = profile(json!({}));
    assert!(!none.exists() && empty.exists());
    assert_ne!(none, empty);
    assert_ne!(none, json!({}));
    assert_ne!(empty, json!(null));
    assert_eq!(
        (none.to_string(), empty.to_string()),
        ("null".into(), "{}".into())
    );
}

#[test]
fn properties_can_be_read() {
    let acme = profile(json!({"b": [1], "a": "x"}));
    assert_eq!(acme.get("a"), Some(&json!("x")));
    assert_eq!(acme.get("c"), None);
    let all: Vec<_> = acme.iter().collect();
    assert_eq!(all, [("a", &json!("x")), ("b", &json!([1]))]);
    assert_eq!(acme.to_string(), r#"{"a":"x","b":[1]}"#);
    assert_eq!(
        format!("{acme:#}"),
        "{\n  \"a\": \"x\",\n  \"b\": [\n    1\n  ]\n}"
    );
    assert_eq!(
        serde_json::to_value(&acme).unwrap(),
        json!({"a": "x", "b": [1]})
    );
    assert_eq!(Profile::default().iter().count(), 0);
}

/// A failed `assert_eq!` writes it.
#[test]
fn debug_is_json() {
    let mut profile = Profile::default();
    assert_eq!(format!("{profile:?}"), "Profile(null)");
    profile
        .apply(&Group::new("company", "acme").set(json!({"plan": "free", "seats": 5})))
        .unwrap();
    assert_eq!(
        format!("{profile:?}"),
        r#"Profile({"plan":"free","seats":5})"#
    );
}

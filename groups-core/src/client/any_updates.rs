//! What holds whatever updates are coalesced: fewer that make the same of a profile, with `Profile` as the judge.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::client::Batch;
use crate::group::{Group, Operation};
use crate::profile::Profile;
use crate::record::{EncodedUpdate, Update};

/// Returns one of a few names, so that updates meet.
fn name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "c"])
}

fn item() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => (0..3).prop_map(|number| json!(number)),
        1 => Just(json!("text")),
        1 => Just(json!(1.0)),
    ]
}

fn list() -> impl Strategy<Value = Value> {
    prop::collection::vec(item(), 1..4).prop_map(Value::from)
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![3 => list(), 2 => item(), 1 => Just(json!([])), 1 => Just(json!({"deep": [1]}))]
}

fn group() -> impl Strategy<Value = Group<'static>> {
    prop_oneof![
        4 => Just(Group::new("company", "acme")),
        1 => Just(Group::new("company", "acme").in_company("globex")),
        2 => Just(Group::new("company", "globex")),
        1 => Just(Group::new("team", "acme")),
    ]
}

fn update() -> impl Strategy<Value = Update<'static>> {
    let values = |value| prop::collection::btree_map(name(), value, 1..4);
    prop_oneof![
        3 => (group(), values(value().boxed())).prop_map(|(group, values)| group.set(values)),
        2 => (group(), values(value().boxed())).prop_map(|(group, values)| group.set_once(values)),
        4 => (group(), values(list().boxed())).prop_map(|(group, values)| group.union(values)),
        4 => (group(), name(), item()).prop_map(|(group, name, item)| group.remove(name, item)),
        2 => (group(), prop::collection::vec(name(), 1..3))
            .prop_map(|(group, names)| group.unset(names)),
        1 => group().prop_map(|group| group.delete()),
        2 => foreign(),
    ]
}

/// Returns what another program may have written: `$remove` of several properties, or an operation without any.
fn foreign() -> impl Strategy<Value = Update<'static>> {
    let operation = prop::sample::select(vec!["$set", "$set_once", "$union", "$remove", "$remove"]);
    let items = prop::collection::btree_map(name(), item(), 0..3);
    (group(), operation, items).prop_map(|(group, operation, items)| {
        let items = match operation {
            "$union" => items
                .into_iter()
                .map(|(name, item)| (name, json!([item])))
                .collect(),
            _ => items,
        };
        let mut update =
            json!({"$group_key": group.key(), "$group_id": group.id(), operation: items});
        if let Some(company) = group.company_id() {
            update["$company_id"] = json!(company);
        }
        EncodedUpdate::from_json(&update.to_string())
            .unwrap()
            .into()
    })
}

fn profile() -> impl Strategy<Value = Profile> {
    let some = prop::collection::btree_map(name().prop_map(str::to_owned), value(), 0..4);
    prop_oneof![3 => some.prop_map(Profile::from_iter), 1 => Just(Profile::default())]
}

fn batch(updates: &[Update<'_>]) -> Batch {
    let mut batch = Batch::new("TOKEN");
    for update in updates {
        batch.push(update).unwrap();
    }
    batch
}

type Profiles = BTreeMap<(String, String), Profile>;

/// Returns what a request makes of profiles that were all like `start`.
fn apply(body: &[u8], start: &Profile) -> Profiles {
    let updates: Vec<Value> = serde_json::from_slice(body).unwrap();
    let mut profiles = Profiles::new();
    for update in updates {
        assert_eq!(update["$token"], "TOKEN");
        let text = |key: &str| update[key].as_str().unwrap().to_owned();
        let group = (text("$group_key"), text("$group_id"));
        let profile = profiles.entry(group).or_insert_with(|| start.clone());
        for operation in Operation::ALL {
            if let Some(value) = update.get(operation.name()) {
                profile.change(*operation, value.clone());
            }
        }
    }
    profiles
}

#[test]
fn examples() {
    let acme = Group::new("company", "acme");
    let globex = Group::new("company", "globex");
    let rows: [(&[Update<'_>], &[&str]); 12] = [
        (
            &[acme.set(json!({"a": 1, "b": 1})), acme.set(json!({"a": 2}))],
            &[r#"$set {"a":2,"b":1}"#],
        ),
        (
            &[acme.set(json!({"a": 1})), acme.delete()],
            &[r#"$delete """#],
        ),
        (&[acme.delete(), acme.delete()], &[r#"$delete """#]),
        (
            &[
                acme.union(json!({"a": [1, 2]})),
                acme.union(json!({"a": [2, 3]})),
            ],
            &[r#"$union {"a":[1,2,3]}"#],
        ),
        (
            &[
                acme.set(json!({"a": [1]})),
                acme.union(json!({"a": [2]})),
                acme.remove("a", 1),
            ],
            &[r#"$set {"a":[2]}"#],
        ),
        (
            &[
                acme.set_once(json!({"a": 1})),
                acme.set_once(json!({"a": 2})),
            ],
            &[r#"$set_once {"a":1}"#],
        ),
        (
            &[acme.unset(["a"]), acme.unset(["b", "a"])],
            &[r#"$unset ["a","b"]"#],
        ),
        (
            &[acme.remove("a", 1), acme.remove("b", 1)],
            &[r#"$remove {"a":1,"b":1}"#],
        ),
        (
            &[acme.remove("a", 1), acme.remove("a", 2)],
            &[r#"$remove {"a":1}"#, r#"$remove {"a":2}"#],
        ),
        // The group exists afterwards, so it must be created.
        (
            &[acme.set(json!({"a": 1})), acme.unset(["a"])],
            &[r#"$set {"a":1}"#, r#"$unset ["a"]"#],
        ),
        (
            &[
                acme.set(json!({"a": 1})),
                globex.delete(),
                acme.set(json!({"b": 2})),
            ],
            &[r#"$set {"a":1,"b":2}"#, r#"$delete """#],
        ),
        // Numbers that no `f64` holds stay as they are.
        (
            &[
                acme.union(json!({"a": [1]})),
                acme.union(BTreeMap::from([("a", [u128::MAX])])),
            ],
            &[r#"$union {"a":[1,340282366920938463463374607431768211455]}"#],
        ),
    ];
    for (updates, expected) in rows {
        let mut batch = batch(updates);
        assert_eq!(batch.coalesce(), updates.len() - expected.len());
        let body: Vec<BTreeMap<String, &RawValue>> = serde_json::from_slice(batch.body()).unwrap();
        let said: Vec<_> = body
            .iter()
            .flatten()
            .filter(|(name, _)| Operation::from_name(name).is_some())
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        assert_eq!(said, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn the_profiles_are_the_same(
        updates in prop::collection::vec(update(), 0..12),
        start in profile(),
    ) {
        let mut batch = batch(&updates);
        let whole = batch.body().to_vec();
        let before = batch.len();
        let fewer = batch.coalesce();
        let coalesced = batch.body().to_vec();
        prop_assert_eq!(batch.len() + fewer, before);
        prop_assert_eq!(apply(&coalesced, &start), apply(&whole, &start),
            "{}", String::from_utf8_lossy(&coalesced));

        prop_assert_eq!(batch.coalesce(), 0, "{}", String::from_utf8_lossy(&coalesced));
        prop_assert_eq!(
            String::from_utf8_lossy(batch.body()), String::from_utf8_lossy(&coalesced),
            "coalescing twice changes nothing"
        );
    }
}

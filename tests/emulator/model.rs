//! What comes of updates over HTTP is what `Profile::apply` says.

use std::collections::BTreeMap;

use mixpanel_groups::{Group, Profile, Update};
use mixpanel_groups_emulator::Emulator;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::wire::Sender;

/// Few names and values, so that updates meet.
fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[abc]", Just("\"\\\u{2028}\u{0}😀".to_owned())]
}

fn item() -> impl Strategy<Value = Value> {
    prop_oneof![
        (0..4).prop_map(Value::from),
        "[xy]".prop_map(Value::from),
        Just(json!(-0.5)),
        Just(json!(u64::MAX)),
    ]
}

fn items() -> impl Strategy<Value = Value> {
    prop::collection::vec(item(), 1..4).prop_map(Value::from)
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        item(),
        items(),
        Just(json!([])),
        Just(json!({"nested": [1, {"deep": true}]})),
    ]
}

fn object(values: impl Strategy<Value = Value>) -> impl Strategy<Value = Map<String, Value>> {
    prop::collection::btree_map(name(), values, 1..4).prop_map(|map| map.into_iter().collect())
}

fn update() -> impl Strategy<Value = (usize, Update<'static>)> {
    fn acting<T: Clone + std::fmt::Debug + 'static>(
        values: impl Strategy<Value = T> + 'static,
        act: impl Fn(&Group<'static>, T) -> Update<'static> + 'static,
    ) -> BoxedStrategy<(usize, Update<'static>)> {
        let update = (0..3_usize, values);
        update
            .prop_map(move |(i, value)| (i, act(&group(i), value)))
            .boxed()
    }
    prop_oneof![
        4 => acting(object(value()), Group::set),
        2 => acting(object(value()), Group::set_once),
        4 => acting(object(items()), Group::union),
        2 => acting(prop::collection::vec(name(), 1..3), Group::unset),
        4 => acting((name(), item()), |group, (name, item)| group.remove(&name, item)),
        1 => acting(Just(()), |group, ()| group.delete()),
    ]
}

fn group(i: usize) -> Group<'static> {
    let (key, id) = [("company", "1"), ("company", "2"), ("team", "1")][i];
    Group::new(key, id)
}

fn record(update: &Update<'_>) -> Value {
    let mut record: Value = serde_json::from_str(&update.to_json().unwrap().unwrap()).unwrap();
    record["$token"] = json!("TOKEN");
    record
}

#[test]
fn updates_over_http_do_what_the_model_says() {
    let updates = prop::collection::vec(update(), 0..40);
    proptest!(|(updates in updates, batch in 1..20_usize)| {
        let emulator = Emulator::start().unwrap();
        let sender = Sender::new(&emulator);
        let mut model = BTreeMap::<_, Profile>::new();
        for batch in updates.chunks(batch) {
            for (i, update) in batch {
                let group = group(*i);
                let key = (group.key().to_owned(), group.id().to_string());
                model.entry(key).or_default().apply(update).unwrap();
            }
            let records = batch.iter().map(|(_, update)| record(update));
            let response = sender.send("strict=1", &records.collect());
            prop_assert_eq!(&response.json()["num_good_events"], batch.len(), "{:?}", response);
        }
        model.retain(|_, profile| profile.exists());
        prop_assert_eq!(emulator.profiles(), model);
    });
}

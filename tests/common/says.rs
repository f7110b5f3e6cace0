//! What updates say, for tests to compare.

use std::collections::BTreeMap;

use mixpanel_groups::{MixpanelGroup, Operation, Update};
use serde_json::{Value, json};

/// The value of an update's operation.
pub fn says(update: &Update<'_>) -> Value {
    let json = update
        .to_json()
        .expect("a good update")
        .expect("something to send");
    let update: Value = serde_json::from_str(&json).expect("good JSON");
    let operations = Operation::ALL.iter().map(|operation| operation.name());
    let mut found = operations.filter_map(|name| update.get(name));
    let value = found.next().expect("one operation").clone();
    assert_eq!(found.next(), None, "one operation only");
    value
}

/// All that a struct says, by operation.
pub fn all<T: MixpanelGroup + Sync>(group: &T) -> Value {
    let says = |update: Update<'_>| (update.operation().expect("one").name(), says(&update));
    let all: BTreeMap<_, _> = group.updates().map(says).collect();
    json!(all)
}

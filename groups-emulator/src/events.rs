use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

/// The events that were imported, each once, the oldest first.
#[derive(Default)]
pub(crate) struct Events {
    by_number: BTreeMap<u64, Value>,
    numbers: HashMap<Identity, u64>,
    next: u64,
}

/// What makes two events one: name, time, distinct id, insert id.
type Identity = [String; 4];

fn identity(event: &Value) -> Identity {
    let property = |name: &str| event["properties"][name].to_string();
    [
        event["event"].to_string(),
        property("time"),
        property("distinct_id"),
        property("$insert_id"),
    ]
}

impl Events {
    /// What is kept: enough for any test, and not too much for a long day.
    const MAX: usize = 100_000;

    /// Adds a valid event, in place of the same one that came before.
    pub(crate) fn push(&mut self, event: Value) {
        let before = self.numbers.insert(identity(&event), self.next);
        if let Some(before) = before {
            self.by_number.remove(&before);
        }
        self.by_number.insert(self.next, event);
        self.next += 1;
        if self.by_number.len() > Self::MAX {
            if let Some((_, oldest)) = self.by_number.pop_first() {
                self.numbers.remove(&identity(&oldest));
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_number.len()
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Value> {
        self.by_number.values()
    }

    /// The events that are linked to a group.
    pub(crate) fn of(&self, key: &str, id: &str) -> impl DoubleEndedIterator<Item = &Value> {
        self.iter()
            .filter(move |event| match &event["properties"][key] {
                Value::Array(ids) => ids.iter().any(|other| *other == *id),
                other => *other == *id,
            })
    }
}

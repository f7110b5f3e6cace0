use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

/// The imported events, each once, the oldest first.
#[derive(Default)]
pub(crate) struct EventStore {
    by_number: BTreeMap<u64, Value>,
    numbers: HashMap<EventIdentity, u64>,
    next: u64,
}

/// Name, time, distinct id and insert id: two events with the same four are one.
type EventIdentity = [String; 4];

fn identity(event: &Value) -> EventIdentity {
    let property = |name: &str| event["properties"][name].to_string();
    [
        event["event"].to_string(),
        property("time"),
        property("distinct_id"),
        property("$insert_id"),
    ]
}

impl EventStore {
    /// The most events that are kept: enough for any test, and bounded for an emulator that runs all
    /// day.
    const MAX: usize = 100_000;

    /// Appends a valid event, and removes an earlier one of the same identity.
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

    /// Iterates over the events that are linked to a group.
    pub(crate) fn of(&self, key: &str, id: &str) -> impl DoubleEndedIterator<Item = &Value> {
        self.iter()
            .filter(move |event| match &event["properties"][key] {
                Value::Array(ids) => ids.iter().any(|other| *other == *id),
                other => *other == *id,
            })
    }
}

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::Value;

/// The imported events, each once, the oldest first.
#[derive(Default)]
pub(crate) struct EventStore {
    by_version: BTreeMap<u64, Arc<Value>>,
    versions: HashMap<EventIdentity, u64>,
    /// The version of the last event that took the place of another, or 0. A viewer of an earlier version
    /// shows one that is gone.
    pub(crate) replaced: u64,
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

/// Returns whether an event is linked to a group.
pub(crate) fn is_linked(event: &Value, key: &str, id: &str) -> bool {
    match &event["properties"][key] {
        Value::Array(ids) => ids.iter().any(|other| *other == *id),
        other => *other == *id,
    }
}

impl EventStore {
    /// The most events that are kept: enough for any test, and bounded for an emulator that runs all
    /// day.
    const MAX: usize = 100_000;

    /// Appends a valid event, and removes an earlier one of the same identity. `version` is larger than
    /// that of any other event.
    pub(crate) fn push(&mut self, event: Value, version: u64) {
        let before = self.versions.insert(identity(&event), version);
        if let Some(before) = before {
            self.by_version.remove(&before);
            self.replaced = version;
        }
        self.by_version.insert(version, Arc::new(event));
        if self.by_version.len() > Self::MAX
            && let Some((_, oldest)) = self.by_version.pop_first()
        {
            self.versions.remove(&identity(&oldest));
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_version.len()
    }

    /// Returns all events, shared with the store.
    pub(crate) fn all(&self) -> Vec<Arc<Value>> {
        self.by_version.values().cloned().collect()
    }

    /// Returns up to `count` events between two versions, without these, the newest first, each with its
    /// version.
    pub(crate) fn between(&self, since: u64, before: u64, count: usize) -> Vec<(u64, Arc<Value>)> {
        let events = self.by_version.range(..before).rev();
        let events = events.take_while(|(version, _)| **version > since);
        events
            .take(count)
            .map(|(&version, event)| (version, Arc::clone(event)))
            .collect()
    }
}

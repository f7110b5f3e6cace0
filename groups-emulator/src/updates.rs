use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mixpanel_groups::{Operation, Profile};
use serde::ser::{Serialize, SerializeMap as _, SerializeStruct as _, Serializer};
use serde_json::Value;

use crate::memory::GroupSummary;

/// An update that the emulator has applied, from [`Emulator::updates`](crate::Emulator::updates).
///
/// `Serialize` writes what the client chose, an object like `{"$set": {"plan": "free"}}`, with the names
/// in objects in order, so that two runs of a test yield the same snapshot.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct AppliedUpdate {
    /// The operation.
    pub operation: Operation,
    /// The operation's value, as the emulator kept it.
    pub value: Value,
    /// The properties that the update changed, by name. Empty if it changed nothing, for instance a
    /// `$set_once` of a property that exists.
    pub changes: Vec<PropertyChange>,
    /// The [`number`](crate::ReceivedRequest::number) of the request that brought the update, or `None`
    /// if an earlier run did, and the emulator read it from its file.
    pub request: Option<usize>,
    /// The version of the memory that the update made.
    pub(crate) version: u64,
    /// When, in milliseconds since 1970.
    pub(crate) at: u64,
}

/// A property before and after an update.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PropertyChange {
    /// The property's name.
    pub name: String,
    /// The value before, or `None` if there was no such property.
    pub before: Option<Value>,
    /// The value after, or `None` if there is no such property any more.
    pub after: Option<Value>,
}

impl AppliedUpdate {
    /// Applies the update to a profile and returns it with what it changed.
    pub(crate) fn apply(profile: &mut Profile, operation: Operation, value: Value) -> Self {
        // A `$unset` may name a property twice.
        let names: BTreeSet<String> = match &value {
            _ if operation == Operation::Delete => {
                profile.iter().map(|(name, _)| name.to_owned()).collect()
            }
            Value::Object(properties) => properties.keys().cloned().collect(),
            Value::Array(names) => {
                let names = names.iter().filter_map(Value::as_str);
                names.map(str::to_owned).collect()
            }
            _ => BTreeSet::new(),
        };
        let before: Vec<_> = names.iter().map(|n| profile.get(n).cloned()).collect();
        profile.change(operation, value.clone());
        let changes = names.into_iter().zip(before);
        let changes = changes.filter_map(|(name, before)| {
            let after = profile.get(&name);
            (before.as_ref() != after).then(|| PropertyChange {
                after: after.cloned(),
                name,
                before,
            })
        });
        Self {
            changes: changes.collect(),
            operation,
            value,
            request: None,
            version: 0,
            at: 0,
        }
    }

    /// Returns about how many bytes the update takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        let changes = self.changes.iter().map(|change| {
            let values = [&change.before, &change.after].into_iter().flatten();
            change.name.len() + values.map(bytes).sum::<usize>()
        });
        bytes(&self.value) + changes.sum::<usize>()
    }
}

/// Returns about how many bytes a value takes in memory.
fn bytes(value: &Value) -> usize {
    let inner = match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(bytes).sum(),
        Value::Object(members) => members.iter().map(|(n, v)| n.len() + bytes(v)).sum(),
        _ => 0,
    };
    size_of::<Value>() + inner
}

impl Serialize for AppliedUpdate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(self.operation.name(), &Sorted(&self.value))?;
        map.end()
    }
}

/// The updates of one group, from [`Emulator::updates`](crate::Emulator::updates).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct GroupUpdates {
    /// The group key.
    pub key: String,
    /// The group id.
    pub id: String,
    /// The updates in the order in which they were applied.
    pub updates: Vec<AppliedUpdate>,
}

impl Serialize for GroupUpdates {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut group = serializer.serialize_struct("GroupUpdates", 3)?;
        group.serialize_field("key", &self.key)?;
        group.serialize_field("id", &self.id)?;
        group.serialize_field("updates", &self.updates)?;
        group.end()
    }
}

/// The profiles and events of an emulator, from [`Emulator::snapshot`](crate::Emulator::snapshot), to compare with those of
/// an earlier run of a test.
///
/// `Serialize` writes an object with two members, in an order that does not change from run to run:
/// - `groups`: for each group key, by its name, the profiles by id;
/// - `events`: the events in the order in which they came, without `time` and `$insert_id`, which differ
///   from run to run.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct EmulatorSnapshot {
    /// The profiles of the groups that exist, by group key and id.
    pub groups: BTreeMap<String, BTreeMap<String, Profile>>,
    /// The imported events, without `time` and `$insert_id`.
    pub events: Vec<Value>,
}

impl EmulatorSnapshot {
    pub(crate) fn new(groups: Vec<GroupSummary>, events: Vec<Arc<Value>>) -> Self {
        let mut by_key = BTreeMap::<_, BTreeMap<_, _>>::new();
        for group in groups {
            let profiles = by_key.entry(group.key.to_string()).or_default();
            profiles.insert(group.id.to_string(), Arc::unwrap_or_clone(group.profile));
        }
        let events = events.into_iter().map(|event| {
            let mut event = Arc::unwrap_or_clone(event);
            if let Some(Value::Object(properties)) = event.get_mut("properties") {
                properties.remove("time");
                properties.remove("$insert_id");
            }
            event
        });
        Self {
            groups: by_key,
            events: events.collect(),
        }
    }
}

impl Serialize for EmulatorSnapshot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let groups: BTreeMap<_, BTreeMap<_, BTreeMap<_, _>>> = self
            .groups
            .iter()
            .map(|(key, groups)| {
                let groups = groups.iter().map(|(id, profile)| {
                    let properties = profile.iter().map(|(name, value)| (name, Sorted(value)));
                    (id, properties.collect())
                });
                (key, groups.collect())
            })
            .collect();
        let events: Vec<_> = self.events.iter().map(Sorted).collect();
        let mut snapshot = serializer.serialize_struct("EmulatorSnapshot", 2)?;
        snapshot.serialize_field("groups", &groups)?;
        snapshot.serialize_field("events", &events)?;
        snapshot.end()
    }
}

/// Writes a value with the names in objects in order, also where a program has turned on the feature
/// `preserve_order` of `serde_json`.
struct Sorted<'a>(&'a Value);

impl Serialize for Sorted<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Object(members) => {
                let members: BTreeMap<_, _> = members.iter().map(|(n, v)| (n, Sorted(v))).collect();
                serializer.collect_map(members)
            }
            Value::Array(items) => serializer.collect_seq(items.iter().map(Sorted)),
            other => other.serialize(serializer),
        }
    }
}

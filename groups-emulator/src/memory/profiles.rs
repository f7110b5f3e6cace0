use std::collections::{BTreeMap, VecDeque};

use serde_json::{Value, json};

use mixpanel_groups::{Operation, Profile};

/// A valid update, as a request brought it.
pub(crate) struct ParsedUpdate {
    pub(crate) key: String,
    pub(crate) id: String,
    pub(crate) operation: Operation,
    pub(crate) value: Value,
}

/// A group that exists, or did.
#[derive(Default)]
pub(crate) struct KnownGroup {
    pub(crate) profile: Profile,
    /// The group's last updates, the oldest first.
    pub(crate) history: VecDeque<AppliedUpdate>,
}

/// An update that was applied.
pub(crate) struct AppliedUpdate {
    /// When, in milliseconds since 1970.
    pub(crate) at: u64,
    pub(crate) operation: Operation,
    pub(crate) value: Value,
}

/// All groups, by group key and id.
///
/// `$company_id` is not a part of a group's identity: no source says that a company's group may have
/// the key and the id of another company's.
#[derive(Default)]
pub(crate) struct ProfileStore(BTreeMap<String, BTreeMap<String, KnownGroup>>);

impl ProfileStore {
    /// The most updates that a group's history keeps.
    const MAX_HISTORY: usize = 100;

    pub(crate) fn apply(&mut self, update: ParsedUpdate, at: u64) {
        let ParsedUpdate {
            key,
            id,
            operation,
            value,
        } = update;
        let group = self.group(key, id);
        group.profile.change(operation, value.clone());
        group.record(AppliedUpdate {
            at,
            operation,
            value,
        });
    }

    /// Returns the group, adding one without a profile if it is not known.
    pub(crate) fn group(&mut self, key: String, id: String) -> &mut KnownGroup {
        self.0.entry(key).or_default().entry(id).or_default()
    }

    pub(crate) fn get(&self, key: &str, id: &str) -> Option<&KnownGroup> {
        self.0.get(key)?.get(id)
    }

    /// Iterates over all groups, including those that no longer exist.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str, &KnownGroup)> {
        self.0.iter().flat_map(|(key, groups)| {
            let groups = groups.iter();
            groups.map(move |(id, group)| (key.as_str(), id.as_str(), group))
        })
    }
}

impl KnownGroup {
    fn record(&mut self, update: AppliedUpdate) {
        self.history.push_back(update);
        if self.history.len() > ProfileStore::MAX_HISTORY {
            self.history.pop_front();
        }
    }
}

impl AppliedUpdate {
    pub(crate) fn to_json(&self) -> Value {
        json!({"at": self.at, "operation": self.operation.name(), "value": self.value})
    }

    pub(crate) fn from_json(mut json: Value) -> Option<Self> {
        Some(Self {
            at: json["at"].as_u64()?,
            operation: Operation::from_name(json["operation"].as_str()?)?,
            value: json.get_mut("value")?.take(),
        })
    }
}

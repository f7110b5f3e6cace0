use std::collections::{BTreeMap, VecDeque};

use serde_json::{Value, json};

use crate::{Operation, Profile};

/// What a valid record of a request says.
pub(super) struct Change {
    pub(super) key: String,
    pub(super) id: String,
    pub(super) operation: Operation,
    pub(super) value: Value,
}

/// A group that exists, or did.
#[derive(Default)]
pub(super) struct Known {
    pub(super) profile: Profile,
    /// The last updates of it, the oldest first.
    pub(super) history: VecDeque<Past>,
}

/// An update that was applied.
pub(super) struct Past {
    /// When, in milliseconds since 1970.
    pub(super) at: u64,
    pub(super) operation: Operation,
    pub(super) value: Value,
}

/// All groups, by group key and id.
///
/// `$company_id` says where a group belongs. It is no part of what names the group: no source says
/// that the same key and id may come again in another company.
#[derive(Default)]
pub(super) struct Profiles(BTreeMap<String, BTreeMap<String, Known>>);

impl Profiles {
    /// How many updates of a group are kept.
    const MAX_HISTORY: usize = 100;

    pub(super) fn apply(&mut self, change: Change, at: u64) {
        let Change {
            key,
            id,
            operation,
            value,
        } = change;
        let group = self.group(key, id);
        group.profile.change(operation, value.clone());
        group.remember(Past {
            at,
            operation,
            value,
        });
    }

    /// A group, which need not be known so far.
    pub(super) fn group(&mut self, key: String, id: String) -> &mut Known {
        self.0.entry(key).or_default().entry(id).or_default()
    }

    pub(super) fn get(&self, key: &str, id: &str) -> Option<&Known> {
        self.0.get(key)?.get(id)
    }

    /// All groups, also those that no longer exist.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str, &Known)> {
        self.0.iter().flat_map(|(key, groups)| {
            let groups = groups.iter();
            groups.map(move |(id, known)| (key.as_str(), id.as_str(), known))
        })
    }
}

impl Known {
    pub(super) fn remember(&mut self, past: Past) {
        self.history.push_back(past);
        if self.history.len() > Profiles::MAX_HISTORY {
            self.history.pop_front();
        }
    }
}

impl Past {
    pub(super) fn to_json(&self) -> Value {
        json!({"at": self.at, "operation": self.operation.name(), "value": self.value})
    }

    pub(super) fn from_json(mut json: Value) -> Option<Self> {
        Some(Self {
            at: json["at"].as_u64()?,
            operation: Operation::from_name(json["operation"].as_str()?)?,
            value: json.get_mut("value")?.take(),
        })
    }
}

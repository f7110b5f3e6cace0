use std::collections::{BTreeMap, VecDeque};

use serde_json::{Value, json};

use mixpanel_groups::{Operation, Profile};

/// What a valid record of a request says.
pub(crate) struct Change {
    pub(crate) key: String,
    pub(crate) id: String,
    pub(crate) operation: Operation,
    pub(crate) value: Value,
}

/// A group that exists, or did.
#[derive(Default)]
pub(crate) struct Known {
    pub(crate) profile: Profile,
    /// The last updates of it, the oldest first.
    pub(crate) history: VecDeque<Past>,
}

/// An update that was applied.
pub(crate) struct Past {
    /// When, in milliseconds since 1970.
    pub(crate) at: u64,
    pub(crate) operation: Operation,
    pub(crate) value: Value,
}

/// All groups, by group key and id.
///
/// `$company_id` says where a group belongs. It is no part of what names the group: no source says
/// that the same key and id may come again in another company.
#[derive(Default)]
pub(crate) struct Profiles(BTreeMap<String, BTreeMap<String, Known>>);

impl Profiles {
    /// How many updates of a group are kept.
    const MAX_HISTORY: usize = 100;

    pub(crate) fn apply(&mut self, change: Change, at: u64) {
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
    pub(crate) fn group(&mut self, key: String, id: String) -> &mut Known {
        self.0.entry(key).or_default().entry(id).or_default()
    }

    pub(crate) fn get(&self, key: &str, id: &str) -> Option<&Known> {
        self.0.get(key)?.get(id)
    }

    /// All groups, also those that no longer exist.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str, &Known)> {
        self.0.iter().flat_map(|(key, groups)| {
            let groups = groups.iter();
            groups.map(move |(id, known)| (key.as_str(), id.as_str(), known))
        })
    }
}

impl Known {
    pub(crate) fn remember(&mut self, past: Past) {
        self.history.push_back(past);
        if self.history.len() > Profiles::MAX_HISTORY {
            self.history.pop_front();
        }
    }
}

impl Past {
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

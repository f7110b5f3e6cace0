use std::collections::BTreeMap;

use serde_json::Value;

use crate::{Operation, Profile};

/// What a valid record of a request says.
pub(super) struct Change {
    pub(super) key: String,
    pub(super) id: String,
    pub(super) operation: Operation,
    pub(super) value: Value,
}

/// The profiles of all groups that exist, by group key and id.
///
/// `$company_id` says where a group belongs. It is no part of what names the group: no source says
/// that the same key and id may come again in another company.
#[derive(Default)]
pub(super) struct Profiles(BTreeMap<String, BTreeMap<String, Profile>>);

impl Profiles {
    pub(super) fn apply(&mut self, change: Change) {
        let groups = self.0.entry(change.key).or_default();
        let profile = groups.entry(change.id.clone()).or_default();
        profile.change(change.operation, change.value);
        if !profile.exists() {
            groups.remove(&change.id);
        }
    }

    pub(super) fn get(&self, key: &str, id: &str) -> Option<&Profile> {
        self.0.get(key)?.get(id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str, &Profile)> {
        self.0.iter().flat_map(|(key, groups)| {
            let groups = groups.iter();
            groups.map(move |(id, profile)| (key.as_str(), id.as_str(), profile))
        })
    }
}

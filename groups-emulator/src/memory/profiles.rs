use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::records::batch::{InvalidField, invalid};
use crate::updates::{AppliedUpdate, PropertyChange};
use mixpanel_groups::{Operation, Profile};

/// A valid update, as a request brought it.
pub(crate) struct ParsedUpdate {
    pub(crate) key: String,
    pub(crate) id: String,
    pub(crate) operation: Operation,
    pub(crate) value: Value,
}

/// When an update is applied, and what brought it.
#[derive(Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) version: u64,
    pub(crate) at: u64,
    pub(crate) request: usize,
}

/// A group that an update has named. A clone shares everything with the original, so it is cheap, and remains
/// as it is when the original changes.
#[derive(Clone)]
pub(crate) struct KnownGroup {
    pub(crate) key: Arc<str>,
    pub(crate) id: Arc<str>,
    pub(crate) profile: Arc<Profile>,
    /// Whether it exists or has existed: `$unset`, `$remove` and `$delete` do not create it.
    pub(crate) existed: bool,
    /// The group's last updates, the oldest first.
    pub(crate) history: VecDeque<Arc<AppliedUpdate>>,
    /// The bytes of these updates.
    history_bytes: usize,
}

/// A group without its history, to be looked at without the lock.
pub(crate) struct GroupSummary {
    pub(crate) key: Arc<str>,
    pub(crate) id: Arc<str>,
    pub(crate) profile: Arc<Profile>,
    pub(crate) existed: bool,
    /// The version that its last update made.
    pub(crate) version: u64,
    /// When, in milliseconds since 1970.
    pub(crate) at: u64,
}

/// All groups, by group key and id, and by their last change.
///
/// `$company_id` is not a part of a group's identity: no source says that a company's group may have
/// the key and the id of another company's.
#[derive(Default)]
pub(crate) struct ProfileStore {
    /// A group stays at its place.
    groups: Vec<KnownGroup>,
    by_name: BTreeMap<Arc<str>, BTreeMap<Arc<str>, usize>>,
    /// By the version that the group's last update made.
    by_version: BTreeMap<u64, usize>,
}

impl ProfileStore {
    /// The most updates that a group's history keeps.
    const MAX_HISTORY: usize = 100;
    /// The most bytes of these updates, beyond the last one.
    const MAX_HISTORY_BYTES: usize = 16 * 1024 * 1024;

    /// Applies an update, unless it would create a group without a property.
    pub(crate) fn apply(
        &mut self,
        update: ParsedUpdate,
        arrival: Arrival,
    ) -> Result<(), InvalidField> {
        let operation = update.operation;
        let is_empty = update.value.as_object().is_some_and(Map::is_empty);
        let creates = [Operation::Set, Operation::SetOnce].contains(&operation);
        if is_empty && creates && !self.exists(&update.key, &update.id) {
            return invalid(
                operation.name(),
                "creating a group needs at least one property",
            );
        }
        let place = self.group(update.key, update.id);
        let group = &mut self.groups[place];
        let profile = Arc::make_mut(&mut group.profile);
        let mut applied = AppliedUpdate::apply(profile, operation, update.value);
        applied.version = arrival.version;
        applied.at = arrival.at;
        applied.request = Some(arrival.request);
        group.existed |= group.profile.exists();
        self.record(place, applied);
        Ok(())
    }

    /// Adds a group as a file had it. Its history has at least one update.
    pub(crate) fn restore(
        &mut self,
        (key, id): (String, String),
        profile: Profile,
        existed: bool,
        history: Vec<AppliedUpdate>,
    ) {
        let place = self.group(key, id);
        self.groups[place].profile = Arc::new(profile);
        self.groups[place].existed = existed;
        for update in history {
            self.record(place, update);
        }
    }

    /// Returns the place of the group, adding one without a profile if it is not known.
    fn group(&mut self, key: String, id: String) -> usize {
        if let Some(&known) = self.by_name.get(&*key).and_then(|groups| groups.get(&*id)) {
            return known;
        }
        let (key, id): (Arc<str>, Arc<str>) = (key.into(), id.into());
        let place = self.groups.len();
        let groups = self.by_name.entry(Arc::clone(&key)).or_default();
        groups.insert(Arc::clone(&id), place);
        self.groups.push(KnownGroup {
            key,
            id,
            profile: Arc::default(),
            existed: false,
            history: VecDeque::new(),
            history_bytes: 0,
        });
        place
    }

    fn record(&mut self, place: usize, update: AppliedUpdate) {
        let group = &mut self.groups[place];
        if let Some(last) = group.history.back() {
            self.by_version.remove(&last.version);
        }
        self.by_version.insert(update.version, place);
        group.history_bytes += update.bytes();
        group.history.push_back(Arc::new(update));
        while group.history.len() > Self::MAX_HISTORY
            || (group.history_bytes > Self::MAX_HISTORY_BYTES && group.history.len() > 1)
        {
            let oldest = group.history.pop_front();
            group.history_bytes -= oldest.map_or(0, |oldest| oldest.bytes());
        }
    }

    pub(crate) fn get(&self, key: &str, id: &str) -> Option<&KnownGroup> {
        let place = *self.by_name.get(key)?.get(id)?;
        self.groups.get(place)
    }

    fn exists(&self, key: &str, id: &str) -> bool {
        self.get(key, id)
            .is_some_and(|group| group.profile.exists())
    }

    pub(crate) fn len(&self) -> usize {
        self.groups.len()
    }

    /// Iterates over the group keys and the number of groups of each.
    pub(crate) fn keys(&self) -> impl ExactSizeIterator<Item = (&str, usize)> {
        self.by_name
            .iter()
            .map(|(key, groups)| (&**key, groups.len()))
    }

    /// Iterates over all groups in the order of key and id, including those that no longer exist.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &KnownGroup> {
        let places = self.by_name.values().flat_map(BTreeMap::values);
        places.map(|&place| &self.groups[place])
    }

    /// Returns the groups that exist, in the order of key and id.
    pub(crate) fn existing(&self) -> Vec<GroupSummary> {
        let existing = self.iter().filter(|group| group.profile.exists());
        existing.map(KnownGroup::summary).collect()
    }

    /// Returns up to `count` groups, from this place on in the order of their first update.
    pub(crate) fn slice(&self, from: usize, count: usize) -> &[KnownGroup] {
        let to = self.groups.len().min(from.saturating_add(count));
        self.groups.get(from..to).unwrap_or_default()
    }

    /// Iterates over the groups whose last change lies between two versions, without these, the last
    /// changed first.
    pub(crate) fn changed(&self, since: u64, before: u64) -> impl Iterator<Item = &KnownGroup> {
        let is_empty = since.saturating_add(1) >= before;
        let range = (Bound::Excluded(since), Bound::Excluded(before));
        let found = (!is_empty).then(|| self.by_version.range(range).rev());
        found
            .into_iter()
            .flatten()
            .map(|(_, &place)| &self.groups[place])
    }
}

impl KnownGroup {
    pub(crate) fn summary(&self) -> GroupSummary {
        let last = self.history.back();
        GroupSummary {
            key: Arc::clone(&self.key),
            id: Arc::clone(&self.id),
            profile: Arc::clone(&self.profile),
            existed: self.existed,
            version: last.map_or(0, |update| update.version),
            at: last.map_or(0, |update| update.at),
        }
    }
}

impl AppliedUpdate {
    /// Returns the update as the file keeps it.
    pub(crate) fn to_json(&self) -> Value {
        let changes = self.changes.iter().map(|change| {
            let mut json = json!({"name": change.name});
            let values = [("before", &change.before), ("after", &change.after)];
            for (name, value) in values {
                if let Some(value) = value {
                    json[name] = value.clone();
                }
            }
            json
        });
        json!({
            "at": self.at,
            "operation": self.operation.name(),
            "value": self.value,
            "changes": changes.collect::<Vec<_>>(),
        })
    }

    pub(crate) fn from_json(mut json: Value) -> Option<Self> {
        let changes = match json.get_mut("changes").map(Value::take) {
            Some(Value::Array(changes)) => changes,
            // Written by an earlier version.
            _ => Vec::new(),
        };
        let changes = changes.into_iter().map(|mut change| {
            let mut take = |name: &str| change.get_mut(name).map(Value::take);
            Some(PropertyChange {
                name: take("name")?.as_str()?.to_owned(),
                before: take("before"),
                after: take("after"),
            })
        });
        Some(Self {
            at: json["at"].as_u64()?,
            operation: Operation::from_name(json["operation"].as_str()?)?,
            changes: changes.collect::<Option<_>>()?,
            value: json.get_mut("value")?.take(),
            request: None,
            version: 0,
        })
    }
}

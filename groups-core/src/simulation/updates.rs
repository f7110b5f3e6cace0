//! The updates of a simulation, and what they make of each group.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use shuttle::rand::{Rng as _, thread_rng};

use crate::group::{Group, Operation};
use crate::profile::Profile;
use crate::record::{EncodedUpdate, Update};
use crate::simulation::percent;

/// A property that the server refuses.
pub(super) const REFUSED: &str = "refused";

/// A text that a firewall dislikes, as long as there is one.
pub(super) const BLOCKED: &str = "<script>";

/// One update, as the model sees it.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub(super) group: String,
    operation: Operation,
    value: Value,
}

/// The groups as the model sees them.
#[derive(Debug, Default)]
pub(super) struct Model(pub(super) BTreeMap<String, Profile>);

impl Said {
    /// Returns the update of that number: on one of three groups, or one that the server refuses.
    pub(super) fn any(number: usize) -> Self {
        let mut random = thread_rng();
        if percent(10) {
            let value = json!({ REFUSED: number });
            let group = format!("refused {number}");
            return Self {
                group,
                operation: Operation::Set,
                value,
            };
        }
        let name = ["a", "b"][random.gen_range(0..2)];
        let (operation, value) = match random.gen_range(0..8) {
            0 => (Operation::SetOnce, json!({ name: number })),
            1 => (Operation::Union, json!({ name: [number % 3] })),
            2 => (Operation::Remove, json!({ name: number % 3 })),
            3 => (Operation::Unset, json!([name])),
            4 if percent(50) => (Operation::Delete, json!("")),
            5 => (Operation::Set, json!({ name: [number % 3] })),
            6 if percent(20) => (Operation::Set, json!({ name: BLOCKED })),
            _ => (Operation::Set, json!({ name: number, "last": number })),
        };
        let group = format!("group {}", random.gen_range(0..3));
        Self {
            group,
            operation,
            value,
        }
    }

    /// Moves half of what the server refuses to a group of which others are accepted.
    pub(super) fn among_others(mut self) -> Self {
        if self.is_refused() && percent(50) {
            self.group = format!("group {}", thread_rng().gen_range(0..3));
        }
        self
    }

    /// Returns whether the server or a firewall may stop the update.
    pub(super) fn may_be_rejected(&self) -> bool {
        self.is_refused() || self.is_blocked()
    }

    pub(super) fn update(&self) -> Update<'static> {
        let json = json!({
            "$group_key": "company",
            "$group_id": self.group,
            self.operation.name(): self.value,
        });
        EncodedUpdate::from_json(&json.to_string())
            .expect("the model makes valid updates")
            .into()
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.value.to_string().contains(BLOCKED)
    }

    pub(super) fn is_refused(&self) -> bool {
        self.value.get(REFUSED).is_some()
    }
}

impl Model {
    /// Returns what the updates make of their groups, except for those that the server refuses.
    pub(super) fn of<'s>(said: impl IntoIterator<Item = &'s Said>) -> Self {
        let mut model = Self::default();
        for said in said.into_iter().filter(|said| !said.is_refused()) {
            model.apply(&said.group, said.operation, said.value.clone());
        }
        model
    }

    pub(super) fn apply(&mut self, group: &str, operation: Operation, value: Value) {
        let profile = self.0.entry(group.to_owned()).or_default();
        profile.change(operation, value);
    }

    /// Panics if the groups are not the same; one that does not exist is as good as none. The items of a list may have
    /// changed places: `$remove` and `$union` of an item, sent again, put it at the end.
    pub(super) fn assert_same(&self, other: &Self) {
        let sorted = |value: &Value| match value {
            Value::Array(items) => {
                let mut items: Vec<_> = items.iter().map(Value::to_string).collect();
                items.sort();
                format!("{items:?}")
            }
            value => value.to_string(),
        };
        let existing = |model: &Self| -> BTreeMap<_, _> {
            let profiles = model.0.iter().filter(|(_, profile)| profile.exists());
            let properties = |profile: &Profile| -> BTreeMap<_, _> {
                profile
                    .iter()
                    .map(|(name, value)| (name.to_owned(), sorted(value)))
                    .collect()
            };
            profiles
                .map(|(group, profile)| (group.clone(), properties(profile)))
                .collect()
        };
        assert_eq!(
            existing(self),
            existing(other),
            "left is the model, right the server"
        );
    }
}

/// The group that an update of a simulation is about.
pub(super) fn group_of(group: &Group<'_>) -> String {
    group.id().to_string()
}

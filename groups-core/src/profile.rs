use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::fmt;

use serde_core::{Serialize, Serializer};
use serde_json::{Number, Value};

use crate::group::Operation;
use crate::record::{Error, ErrorKind, Update};

/// A group's profile, and what each operation does to it.
///
/// `Profile::default()` is the profile of a group that does not exist. It is not equal to a profile
/// without properties, which is what a group has left when the last property is unset.
///
/// ```
/// use mixpanel_groups::{Group, Profile};
/// use serde_json::json;
///
/// let acme = Group::new("company", "acme_corp");
/// let mut profile = Profile::default();
/// profile.apply(&acme.set(json!({"plan": "free", "seats": 5})))?;
/// profile.apply(&acme.set(json!({"plan": "enterprise"})))?;
/// assert_eq!(profile, json!({"plan": "enterprise", "seats": 5}));
///
/// profile.apply(&acme.delete())?;
/// assert!(!profile.exists());
/// # Ok::<(), mixpanel_groups::Error>(())
/// ```
///
/// # What the operations do
/// [Mixpanel's reference](https://developer.mixpanel.com/reference/group-profiles) documents the usual cases. The other
/// cases are choices of this library:
///
/// - `$set`, `$set_once` and `$union` create the group, even without a property: the emulator refuses that, since Mixpanel
///   documents that a group needs one. The others do not create it.
/// - `null` is a value like any other: `$set` stores it, and `$set_once` does not replace it. So a test sees what the code
///   under test has sent.
/// - After `$union`, the items of the list are unique, even if `$set` had stored duplicates. Items keep their order.
/// - `$remove` removes every item equal to the given one, so that it is idempotent. A list that becomes empty stays, as an
///   empty list.
/// - `$union` and `$remove` do not change a property that is not a list: only `$set`, `$unset` and `$delete` may destroy a
///   value.
/// - Items are equal if they are the same JSON value: `1` is neither `"1"` nor `1.0`.
/// - Texts are kept whole, although Mixpanel truncates them at 255 bytes: it does not document how it treats characters
///   at that limit and nested texts, and a test should see what was sent.
#[derive(Clone, Default, PartialEq)]
pub struct Profile {
    properties: Option<BTreeMap<String, Value>>,
}

impl Profile {
    /// Applies an update. Its group is not compared with anything.
    ///
    /// # Errors
    /// If the update cannot be sent, or has values nested deeper than 127 levels; the profile is
    /// unchanged then.
    pub fn apply(&mut self, update: &Update<'_>) -> Result<(), Error> {
        let Some(json) = update.to_json()? else {
            return Ok(());
        };
        let mut update: Value = serde_json::from_str(&json).map_err(|error| {
            Error::new(ErrorKind::InvalidUpdate, "the update is not JSON").with_source(error)
        })?;
        for &operation in Operation::ALL {
            if let Some(value) = update.get_mut(operation.name()) {
                self.change(operation, value.take());
            }
        }
        Ok(())
    }

    /// Applies one operation. A value that the operation does not take changes nothing.
    pub fn change(&mut self, operation: Operation, value: Value) {
        match (operation, value) {
            (Operation::Set, Value::Object(new)) => self.create().extend(new),
            (Operation::SetOnce, Value::Object(new)) => {
                let properties = self.create();
                for (name, value) in new {
                    properties.entry(name).or_insert(value);
                }
            }
            (Operation::Union, Value::Object(new)) => {
                let is_list = |value: &Value| value.as_array().is_some_and(|list| !list.is_empty());
                if !new.is_empty() && !new.values().any(is_list) {
                    return;
                }
                let properties = self.create();
                for (name, items) in new.into_iter().filter(|(_, items)| is_list(items)) {
                    let list = properties
                        .entry(name)
                        .or_insert_with(|| Value::Array(vec![]));
                    if let (Value::Array(list), Value::Array(items)) = (list, items) {
                        list.extend(items);
                        keep_unique(list);
                    }
                }
            }
            (Operation::Unset, Value::Array(names)) => {
                if let Some(properties) = &mut self.properties {
                    let names: HashSet<_> = names.iter().filter_map(Value::as_str).collect();
                    properties.retain(|name, _| !names.contains(name.as_str()));
                }
            }
            (Operation::Remove, Value::Object(items)) => {
                let is_item = |item: &Value| !item.is_array() && !item.is_object();
                for (name, item) in items.into_iter().filter(|(_, item)| is_item(item)) {
                    let property = self.properties.as_mut().and_then(|all| all.get_mut(&name));
                    if let Some(Value::Array(list)) = property {
                        let item = comparable(&item);
                        list.retain(|other| comparable(other) != item);
                    }
                }
            }
            (Operation::Delete, _) => self.properties = None,
            _ => {}
        }
    }

    fn create(&mut self) -> &mut BTreeMap<String, Value> {
        self.properties.get_or_insert_with(BTreeMap::new)
    }

    /// Returns whether the group exists.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.properties.is_some()
    }

    /// Returns the property of this name, if the profile has it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.properties.as_ref()?.get(name)
    }

    /// Iterates over the properties, ordered by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        let properties = self.properties.iter().flatten();
        properties.map(|(name, value)| (name.as_str(), value))
    }
}

/// Removes each item that is in the list before.
fn keep_unique(list: &mut Vec<Value>) {
    let mut seen = HashSet::with_capacity(list.len());
    let is_first = |item| seen.insert(comparable(item));
    let is_first: Vec<bool> = list.iter().map(is_first).collect();
    let mut is_first = is_first.into_iter();
    list.retain(|_| is_first.next() == Some(true));
}

/// Returns an item as it is compared: a fraction by its value, also if another crate enables `arbitrary_precision` of
/// `serde_json`, which compares it as it is written.
fn comparable(item: &Value) -> Cow<'_, Value> {
    let fraction = item.as_number().filter(|number| number.is_f64());
    // Zero has one sign.
    let value = fraction.and_then(|number| Number::from_f64(number.as_f64()? + 0.0));
    value.map_or(Cow::Borrowed(item), |value| Cow::Owned(value.into()))
}

/// The profile of a group that exists.
impl<N: Into<String>, V: Into<Value>> FromIterator<(N, V)> for Profile {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(properties: I) -> Self {
        let properties = properties.into_iter();
        Self {
            properties: Some(properties.map(|(n, v)| (n.into(), v.into())).collect()),
        }
    }
}

/// The properties as an object; `null` if there is no such group.
impl Serialize for Profile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.properties.serialize(serializer)
    }
}

/// Writes JSON, indented with `{:#}`.
impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let json = if f.alternate() {
            serde_json::to_string_pretty(self)
        } else {
            serde_json::to_string(self)
        };
        f.write_str(&json.map_err(|_| fmt::Error)?)
    }
}

/// Writes JSON, which a failed assertion shows.
impl fmt::Debug for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Profile(")?;
        fmt::Display::fmt(self, f)?;
        f.write_str(")")
    }
}

/// Compares as JSON: with an object if the group exists, with `null` if it does not.
impl PartialEq<Value> for Profile {
    fn eq(&self, other: &Value) -> bool {
        match (&self.properties, other) {
            (None, Value::Null) => true,
            (Some(properties), Value::Object(other)) => {
                properties.len() == other.len()
                    && properties
                        .iter()
                        .all(|(name, value)| other.get(name) == Some(value))
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Also where another crate enables `arbitrary_precision` of `serde_json`, which keeps them as they are written.
    #[test]
    fn fractions_are_equal_if_their_values_are() {
        let mut profile = Profile::default();
        let mut list_after = |operation, json| {
            let value = serde_json::from_str(json).unwrap();
            profile.change(operation, value);
            profile.get("list").unwrap().to_string()
        };
        list_after(
            Operation::Set,
            r#"{"list": [0.0, -0.0, 1.5, 1.50, 1, "0.0"]}"#,
        );
        let without_zero = list_after(Operation::Remove, r#"{"list": 0.0}"#);
        assert!(without_zero.starts_with("[1.5,1.5"), "{without_zero}");
        let without_fractions = list_after(Operation::Remove, r#"{"list": 15e-1}"#);
        assert_eq!(without_fractions, r#"[1,"0.0"]"#);
        let united = list_after(Operation::Union, r#"{"list": [2.5, 2.50, 25e-1]}"#);
        assert_eq!(united, r#"[1,"0.0",2.5]"#);
    }
}

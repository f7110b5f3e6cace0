use std::collections::BTreeMap;
use std::mem;

use serde_core::Serialize;

use super::known::{Known, Trace, set_of};
use crate::group::{Operation, Property};
use crate::json::item::Item;
use crate::json::list::push_list;
use crate::json::object::Flattened;
use crate::json::{EncodeError, Written, push_json};
use crate::record::MixpanelGroup;
use crate::record::diff::{Differences, key_of, text};
use crate::record::visit::{Visitor, field_operations};
use crate::util::Buffer;
use crate::util::siphash::HashKey;

/// Compares a struct with what is known of its group. Returns what is known once the updates are accepted, and what
/// they are made of.
pub(super) fn compare<T: MixpanelGroup>(
    group: &T,
    before: Option<&Known>,
    company_id: Option<String>,
    key: HashKey,
) -> (Known, Result<Differences, (Operation, EncodeError)>) {
    let mut comparison = KnownComparison {
        before,
        key,
        known: Known {
            company_id,
            traces: BTreeMap::new(),
        },
        differences: Differences::default(),
        flattened: Flattened::default(),
        scratch: Buffer::default(),
    };
    let found = field_operations::<T>().try_for_each(|operation| {
        group
            .visit_properties(group, operation, &mut comparison)
            .map_err(|error| (operation, error))?;
        comparison.compare_flattened(operation);
        Ok(())
    });
    let (known, differences) = comparison.finish(T::PROPERTIES);
    (known, found.map(|()| differences))
}

struct KnownComparison<'s> {
    before: Option<&'s Known>,
    key: HashKey,
    known: Known,
    differences: Differences,
    /// What is flattened of the operation that is visited.
    flattened: Flattened,
    scratch: Buffer,
}

impl KnownComparison<'_> {
    fn write(
        &mut self,
        property: &'static Property,
        write: impl FnOnce(&mut Buffer) -> Result<Written, EncodeError>,
    ) -> Result<(), EncodeError> {
        let mut json = mem::take(&mut self.scratch);
        json.clear();
        let written = write(&mut json).map_err(|error| error.of(property.name))?;
        if written == Written::Value {
            self.compare(property.name, property.key, property.operation, text(&json));
        }
        self.scratch = json;
        Ok(())
    }

    /// Compares a property that is not `null`.
    fn compare(&mut self, name: &str, key: &str, operation: Operation, value: &str) {
        let before = self.before.and_then(|before| before.traces.get(name));
        let trace = match operation {
            Operation::Union => Trace::List(set_of(value)),
            Operation::SetOnce => Trace::Once,
            // Equal values are written in many ways: members of an object in any order, zero with a sign.
            _ => Trace::Value(self.key.hash(Item::parse(value).into_json().as_bytes())),
        };
        match (&trace, before) {
            (now, Some(before)) if now == before => {}
            (Trace::List(_), Some(Trace::List(old))) => {
                self.differences.change_list(key, value, old, old);
            }
            (Trace::List(_), Some(Trace::Uncertain(Some(may_be)))) => {
                self.differences.change_list(key, value, "", may_be);
            }
            (Trace::List(_), Some(Trace::Uncertain(None))) => {
                // Not by `$set`: another property of it may be what is rejected each time.
                self.differences.unset(key);
                self.differences.change_list(key, value, "", "");
            }
            (Trace::List(_), None) => self.differences.change_list(key, value, "", ""),
            // `$union` leaves a value alone that is not a list: the property had another operation.
            (Trace::List(_), Some(_)) => self.differences.set_list(key, value),
            (Trace::Once, _) => self.differences.set_once(key, value),
            _ => self.differences.set(key, value),
        }
        self.known.traces.insert(name.to_owned(), trace);
    }

    fn compare_flattened(&mut self, operation: Operation) {
        for (name, value) in mem::take(&mut self.flattened).members {
            self.compare(&name, &key_of(&name), operation, value.get());
        }
    }

    /// Adds the properties that are gone. What was set once stays, unless its field says `unset_none` or has another
    /// operation now.
    fn finish(mut self, properties: &[Property]) -> (Known, Differences) {
        let is_unset = |name: &str| {
            let mut properties = properties.iter();
            properties.any(|property| {
                let may_unset = property.unset_none || property.operation != Operation::SetOnce;
                may_unset && property.name == name
            })
        };
        for (name, trace) in self.before.into_iter().flat_map(|before| &before.traces) {
            if self.known.traces.contains_key(name) {
                continue;
            }
            if matches!(trace, Trace::Once | Trace::MaybeOnce) && !is_unset(name) {
                self.known.traces.insert(name.clone(), trace.clone());
            } else {
                self.differences.unset(&key_of(name));
            }
        }
        (self.known, self.differences)
    }
}

impl Visitor for KnownComparison<'_> {
    fn property<T: Serialize + ?Sized>(
        &mut self,
        property: &'static Property,
        new: &T,
        _old: &T,
    ) -> Result<(), EncodeError> {
        self.write(property, |out| push_json(out, new))
    }

    fn list<T: Serialize + ?Sized>(
        &mut self,
        property: &'static Property,
        new: &T,
        _old: &T,
    ) -> Result<(), EncodeError> {
        self.write(property, |out| push_list(out, new))
    }

    fn flatten<T: Serialize + ?Sized>(
        &mut self,
        property: &'static Property,
        all: &'static [Property],
        new: &T,
        _old: &T,
    ) -> Result<(), EncodeError> {
        self.flattened.add(property, all, new)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;
    use crate::group::Group;
    use crate::record::EncodedUpdate;
    use crate::record::diff::updates;
    use crate::record::visit::Walk;

    /// A struct whose first property is any JSON.
    struct Company(&'static str, u8);

    impl MixpanelGroup for Company {
        const GROUP_KEY: &'static str = "company";
        const GROUP_HEAD: &'static str = r#""$group_key":"company","$group_id":"#;
        const PROPERTIES: &'static [Property] = &Property::all([
            ("any", "any", Operation::Set, "", ",\"any\":", false),
            (
                "number",
                "number",
                Operation::Set,
                "",
                ",\"number\":",
                false,
            ),
        ]);

        fn group(&self) -> Group<'_> {
            Group::new("company", "acme")
        }

        fn visit_properties<V: Visitor>(
            &self,
            old: &Self,
            operation: Operation,
            visitor: &mut V,
        ) -> Result<(), EncodeError> {
            let json = |json: &'static str| serde_json::from_str::<&RawValue>(json).unwrap();
            let mut walk = Walk::new(visitor, Self::PROPERTIES);
            let is_complete = operation != Operation::Set
                || walk.property(0, json(self.0), json(old.0)) && walk.property(1, &self.1, &old.1);
            walk.end(is_complete)
        }
    }

    /// Returns the properties that the updates from one to the other set.
    fn set(one: &Company, other: &Company) -> String {
        let key = HashKey::from_bytes([7; 16]);
        let (known, _) = compare(one, None, None, key);
        let (_, differences) = compare(other, Some(&known), None, key);
        let updates = updates(differences, &one.group());
        let updates = updates.iter().map(|update| {
            let encoded = EncodedUpdate::new(update).unwrap().unwrap();
            encoded.as_json().to_owned()
        });
        updates.collect()
    }

    #[test]
    fn another_way_to_write_a_value_is_not_a_change_beside_another_one() {
        let number = r#"{"$group_key":"company","$group_id":"acme","$set":{"number":2}}"#;
        for (one, other) in [
            (r#"{"a":1,"b":2}"#, r#"{"b":2,"a":1}"#),
            (r#"[{"a":1,"b":2}]"#, r#"[{"b":2,"a":1}]"#),
            ("[1, 2]", "[1,2]"),
            ("0.0", "-0.0"),
            ("0", "-0"),
            ("100.0", "1e2"),
            (r#""A""#, r#""\u0041""#),
        ] {
            assert_eq!(set(&Company(one, 1), &Company(other, 2)), number);
        }
        let both = set(&Company("[1,2]", 1), &Company("[2,1]", 2));
        assert!(
            both.contains(r#""$set":{"any":[2,1],"number":2}"#),
            "{both}"
        );
    }
}

//! The hash of all properties of a struct: equal if no property has changed.

use crate::group::{Group, Property};
use crate::json::escape::push_str;
use crate::record::MixpanelGroup;
use crate::record::tokens::{TEXT_END, Tokens};
use crate::util::siphash::HashKey;

/// Makes fingerprints, one after the other with the same buffers.
pub(super) struct Fingerprints {
    key: HashKey,
    /// The hash of the struct's group key and of all of its properties that decides what is sent.
    layout: [u8; 16],
    tokens: Tokens,
}

impl Fingerprints {
    pub(super) fn new(key: HashKey, group_key: &str, properties: &[Property]) -> Self {
        let mut layout = group_key.as_bytes().to_vec();
        layout.push(TEXT_END);
        for property in properties {
            for text in [property.key, property.field, property.operation.name()] {
                layout.extend_from_slice(text.as_bytes());
                layout.push(TEXT_END);
            }
            layout.push(u8::from(property.unset_none));
        }
        Self {
            key,
            layout: key.hash(&layout).to_le_bytes(),
            tokens: Tokens::default(),
        }
    }

    /// Returns the hash of a group's key and id.
    pub(super) fn name(&mut self, key: &str, id: &str) -> u128 {
        let bytes = &mut self.tokens.bytes;
        bytes.clear();
        bytes.extend_from_slice(key.as_bytes());
        bytes.push(TEXT_END);
        bytes.extend_from_slice(id.as_bytes());
        self.key.hash(bytes)
    }

    /// Returns the fingerprint of a group with its id, or `None` if a value cannot be serialized.
    pub(super) fn of<T: MixpanelGroup>(&mut self, group: &T, target: &Group<'_>) -> Option<u128> {
        self.tokens.clear();
        let bytes = &mut self.tokens.bytes;
        bytes.extend_from_slice(&self.layout);
        push_str(bytes, target.id().as_str());
        match target.company_id() {
            Some(company_id) => push_str(bytes, company_id.as_str()),
            None => bytes.push(b'z'),
        }
        self.tokens.push(group).ok()?;
        self.tokens.sort();
        Some(self.key.hash(&self.tokens.bytes))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap, HashSet};

    use proptest::prelude::*;
    use serde::Serialize;
    use serde_json::{Value, json};

    use super::*;
    use crate::json::item::Item;
    use crate::record::tokens::testing::Two;

    fn fingerprint<S: Serialize, U: crate::json::List>(set: S, union: U) -> u128 {
        let group = Two(set, union);
        let properties = Two::<S, U>::PROPERTIES;
        let key = HashKey::from_bytes([7; 16]);
        let mut fingerprints = Fingerprints::new(key, "company", properties);
        fingerprints.of(&group, &group.group()).unwrap()
    }

    #[test]
    fn values_that_differ_in_any_way_of_serializing() {
        #[derive(Serialize)]
        struct Fields {
            one: u8,
            other: u8,
        }
        let different = |one: &dyn Fn() -> u128, other: &dyn Fn() -> u128| {
            assert_eq!(one(), one());
            assert_ne!(one(), other());
        };
        let fields = |one, other| fingerprint(Fields { one, other }, [1]);
        different(&|| fields(1, 2), &|| fields(1, 3));
        different(&|| fields(1, 2), &|| fields(2, 2));
        different(&|| fingerprint(format_args!("{}", 1), [1]), &|| {
            fingerprint(format_args!("{}", 2), [1])
        });
        different(&|| fingerprint(0.5_f32, [1]), &|| {
            fingerprint(0.25_f32, [1])
        });
        different(&|| fingerprint(0.5_f64, [1]), &|| {
            fingerprint(0.25_f64, [1])
        });
        different(&|| fingerprint(0.5, [1]), &|| fingerprint((), [1]));
        // What JSON cannot hold is `null`.
        for value in [f32::NAN, f32::INFINITY] {
            assert_eq!(fingerprint(value, [1]), fingerprint((), [1]));
            assert_eq!(fingerprint(f64::from(value), [1]), fingerprint((), [1]));
        }
    }

    #[test]
    fn a_name_is_of_key_and_id() {
        let key = HashKey::from_bytes([7; 16]);
        let mut fingerprints = Fingerprints::new(key, "company", &[]);
        let mut name = |key, id| fingerprints.name(key, id);
        assert_eq!(name("company", "acme"), name("company", "acme"));
        assert_ne!(name("company", "acme"), name("company", "globex"));
        assert_ne!(name("ab", "c"), name("a", "bc"));
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-2..3_i8).prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            // Zero with a sign has another fingerprint; the comparison that follows finds no difference.
            prop_oneof![Just(0.5), Just(0.0), Just(1.0)].prop_map(Value::from),
            "[a\"z,]{0,3}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a\"z]{0,2}", inner, 0..3).prop_map(Value::from_iter),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5_000))]

        #[test]
        fn it_is_equal_if_and_only_if_the_values_are(one in value(), other in value()) {
            let item = |value: &Value| Item::parse(&value.to_string());
            let nothing: [u8; 0] = [];
            prop_assert_eq!(
                fingerprint(&one, nothing) == fingerprint(&other, nothing),
                item(&one) == item(&other),
                "{} {}", one, other
            );
        }
    }

    #[test]
    fn types_and_orders_that_make_no_difference() {
        let json = json!({"a": [1, "x", 2.5], "b": {"c": null, "d": true}});
        let raw = " {\"b\": {\"d\": true, \"c\": null}, \"a\": [1, \"x\", 2.5]}";
        let raw: &serde_json::value::RawValue = serde_json::from_str(raw.trim()).unwrap();
        let other: &serde_json::value::RawValue =
            serde_json::from_str("{\"a\":[1,\"x\",2.5],\"b\":{\"c\":null,\"d\":true}}").unwrap();
        assert_eq!(fingerprint(raw, [1]), fingerprint(other, [1]));
        assert_ne!(fingerprint(raw, [1]), fingerprint(raw, [2]));
        assert_ne!(fingerprint(&json, [1]), fingerprint(&json["a"], [1]));

        assert_eq!(fingerprint(1_u8, [1, 2]), fingerprint(1_i64, [2, 1]));
        assert_eq!(fingerprint('x', ["x"]), fingerprint("x", ["x"]));
        let [mut one, mut other] = [HashMap::new(), HashMap::with_capacity(100)];
        one.extend((0..50).map(|key| (key, key)));
        other.extend((0..50).rev().map(|key| (key, key)));
        let sorted: BTreeMap<_, _> = one.clone().into_iter().collect();
        let set: HashSet<_> = one.keys().copied().collect();
        assert_eq!(fingerprint(&one, [1]), fingerprint(&other, [1]));
        assert_eq!(fingerprint(&one, [1]), fingerprint(sorted, [1]));
        let list: Vec<_> = (0..50).collect();
        assert_eq!(fingerprint(1, set), fingerprint(1, list.clone()));
        // The order of a list under `$set` counts.
        let reversed: Vec<_> = list.iter().rev().copied().collect();
        assert_ne!(fingerprint(list, [1]), fingerprint(reversed, [1]));
        // A value moves from one operation to the other.
        let (some, none) = (Some([1]), None::<[i32; 1]>);
        assert_ne!(fingerprint(some, none), fingerprint(none, some));
    }
}

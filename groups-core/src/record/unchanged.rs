//! Compares two versions of a struct without writing JSON.

use std::cell::Cell;

use serde_core::Serialize;

use crate::group::Property;
use crate::json::{EncodeError, List};
use crate::record::MixpanelGroup;
use crate::record::tokens::{Tokens, Writer};
use crate::record::visit::{Visitor, field_operations};
use crate::util::lend;

/// The most bytes of tokens, and of what sorts them, that a thread keeps: those of some 3,000 members of maps.
const MAX_KEPT_TOKENS: usize = 512 << 10;

thread_local! {
    static VERSIONS: Cell<Option<Box<Versions>>> = const { Cell::new(None) };
}

/// The tokens of both versions, without the values that certainly are the same.
#[derive(Default)]
struct Versions {
    new: Tokens,
    old: Tokens,
}

/// Returns whether all properties certainly have the same value. If it returns `false`, they still may.
pub(crate) fn is_unchanged<T: MixpanelGroup>(new: &T, old: &T) -> bool {
    lend(&VERSIONS, |versions| {
        let is_unchanged = versions.push(new, old).is_ok() && versions.are_equal();
        let capacity = versions.new.capacity() + versions.old.capacity();
        (is_unchanged, capacity <= MAX_KEPT_TOKENS)
    })
}

impl Versions {
    /// Writes the tokens of all properties that may differ.
    fn push<T: MixpanelGroup>(&mut self, new: &T, old: &T) -> Result<(), EncodeError> {
        self.new.clear();
        self.old.clear();
        let mut both = Both {
            new: self.new.writer(),
            old: self.old.writer(),
        };
        field_operations::<T>()
            .try_for_each(|operation| new.visit_properties(old, operation, &mut both))?;
        both.new.finish();
        both.old.finish();
        Ok(())
    }

    fn are_equal(&mut self) -> bool {
        let Self { new, old } = self;
        if new.bytes == old.bytes {
            return true; // Of maps that are sorted, or clones, the members are in the same order.
        }
        if !new.has_maps() || new.bytes.len() != old.bytes.len() {
            return false;
        }
        new.sort();
        old.sort();
        new.bytes == old.bytes
    }
}

/// A visitor that writes the tokens of both versions.
struct Both<'a> {
    new: Writer<'a>,
    old: Writer<'a>,
}

impl Visitor for Both<'_> {
    const PASSES_OVER_SAME: bool = true;

    #[inline]
    fn property<T: Serialize + ?Sized>(
        &mut self,
        property: &'static Property,
        new: &T,
        old: &T,
    ) -> Result<(), EncodeError> {
        self.old.property(property, old, old)?;
        self.new.property(property, new, new)
    }

    #[inline]
    fn list<T: List + ?Sized>(
        &mut self,
        property: &'static Property,
        new: &T,
        old: &T,
    ) -> Result<(), EncodeError> {
        self.old.list(property, old, old)?;
        self.new.list(property, new, new)
    }

    fn flatten<T: Serialize + ?Sized>(
        &mut self,
        property: &'static Property,
        all: &'static [Property],
        new: &T,
        old: &T,
    ) -> Result<(), EncodeError> {
        self.old.flatten(property, all, old, old)?;
        self.new.flatten(property, all, new, new)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use serde::ser::{
        Error as _, SerializeMap as _, SerializeSeq as _, SerializeStruct as _,
        SerializeStructVariant as _, SerializeTupleVariant as _,
    };
    use serde::{Serialize, Serializer};

    use super::*;
    use crate::json::push_json;
    use crate::record::tokens::testing::Two;
    use crate::util::Buffer;

    /// Keys and values of maps that are passed in another way than one by one.
    const MISTAKES: [&[bool]; 4] = [
        &[false],
        &[true],
        &[true, true, false],
        &[true, false, false],
    ];

    /// What a type can pass to a serializer.
    #[derive(Clone, Debug)]
    enum Any {
        None,
        Some(Box<Self>),
        Unit,
        Bool(bool),
        I8(i8),
        I64(i64),
        U16(u16),
        U64(u64),
        I128(i128),
        U128(u128),
        F32(f32),
        F64(f64),
        Char(char),
        Str(String),
        Displayed(String),
        Bytes(Vec<u8>),
        Seq(Vec<Self>),
        Map(Vec<(Self, Self)>),
        Struct(Vec<(&'static str, Self)>),
        Newtype(Box<Self>),
        UnitVariant(&'static str),
        NewtypeVariant(&'static str, Box<Self>),
        TupleVariant(&'static str, Vec<Self>),
        StructVariant(&'static str, Vec<(&'static str, Self)>),
        Raw(String),
        /// A map of which keys or values are passed, as a mistake.
        Members(&'static [bool], Box<Self>),
        Fails,
        /// A list and a map that ignore errors.
        CarelessSeq(Vec<Self>),
        CarelessMap(Vec<(Self, Self)>),
    }

    impl Serialize for Any {
        fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            match self {
                Self::None => to.serialize_none(),
                Self::Some(value) => to.serialize_some(value),
                Self::Unit => to.serialize_unit(),
                Self::Bool(value) => to.serialize_bool(*value),
                Self::I8(value) => to.serialize_i8(*value),
                Self::I64(value) => to.serialize_i64(*value),
                Self::U16(value) => to.serialize_u16(*value),
                Self::U64(value) => to.serialize_u64(*value),
                Self::I128(value) => to.serialize_i128(*value),
                Self::U128(value) => to.serialize_u128(*value),
                Self::F32(value) => to.serialize_f32(*value),
                Self::F64(value) => to.serialize_f64(*value),
                Self::Char(value) => to.serialize_char(*value),
                Self::Str(value) => to.serialize_str(value),
                Self::Displayed(value) => to.collect_str(value),
                Self::Bytes(value) => to.serialize_bytes(value),
                Self::Seq(items) => {
                    let mut seq = to.serialize_seq(None)?;
                    items
                        .iter()
                        .try_for_each(|item| seq.serialize_element(item))?;
                    seq.end()
                }
                Self::Map(members) => {
                    to.collect_map(members.iter().map(|(key, value)| (key, value)))
                }
                Self::Struct(fields) => {
                    let mut object = to.serialize_struct("Struct", fields.len())?;
                    for (key, value) in fields {
                        object.serialize_field(key, value)?;
                    }
                    object.end()
                }
                Self::Newtype(value) => to.serialize_newtype_struct("Newtype", value),
                Self::UnitVariant(name) => to.serialize_unit_variant("Enum", 0, name),
                Self::NewtypeVariant(name, value) => {
                    to.serialize_newtype_variant("Enum", 1, name, value)
                }
                Self::TupleVariant(name, items) => {
                    let mut seq = to.serialize_tuple_variant("Enum", 2, name, items.len())?;
                    items
                        .iter()
                        .try_for_each(|item| seq.serialize_field(item))?;
                    seq.end()
                }
                Self::StructVariant(name, fields) => {
                    let mut object = to.serialize_struct_variant("Enum", 3, name, fields.len())?;
                    for (key, value) in fields {
                        object.serialize_field(key, value)?;
                    }
                    object.end()
                }
                Self::Raw(json) => {
                    let raw: &serde_json::value::RawValue = serde_json::from_str(json).unwrap();
                    raw.serialize(to)
                }
                Self::Members(are_keys, value) => {
                    let mut map = to.serialize_map(None)?;
                    for is_key in *are_keys {
                        if *is_key {
                            map.serialize_key("key")?;
                        } else {
                            map.serialize_value(value)?;
                        }
                    }
                    map.end()
                }
                Self::Fails => Err(S::Error::custom("it fails")),
                Self::CarelessSeq(items) => {
                    let mut seq = to.serialize_seq(None)?;
                    for item in items {
                        drop(seq.serialize_element(item));
                    }
                    seq.end()
                }
                Self::CarelessMap(members) => {
                    let mut map = to.serialize_map(None)?;
                    for (key, value) in members {
                        drop(map.serialize_key(key));
                        drop(map.serialize_value(value));
                    }
                    map.end()
                }
            }
        }
    }

    fn name() -> impl Strategy<Value = &'static str> {
        prop_oneof![Just("a"), Just("b"), Just("1"), Just("a\"")]
    }

    /// Text that could be taken for other tokens.
    fn text() -> impl Strategy<Value = String> {
        prop_oneof!["[a1z){\"]{0,3}", "[a\u{ff}\u{0}]{0,2}", "[ab]{7,9}"]
    }

    fn leaf() -> impl Strategy<Value = Any> {
        prop_oneof![
            Just(Any::None),
            Just(Any::Unit),
            Just(Any::Fails),
            any::<bool>().prop_map(Any::Bool),
            (-2..3_i8).prop_map(Any::I8),
            (-2..3_i64).prop_map(Any::I64),
            (0..3_u16).prop_map(Any::U16),
            prop_oneof![0..3_u64, 65_534..65_538_u64].prop_map(Any::U64),
            (-2..3_i128).prop_map(Any::I128),
            (0..3_u128).prop_map(Any::U128),
            prop_oneof![Just(-0.0), Just(0.0), Just(f32::NAN), Just(0.1), Just(1.0)]
                .prop_map(Any::F32),
            prop_oneof![Just(-0.0), Just(0.0), Just(f64::NAN), Just(0.1), Just(1.0)]
                .prop_map(Any::F64),
            prop_oneof![Just('a'), Just('1'), Just('\u{ff}')].prop_map(Any::Char),
            text().prop_map(Any::Str),
            text().prop_map(Any::Displayed),
            prop::collection::vec(0..3_u8, 0..3).prop_map(Any::Bytes),
            name().prop_map(Any::UnitVariant),
            prop_oneof![
                Just("null"),
                Just("1"),
                Just("\"a\""),
                Just("[1, 0]"),
                Just("{\"a\":1}")
            ]
            .prop_map(|json| Any::Raw(json.to_owned())),
        ]
    }

    fn any_value() -> impl Strategy<Value = Any> {
        leaf().prop_recursive(3, 12, 3, |inner| {
            let boxed = inner.clone().prop_map(Box::new).boxed();
            let items = prop::collection::vec(inner.clone(), 0..3).boxed();
            let fields = prop::collection::vec((name(), inner.clone()), 0..3).boxed();
            let members = prop::collection::vec((leaf(), inner), 0..3).boxed();
            prop_oneof![
                boxed.clone().prop_map(Any::Some),
                boxed.clone().prop_map(Any::Newtype),
                (0..MISTAKES.len(), boxed.clone())
                    .prop_map(|(which, value)| Any::Members(MISTAKES[which], value)),
                items.clone().prop_map(Any::Seq),
                items.clone().prop_map(Any::CarelessSeq),
                members.clone().prop_map(Any::Map),
                members.prop_map(Any::CarelessMap),
                fields.clone().prop_map(Any::Struct),
                (name(), boxed).prop_map(|(name, value)| Any::NewtypeVariant(name, value)),
                (name(), items).prop_map(|(name, items)| Any::TupleVariant(name, items)),
                (name(), fields).prop_map(|(name, fields)| Any::StructVariant(name, fields)),
            ]
        })
    }

    /// The same value or one that differs in one place: random ones are rarely close.
    fn pair() -> impl Strategy<Value = (Any, Any)> {
        prop_oneof![
            (any_value(), any_value()),
            (any_value(), leaf(), leaf()).prop_map(|(value, one, other)| {
                let with = |leaf| Any::Seq(vec![value.clone(), leaf]);
                (with(one), with(other))
            }),
            (leaf(), any_value(), any_value()).prop_map(|(key, one, other)| {
                let with = |value| Any::Map(vec![(key.clone(), value)]);
                (with(one), with(other))
            }),
            (leaf(), leaf(), any_value()).prop_map(|(one, other, value)| {
                let with = |key| Any::Map(vec![(key, value.clone())]);
                (with(one), with(other))
            }),
        ]
    }

    const NOTHING: [u8; 0] = [];

    /// Returns the JSON without what makes no difference; `None` if it is not valid.
    fn meaning(value: &Any) -> Option<String> {
        let mut out = Buffer::default();
        push_json(&mut out, value).ok()?;
        let json = String::from_utf8(out.into_vec()).unwrap();
        let value: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
        Some(value.to_string())
    }

    /// Returns whether a map has a name twice by keys of different types, such as `1` and `"1"`.
    fn has_ambiguous_keys(value: &Any) -> bool {
        let name = |key: &Any| meaning(&Any::Map(vec![(key.clone(), Any::Unit)]));
        let is_ambiguous = |(one, other): (&Any, &Any)| {
            name(one) == name(other) && format!("{one:?}") != format!("{other:?}")
        };
        match value {
            Any::Map(members) | Any::CarelessMap(members) => {
                let keys = || members.iter().map(|(key, _)| key);
                keys().any(|one| keys().any(|other| is_ambiguous((one, other))))
                    || members.iter().any(|(_, value)| has_ambiguous_keys(value))
            }
            Any::Struct(fields) | Any::StructVariant(_, fields) => {
                fields.iter().any(|(_, value)| has_ambiguous_keys(value))
            }
            Any::Seq(items) | Any::CarelessSeq(items) | Any::TupleVariant(_, items) => {
                items.iter().any(has_ambiguous_keys)
            }
            Any::Some(value)
            | Any::Newtype(value)
            | Any::NewtypeVariant(_, value)
            | Any::Members(_, value) => has_ambiguous_keys(value),
            _ => false,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn what_is_unchanged_has_the_same_json((one, other) in pair()) {
            let is_unchanged = is_unchanged(&Two(&one, NOTHING), &Two(&other, NOTHING));
            if is_unchanged && !has_ambiguous_keys(&one) {
                prop_assert_eq!(meaning(&one), meaning(&other));
            }
        }

        #[test]
        fn a_value_is_unchanged_in_itself_also_as_an_item(one in any_value(), other in any_value()) {
            let old = Two(&one, vec![&one, &other]);
            let new = Two(&one, vec![&other, &one]);
            let can_be_written = meaning(&one).is_some() && meaning(&other).is_some();
            prop_assert!(is_unchanged(&new, &old) || !can_be_written);
        }
    }

    #[test]
    fn of_equal_keys_the_last_one_counts() {
        let map = |members: [(f64, u8); 2]| {
            Any::Map(
                members
                    .map(|(key, value)| (Any::F64(key), Any::U64(value.into())))
                    .to_vec(),
            )
        };
        let is_same = |one, other| is_unchanged(&Two(map(one), NOTHING), &Two(map(other), NOTHING));
        assert!(is_same([(1.0, 1), (2.0, 2)], [(2.0, 2), (1.0, 1)]));
        assert!(is_same([(1.0, 1), (1.0, 2)], [(1.0, 1), (1.0, 2)]));
        assert!(!is_same([(1.0, 1), (1.0, 2)], [(1.0, 2), (1.0, 1)]));
        assert!(!is_same([(-0.0, 1), (1.0, 2)], [(0.0, 1), (1.0, 2)]));
    }

    #[test]
    fn keys_that_are_numbers() {
        let map = |keys: [u8; 3]| HashMap::from(keys.map(|key| (key, key)));
        let is_same = |one, other| is_unchanged(&Two(map(one), NOTHING), &Two(map(other), NOTHING));
        assert!(is_same([1, 2, 3], [3, 1, 2]));
        assert!(!is_same([1, 2, 3], [1, 2, 4]));
    }
}

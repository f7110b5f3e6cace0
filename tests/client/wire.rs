//! What goes over the wire is byte for byte what serde_json writes, whatever the value.

use std::collections::BTreeMap;

use mixpanel_groups::Group;
use proptest::prelude::*;
use serde::ser::{SerializeMap, SerializeStruct, SerializeTupleVariant};
use serde::{Serialize, Serializer};

/// Every kind of value that serde knows.
#[derive(Clone, Debug)]
enum Any {
    Unit,
    UnitStruct,
    None,
    Bool(bool),
    I8(i8),
    I64(i64),
    I128(i128),
    U64(u64),
    U128(u128),
    F32(f32),
    F64(f64),
    Char(char),
    Text(String),
    Displayed(String),
    Bytes(Vec<u8>),
    Variant,
    Some(Box<Any>),
    Newtype(Box<Any>),
    NewtypeVariant(Box<Any>),
    Seq(Vec<Any>),
    SeqWithoutLength(Vec<Any>),
    Tuple(Box<(Any, Any)>),
    TupleVariant(Vec<Any>),
    Map(BTreeMap<String, Any>),
    IntegerMap(BTreeMap<i64, Any>),
    BoolMap(BTreeMap<bool, Any>),
    Struct(Box<(Any, Any)>),
    StructVariant(Box<(Any, Any)>),
}

impl Serialize for Any {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Unit => s.serialize_unit(),
            Self::UnitStruct => s.serialize_unit_struct("UnitStruct"),
            Self::None => s.serialize_none(),
            Self::Bool(v) => v.serialize(s),
            Self::I8(v) => v.serialize(s),
            Self::I64(v) => v.serialize(s),
            Self::I128(v) => v.serialize(s),
            Self::U64(v) => v.serialize(s),
            Self::U128(v) => v.serialize(s),
            Self::F32(v) => v.serialize(s),
            Self::F64(v) => v.serialize(s),
            Self::Char(v) => v.serialize(s),
            Self::Text(v) => v.serialize(s),
            Self::Displayed(v) => s.collect_str(v),
            Self::Bytes(v) => s.serialize_bytes(v),
            Self::Variant => s.serialize_unit_variant("Any", 0, "a \"variant\""),
            Self::Some(v) => s.serialize_some(v),
            Self::Newtype(v) => s.serialize_newtype_struct("Newtype", v),
            Self::NewtypeVariant(v) => s.serialize_newtype_variant("Any", 0, "Newtype", v),
            Self::Seq(v) => v.serialize(s),
            Self::SeqWithoutLength(v) => s.collect_seq(v.iter().filter(|_| true)),
            Self::Tuple(v) => v.serialize(s),
            Self::TupleVariant(v) => {
                let mut tuple = s.serialize_tuple_variant("Any", 0, "Tuple", v.len())?;
                v.iter().try_for_each(|v| tuple.serialize_field(v))?;
                tuple.end()
            }
            Self::Map(v) => v.serialize(s),
            Self::IntegerMap(v) => v.serialize(s),
            Self::BoolMap(v) => {
                let mut map = s.serialize_map(None)?;
                v.iter().try_for_each(|(k, v)| map.serialize_entry(k, v))?;
                map.end()
            }
            Self::Struct(v) => {
                let mut fields = s.serialize_struct("Struct", 2)?;
                fields.serialize_field("first \n", &v.0)?;
                fields.serialize_field("second", &v.1)?;
                fields.end()
            }
            Self::StructVariant(v) => {
                use serde::ser::SerializeStructVariant;
                let mut fields = s.serialize_struct_variant("Any", 0, "Struct", 2)?;
                fields.serialize_field("first", &v.0)?;
                fields.serialize_field("second", &v.1)?;
                fields.end()
            }
        }
    }
}

/// Text with all that JSON escapes, and what it need not.
fn text() -> impl Strategy<Value = String> {
    let special = prop::sample::select(vec![
        '"', '\\', '/', '\u{0}', '\u{1f}', '\u{7f}', '\n', '\r', '\t', '\u{8}', '\u{c}',
        '\u{2028}', '\u{2029}', '\u{feff}', 'é', '漢', '🦀',
    ]);
    let character = prop_oneof![3 => any::<char>(), 3 => special, 4 => prop::char::range('a', 'z')];
    prop::collection::vec(character, 0..24).prop_map(|chars| chars.into_iter().collect())
}

fn value() -> impl Strategy<Value = Any> {
    let leaf = prop_oneof![
        Just(Any::Unit),
        Just(Any::UnitStruct),
        Just(Any::None),
        Just(Any::Variant),
        any::<bool>().prop_map(Any::Bool),
        any::<i8>().prop_map(Any::I8),
        any::<i64>().prop_map(Any::I64),
        any::<i128>().prop_map(Any::I128),
        any::<u64>().prop_map(Any::U64),
        any::<u128>().prop_map(Any::U128),
        prop::num::f32::ANY.prop_map(Any::F32),
        prop::num::f64::ANY.prop_map(Any::F64),
        any::<char>().prop_map(Any::Char),
        text().prop_map(Any::Text),
        text().prop_map(Any::Displayed),
        prop::collection::vec(any::<u8>(), 0..4).prop_map(Any::Bytes),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let boxed = inner.clone().prop_map(Box::new);
        let pair = (inner.clone(), inner.clone()).prop_map(Box::new);
        let list = prop::collection::vec(inner.clone(), 0..4);
        prop_oneof![
            boxed.clone().prop_map(Any::Some),
            boxed.clone().prop_map(Any::Newtype),
            boxed.prop_map(Any::NewtypeVariant),
            list.clone().prop_map(Any::Seq),
            list.clone().prop_map(Any::SeqWithoutLength),
            list.prop_map(Any::TupleVariant),
            pair.clone().prop_map(Any::Tuple),
            pair.clone().prop_map(Any::Struct),
            pair.prop_map(Any::StructVariant),
            prop::collection::btree_map(text(), inner.clone(), 0..4).prop_map(Any::Map),
            prop::collection::btree_map(any::<i64>(), inner.clone(), 0..4)
                .prop_map(Any::IntegerMap),
            prop::collection::btree_map(any::<bool>(), inner, 0..3).prop_map(Any::BoolMap),
        ]
    })
}

/// What an update of one property looks like when serde_json writes its value.
fn expected(value: &impl Serialize) -> String {
    match serde_json::to_string(value).unwrap().as_str() {
        "null" => String::new(),
        json => format!(r#"{{"$group_key":"company","$group_id":"acme","$set":{{"v":{json}}}}}"#),
    }
}

fn sent(value: &impl Serialize) -> String {
    Group::new("company", "acme")
        .set(BTreeMap::from([("v", value)]))
        .to_json()
        .unwrap()
        .unwrap_or_default()
}

#[test]
fn corner_cases() {
    assert_eq!(sent(&-0.0), expected(&-0.0));
    assert!(sent(&-0.0).contains("-0.0"));
    assert_eq!(sent(&u64::MAX), expected(&u64::MAX));
    assert_eq!(sent(&i128::MIN), expected(&i128::MIN));
    assert_eq!(sent(&u128::MAX), expected(&u128::MAX));
    assert_eq!(sent(&f64::NAN), "");
    assert_eq!(sent(&f32::INFINITY), "");
    assert_eq!(sent(&f64::MIN_POSITIVE), expected(&f64::MIN_POSITIVE));
    assert_eq!(sent(&1e300), expected(&1e300));
    assert_eq!(
        sent(&"\u{2028}\u{0}\"\\🦀"),
        expected(&"\u{2028}\u{0}\"\\🦀")
    );
    let raw = serde_json::value::RawValue::from_string(r#"{"a": [1, 2]}"#.to_owned()).unwrap();
    assert_eq!(sent(&raw), expected(&raw));
    let null = serde_json::value::RawValue::from_string(" null ".to_owned()).unwrap();
    assert_eq!(sent(&null), "");
}

/// Serializes as a `RawValue` does, and holds no JSON.
struct Nothing;

impl Serialize for Nothing {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut raw = serializer.serialize_struct("$serde_json::private::RawValue", 1)?;
        raw.serialize_field("$serde_json::private::RawValue", "")?;
        raw.end()
    }
}

#[test]
fn a_value_that_writes_nothing_is_an_error() {
    let group = Group::new("company", "acme");
    let lists = BTreeMap::from([("list", [Nothing])]);
    assert!(group.union(lists).to_json().is_err());
    assert!(group.remove("list", Nothing).to_json().is_err());
}

#[test]
fn amounts_of_money_are_as_serde_json_writes_them() {
    let most = 1_000_000_000_000_000_i64;
    let cents = (-1_000..100_000).chain(most - 1_000..most + 1_000);
    let amounts: Vec<_> = cents.map(|cents| cents as f64 / 100.0).collect();
    assert_eq!(sent(&amounts), expected(&amounts));
}

#[test]
fn text_of_every_length_is_escaped_wherever_it_must_be() {
    for length in 0..70 {
        for at in 0..length {
            for special in [
                '"', '\\', '\u{0}', '\u{1f}', '\u{20}', '\u{7f}', 'é', '!', '#', '[',
            ] {
                let text: String = (0..length)
                    .map(|i| if i == at { special } else { 'x' })
                    .collect();
                assert_eq!(sent(&text), expected(&text));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn values_are_as_serde_json_writes_them(value in value()) {
        prop_assert_eq!(sent(&value), expected(&value));
    }

    #[test]
    fn decimals_are_as_serde_json_writes_them(digits: i64, shift in 0_u32..19, places in 0..25) {
        let decimal: f64 = format!("{}e-{places}", digits >> (3 * shift)).parse().unwrap();
        let around = [decimal, decimal.next_down(), decimal.next_up()];
        prop_assert_eq!(sent(&around), expected(&around));
    }

    #[test]
    fn names_and_ids_come_back_unchanged(key in "[^$].*", id in text(), name in text()) {
        let update = Group::new(&*key, &id).set(BTreeMap::from([(&name, 1)])).to_json();
        if id.is_empty() || name.is_empty() {
            prop_assert!(update.is_err());
        } else {
            let json: serde_json::Value = serde_json::from_str(&update.unwrap().unwrap()).unwrap();
            let expected = serde_json::json!({
                "$group_key": key, "$group_id": id, "$set": {name: 1},
            });
            prop_assert_eq!(json, expected);
        }
    }

    #[test]
    fn integers_as_ids_are_text(id: i128, small: u8) {
        let json = Group::new("company", id).in_company(small).delete().to_json().unwrap().unwrap();
        let ids = format!(r#""$group_id":"{id}","$company_id":"{small}""#);
        prop_assert!(json.contains(&ids), "{}", json);
    }
}

//! The hash of all properties of a struct: equal if no property has changed.
//!
//! A struct is serialized to tokens, without formatting numbers. The order of a map's members and of a
//! `$union` list does not count: they are sorted. What is the same value in another type may have other tokens; the
//! comparison that follows then finds no difference.

use std::fmt;

use serde::Serialize;

use crate::group::operation::FIELD_OPERATIONS;
use crate::group::{Group, Operation, Property};
use crate::json::escape::write_str;
use crate::json::item::Item;
use crate::json::members::check_readable;
use crate::json::serializer::write_displayed;
use crate::json::sink::{Parts, Scalar, Shape};
use crate::json::{EncodeError, Json, Key, Sink};
use crate::record::MixpanelGroup;
use crate::record::visit::Visitor;
use crate::util::siphash::HashKey;

/// The buffers of fingerprints, which are made one after the other.
pub(super) struct Fingerprints {
    key: HashKey,
    /// The hash of the struct's group key and properties: their names and operations.
    layout: [u8; 16],
    tokens: Vec<u8>,
    /// The members of the maps that are being written, outer ones first.
    members: Vec<Member>,
    sorted: Vec<u8>,
}

/// A member of a map or of a set.
#[derive(Clone, Copy)]
struct Member {
    /// What members are sorted by first: some bytes of the key or item.
    order: u64,
    start: usize,
    end: usize,
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
        }
        Self {
            key,
            layout: key.hash(&layout).to_le_bytes(),
            tokens: Vec::new(),
            members: Vec::new(),
            sorted: Vec::new(),
        }
    }

    /// Returns the hash of a group's key and id.
    pub(super) fn name(&mut self, key: &str, id: &str) -> u128 {
        self.tokens.clear();
        self.tokens.extend_from_slice(key.as_bytes());
        self.tokens.push(TEXT_END);
        self.tokens.extend_from_slice(id.as_bytes());
        self.key.hash(&self.tokens)
    }

    /// Returns the fingerprint of a group with its id, or `None` if a value cannot be serialized.
    pub(super) fn of<T: MixpanelGroup>(&mut self, group: &T, target: &Group<'_>) -> Option<u128> {
        self.tokens.clear();
        self.members.clear();
        self.tokens.extend_from_slice(&self.layout);
        write_str(&mut self.tokens, target.id().as_str());
        match target.company_id() {
            Some(company_id) => write_str(&mut self.tokens, company_id.as_str()),
            None => self.tokens.push(b'z'),
        }
        let visited = FIELD_OPERATIONS
            .into_iter()
            .try_for_each(|operation| group.visit_properties(group, operation, self));
        visited.ok().map(|()| self.key.hash(&self.tokens))
    }

    /// Adds a member that begins there, with the key or item that ends the tokens.
    #[inline]
    fn member(&mut self, start: usize) {
        let bytes = &self.tokens[start..];
        let ends = (bytes.first_chunk(), bytes.last_chunk());
        let [first, last] = if let (Some(first), Some(last)) = ends {
            [*first, *last]
        } else {
            let mut all = [0; 8];
            all[..bytes.len()].copy_from_slice(bytes);
            [all, [0; 8]]
        };
        let [first, last] = [first, last].map(u64::from_be_bytes);
        self.members.push(Member {
            order: first ^ last.rotate_left(32),
            start,
            end: self.tokens.len(),
        });
    }

    /// Sorts the members from `first` on, which end the tokens, in an order that depends on their bytes only.
    fn sort(&mut self, first: usize) {
        let Self {
            tokens, members, ..
        } = self;
        let list = &mut members[first..];
        if let [Member { start, .. }, _, ..] = *list {
            let bytes = |member: &Member| &tokens[member.start..member.end];
            list.sort_unstable_by(|one, other| {
                let order = one.order.cmp(&other.order);
                order.then_with(|| bytes(one).cmp(bytes(other)))
            });
            self.sorted.clear();
            for member in list {
                let length = member.end - member.start;
                // A copy of constant size takes no call of `memcpy`.
                match tokens[member.start..].first_chunk::<SHORT>() {
                    Some(chunk) if length <= SHORT => {
                        self.sorted.extend_from_slice(chunk);
                        self.sorted.truncate(self.sorted.len() - (SHORT - length));
                    }
                    _ => self.sorted.extend_from_slice(bytes(member)),
                }
            }
            self.tokens[start..].copy_from_slice(&self.sorted);
        }
        self.members.truncate(first);
    }

    /// Writes an integer in two bytes if it is small, as most are.
    #[inline]
    fn integer(&mut self, value: u64) {
        match u16::try_from(value) {
            Ok(value) => self.number(b'h', value.to_le_bytes()),
            Err(_) => self.number(b'u', value.to_le_bytes()),
        }
    }

    /// Writes a number whose bytes are all of it.
    #[inline]
    fn number<const N: usize>(&mut self, kind: u8, bytes: [u8; N]) {
        self.tokens.push(kind);
        self.tokens.extend_from_slice(&bytes);
    }
}

/// The length of members that are copied at once.
const SHORT: usize = 32;

/// The end of a text: a byte that UTF-8 does not use.
const TEXT_END: u8 = 0xFF;

impl Visitor for Fingerprints {
    #[inline]
    fn property<T: Serialize + ?Sized>(
        &mut self,
        _property: &'static Property,
        value: &T,
        _old: &T,
    ) -> Result<(), EncodeError> {
        Tokens {
            to: self,
            is_set: false,
        }
        .write(value)
    }

    #[inline]
    fn list<T: Serialize + ?Sized>(
        &mut self,
        _property: &'static Property,
        value: &T,
        _old: &T,
    ) -> Result<(), EncodeError> {
        Tokens {
            to: self,
            is_set: true,
        }
        .write(value)
    }

    fn flatten<T: Serialize + ?Sized>(
        &mut self,
        property: &'static Property,
        _all: &'static [Property],
        value: &T,
        _old: &T,
    ) -> Result<(), EncodeError> {
        Tokens {
            to: self,
            is_set: property.operation == Operation::Union,
        }
        .write(value)
    }
}

/// A sink that writes tokens. Each begins with a byte for its kind, and where it ends follows from its bytes.
struct Tokens<'a> {
    to: &'a mut Fingerprints,
    /// Whether a list is one of `$union`, or a map holds such lists.
    is_set: bool,
}

struct Compound<'a> {
    to: &'a mut Fingerprints,
    is_set: bool,
    kind: Kind,
    end: u8,
    /// The members of this value begin here.
    first: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Ordered,
    Sorted,
    RawJson,
}

#[allow(clippy::inline_always)] // Callers pass constants: once inlined, one arm is left.
impl<'a> Sink for Tokens<'a> {
    type Ok = ();
    type Error = EncodeError;
    type Parts = Compound<'a>;

    #[inline]
    fn null(self) -> Result<(), EncodeError> {
        self.to.tokens.push(b'z');
        Ok(())
    }

    #[inline(always)]
    fn scalar(self, scalar: Scalar) -> Result<(), EncodeError> {
        let to = self.to;
        match scalar {
            Scalar::Bool(value) => to.tokens.push(if value { b'y' } else { b'n' }),
            Scalar::U64(value) => to.integer(value),
            // The same number of another type is the same.
            Scalar::I64(value @ 0..) => to.integer(value.unsigned_abs()),
            Scalar::I64(value) => to.number(b'i', value.to_le_bytes()),
            Scalar::U128(value) => to.number(b'U', value.to_le_bytes()),
            Scalar::I128(value) => to.number(b'I', value.to_le_bytes()),
            // Negative zero is zero.
            Scalar::F32(value) if value.is_finite() => to.number(b'f', (value + 0.0).to_le_bytes()),
            Scalar::F64(value) if value.is_finite() => to.number(b'd', (value + 0.0).to_le_bytes()),
            Scalar::F32(_) | Scalar::F64(_) => to.tokens.push(b'z'),
        }
        Ok(())
    }

    #[inline]
    fn text(self, text: &str) -> Result<(), EncodeError> {
        write_str(&mut self.to.tokens, text);
        Ok(())
    }

    fn displayed<T: fmt::Display + ?Sized>(self, value: &T) -> Result<(), EncodeError> {
        write_displayed(&mut self.to.tokens, value)
    }

    #[inline(always)]
    fn open(self, shape: Shape) -> Result<Compound<'a>, EncodeError> {
        let Self { to, is_set } = self;
        let mut kind = Kind::Ordered;
        let mut end = b')';
        match shape {
            Shape::List => {
                to.tokens.push(b'[');
                if is_set {
                    kind = Kind::Sorted;
                }
            }
            Shape::Map => {
                to.tokens.push(b'{');
                kind = Kind::Sorted;
            }
            Shape::Struct => to.tokens.push(b'$'),
            Shape::RawJson => {
                to.tokens.push(b'=');
                kind = Kind::RawJson;
                end = TEXT_END;
            }
            Shape::NewtypeVariant(name) => {
                to.tokens.push(b'v');
                write_str(&mut to.tokens, name);
            }
            Shape::TupleVariant(name) => {
                to.tokens.push(b'(');
                write_str(&mut to.tokens, name);
            }
            Shape::StructVariant(name) => {
                to.tokens.push(b'<');
                write_str(&mut to.tokens, name);
            }
        }
        Ok(Compound {
            first: to.members.len(),
            to,
            is_set,
            kind,
            end,
        })
    }
}

impl Compound<'_> {
    #[inline]
    fn write<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        Tokens {
            to: self.to,
            is_set: self.is_set,
        }
        .write(value)
    }
}

impl Parts for Compound<'_> {
    type Ok = ();
    type Error = EncodeError;

    #[inline]
    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        let start = self.to.tokens.len();
        self.write(value)?;
        if self.kind == Kind::Sorted {
            self.to.member(start);
        }
        Ok(())
    }

    #[inline]
    fn key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), EncodeError> {
        let out = &mut self.to.tokens;
        let start = out.len();
        Key { out }.write(key)?;
        self.to.member(start);
        Ok(())
    }

    #[inline]
    fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        self.write(value)?;
        let end = self.to.tokens.len();
        if let Some(member) = self.to.members.last_mut() {
            member.end = end;
        }
        Ok(())
    }

    #[inline]
    fn field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), EncodeError> {
        if self.kind != Kind::RawJson {
            write_str(&mut self.to.tokens, key);
            return self.write(value);
        }
        // JSON text, which serde passes as a string.
        let mut json = Vec::new();
        Json { out: &mut json }.write(value)?;
        let text: String = serde_json::from_slice(&json)?;
        check_readable(&text).map_err(EncodeError::new)?;
        let canonical = Item::parse(&text).into_json();
        self.to.tokens.extend_from_slice(canonical.as_bytes());
        Ok(())
    }

    #[inline]
    fn end(self) -> Result<(), EncodeError> {
        if self.kind == Kind::Sorted {
            self.to.sort(self.first);
        }
        self.to.tokens.push(self.end);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap, HashSet};

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::record::visit::Walk;

    /// A struct with one property under `$set` and one under `$union`.
    struct Two<S, U>(S, U);

    impl<S: Serialize, U: crate::json::List> MixpanelGroup for Two<S, U> {
        const GROUP_KEY: &'static str = "company";
        const PROPERTIES: &'static [Property] = &Property::all([
            ("set", "set", Operation::Set, "", ",\"set\":", false),
            ("union", "union", Operation::Union, "", ",\"union\":", false),
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
            let mut walk = Walk::new(visitor, Self::PROPERTIES);
            let is_complete = match operation {
                Operation::Set => walk.property(0, &self.0, &old.0),
                Operation::Union => walk.list(1, &self.1, &old.1),
                _ => true,
            };
            walk.end(is_complete)
        }
    }

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
        // What JSON cannot hold is `null`, and zero has no sign.
        for value in [f32::NAN, f32::INFINITY] {
            assert_eq!(fingerprint(value, [1]), fingerprint((), [1]));
            assert_eq!(fingerprint(f64::from(value), [1]), fingerprint((), [1]));
        }
        assert_eq!(fingerprint(-0.0_f32, [1]), fingerprint(0.0_f32, [1]));
        assert_eq!(fingerprint(-0.0_f64, [1]), fingerprint(0.0_f64, [1]));
    }

    /// The members of a flattened value may be lists of `$union`, whose order does not count.
    #[test]
    fn a_flattened_value_counts_as_its_operation() {
        static ALL: [Property; 2] = Property::all([
            ("set", "set", Operation::Set, "", "", true),
            ("union", "union", Operation::Union, "", "", true),
        ]);
        let of = |property: &'static Property, value: Value| {
            let key = HashKey::from_bytes([7; 16]);
            let mut fingerprints = Fingerprints::new(key, "company", &ALL);
            let written = Visitor::flatten(&mut fingerprints, property, &ALL, &value, &value);
            written.unwrap();
            fingerprints.tokens
        };
        let [set, union] = &ALL;
        let [one, other] = [json!({"a": [1, 2]}), json!({"a": [2, 1]})];
        assert_eq!(of(union, one.clone()), of(union, other.clone()));
        assert_ne!(of(union, one.clone()), of(union, json!({"a": [1, 3]})));
        assert_ne!(of(set, one), of(set, other));
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
            prop_oneof![Just(0.5), Just(-0.0), Just(0.0), Just(1.0)].prop_map(Value::from),
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

//! The properties of a struct as tokens, which are equal if their values are.
//!
//! Numbers are not formatted. The order of a map's members and of a `$union` list does not count: they are sorted.
//! What is the same value in another type may have other tokens; the comparison that follows then finds no difference.

use std::fmt::{self, Write as _};

use serde_core::Serialize;

use crate::group::operation::FIELD_OPERATIONS;
use crate::group::{Operation, Property};
use crate::json::escape::write_between;
use crate::json::item::Item;
use crate::json::members::check_readable;
use crate::json::serializer::failed_display;
use crate::json::sink::{Parts, Scalar, Shape};
use crate::json::{EncodeError, Sink, push_json};
use crate::record::MixpanelGroup;
use crate::record::visit::Visitor;
use crate::util::Buffer;

/// The tokens of a struct, and buffers to sort them.
#[derive(Default)]
pub(crate) struct Tokens {
    pub(crate) bytes: Buffer,
    /// The members of the maps that are being written, outer ones first.
    members: Vec<Member>,
    sorted: Buffer,
}

/// A member of a map or of a set.
#[derive(Clone, Copy)]
struct Member {
    /// What members are sorted by first: some bytes of the key or item.
    order: u64,
    start: usize,
    /// The end of the key or item.
    key_end: usize,
    end: usize,
}

impl Tokens {
    /// Appends the tokens of all properties.
    ///
    /// # Errors
    /// If a value cannot be serialized.
    pub(crate) fn push<T: MixpanelGroup>(&mut self, group: &T) -> Result<(), EncodeError> {
        self.members.clear();
        FIELD_OPERATIONS
            .into_iter()
            .try_for_each(|operation| group.visit_properties(group, operation, self))
    }

    /// Adds a member that begins there, with the key or item that ends the bytes.
    #[inline]
    fn member(&mut self, start: usize) {
        let end = self.bytes.len();
        self.members.push(Member {
            order: 0,
            start,
            key_end: end,
            end,
        });
    }

    /// Sorts the members from `first` on, which end the tokens, in an order that depends on the bytes of their keys only.
    /// Of equal keys the last one counts, so these keep their order.
    fn sort(&mut self, first: usize) {
        let Self { bytes, members, .. } = self;
        let list = &mut members[first..];
        if let [Member { start, .. }, _, ..] = *list {
            let key = |member: &Member| &bytes[member.start..member.key_end];
            // Not as soon as a key is written: bytes that were just written in pieces are slow to read at once.
            for member in &mut *list {
                member.order = order_of(key(member));
            }
            list.sort_unstable_by(|one, other| {
                let order = one.order.cmp(&other.order);
                let order = order.then_with(|| key(one).cmp(key(other)));
                order.then_with(|| one.start.cmp(&other.start))
            });
            self.sorted.clear();
            for member in list {
                let length = member.end - member.start;
                // A copy of constant size takes no call of `memcpy`.
                match bytes[member.start..].first_chunk::<SHORT>() {
                    Some(chunk) if length <= SHORT => {
                        self.sorted.extend_from_slice(chunk);
                        self.sorted.truncate(self.sorted.len() - (SHORT - length));
                    }
                    _ => self
                        .sorted
                        .extend_from_slice(&bytes[member.start..member.end]),
                }
            }
            bytes[start..].copy_from_slice(&self.sorted);
        }
        self.members.truncate(first);
    }

    #[inline]
    fn text(&mut self, text: &str) {
        let at = self.bytes.len();
        let end = write_between(&mut self.bytes, at, text, [b'"', TEXT_END]);
        self.bytes.set_len(end);
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
        self.bytes.push(kind);
        self.bytes.extend_from_slice(&bytes);
    }
}

/// Returns what members are sorted by first: their keys' first and last bytes.
#[inline]
fn order_of(key: &[u8]) -> u64 {
    let ends = (key.first_chunk(), key.last_chunk());
    let [first, last] = if let (Some(first), Some(last)) = ends {
        [*first, *last]
    } else {
        let mut all = [0; 8];
        all[..key.len()].copy_from_slice(key);
        [all, [0; 8]]
    };
    let [first, last] = [first, last].map(u64::from_be_bytes);
    first ^ last.rotate_left(32)
}

/// The length of members that are copied at once.
const SHORT: usize = 32;

/// The end of a text: a byte that UTF-8 does not use.
pub(crate) const TEXT_END: u8 = 0xFF;

/// Appends the text of a `Display` implementation, piece by piece.
impl fmt::Write for Tokens {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        self.bytes.extend_from_slice(piece.as_bytes());
        Ok(())
    }
}

impl Visitor for Tokens {
    #[inline]
    fn property<T: Serialize + ?Sized>(
        &mut self,
        _property: &'static Property,
        value: &T,
        _old: &T,
    ) -> Result<(), EncodeError> {
        Value {
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
        Value {
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
        Value {
            to: self,
            is_set: property.operation == Operation::Union,
        }
        .write(value)
    }
}

/// A sink that writes tokens. Each begins with a byte for its kind, and where it ends follows from its bytes.
struct Value<'a> {
    to: &'a mut Tokens,
    /// Whether a list is one of `$union`, or a map holds such lists.
    is_set: bool,
}

struct Compound<'a> {
    to: &'a mut Tokens,
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
impl<'a> Sink for Value<'a> {
    type Ok = ();
    type Error = EncodeError;
    type Parts = Compound<'a>;

    #[inline]
    fn null(self) -> Result<(), EncodeError> {
        self.to.bytes.push(b'z');
        Ok(())
    }

    #[inline(always)]
    fn scalar(self, scalar: Scalar) -> Result<(), EncodeError> {
        let to = self.to;
        match scalar {
            Scalar::Bool(value) => to.bytes.push(if value { b'y' } else { b'n' }),
            Scalar::U64(value) => to.integer(value),
            // The same number of another type is the same.
            Scalar::I64(value @ 0..) => to.integer(value.unsigned_abs()),
            Scalar::I64(value) => to.number(b'i', value.to_le_bytes()),
            Scalar::U128(value) => to.number(b'U', value.to_le_bytes()),
            Scalar::I128(value) => to.number(b'I', value.to_le_bytes()),
            Scalar::F32(value) if value.is_finite() => to.number(b'f', value.to_le_bytes()),
            Scalar::F64(value) if value.is_finite() => to.number(b'd', value.to_le_bytes()),
            Scalar::F32(_) | Scalar::F64(_) => to.bytes.push(b'z'),
        }
        Ok(())
    }

    #[inline]
    fn text(self, text: &str) -> Result<(), EncodeError> {
        self.to.text(text);
        Ok(())
    }

    fn displayed<T: fmt::Display + ?Sized>(self, value: &T) -> Result<(), EncodeError> {
        self.to.bytes.push(b'"');
        write!(self.to, "{value}").map_err(failed_display)?;
        self.to.bytes.push(TEXT_END);
        Ok(())
    }

    #[inline(always)]
    fn open(self, shape: Shape) -> Result<Compound<'a>, EncodeError> {
        let Self { to, is_set } = self;
        let mut kind = Kind::Ordered;
        let mut end = b')';
        match shape {
            Shape::List => {
                to.bytes.push(b'[');
                if is_set {
                    kind = Kind::Sorted;
                }
            }
            Shape::Map => {
                to.bytes.push(b'{');
                kind = Kind::Sorted;
            }
            Shape::Struct => to.bytes.push(b'$'),
            Shape::RawJson => {
                to.bytes.push(b'=');
                kind = Kind::RawJson;
                end = TEXT_END;
            }
            Shape::NewtypeVariant(name) => {
                to.bytes.push(b'v');
                to.text(name);
            }
            Shape::TupleVariant(name) => {
                to.bytes.push(b'(');
                to.text(name);
            }
            Shape::StructVariant(name) => {
                to.bytes.push(b'<');
                to.text(name);
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
        Value {
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
        let start = self.to.bytes.len();
        self.write(value)?;
        if self.kind == Kind::Sorted {
            self.to.member(start);
        }
        Ok(())
    }

    #[inline]
    fn key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), EncodeError> {
        let start = self.to.bytes.len();
        self.write(key)?;
        self.to.member(start);
        Ok(())
    }

    #[inline]
    fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        self.write(value)?;
        let end = self.to.bytes.len();
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
            self.to.text(key);
            return self.write(value);
        }
        // JSON text, which serde passes as a string.
        let mut json = Buffer::default();
        push_json(&mut json, value)?;
        let text: String = serde_json::from_slice(&json)?;
        check_readable(&text).map_err(EncodeError::new)?;
        let canonical = Item::parse(&text).into_json();
        self.to.bytes.extend_from_slice(canonical.as_bytes());
        Ok(())
    }

    #[inline]
    fn end(self) -> Result<(), EncodeError> {
        if self.kind == Kind::Sorted {
            self.to.sort(self.first);
        }
        self.to.bytes.push(self.end);
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use serde::Serialize;

    use crate::group::{Group, Operation, Property};
    use crate::json::{EncodeError, List};
    use crate::record::MixpanelGroup;
    use crate::record::visit::{Visitor, Walk};

    /// A struct with one property under `$set` and one under `$union`.
    pub(crate) struct Two<S, U>(pub(crate) S, pub(crate) U);

    impl<S: Serialize, U: List> MixpanelGroup for Two<S, U> {
        const GROUP_KEY: &'static str = "company";
        const GROUP_HEAD: &'static str = r#""$group_key":"company","$group_id":"#;
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
}

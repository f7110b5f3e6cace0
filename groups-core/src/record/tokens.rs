//! The properties of a struct as tokens, which are equal if their values are.
//!
//! Numbers are not formatted. The order of a map's members and of a `$union` list does not count: where it matters, they are
//! sorted.
//! What is the same value in another type may have other tokens; the comparison that follows then finds no difference.

use std::fmt::{self, Write as _};

use serde_core::Serialize;

use crate::group::{Operation, Property};
use crate::json::escape::{write_around, write_between};
use crate::json::item::Item;
use crate::json::members::check_readable;
use crate::json::serializer::failed_display;
use crate::json::sink::{Parts, Scalar, Shape};
use crate::json::{EncodeError, Sink, push_json};
use crate::record::MixpanelGroup;
use crate::record::visit::{Visitor, field_operations};
use crate::util::Buffer;

/// The tokens of a struct, and buffers to sort them.
#[derive(Default)]
pub(crate) struct Tokens {
    pub(crate) bytes: Buffer,
    /// The members of the maps and sets that are being written, outer ones first.
    members: Vec<Member>,
    /// The members of those that were written, inner ones first.
    unsorted: Vec<Member>,
    /// How many members each of these has.
    maps: Vec<usize>,
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
    /// Removes all tokens and keeps the buffers.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.unsorted.clear();
        self.maps.clear();
    }

    /// Returns how many bytes of memory the buffers take.
    pub(crate) fn capacity(&self) -> usize {
        let members = self.members.capacity() + self.unsorted.capacity();
        self.bytes.capacity() + self.sorted.capacity() + members * size_of::<Member>()
    }

    /// Appends the tokens of all properties, those of maps in any order.
    ///
    /// # Errors
    /// If a value cannot be serialized.
    pub(crate) fn push<T: MixpanelGroup>(&mut self, group: &T) -> Result<(), EncodeError> {
        let mut writer = self.writer();
        field_operations::<T>()
            .try_for_each(|operation| group.visit_properties(group, operation, &mut writer))?;
        writer.finish();
        Ok(())
    }

    /// Returns a visitor that appends the tokens of properties. They count once it has finished.
    #[inline]
    pub(crate) fn writer(&mut self) -> Writer<'_> {
        self.members.clear();
        let at = self.bytes.len();
        Writer { to: self, at }
    }

    /// Returns whether there are maps or sets whose order does not count.
    pub(crate) fn has_maps(&self) -> bool {
        !self.maps.is_empty()
    }

    /// Sorts the members of all maps, in an order that depends on the bytes of their keys only.
    ///
    /// Not as soon as a map is written: bytes that were just written in pieces are slow to read at once.
    pub(crate) fn sort(&mut self) {
        let mut first = 0;
        for members in self.maps.drain(..) {
            let list = &mut self.unsorted[first..first + members];
            sort(&mut self.bytes, list, &mut self.sorted);
            first += members;
        }
        self.unsorted.clear();
    }

    /// Adds a member from `start` to `end`, with the key or item that ends there too.
    #[inline]
    fn member(&mut self, start: usize, end: usize) {
        self.members.push(Member {
            order: 0,
            start,
            key_end: end,
            end,
        });
    }

    /// Notes the map or set whose members are those from `first` on.
    #[inline]
    fn note_map(&mut self, first: usize) {
        let members = &self.members[first..];
        if members.len() > 1 {
            self.maps.push(members.len());
            self.unsorted.extend_from_slice(members);
        }
        self.members.truncate(first);
    }
}

/// Sorts the members of a map or set. Of equal keys the last one counts, so these keep their order.
fn sort(bytes: &mut Buffer, list: &mut [Member], sorted: &mut Buffer) {
    let [Member { start, .. }, .., Member { end, .. }] = *list else {
        return;
    };
    let bytes = bytes.written_mut(0..end);
    let key = |member: &Member| &bytes[member.start..member.key_end];
    for member in &mut *list {
        member.order = order_of(key(member));
    }
    list.sort_unstable_by(|one, other| {
        let order = one.order.cmp(&other.order);
        let order = order.then_with(|| key(one).cmp(key(other)));
        order.then_with(|| one.start.cmp(&other.start))
    });
    let mut at = 0;
    for member in list {
        let length = member.end - member.start;
        // A copy of constant size takes no call of `memcpy`.
        let chunk = bytes[member.start..].first_chunk::<SHORT>();
        at = match (chunk, sorted.room_for::<SHORT>(at)) {
            (Some(chunk), Some(room)) if length <= SHORT => {
                *room = *chunk;
                at + length
            }
            _ => sorted.put_slice(at, &bytes[member.start..member.end]),
        };
    }
    bytes[start..].copy_from_slice(sorted.written(0..at));
}

/// Writes tokens there, and returns where they end.
#[inline]
fn write_text(out: &mut Buffer, at: usize, text: &str) -> usize {
    write_between(out, at, text, [b'"', TEXT_END])
}

/// Writes an integer in two bytes if it is small, as most are.
#[inline]
fn write_integer(out: &mut Buffer, at: usize, value: u64) -> usize {
    if let Ok(value) = u16::try_from(value) {
        let [low, high] = value.to_le_bytes();
        return out.put(at, [b'h', low, high]);
    }
    write_eight(out, at, b'u', value.to_le_bytes())
}

/// Writes a number whose bytes are all of it.
#[inline]
fn write_eight(out: &mut Buffer, at: usize, kind: u8, bytes: [u8; 8]) -> usize {
    let mut all = [kind; 9];
    all[1..].copy_from_slice(&bytes);
    out.put(at, all)
}

/// Writes a number whose bytes are all of it.
fn write_sixteen(out: &mut Buffer, at: usize, kind: u8, bytes: [u8; 16]) -> usize {
    let at = out.put(at, [kind]);
    out.put(at, bytes)
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

/// Writes the text of a `Display` implementation, piece by piece.
struct Pieces<'a> {
    out: &'a mut Buffer,
    at: usize,
}

impl fmt::Write for Pieces<'_> {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        self.at = self.out.put_slice(self.at, piece.as_bytes());
        Ok(())
    }
}

/// A visitor that writes tokens.
pub(crate) struct Writer<'a> {
    to: &'a mut Tokens,
    at: usize,
}

impl Writer<'_> {
    /// Makes what was written count.
    #[inline]
    pub(crate) fn finish(self) {
        self.to.bytes.set_len(self.at);
    }

    #[inline]
    fn write<T: Serialize + ?Sized>(&mut self, value: &T, is_set: bool) -> Result<(), EncodeError> {
        let (to, at) = (&mut *self.to, self.at);
        self.at = Value { to, at, is_set }.write(value)?;
        Ok(())
    }
}

impl Visitor for Writer<'_> {
    #[inline]
    fn property<T: Serialize + ?Sized>(
        &mut self,
        _property: &'static Property,
        value: &T,
        _old: &T,
    ) -> Result<(), EncodeError> {
        self.write(value, false)
    }

    #[inline]
    fn list<T: Serialize + ?Sized>(
        &mut self,
        _property: &'static Property,
        value: &T,
        _old: &T,
    ) -> Result<(), EncodeError> {
        self.write(value, true)
    }

    fn flatten<T: Serialize + ?Sized>(
        &mut self,
        property: &'static Property,
        _all: &'static [Property],
        value: &T,
        _old: &T,
    ) -> Result<(), EncodeError> {
        self.write(value, property.operation == Operation::Union)
    }
}

/// A sink that writes tokens there, and returns where they end. Each begins with a byte for its kind, and where it ends
/// follows from its bytes.
struct Value<'a> {
    to: &'a mut Tokens,
    at: usize,
    /// Whether a list is one of `$union`, or a map holds such lists.
    is_set: bool,
}

struct Compound<'a> {
    to: &'a mut Tokens,
    at: usize,
    is_set: bool,
    kind: Kind,
    end: u8,
    /// The members of this value begin here.
    first: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Ordered,
    Unordered,
    RawJson,
}

#[allow(clippy::inline_always)] // Callers pass constants: once inlined, one arm is left.
impl<'a> Sink for Value<'a> {
    type Ok = usize;
    type Error = EncodeError;
    type Parts = Compound<'a>;

    #[inline]
    fn null(self) -> Result<usize, EncodeError> {
        Ok(self.to.bytes.put(self.at, *b"z"))
    }

    #[inline(always)]
    fn scalar(self, scalar: Scalar) -> Result<usize, EncodeError> {
        let (out, at) = (&mut self.to.bytes, self.at);
        Ok(match scalar {
            Scalar::Bool(value) => out.put(at, [if value { b'y' } else { b'n' }]),
            Scalar::U64(value) => write_integer(out, at, value),
            // The same number of another type is the same.
            Scalar::I64(value @ 0..) => write_integer(out, at, value.unsigned_abs()),
            Scalar::I64(value) => write_eight(out, at, b'i', value.to_le_bytes()),
            Scalar::U128(value) => write_sixteen(out, at, b'U', value.to_le_bytes()),
            Scalar::I128(value) => write_sixteen(out, at, b'I', value.to_le_bytes()),
            Scalar::F32(value) if value.is_finite() => {
                let [a, b, c, d] = value.to_le_bytes();
                out.put(at, [b'f', a, b, c, d])
            }
            Scalar::F64(value) if value.is_finite() => {
                write_eight(out, at, b'd', value.to_le_bytes())
            }
            Scalar::F32(_) | Scalar::F64(_) => out.put(at, *b"z"),
        })
    }

    #[inline]
    fn text(self, text: &str) -> Result<usize, EncodeError> {
        Ok(write_text(&mut self.to.bytes, self.at, text))
    }

    fn displayed<T: fmt::Display + ?Sized>(self, value: &T) -> Result<usize, EncodeError> {
        let out = &mut self.to.bytes;
        let at = out.put(self.at, *b"\"");
        let mut pieces = Pieces { out, at };
        write!(pieces, "{value}").map_err(failed_display)?;
        Ok(pieces.out.put(pieces.at, [TEXT_END]))
    }

    #[inline(always)]
    fn open(self, shape: Shape) -> Result<Compound<'a>, EncodeError> {
        let Self { to, at, is_set } = self;
        let out = &mut to.bytes;
        let kind = match shape {
            Shape::List if is_set => Kind::Unordered,
            Shape::Map => Kind::Unordered,
            Shape::RawJson => Kind::RawJson,
            _ => Kind::Ordered,
        };
        let opening = match shape {
            Shape::List => b'[',
            Shape::Map => b'{',
            Shape::Struct => b'$',
            Shape::RawJson => b'=',
            Shape::NewtypeVariant(_) => b'v',
            Shape::TupleVariant(_) => b'(',
            Shape::StructVariant(_) => b'<',
        };
        let mut at = out.put(at, [opening]);
        if let Shape::NewtypeVariant(name)
        | Shape::TupleVariant(name)
        | Shape::StructVariant(name) = shape
        {
            at = write_text(out, at, name);
        }
        Ok(Compound {
            first: to.members.len(),
            to,
            at,
            is_set,
            kind,
            end: match kind {
                Kind::RawJson => TEXT_END,
                Kind::Ordered | Kind::Unordered => b')',
            },
        })
    }
}

impl Compound<'_> {
    #[inline]
    fn write<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        let (to, at, is_set) = (&mut *self.to, self.at, self.is_set);
        self.at = Value { to, at, is_set }.write(value)?;
        Ok(())
    }
}

#[allow(clippy::inline_always)] // As above: names are constants.
impl Parts for Compound<'_> {
    type Ok = usize;
    type Error = EncodeError;

    #[inline]
    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        let start = self.at;
        self.write(value)?;
        if self.kind == Kind::Unordered {
            self.to.member(start, self.at);
        }
        Ok(())
    }

    #[inline]
    fn key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), EncodeError> {
        let start = self.at;
        self.write(key)?;
        self.to.member(start, self.at);
        Ok(())
    }

    #[inline]
    fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        self.write(value)?;
        if let Some(member) = self.to.members.last_mut() {
            member.end = self.at;
        }
        Ok(())
    }

    #[inline(always)]
    fn field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), EncodeError> {
        let out = &mut self.to.bytes;
        if self.kind != Kind::RawJson {
            self.at = write_around(out, self.at, *b"\"", key, [TEXT_END]);
            return self.write(value);
        }
        // JSON text, which serde passes as a string.
        let mut json = Buffer::default();
        push_json(&mut json, value)?;
        let text: String = serde_json::from_slice(&json)?;
        check_readable(&text).map_err(EncodeError::new)?;
        let canonical = Item::parse(&text).into_json();
        self.at = out.put_slice(self.at, canonical.as_bytes());
        Ok(())
    }

    #[inline]
    fn end(self) -> Result<usize, EncodeError> {
        if self.kind == Kind::Unordered {
            self.to.note_map(self.first);
        }
        Ok(self.to.bytes.put(self.at, [self.end]))
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

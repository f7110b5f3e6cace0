//! Tells whether two versions of a struct surely say the same, without writing any JSON.
//!
//! The older one is noted as tokens, as serde tells of it, and the newer one is held against the
//! notes: no number becomes text, and no text is searched for what to escape.

use std::fmt::{self, Write as _};

use serde::ser::{self, Serialize, Serializer};

use crate::group::Property;
use crate::group::operation::FIELD_OPERATIONS;
use crate::json::EncodeError;
use crate::json::kinds::{Differs, fields, items, same_nothing, see_through};
use crate::json::serializer::is_raw;
use crate::record::MixpanelGroup;
use crate::record::visit::Visitor;
use crate::util::scratch::with_scratch;

/// Whether all properties are surely the same JSON; where it says no, they may still be.
pub(crate) fn is_same<T: MixpanelGroup>(new: &T, old: &T) -> bool {
    with_scratch(|notes| {
        let mut tokens = Tokens {
            notes: std::mem::take(notes),
            at: None,
            is_same: true,
        };
        tokens.walk(old);
        tokens.at = Some(0);
        tokens.walk(new);
        *notes = tokens.notes;
        tokens.is_same
    })
}

/// Behind a text: a byte that no text has.
const TEXT_END: &[u8] = &[0xFF];

/// Notes tokens, or compares with those that are noted. Each begins with a byte that tells its kind
/// and says where it ends, so the same bytes are the same values.
struct Tokens {
    notes: Vec<u8>,
    /// Where the next token is to be found; while notes are taken, nowhere.
    at: Option<usize>,
    is_same: bool,
}

impl Tokens {
    #[inline]
    fn put(&mut self, bytes: &[u8]) -> Result<(), Differs> {
        let Some(at) = &mut self.at else {
            self.notes.extend_from_slice(bytes);
            return Ok(());
        };
        let end = *at + bytes.len();
        match self.notes.get(*at..end) {
            // `memcmp` of nothing with nothing can take longer than of anything else.
            Some(noted) if bytes.is_empty() || noted == bytes => {
                *at = end;
                Ok(())
            }
            _ => Err(Differs),
        }
    }

    /// A number that is the same where all its bits are.
    #[inline]
    fn number<const N: usize>(&mut self, kind: u8, bits: [u8; N]) -> Result<(), Differs> {
        self.put(&[kind])?;
        self.put(&bits)
    }

    /// The name of a field or variant, by its place in memory: the same code says the same name.
    #[inline]
    fn name(&mut self, kind: u8, name: &'static str) -> Result<(), Differs> {
        self.put(&[kind])?;
        self.put(&name.as_ptr().addr().to_ne_bytes())?;
        self.put(&name.len().to_ne_bytes())
    }

    #[inline]
    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Differs> {
        value.serialize(self)
    }

    #[inline]
    fn field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), Differs> {
        self.name(b'.', key)?;
        self.item(value)
    }

    #[inline]
    fn close(&mut self) -> Result<(), Differs> {
        self.put(b")")
    }

    fn walk<T: MixpanelGroup>(&mut self, group: &T) {
        for operation in FIELD_OPERATIONS {
            let walked = group.visit_properties(group, operation, self);
            self.is_same &= walked.is_ok();
        }
    }
}

/// Properties of all kinds alike.
impl Visitor for Tokens {
    #[inline]
    fn property<T: Serialize + ?Sized>(
        &mut self,
        _property: &'static Property,
        value: &T,
        _old: &T,
    ) -> Result<(), EncodeError> {
        self.is_same = self.is_same && self.item(value).is_ok();
        Ok(())
    }
}

/// Text that is displayed rather than held: its pieces.
impl fmt::Write for Tokens {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        self.put(piece.as_bytes()).map_err(|Differs| fmt::Error)
    }
}

macro_rules! numbers {
    ($($method:ident: $type:ty as $wide:ty, $kind:literal;)*) => {$(
        #[inline]
        fn $method(self, value: $type) -> Result<(), Differs> {
            self.number($kind, <$wide>::from(value).to_ne_bytes())
        }
    )*};
}

/// What has items: its kind, and its name where JSON has it.
macro_rules! opens {
    ($($method:ident($($argument:ident: $type:ty),*), $kind:literal $($name:ident)?;)*) => {$(
        #[inline]
        fn $method(self, $($argument: $type),*) -> Result<Self, Differs> {
            opens!(@put self, $kind $(, $name)?);
            Ok(self)
        }
    )*};
    (@put $self:ident, $kind:literal) => { $self.put(&[$kind])? };
    (@put $self:ident, $kind:literal, $name:ident) => { $self.name($kind, $name)? };
}

items!(
    &mut Tokens => (), Differs:
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field
);
fields!(&mut Tokens => (), Differs: SerializeStruct, SerializeStructVariant);

impl ser::SerializeMap for &mut Tokens {
    type Ok = ();
    type Error = Differs;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Differs> {
        self.item(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Differs> {
        self.item(value)
    }

    fn end(self) -> Result<(), Differs> {
        self.close()
    }
}

impl Serializer for &mut Tokens {
    type Ok = ();
    type Error = Differs;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    numbers!(
        serialize_i8: i8 as i64, b'i';
        serialize_i16: i16 as i64, b'i';
        serialize_i32: i32 as i64, b'i';
        serialize_i64: i64 as i64, b'i';
        serialize_u8: u8 as u64, b'u';
        serialize_u16: u16 as u64, b'u';
        serialize_u32: u32 as u64, b'u';
        serialize_u64: u64 as u64, b'u';
        serialize_i128: i128 as i128, b'I';
        serialize_u128: u128 as u128, b'U';
        serialize_f32: f32 as f64, b'f';
        serialize_f64: f64 as f64, b'd';
    );

    opens!(
        serialize_seq(_len: Option<usize>), b'[';
        serialize_tuple(_len: usize), b'[';
        serialize_tuple_struct(_name: &'static str, _len: usize), b'[';
        serialize_map(_len: Option<usize>), b'{';
        serialize_tuple_variant(_of: &'static str, _index: u32, name: &'static str, _len: usize),
            b'(' name;
        serialize_struct_variant(_of: &'static str, _index: u32, name: &'static str, _len: usize),
            b'<' name;
    );

    #[inline]
    fn serialize_struct(self, name: &'static str, _len: usize) -> Result<Self, Differs> {
        self.put(if is_raw(name) { b"=" } else { b"$" })?;
        Ok(self)
    }

    #[inline]
    fn serialize_bool(self, value: bool) -> Result<(), Differs> {
        self.put(if value { b"y" } else { b"n" })
    }

    #[inline]
    fn serialize_char(self, value: char) -> Result<(), Differs> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    #[inline]
    fn serialize_str(self, value: &str) -> Result<(), Differs> {
        self.put(b"s")?;
        self.put(value.as_bytes())?;
        self.put(TEXT_END)
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, value: &T) -> Result<(), Differs> {
        self.put(b"s")?;
        write!(self, "{value}").map_err(|fmt::Error| Differs)?;
        self.put(TEXT_END)
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), Differs> {
        self.collect_seq(value)
    }

    see_through!(());
    same_nothing!(());

    #[inline]
    fn serialize_unit(self) -> Result<(), Differs> {
        self.put(b"-")
    }

    #[inline]
    fn serialize_unit_variant(
        self,
        _of: &'static str,
        _index: u32,
        name: &'static str,
    ) -> Result<(), Differs> {
        self.name(b'e', name)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _of: &'static str,
        _index: u32,
        name: &'static str,
        value: &T,
    ) -> Result<(), Differs> {
        self.name(b'v', name)?;
        value.serialize(self)
    }
}

//! Values as JSON: a serde serializer that writes straight into the batch's bytes.
//!
//! Byte for byte what `serde_json` writes (the property tests compare them), with two differences in
//! what it tells its caller: whether the value was `null`, which is how an absent property shows
//! whatever its type is called, and errors that hold no more than a message.

use crate::json::members::{check_depth, check_readable, may_be_deep};
use crate::json::{EncodeError, Key};
use std::fmt::{self, Write as _};

use serde::ser::{self, Serialize, Serializer};

use crate::json::escape::{write_escaped, write_str};
use crate::json::kinds::{fields, items, same_nothing, see_through};

/// Whether a value was there or serialised to `null`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    Value,
    Null,
}

/// Items were appended from `start` on, a comma before each: the first comma becomes the opening
/// bracket. Without items nothing is written.
#[inline]
pub(crate) fn close(out: &mut Vec<u8>, start: usize, [open, close]: [u8; 2]) {
    if let Some(comma) = out.get_mut(start) {
        *comma = open;
        out.push(close);
    }
}

/// Writes one value.
pub(crate) struct Json<'a> {
    pub(crate) out: &'a mut Vec<u8>,
}

/// Text that is displayed rather than held: escaped as it arrives.
struct Escaped<'a>(&'a mut Vec<u8>);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        write_escaped(self.0, text);
        Ok(())
    }
}

pub(crate) fn write_displayed<T: fmt::Display + ?Sized>(
    out: &mut Vec<u8>,
    value: &T,
) -> Result<(), EncodeError> {
    out.push(b'"');
    write!(Escaped(out), "{value}")
        .map_err(|fmt::Error| EncodeError::new("its `Display` implementation failed"))?;
    out.push(b'"');
    Ok(())
}

macro_rules! integers {
    ($($method:ident: $type:ty),*) => {$(
        #[inline]
        fn $method(self, value: $type) -> Result<Written, EncodeError> {
            self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
            Ok(Written::Value)
        }
    )*};
}

/// Writes a float, or `null` for what is no number.
#[inline]
fn write_float(
    out: &mut Vec<u8>,
    value: impl zmij::Float,
    is_finite: bool,
) -> Result<Written, EncodeError> {
    if !is_finite {
        return Json { out }.serialize_unit();
    }
    out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
    Ok(Written::Value)
}

/// Writes a positive number of at most two decimals and fifteen digits, as amounts of money are,
/// in a fraction of the time that any float takes; says whether it was one.
///
/// A text of at most fifteen digits is the shortest of the float that it is nearest to, so what is
/// written is what the general way writes.
#[inline]
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss
)]
#[allow(clippy::float_cmp)] // Any other float is not this text.
fn write_cents(out: &mut Vec<u8>, value: f64) -> bool {
    const END: i64 = 1_000_000_000_000_000;
    let cents = (value * 100.0 + 0.5) as i64;
    if !(1..END).contains(&cents) || cents as f64 / 100.0 != value {
        return false;
    }
    out.extend_from_slice(itoa::Buffer::new().format(cents / 100).as_bytes());
    let [tenth, hundredth] = [cents / 10, cents].map(|cents| b"0123456789"[(cents % 10) as usize]);
    if hundredth == b'0' {
        out.extend_from_slice(&[b'.', tenth]);
    } else {
        out.extend_from_slice(&[b'.', tenth, hundredth]);
    }
    true
}

impl<'a> Serializer for Json<'a> {
    type Ok = Written;
    type Error = EncodeError;
    type SerializeSeq = Compound<'a>;
    type SerializeTuple = Compound<'a>;
    type SerializeTupleStruct = Compound<'a>;
    type SerializeTupleVariant = Compound<'a>;
    type SerializeMap = Compound<'a>;
    type SerializeStruct = Compound<'a>;
    type SerializeStructVariant = Compound<'a>;

    integers!(
        serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_i128: i128, serialize_u8: u8, serialize_u16: u16, serialize_u32: u32,
        serialize_u64: u64, serialize_u128: u128
    );
    see_through!(Written);
    same_nothing!(Written);

    #[inline]
    fn serialize_f32(self, value: f32) -> Result<Written, EncodeError> {
        write_float(self.out, value, value.is_finite())
    }

    #[inline]
    fn serialize_f64(self, value: f64) -> Result<Written, EncodeError> {
        if write_cents(self.out, value) {
            return Ok(Written::Value);
        }
        write_float(self.out, value, value.is_finite())
    }

    #[inline]
    fn serialize_bool(self, value: bool) -> Result<Written, EncodeError> {
        self.out
            .extend_from_slice(if value { b"true" } else { b"false" });
        Ok(Written::Value)
    }

    #[inline]
    fn serialize_char(self, value: char) -> Result<Written, EncodeError> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    #[inline]
    fn serialize_str(self, value: &str) -> Result<Written, EncodeError> {
        write_str(self.out, value);
        Ok(Written::Value)
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<Written, EncodeError> {
        self.collect_seq(value)
    }

    #[inline]
    fn serialize_unit(self) -> Result<Written, EncodeError> {
        self.out.extend_from_slice(b"null");
        Ok(Written::Null)
    }

    #[inline]
    fn serialize_unit_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
    ) -> Result<Written, EncodeError> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Written, EncodeError> {
        let mut object = Compound::open(self.out, "{", "}");
        ser::SerializeMap::serialize_entry(&mut object, variant, value)?;
        ser::SerializeMap::end(object)
    }

    #[inline]
    fn serialize_seq(self, _len: Option<usize>) -> Result<Compound<'a>, EncodeError> {
        Ok(Compound::open(self.out, "[", "]"))
    }

    #[inline]
    fn serialize_tuple(self, _len: usize) -> Result<Compound<'a>, EncodeError> {
        Ok(Compound::open(self.out, "[", "]"))
    }

    #[inline]
    fn serialize_tuple_struct(
        self,
        _name: &'static str,
        _len: usize,
    ) -> Result<Compound<'a>, EncodeError> {
        Ok(Compound::open(self.out, "[", "]"))
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<Compound<'a>, EncodeError> {
        Ok(Compound::open_variant(self.out, variant, "[", "]}"))
    }

    #[inline]
    fn serialize_map(self, _len: Option<usize>) -> Result<Compound<'a>, EncodeError> {
        Ok(Compound::open(self.out, "{", "}"))
    }

    #[inline]
    fn serialize_struct(
        self,
        name: &'static str,
        _len: usize,
    ) -> Result<Compound<'a>, EncodeError> {
        Ok(if is_raw(name) {
            Compound::raw(self.out)
        } else {
            Compound::open(self.out, "{", "}")
        })
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<Compound<'a>, EncodeError> {
        Ok(Compound::open_variant(self.out, variant, "{", "}}"))
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, value: &T) -> Result<Written, EncodeError> {
        write_displayed(self.out, value)?;
        Ok(Written::Value)
    }
}

/// Whether a struct of that name is JSON text: how `serde_json`'s `RawValue` and, with its feature,
/// `Number` come through serde.
#[inline]
pub(crate) fn is_raw(name: &str) -> bool {
    matches!(
        name,
        "$serde_json::private::RawValue" | "$serde_json::private::Number"
    )
}

/// A list or an object that is being written.
pub(crate) struct Compound<'a> {
    out: &'a mut Vec<u8>,
    /// Where the brackets start, to tell the first item from the others.
    start: usize,
    close: &'static str,
    raw: bool,
}

impl<'a> Compound<'a> {
    #[inline]
    fn open(out: &'a mut Vec<u8>, open: &str, close: &'static str) -> Self {
        out.extend_from_slice(open.as_bytes());
        Self {
            start: out.len(),
            out,
            close,
            raw: false,
        }
    }

    /// An enum's variant with several fields: `{"Variant":[…]}`.
    fn open_variant(out: &'a mut Vec<u8>, variant: &str, open: &str, close: &'static str) -> Self {
        out.push(b'{');
        write_str(out, variant);
        out.push(b':');
        Self::open(out, open, close)
    }

    /// A value that is JSON text already.
    fn raw(out: &'a mut Vec<u8>) -> Self {
        Self {
            start: out.len(),
            out,
            close: "",
            raw: true,
        }
    }

    #[inline]
    fn comma(&mut self) {
        if self.out.len() > self.start {
            self.out.push(b',');
        }
    }

    #[inline]
    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        self.comma();
        value.serialize(Json { out: self.out }).map(drop)
    }

    #[inline]
    fn field<T: Serialize + ?Sized>(&mut self, key: &str, value: &T) -> Result<(), EncodeError> {
        if self.raw {
            return self.raw_field(value);
        }
        let is_first = self.out.len() == self.start;
        self.out
            .extend_from_slice(if is_first { b"\"" } else { b",\"" });
        write_escaped(self.out, key);
        self.out.extend_from_slice(b"\":");
        value.serialize(Json { out: self.out }).map(drop)
    }

    /// JSON text arrives as a string: written as one, then replaced by what it holds.
    fn raw_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        value.serialize(Json { out: self.out })?;
        let text: String = serde_json::from_slice(&self.out[self.start..])?;
        check_readable(&text).map_err(EncodeError::new)?;
        self.out.truncate(self.start);
        self.out.extend_from_slice(text.as_bytes());
        Ok(())
    }

    #[inline]
    fn close(self) -> Result<Written, EncodeError> {
        self.out.extend_from_slice(self.close.as_bytes());
        if may_be_deep(self.out.len() - self.start) {
            check_depth(&self.out[self.start..])?;
        }
        let is_null = self.raw && self.out[self.start..].trim_ascii() == b"null";
        Ok(if is_null {
            Written::Null
        } else {
            Written::Value
        })
    }
}

items!(
    Compound<'_> => Written, EncodeError:
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field
);
fields!(Compound<'_> => Written, EncodeError: SerializeStruct, SerializeStructVariant);

impl ser::SerializeMap for Compound<'_> {
    type Ok = Written;
    type Error = EncodeError;

    #[inline]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), EncodeError> {
        self.comma();
        key.serialize(Key { out: self.out })
    }

    #[inline]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        self.out.push(b':');
        value.serialize(Json { out: self.out }).map(drop)
    }

    #[inline]
    fn end(self) -> Result<Written, EncodeError> {
        self.close()
    }
}

//! Values as JSON: a serde serializer that writes straight into the batch's bytes.
//!
//! Byte for byte what `serde_json` writes (the property tests compare them), with two differences in
//! what it tells its caller: whether the value was `null`, which is how an absent property shows
//! whatever its type is called, and errors that hold no more than a message.

use std::fmt::{self, Write as _};

use serde::Serialize;

use crate::json::escape::{write_escaped, write_str};
use crate::json::members::{check_depth, check_readable, may_be_deep};
use crate::json::sink::{Parts, Scalar, Shape, Sink};
use crate::json::{EncodeError, Key};

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

#[inline]
fn write_integer(out: &mut Vec<u8>, value: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Writes a float that is finite.
#[inline]
fn write_float(out: &mut Vec<u8>, value: impl zmij::Float) {
    out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
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
    write_integer(out, cents / 100);
    let [tenth, hundredth] = [cents / 10, cents].map(|cents| b"0123456789"[(cents % 10) as usize]);
    if hundredth == b'0' {
        out.extend_from_slice(&[b'.', tenth]);
    } else {
        out.extend_from_slice(&[b'.', tenth, hundredth]);
    }
    true
}

#[allow(clippy::inline_always)] // Callers pass constants, of which little is left when inlined.
impl<'a> Sink for Json<'a> {
    type Ok = Written;
    type Error = EncodeError;
    type Parts = Compound<'a>;

    #[inline]
    fn null(self) -> Result<Written, EncodeError> {
        self.out.extend_from_slice(b"null");
        Ok(Written::Null)
    }

    #[inline(always)]
    fn scalar(self, scalar: Scalar) -> Result<Written, EncodeError> {
        let out = self.out;
        match scalar {
            Scalar::Bool(value) => out.extend_from_slice(if value { b"true" } else { b"false" }),
            Scalar::I64(value) => write_integer(out, value),
            Scalar::U64(value) => write_integer(out, value),
            Scalar::I128(value) => write_integer(out, value),
            Scalar::U128(value) => write_integer(out, value),
            Scalar::F64(value) if write_cents(out, value) => {}
            Scalar::F64(value) if value.is_finite() => write_float(out, value),
            Scalar::F32(value) if value.is_finite() => write_float(out, value),
            Scalar::F64(_) | Scalar::F32(_) => return Json { out }.null(),
        }
        Ok(Written::Value)
    }

    #[inline]
    fn text(self, text: &str) -> Result<Written, EncodeError> {
        write_str(self.out, text);
        Ok(Written::Value)
    }

    fn displayed<T: fmt::Display + ?Sized>(self, value: &T) -> Result<Written, EncodeError> {
        write_displayed(self.out, value)?;
        Ok(Written::Value)
    }

    #[inline(always)]
    fn open(self, shape: Shape) -> Result<Compound<'a>, EncodeError> {
        let out = self.out;
        if let Shape::NewtypeVariant(name)
        | Shape::TupleVariant(name)
        | Shape::StructVariant(name) = shape
        {
            out.push(b'{');
            write_str(out, name);
            out.push(b':');
        }
        let (open, close) = match shape {
            Shape::List => ("[", "]"),
            Shape::Map | Shape::Struct => ("{", "}"),
            Shape::RawJson => ("", ""),
            Shape::NewtypeVariant(_) => ("", "}"),
            Shape::TupleVariant(_) => ("[", "]}"),
            Shape::StructVariant(_) => ("{", "}}"),
        };
        out.extend_from_slice(open.as_bytes());
        Ok(Compound {
            start: out.len(),
            out,
            close,
            is_raw: matches!(shape, Shape::RawJson),
        })
    }
}

/// A list or an object that is being written.
pub(crate) struct Compound<'a> {
    out: &'a mut Vec<u8>,
    /// Where the brackets start, to tell the first item from the others.
    start: usize,
    close: &'static str,
    is_raw: bool,
}

impl Compound<'_> {
    #[inline]
    fn comma(&mut self) {
        if self.out.len() > self.start {
            self.out.push(b',');
        }
    }

    /// JSON text arrives as a string: written as one, then replaced by what it holds.
    fn raw_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        Json { out: self.out }.write(value)?;
        let text: String = serde_json::from_slice(&self.out[self.start..])?;
        check_readable(&text).map_err(EncodeError::new)?;
        self.out.truncate(self.start);
        self.out.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

impl Parts for Compound<'_> {
    type Ok = Written;
    type Error = EncodeError;

    #[inline]
    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        self.comma();
        Json { out: self.out }.write(value).map(drop)
    }

    #[inline]
    fn key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), EncodeError> {
        self.comma();
        Key { out: self.out }.write(key)
    }

    #[inline]
    fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        self.out.push(b':');
        Json { out: self.out }.write(value).map(drop)
    }

    #[inline]
    fn field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), EncodeError> {
        if self.is_raw {
            return self.raw_field(value);
        }
        let is_first = self.out.len() == self.start;
        self.out
            .extend_from_slice(if is_first { b"\"" } else { b",\"" });
        write_escaped(self.out, key);
        self.out.extend_from_slice(b"\":");
        Json { out: self.out }.write(value).map(drop)
    }

    #[inline]
    fn end(self) -> Result<Written, EncodeError> {
        self.out.extend_from_slice(self.close.as_bytes());
        if may_be_deep(self.out.len() - self.start) {
            check_depth(&self.out[self.start..])?;
        }
        let is_null = self.is_raw && self.out[self.start..].trim_ascii() == b"null";
        Ok(if is_null {
            Written::Null
        } else {
            Written::Value
        })
    }
}

//! Writes values as JSON into the bytes of a batch.
//!
//! The bytes are those that `serde_json` writes; property tests compare them. Two differences are in what is
//! returned: whether the value serialized to `null`, since such a property is left out, and errors that hold only a
//! message.

use std::fmt::{self, Write as _};

use serde_core::Serialize;

use crate::json::escape::{write_escaped, write_name, write_str};
use crate::json::members::{check_depth, check_readable, may_be_deep};
use crate::json::number::{write_cents, write_float, write_integer, write_u64};
use crate::json::sink::{Parts, Scalar, Shape, Sink};
use crate::json::{EncodeError, Key};

/// What a value serialized to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// A value other than `null`.
    Value,
    Null,
}

/// Puts brackets around the items from `start` on, which were written with a comma before each: the first comma
/// becomes the opening bracket. Does nothing if there are no items.
#[inline]
pub(crate) fn close(out: &mut Vec<u8>, start: usize, [open, close]: [u8; 2]) {
    if let Some(comma) = out.get_mut(start) {
        *comma = open;
        out.push(close);
    }
}

/// A sink that writes one value.
pub(crate) struct Json<'a> {
    pub(crate) out: &'a mut Vec<u8>,
}

/// A writer that escapes text for a JSON string.
struct Escaped<'a>(&'a mut Vec<u8>);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        write_escaped(self.0, text);
        Ok(())
    }
}

/// Writes the text of a `Display` implementation as a JSON string.
pub(crate) fn write_displayed<T: fmt::Display + ?Sized>(
    out: &mut Vec<u8>,
    value: &T,
) -> Result<(), EncodeError> {
    out.push(b'"');
    write!(Escaped(out), "{value}").map_err(failed_display)?;
    out.push(b'"');
    Ok(())
}

pub(crate) fn failed_display(_: fmt::Error) -> EncodeError {
    EncodeError::new("its `Display` implementation failed")
}

#[allow(clippy::inline_always)] // Callers pass constants: once inlined, one arm is left.
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
            Scalar::Bool(value) => {
                // A copy of constant size takes no call of `memcpy`.
                let (text, length) = if value { (b"true ", 4) } else { (b"false", 5) };
                let end = out.len() + length;
                out.extend_from_slice(text);
                out.truncate(end);
            }
            Scalar::I64(value) => write_integer(out, value),
            Scalar::U64(value) => write_u64(out, value),
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
            Shape::List => (Some(b'['), "]"),
            Shape::Map | Shape::Struct => (Some(b'{'), "}"),
            Shape::RawJson => (None, ""),
            Shape::NewtypeVariant(_) => (None, "}"),
            Shape::TupleVariant(_) => (Some(b'['), "]}"),
            Shape::StructVariant(_) => (Some(b'{'), "}}"),
        };
        Ok(Compound {
            start: out.len(),
            out,
            open,
            close,
            is_raw: matches!(shape, Shape::RawJson),
        })
    }
}

/// A list or an object that is being written.
pub(crate) struct Compound<'a> {
    out: &'a mut Vec<u8>,
    /// Where the value starts.
    start: usize,
    /// The bracket before the items. Each is written with a comma before it, and the first comma becomes the bracket.
    open: Option<u8>,
    /// The closing brackets.
    close: &'static str,
    /// Whether the only field is JSON text.
    is_raw: bool,
}

/// Writes JSON text, which serde passes as a string: it is written as one, then replaced by its content.
fn write_raw<T: Serialize + ?Sized>(
    out: &mut Vec<u8>,
    start: usize,
    value: &T,
) -> Result<(), EncodeError> {
    Json { out }.write(value)?;
    let text: String = serde_json::from_slice(&out[start..])?;
    check_readable(&text).map_err(EncodeError::new)?;
    out.truncate(start);
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

impl Parts for Compound<'_> {
    type Ok = Written;
    type Error = EncodeError;

    #[inline]
    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        if self.open.is_some() {
            self.out.push(b',');
        }
        Json { out: self.out }.write(value).map(drop)
    }

    #[inline]
    fn key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), EncodeError> {
        self.out.push(b',');
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
            return write_raw(self.out, self.start, value);
        }
        write_name(self.out, key);
        Json { out: self.out }.write(value).map(drop)
    }

    #[inline]
    fn end(self) -> Result<Written, EncodeError> {
        if let Some(open) = self.open {
            match self.out.get_mut(self.start) {
                Some(comma) => *comma = open,
                None => self.out.push(open),
            }
        }
        self.out.extend_from_slice(self.close.as_bytes());
        if may_be_deep(self.out.len() - self.start) {
            // A variant has one bracket more than other values.
            let outer = usize::from(self.open.is_some()) - (self.close.len().saturating_sub(1));
            check_depth(&self.out[self.start + outer..])?;
        }
        Ok(match &self.out[self.start..] {
            [] if self.is_raw => return Err(EncodeError::new("JSON text without a text")),
            json if self.is_raw && json.trim_ascii() == b"null" => Written::Null,
            _ => Written::Value,
        })
    }
}

//! Writes values as JSON into the bytes of a batch.
//!
//! The bytes are those that `serde_json` writes, without white space around JSON text; property tests compare them. Errors
//! hold only a message.

use std::fmt::{self, Write as _};
use std::ops::Range;

use serde_core::Serialize;

use crate::json::escape::{write_escaped, write_name, write_str};
use crate::json::members::{check_depth, check_readable, may_be_deep};
use crate::json::number::{write_f64, write_float, write_integer, write_u64};
use crate::json::sink::{Parts, Scalar, Shape, Sink};
use crate::json::{EncodeError, Key};
use crate::util::Buffer;

/// What a value serialized to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// A value other than `null`.
    Value,
    Null,
}

/// Appends a value.
pub(crate) fn push_json<T: Serialize + ?Sized>(
    out: &mut Buffer,
    value: &T,
) -> Result<Written, EncodeError> {
    let start = out.append(|out, at| Json { out, at }.write(value))?;
    Ok(if wrote_null(out, start..out.len()) {
        Written::Null
    } else {
        Written::Value
    })
}

/// Returns whether the value that was written there is `null`.
#[inline]
pub(crate) fn wrote_null(out: &Buffer, value: Range<usize>) -> bool {
    value.len() == b"null".len() && out.written(value) == b"null"
}

/// Puts brackets around the items from `start` on, which were written with a comma before each: the first comma
/// becomes the opening bracket. Does nothing if there are no items.
#[inline]
pub(crate) fn close(out: &mut Buffer, start: usize, brackets: [u8; 2]) {
    let end = write_end(out, start, out.len(), brackets);
    out.set_len(end);
}

/// Does what [`close`] does with items that end there, and returns the new end.
#[inline]
pub(crate) fn write_end(
    out: &mut Buffer,
    start: usize,
    end: usize,
    [open, close]: [u8; 2],
) -> usize {
    if end == start {
        return end;
    }
    out.put(start, [open]);
    out.put(end, [close])
}

/// A sink that writes one value there, and returns where it ends.
pub(crate) struct Json<'a> {
    pub(crate) out: &'a mut Buffer,
    pub(crate) at: usize,
}

/// A writer that escapes text for a JSON string.
struct Escaped<'a> {
    out: &'a mut Buffer,
    at: usize,
}

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.at = write_escaped(self.out, self.at, text);
        Ok(())
    }
}

/// Writes the text of a `Display` implementation as a JSON string, and returns where it ends.
pub(crate) fn write_displayed<T: fmt::Display + ?Sized>(
    out: &mut Buffer,
    at: usize,
    value: &T,
) -> Result<usize, EncodeError> {
    let at = out.put(at, *b"\"");
    let mut text = Escaped { out, at };
    write!(text, "{value}").map_err(failed_display)?;
    Ok(text.out.put(text.at, *b"\""))
}

pub(crate) fn failed_display(_: fmt::Error) -> EncodeError {
    EncodeError::new("its `Display` implementation failed")
}

#[allow(clippy::inline_always)] // Callers pass constants: once inlined, one arm is left.
impl<'a> Sink for Json<'a> {
    type Ok = usize;
    type Error = EncodeError;
    type Parts = Compound<'a>;

    #[inline]
    fn null(self) -> Result<usize, EncodeError> {
        Ok(self.out.put(self.at, *b"null"))
    }

    #[inline(always)]
    fn scalar(self, scalar: Scalar) -> Result<usize, EncodeError> {
        let Self { out, at } = self;
        Ok(match scalar {
            Scalar::Bool(value) => {
                // A copy of constant size takes no call of `memcpy`.
                let (text, length) = if value {
                    (*b"true ", 4)
                } else {
                    (*b"false", 5)
                };
                out.put(at, text);
                at + length
            }
            Scalar::I64(value) => match u64::try_from(value) {
                Ok(value) => write_u64(out, at, value),
                Err(_) => write_integer(out, at, value),
            },
            Scalar::U64(value) => write_u64(out, at, value),
            Scalar::I128(value) => write_integer(out, at, value),
            Scalar::U128(value) => write_integer(out, at, value),
            Scalar::F64(value) if value.is_finite() => write_f64(out, at, value),
            Scalar::F32(value) if value.is_finite() => write_float(out, at, value),
            Scalar::F64(_) | Scalar::F32(_) => return Json { out, at }.null(),
        })
    }

    #[inline]
    fn text(self, text: &str) -> Result<usize, EncodeError> {
        Ok(write_str(self.out, self.at, text))
    }

    fn displayed<T: fmt::Display + ?Sized>(self, value: &T) -> Result<usize, EncodeError> {
        write_displayed(self.out, self.at, value)
    }

    #[inline(always)]
    fn open(self, shape: Shape) -> Result<Compound<'a>, EncodeError> {
        let Self { out, at } = self;
        let at = match shape {
            Shape::NewtypeVariant(name)
            | Shape::TupleVariant(name)
            | Shape::StructVariant(name) => {
                let end = write_name(out, at, name);
                out.put(at, *b"{");
                end
            }
            _ => at,
        };
        let (open, close) = match shape {
            Shape::List => (Some(b'['), "]"),
            Shape::Map | Shape::Struct => (Some(b'{'), "}"),
            Shape::RawJson => (None, ""),
            Shape::NewtypeVariant(_) => (None, "}"),
            Shape::TupleVariant(_) => (Some(b'['), "]}"),
            Shape::StructVariant(_) => (Some(b'{'), "}}"),
        };
        Ok(Compound {
            out,
            at,
            start: at,
            open,
            close,
            is_raw: matches!(shape, Shape::RawJson),
        })
    }
}

/// A list or an object that is being written.
pub(crate) struct Compound<'a> {
    out: &'a mut Buffer,
    at: usize,
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
    out: &mut Buffer,
    start: usize,
    at: usize,
    value: &T,
) -> Result<usize, EncodeError> {
    let end = Json { out, at }.write(value)?;
    let text: String = serde_json::from_slice(out.written(start..end))?;
    check_readable(&text).map_err(EncodeError::new)?;
    Ok(out.put_slice(start, text.trim_ascii().as_bytes()))
}

#[allow(clippy::inline_always)] // As above: names are constants.
impl Parts for Compound<'_> {
    type Ok = usize;
    type Error = EncodeError;

    #[inline]
    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        let mut at = self.at;
        if self.open.is_some() {
            at = self.out.put(at, *b",");
        }
        self.at = Json { out: self.out, at }.write(value)?;
        Ok(())
    }

    #[inline]
    fn key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), EncodeError> {
        let at = self.out.put(self.at, *b",");
        self.at = Key { out: self.out, at }.write(key)?;
        Ok(())
    }

    #[inline]
    fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        let at = self.out.put(self.at, *b":");
        self.at = Json { out: self.out, at }.write(value)?;
        Ok(())
    }

    #[inline(always)]
    fn field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), EncodeError> {
        self.at = if self.is_raw {
            write_raw(self.out, self.start, self.at, value)?
        } else {
            let at = write_name(self.out, self.at, key);
            Json { out: self.out, at }.write(value)?
        };
        Ok(())
    }

    #[inline]
    fn end(self) -> Result<usize, EncodeError> {
        let Self { out, start, .. } = self;
        if self.is_raw && self.at == start {
            return Err(EncodeError::new("JSON text without a text"));
        }
        let mut end = self.at;
        if let Some(open) = self.open {
            out.put(start, [open]);
            end = end.max(start + 1);
        }
        end = out.put_slice(end, self.close.as_bytes());
        // JSON text is checked when it is written.
        if !self.is_raw && may_be_deep(end - start) {
            // Of a variant, the bracket before its name counts.
            let is_variant = self.open.is_none() || self.close.len() > 1;
            let items = start + usize::from(!is_variant);
            check_depth(out.written(items..end))?;
        }
        Ok(end)
    }
}

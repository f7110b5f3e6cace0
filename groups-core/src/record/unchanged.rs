//! Compares two versions of a struct without writing JSON.
//!
//! The tokens that serde passes for the older version are recorded, and those of the newer version are compared with
//! the record. That is faster than comparing JSON, because numbers are not formatted and text is not escaped.

use std::fmt::{self, Write as _};

use serde::Serialize;

use crate::group::Property;
use crate::group::operation::FIELD_OPERATIONS;
use crate::json::EncodeError;
use crate::json::sink::{Mismatch, Parts, Scalar, Shape, Sink};
use crate::record::MixpanelGroup;
use crate::record::visit::Visitor;
use crate::util::with_scratch;

/// Returns whether all properties certainly have the same JSON. If it returns `false`, they still may.
pub(crate) fn is_unchanged<T: MixpanelGroup>(new: &T, old: &T) -> bool {
    with_scratch(|record| {
        let mut tokens = Tokens {
            record: std::mem::take(record),
            position: None,
            is_unchanged: true,
        };
        tokens.walk(old);
        tokens.position = Some(0);
        tokens.walk(new);
        *record = tokens.record;
        tokens.is_unchanged
    })
}

/// The end of a text: a byte that UTF-8 does not use.
const TEXT_END: &[u8] = &[0xFF];

/// A sink that records tokens, or compares them with the record.
///
/// A token begins with a byte for its kind, and its length follows from its bytes. So equal bytes mean equal values.
struct Tokens {
    record: Vec<u8>,
    /// The position of the next token to compare with; `None` while recording.
    position: Option<usize>,
    is_unchanged: bool,
}

impl Tokens {
    /// Records the bytes of a token, or compares them with the record.
    #[inline]
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), Mismatch> {
        let Some(position) = &mut self.position else {
            self.record.extend_from_slice(bytes);
            return Ok(());
        };
        let end = *position + bytes.len();
        match self.record.get(*position..end) {
            // Skips the call of `memcmp` for empty text.
            Some(recorded) if bytes.is_empty() || recorded == bytes => {
                *position = end;
                Ok(())
            }
            _ => Err(Mismatch),
        }
    }

    /// Records or compares a number, which is equal if all its bits are.
    #[inline]
    fn number<const N: usize>(&mut self, kind: u8, bits: [u8; N]) -> Result<(), Mismatch> {
        self.bytes(&[kind])?;
        self.bytes(&bits)
    }

    /// Records or compares the name of a field or variant by its address, which is the same for both versions.
    #[inline]
    fn name(&mut self, kind: u8, name: &'static str) -> Result<(), Mismatch> {
        self.bytes(&[kind])?;
        self.bytes(&name.as_ptr().addr().to_ne_bytes())?;
        self.bytes(&name.len().to_ne_bytes())
    }

    /// Records or compares all properties of a struct.
    fn walk<T: MixpanelGroup>(&mut self, group: &T) {
        for operation in FIELD_OPERATIONS {
            let walked = group.visit_properties(group, operation, self);
            self.is_unchanged &= walked.is_ok();
        }
    }
}

/// Treats properties of all kinds alike.
impl Visitor for Tokens {
    #[inline]
    fn property<T: Serialize + ?Sized>(
        &mut self,
        _property: &'static Property,
        value: &T,
        _old: &T,
    ) -> Result<(), EncodeError> {
        self.is_unchanged = self.is_unchanged && self.write(value).is_ok();
        Ok(())
    }
}

/// Records or compares the text of a `Display` implementation, piece by piece.
impl fmt::Write for Tokens {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        self.bytes(piece.as_bytes()).map_err(|Mismatch| fmt::Error)
    }
}

#[allow(clippy::inline_always)] // Callers pass constants: once inlined, one arm is left.
impl Sink for &mut Tokens {
    type Ok = ();
    type Error = Mismatch;
    type Parts = Self;

    #[inline]
    fn null(self) -> Result<(), Mismatch> {
        self.bytes(b"-")
    }

    #[inline(always)]
    fn scalar(self, scalar: Scalar) -> Result<(), Mismatch> {
        match scalar {
            Scalar::Bool(value) => self.bytes(if value { b"y" } else { b"n" }),
            Scalar::I64(value) => self.number(b'i', value.to_ne_bytes()),
            Scalar::U64(value) => self.number(b'u', value.to_ne_bytes()),
            Scalar::I128(value) => self.number(b'I', value.to_ne_bytes()),
            Scalar::U128(value) => self.number(b'U', value.to_ne_bytes()),
            Scalar::F32(value) => self.number(b'f', value.to_ne_bytes()),
            Scalar::F64(value) => self.number(b'd', value.to_ne_bytes()),
        }
    }

    #[inline]
    fn text(self, text: &str) -> Result<(), Mismatch> {
        self.bytes(b"s")?;
        self.bytes(text.as_bytes())?;
        self.bytes(TEXT_END)
    }

    fn displayed<T: fmt::Display + ?Sized>(self, value: &T) -> Result<(), Mismatch> {
        self.bytes(b"s")?;
        write!(self, "{value}").map_err(|fmt::Error| Mismatch)?;
        self.bytes(TEXT_END)
    }

    #[inline(always)]
    fn open(self, shape: Shape) -> Result<Self, Mismatch> {
        match shape {
            Shape::List => self.bytes(b"["),
            Shape::Map => self.bytes(b"{"),
            Shape::Struct => self.bytes(b"$"),
            Shape::RawJson => self.bytes(b"="),
            Shape::NewtypeVariant(name) => self.name(b'v', name),
            Shape::TupleVariant(name) => self.name(b'(', name),
            Shape::StructVariant(name) => self.name(b'<', name),
        }?;
        Ok(self)
    }
}

impl Parts for &mut Tokens {
    type Ok = ();
    type Error = Mismatch;

    #[inline]
    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Mismatch> {
        self.write(value)
    }

    #[inline]
    fn key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Mismatch> {
        self.write(key)
    }

    #[inline]
    fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Mismatch> {
        self.write(value)
    }

    #[inline]
    fn field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), Mismatch> {
        self.name(b'.', key)?;
        self.write(value)
    }

    #[inline]
    fn end(self) -> Result<(), Mismatch> {
        self.bytes(b")")
    }
}

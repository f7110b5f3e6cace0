//! Tells whether two versions of a struct surely say the same, without writing any JSON.
//!
//! The older one is noted as tokens, as serde tells of it, and the newer one is held against the
//! notes: no number becomes text, and no text is searched for what to escape.

use std::fmt::{self, Write as _};

use serde::Serialize;

use crate::group::Property;
use crate::group::operation::FIELD_OPERATIONS;
use crate::json::EncodeError;
use crate::json::sink::{Mismatch, Parts, Scalar, Shape, Sink};
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
    fn put(&mut self, bytes: &[u8]) -> Result<(), Mismatch> {
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
            _ => Err(Mismatch),
        }
    }

    /// A number that is the same where all its bits are.
    #[inline]
    fn number<const N: usize>(&mut self, kind: u8, bits: [u8; N]) -> Result<(), Mismatch> {
        self.put(&[kind])?;
        self.put(&bits)
    }

    /// The name of a field or variant, by its place in memory: the same code says the same name.
    #[inline]
    fn name(&mut self, kind: u8, name: &'static str) -> Result<(), Mismatch> {
        self.put(&[kind])?;
        self.put(&name.as_ptr().addr().to_ne_bytes())?;
        self.put(&name.len().to_ne_bytes())
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
        self.is_same = self.is_same && self.write(value).is_ok();
        Ok(())
    }
}

/// Text that is displayed rather than held: its pieces.
impl fmt::Write for Tokens {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        self.put(piece.as_bytes()).map_err(|Mismatch| fmt::Error)
    }
}

#[allow(clippy::inline_always)] // Callers pass constants, of which little is left when inlined.
impl Sink for &mut Tokens {
    type Ok = ();
    type Error = Mismatch;
    type Parts = Self;

    #[inline]
    fn null(self) -> Result<(), Mismatch> {
        self.put(b"-")
    }

    #[inline(always)]
    fn scalar(self, scalar: Scalar) -> Result<(), Mismatch> {
        match scalar {
            Scalar::Bool(value) => self.put(if value { b"y" } else { b"n" }),
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
        self.put(b"s")?;
        self.put(text.as_bytes())?;
        self.put(TEXT_END)
    }

    fn displayed<T: fmt::Display + ?Sized>(self, value: &T) -> Result<(), Mismatch> {
        self.put(b"s")?;
        write!(self, "{value}").map_err(|fmt::Error| Mismatch)?;
        self.put(TEXT_END)
    }

    #[inline(always)]
    fn open(self, shape: Shape) -> Result<Self, Mismatch> {
        match shape {
            Shape::List => self.put(b"["),
            Shape::Map => self.put(b"{"),
            Shape::Struct => self.put(b"$"),
            Shape::RawJson => self.put(b"="),
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
        self.put(b")")
    }
}

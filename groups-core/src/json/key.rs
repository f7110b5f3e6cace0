use std::convert::Infallible;
use std::fmt;

use serde_core::Serialize;

use crate::json::escape::write_str;
use crate::json::serializer::{write_displayed, wrote_null};
use crate::json::sink::{Parts, Scalar, Sink};
use crate::json::{EncodeError, Json};
use crate::util::Buffer;

/// A sink that writes the key of a map as `serde_json` does: text, or a number or boolean in quotes. Returns where it ends.
pub(crate) struct Key<'a> {
    pub(crate) out: &'a mut Buffer,
    pub(crate) at: usize,
}

/// Appends a key.
pub(crate) fn push_key<T: Serialize + ?Sized>(
    out: &mut Buffer,
    key: &T,
) -> Result<(), EncodeError> {
    out.append(|out, at| Key { out, at }.write(key)).map(drop)
}

impl Sink for Key<'_> {
    type Ok = usize;
    type Error = EncodeError;
    type Parts = NoParts;

    const REFUSAL: &'static str = "key must be a string";

    fn null(self) -> Result<usize, EncodeError> {
        Err(EncodeError::new(Self::REFUSAL))
    }

    fn scalar(self, scalar: Scalar) -> Result<usize, EncodeError> {
        let Self { out, at } = self;
        let start = out.put(at, *b"\"");
        let end = Json { out, at: start }.scalar(scalar)?;
        if wrote_null(out, start..end) {
            return Err(EncodeError::new(
                "float key must be finite (got NaN or +/-inf)",
            ));
        }
        Ok(out.put(end, *b"\""))
    }

    #[inline]
    fn text(self, text: &str) -> Result<usize, EncodeError> {
        Ok(write_str(self.out, self.at, text))
    }

    fn displayed<T: fmt::Display + ?Sized>(self, value: &T) -> Result<usize, EncodeError> {
        write_displayed(self.out, self.at, value)
    }
}

/// The parts of a key. Keys have none, so this cannot be constructed.
pub(crate) struct NoParts(Infallible);

impl Parts for NoParts {
    type Ok = usize;
    type Error = EncodeError;

    fn end(self) -> Result<usize, EncodeError> {
        match self.0 {}
    }
}

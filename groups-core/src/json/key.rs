use std::convert::Infallible;
use std::fmt;

use crate::json::escape::write_str;
use crate::json::serializer::write_displayed;
use crate::json::sink::{Parts, Scalar, Sink};
use crate::json::{EncodeError, Json, Written};

/// A sink that writes the key of a map as `serde_json` does: text, or a number or boolean in quotes.
pub(crate) struct Key<'a> {
    pub(crate) out: &'a mut Vec<u8>,
}

impl Sink for Key<'_> {
    type Ok = ();
    type Error = EncodeError;
    type Parts = NoParts;

    const REFUSAL: &'static str = "key must be a string";

    fn null(self) -> Result<(), EncodeError> {
        Err(EncodeError::new(Self::REFUSAL))
    }

    fn scalar(self, scalar: Scalar) -> Result<(), EncodeError> {
        self.out.push(b'"');
        if (Json { out: self.out }.scalar(scalar)?) == Written::Null {
            return Err(EncodeError::new(
                "float key must be finite (got NaN or +/-inf)",
            ));
        }
        self.out.push(b'"');
        Ok(())
    }

    #[inline]
    fn text(self, text: &str) -> Result<(), EncodeError> {
        write_str(self.out, text);
        Ok(())
    }

    fn displayed<T: fmt::Display + ?Sized>(self, value: &T) -> Result<(), EncodeError> {
        write_displayed(self.out, value)
    }
}

/// The parts of a key. Keys have none, so this cannot be constructed.
pub(crate) struct NoParts(Infallible);

impl Parts for NoParts {
    type Ok = ();
    type Error = EncodeError;

    fn end(self) -> Result<(), EncodeError> {
        match self.0 {}
    }
}

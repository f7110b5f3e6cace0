//! Finds out whether a value serializes to `null`, without writing it.

use serde_core::Serialize;

use crate::json::sink::{Mismatch, Parts, Scalar, Shape, Sink};

/// Returns whether the value serializes to `null`, so that its property is left out.
pub(crate) fn is_null<T: Serialize + ?Sized>(value: &T) -> bool {
    Probe { takes_list: false }.write(value).is_ok()
}

/// Returns whether `$union` has nothing to add: the value serializes to `null` or to a list without items.
pub(crate) fn is_empty_list<T: Serialize + ?Sized>(value: &T) -> bool {
    Probe { takes_list: true }.write(value).is_ok()
}

/// A sink that takes `null`, or also an empty list, and fails at any other value.
///
/// A value whose serialization fails counts as one that is not `null`: the encoder reports the error.
#[derive(Clone, Copy)]
struct Probe {
    /// Whether a list is accepted, if its items are all `null`.
    takes_list: bool,
}

impl Sink for Probe {
    type Ok = ();
    type Error = Mismatch;
    type Parts = Self;

    fn null(self) -> Result<(), Mismatch> {
        Ok(())
    }

    fn scalar(self, scalar: Scalar) -> Result<(), Mismatch> {
        match scalar {
            Scalar::F32(value) if !value.is_finite() => Ok(()),
            Scalar::F64(value) if !value.is_finite() => Ok(()),
            _ => Err(Mismatch),
        }
    }

    fn open(self, shape: Shape) -> Result<Self, Mismatch> {
        match shape {
            Shape::List if self.takes_list => Ok(Self { takes_list: false }),
            _ => Err(Mismatch),
        }
    }
}

/// A list all of whose items so far are `null`.
impl Parts for Probe {
    type Ok = ();
    type Error = Mismatch;

    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Mismatch> {
        self.write(value)
    }

    fn end(self) -> Result<(), Mismatch> {
        Ok(())
    }
}

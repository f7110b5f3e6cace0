//! Tells whether a value would serialise to `null`, without writing anything.

use serde::Serialize;

use crate::json::sink::{Mismatch, Parts, Scalar, Shape, Sink};

/// Whether the property is left out: the value serialises to `null`.
pub(crate) fn is_absent<T: Serialize + ?Sized>(value: &T) -> bool {
    Probe { of_list: false }.write(value).is_ok()
}

/// Whether `$union` has nothing to add: no list, or a list without items.
pub(crate) fn is_empty_list<T: Serialize + ?Sized>(value: &T) -> bool {
    Probe { of_list: true }.write(value).is_ok()
}

/// Succeeds where there is nothing, and fails at the first sign of a value. One that cannot be
/// serialised is for the encoder to report, so it counts as a value.
#[derive(Clone, Copy)]
struct Probe {
    of_list: bool,
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
            Shape::List if self.of_list => Ok(Self { of_list: false }),
            _ => Err(Mismatch),
        }
    }
}

/// As a list without items so far, but for those that count as absent.
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

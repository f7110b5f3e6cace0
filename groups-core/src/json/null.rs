//! Tells whether a value would serialise to `null`, without writing anything.

use std::fmt;

use serde::ser::{Impossible, Serialize, Serializer};

use crate::json::kinds::{Differs, items, refuse, same_nothing, see_through};

/// Whether the property is left out: the value serialises to `null`.
pub(crate) fn is_absent<T: Serialize + ?Sized>(value: &T) -> bool {
    value.serialize(Probe { of_list: false }).is_ok()
}

/// Whether `$union` has nothing to add: no list, or a list without items.
pub(crate) fn is_empty_list<T: Serialize + ?Sized>(value: &T) -> bool {
    value.serialize(Probe { of_list: true }).is_ok()
}

/// Succeeds where there is nothing, and fails at the first sign of a value. One that cannot be
/// serialised is for the encoder to report, so it counts as a value.
#[derive(Clone, Copy)]
struct Probe {
    of_list: bool,
}

/// As a list without items so far, but for those that count as absent.
impl Probe {
    fn item<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Differs> {
        value.serialize(self)
    }

    #[allow(clippy::unnecessary_wraps, clippy::unused_self)] // As `end` wants it.
    fn close(self) -> Result<(), Differs> {
        Ok(())
    }
}

items!(
    Probe => (), Differs:
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field
);

impl Serializer for Probe {
    type Ok = ();
    type Error = Differs;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Impossible<(), Differs>;
    type SerializeMap = Impossible<(), Differs>;
    type SerializeStruct = Impossible<(), Differs>;
    type SerializeStructVariant = Impossible<(), Differs>;

    see_through!(());
    same_nothing!(());

    fn serialize_unit(self) -> Result<(), Differs> {
        Ok(())
    }

    fn serialize_f32(self, value: f32) -> Result<(), Differs> {
        self.serialize_f64(value.into())
    }

    fn serialize_f64(self, value: f64) -> Result<(), Differs> {
        if value.is_finite() {
            Err(Differs)
        } else {
            Ok(())
        }
    }

    fn serialize_seq(self, _len: Option<usize>) -> Result<Self, Differs> {
        if self.of_list {
            Ok(Self { of_list: false })
        } else {
            Err(Differs)
        }
    }

    fn serialize_tuple(self, len: usize) -> Result<Self, Differs> {
        self.serialize_seq(Some(len))
    }

    fn serialize_tuple_struct(self, _name: &'static str, len: usize) -> Result<Self, Differs> {
        self.serialize_seq(Some(len))
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, _value: &T) -> Result<(), Differs> {
        Err(Differs)
    }

    refuse!(Differs => (): scalars, bytes, objects, variants);
}

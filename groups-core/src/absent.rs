//! Tells whether a value would serialise to `null`, without writing anything.

use std::fmt;

use serde::ser::{Impossible, Serialize, Serializer};

use crate::serializer::{No, items, refuse, same_nothing, see_through};

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
    fn item<T: Serialize + ?Sized>(self, value: &T) -> Result<(), No> {
        value.serialize(self)
    }

    #[allow(clippy::unnecessary_wraps, clippy::unused_self)] // As `end` wants it.
    fn close(self) -> Result<(), No> {
        Ok(())
    }
}

items!(
    Probe => (), No:
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field
);

impl Serializer for Probe {
    type Ok = ();
    type Error = No;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Impossible<(), No>;
    type SerializeMap = Impossible<(), No>;
    type SerializeStruct = Impossible<(), No>;
    type SerializeStructVariant = Impossible<(), No>;

    see_through!(());
    same_nothing!(());

    fn serialize_unit(self) -> Result<(), No> {
        Ok(())
    }

    fn serialize_f32(self, value: f32) -> Result<(), No> {
        self.serialize_f64(value.into())
    }

    fn serialize_f64(self, value: f64) -> Result<(), No> {
        if value.is_finite() { Err(No) } else { Ok(()) }
    }

    fn serialize_seq(self, _len: Option<usize>) -> Result<Self, No> {
        if self.of_list {
            Ok(Self { of_list: false })
        } else {
            Err(No)
        }
    }

    fn serialize_tuple(self, len: usize) -> Result<Self, No> {
        self.serialize_seq(Some(len))
    }

    fn serialize_tuple_struct(self, _name: &'static str, len: usize) -> Result<Self, No> {
        self.serialize_seq(Some(len))
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, _value: &T) -> Result<(), No> {
        Err(No)
    }

    refuse!(No => (): scalars, bytes, objects, variants);
}

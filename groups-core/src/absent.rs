//! Tells whether a value would serialise to `null`, without writing anything.

use std::fmt;

use serde::ser::{self, Impossible, Serialize, Serializer};

use crate::json::refuse;

/// Whether the property is left out: the value serialises to `null`.
pub(crate) fn is_absent<T: Serialize + ?Sized>(value: &T) -> bool {
    value.serialize(Probe { of_list: false }).is_ok()
}

/// Whether `$union` has nothing to add: no list, or a list without items.
pub(crate) fn is_empty_list<T: Serialize + ?Sized>(value: &T) -> bool {
    value.serialize(Probe { of_list: true }).is_ok()
}

/// Succeeds where there is nothing, and fails at the first sign of a value.
struct Probe {
    of_list: bool,
}

#[derive(Debug)]
struct Present;

impl fmt::Display for Present {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("there is a value")
    }
}

impl std::error::Error for Present {}

impl ser::Error for Present {
    /// A value that cannot be serialised is for the encoder to report, so it counts as one.
    fn custom<T: fmt::Display>(_message: T) -> Self {
        Self
    }
}

/// A list without items so far, but for those that count as absent.
struct NoItems;

macro_rules! no_items {
    ($($trait:ident::$method:ident),*) => {$(
        impl ser::$trait for NoItems {
            type Ok = ();
            type Error = Present;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Present> {
                value.serialize(Probe { of_list: false })
            }

            fn end(self) -> Result<(), Present> {
                Ok(())
            }
        }
    )*};
}

no_items!(
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field
);

impl Serializer for Probe {
    type Ok = ();
    type Error = Present;
    type SerializeSeq = NoItems;
    type SerializeTuple = NoItems;
    type SerializeTupleStruct = NoItems;
    type SerializeTupleVariant = Impossible<(), Present>;
    type SerializeMap = Impossible<(), Present>;
    type SerializeStruct = Impossible<(), Present>;
    type SerializeStructVariant = Impossible<(), Present>;

    fn serialize_none(self) -> Result<(), Present> {
        Ok(())
    }

    fn serialize_unit(self) -> Result<(), Present> {
        Ok(())
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<(), Present> {
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Present> {
        value.serialize(self)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        value: &T,
    ) -> Result<(), Present> {
        value.serialize(self)
    }

    fn serialize_f32(self, value: f32) -> Result<(), Present> {
        self.serialize_f64(value.into())
    }

    fn serialize_f64(self, value: f64) -> Result<(), Present> {
        if value.is_finite() {
            Err(Present)
        } else {
            Ok(())
        }
    }

    fn serialize_seq(self, _len: Option<usize>) -> Result<NoItems, Present> {
        if self.of_list {
            Ok(NoItems)
        } else {
            Err(Present)
        }
    }

    fn serialize_tuple(self, len: usize) -> Result<NoItems, Present> {
        self.serialize_seq(Some(len))
    }

    fn serialize_tuple_struct(self, _name: &'static str, len: usize) -> Result<NoItems, Present> {
        self.serialize_seq(Some(len))
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, _value: &T) -> Result<(), Present> {
        Err(Present)
    }

    refuse!(Present => (): scalars, bytes, objects, variants);
}

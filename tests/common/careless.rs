//! A `Serialize` that ignores errors, as one does that logs an item that it cannot serialize and goes on.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use serde::ser::{
    Error as _, Serialize, SerializeMap as _, SerializeSeq as _, SerializeStruct as _,
    SerializeStructVariant as _, SerializeTuple as _, SerializeTupleStruct as _,
    SerializeTupleVariant as _, Serializer,
};

/// A value of three parts, of which the second may fail. It goes on with the third.
#[derive(Clone, Copy, Debug)]
pub struct Careless(pub Shape, pub Second);

/// What the parts are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    Seq,
    Tuple,
    TupleStruct,
    TupleVariant,
    /// A map, whose keys and values are passed together.
    Entries,
    /// A map, whose keys and values are passed one by one.
    Values,
    /// A map whose keys are the parts.
    Keys,
    Struct,
    StructVariant,
}

/// The second part.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Second {
    Fine,
    /// It fails before it serializes anything.
    Fails,
    /// It fails when it has serialized something.
    FailsLate,
    /// It panics, and the panic is caught.
    Panics,
}

impl Shape {
    pub const ALL: [Self; 9] = [
        Self::Seq,
        Self::Tuple,
        Self::TupleStruct,
        Self::TupleVariant,
        Self::Entries,
        Self::Values,
        Self::Keys,
        Self::Struct,
        Self::StructVariant,
    ];
}

impl Second {
    pub const FAILURES: [Self; 3] = [Self::Fails, Self::FailsLate, Self::Panics];
}

impl Serialize for Second {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Fine => to.serialize_str("fine"),
            Self::Fails => Err(S::Error::custom("the second part fails")),
            Self::FailsLate => to.collect_map([("late", Self::Fails)]),
            Self::Panics => resume_unwind(Box::new("the second part panics")),
        }
    }
}

fn ignore<E>(pass: impl FnOnce() -> Result<(), E>) {
    drop(catch_unwind(AssertUnwindSafe(pass)));
}

impl Serialize for Careless {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let parts = [Second::Fine, self.1, Second::Fine];
        let fields = || ["a", "b", "c"].into_iter().zip(&parts);
        match self.0 {
            Shape::Seq => {
                let mut seq = to.serialize_seq(None)?;
                parts
                    .iter()
                    .for_each(|part| ignore(|| seq.serialize_element(part)));
                seq.end()
            }
            Shape::Tuple => {
                let mut tuple = to.serialize_tuple(3)?;
                parts
                    .iter()
                    .for_each(|part| ignore(|| tuple.serialize_element(part)));
                tuple.end()
            }
            Shape::TupleStruct => {
                let mut tuple = to.serialize_tuple_struct("Careless", 3)?;
                parts
                    .iter()
                    .for_each(|part| ignore(|| tuple.serialize_field(part)));
                tuple.end()
            }
            Shape::TupleVariant => {
                let mut tuple = to.serialize_tuple_variant("Careless", 0, "Variant", 3)?;
                parts
                    .iter()
                    .for_each(|part| ignore(|| tuple.serialize_field(part)));
                tuple.end()
            }
            Shape::Entries => {
                let mut map = to.serialize_map(None)?;
                fields().for_each(|(key, part)| ignore(|| map.serialize_entry(key, part)));
                map.end()
            }
            Shape::Values => {
                let mut map = to.serialize_map(None)?;
                for (key, part) in fields() {
                    ignore(|| map.serialize_key(key));
                    ignore(|| map.serialize_value(part));
                }
                map.end()
            }
            Shape::Keys => {
                let mut map = to.serialize_map(None)?;
                for (index, part) in parts.iter().enumerate() {
                    match index {
                        1 => ignore(|| map.serialize_key(part)),
                        _ => ignore(|| map.serialize_key(&index)),
                    }
                    ignore(|| map.serialize_value("value"));
                }
                map.end()
            }
            Shape::Struct => {
                let mut object = to.serialize_struct("Careless", 3)?;
                fields().for_each(|(key, part)| ignore(|| object.serialize_field(key, part)));
                object.end()
            }
            Shape::StructVariant => {
                let mut object = to.serialize_struct_variant("Careless", 0, "Variant", 3)?;
                fields().for_each(|(key, part)| ignore(|| object.serialize_field(key, part)));
                object.end()
            }
        }
    }
}

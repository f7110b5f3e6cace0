//! Tells whether two values would be the same JSON, without writing them where it can.

use std::fmt;

use serde::ser::{self, Impossible, Serialize, Serializer};

use crate::json::{EncodeError, Json, refuse};

/// Whether two values are the same JSON. Lists and objects are written to `scratch` and compared
/// there.
pub(crate) fn is_same<T: Serialize + ?Sized>(
    new: &T,
    old: &T,
    scratch: &mut Vec<u8>,
) -> Result<bool, EncodeError> {
    if let Ok(is_same) = old.serialize(Against(new)) {
        return Ok(is_same);
    }
    scratch.clear();
    old.serialize(Json { out: scratch })?;
    let end = scratch.len();
    new.serialize(Json { out: scratch })?;
    Ok(scratch[..end] == scratch[end..])
}

/// A value that is no list and no object.
#[derive(Clone, Copy, PartialEq)]
enum Scalar<'a> {
    Null,
    Bool(bool),
    Integer(i128),
    /// By their bits: `0.0` and `-0.0` are not the same text.
    F32(u32),
    F64(u64),
    Text(&'a str),
}

/// Takes the old value, and asks the new one whether it is the same.
struct Against<'a, T: ?Sized>(&'a T);

impl<T: Serialize + ?Sized> Against<'_, T> {
    #[inline]
    fn is(&self, old: Scalar<'_>) -> Result<bool, Unclear> {
        self.0.serialize(Is(&old))
    }
}

/// Takes the new value, and compares it with the old one.
struct Is<'a>(&'a Scalar<'a>);

impl Is<'_> {
    #[inline]
    #[allow(clippy::unnecessary_wraps)] // Called where `Against::is` is.
    fn is(&self, new: Scalar<'_>) -> Result<bool, Unclear> {
        Ok(*self.0 == new)
    }
}

/// Not to be told from scalars.
#[derive(Debug)]
struct Unclear;

impl fmt::Display for Unclear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a scalar")
    }
}

impl std::error::Error for Unclear {}

impl ser::Error for Unclear {
    fn custom<T: fmt::Display>(_message: T) -> Self {
        Self
    }
}

macro_rules! integers {
    ($($method:ident: $type:ty),*) => {$(
        #[inline]
        fn $method(self, value: $type) -> Result<bool, Unclear> {
            self.is(Scalar::Integer(value.into()))
        }
    )*};
}

/// Both serializers see the same scalars.
macro_rules! scalars {
    () => {
        type Ok = bool;
        type Error = Unclear;
        type SerializeSeq = Impossible<bool, Unclear>;
        type SerializeTuple = Impossible<bool, Unclear>;
        type SerializeTupleStruct = Impossible<bool, Unclear>;
        type SerializeTupleVariant = Impossible<bool, Unclear>;
        type SerializeMap = Impossible<bool, Unclear>;
        type SerializeStruct = Impossible<bool, Unclear>;
        type SerializeStructVariant = Impossible<bool, Unclear>;

        integers!(
            serialize_i8: i8,
            serialize_i16: i16,
            serialize_i32: i32,
            serialize_i64: i64,
            serialize_i128: i128,
            serialize_u8: u8,
            serialize_u16: u16,
            serialize_u32: u32,
            serialize_u64: u64
        );

        fn serialize_u128(self, value: u128) -> Result<bool, Unclear> {
            self.is(Scalar::Integer(value.try_into().map_err(|_| Unclear)?))
        }

        fn serialize_f32(self, value: f32) -> Result<bool, Unclear> {
            self.is(if value.is_finite() { Scalar::F32(value.to_bits()) } else { Scalar::Null })
        }

        fn serialize_f64(self, value: f64) -> Result<bool, Unclear> {
            self.is(if value.is_finite() { Scalar::F64(value.to_bits()) } else { Scalar::Null })
        }

        fn serialize_bool(self, value: bool) -> Result<bool, Unclear> {
            self.is(Scalar::Bool(value))
        }

        fn serialize_char(self, value: char) -> Result<bool, Unclear> {
            self.is(Scalar::Text(value.encode_utf8(&mut [0; 4])))
        }

        #[inline]
        fn serialize_str(self, value: &str) -> Result<bool, Unclear> {
            self.is(Scalar::Text(value))
        }

        fn serialize_unit_variant(
            self,
            _name: &'static str,
            _index: u32,
            variant: &'static str,
        ) -> Result<bool, Unclear> {
            self.is(Scalar::Text(variant))
        }

        fn serialize_none(self) -> Result<bool, Unclear> {
            self.is(Scalar::Null)
        }

        fn serialize_unit(self) -> Result<bool, Unclear> {
            self.is(Scalar::Null)
        }

        fn serialize_unit_struct(self, _name: &'static str) -> Result<bool, Unclear> {
            self.is(Scalar::Null)
        }

        #[inline]
        fn serialize_some<U: Serialize + ?Sized>(self, value: &U) -> Result<bool, Unclear> {
            value.serialize(self)
        }

        fn serialize_newtype_struct<U: Serialize + ?Sized>(
            self,
            _name: &'static str,
            value: &U,
        ) -> Result<bool, Unclear> {
            value.serialize(self)
        }

        /// What is displayed would have to be collected first.
        fn collect_str<U: fmt::Display + ?Sized>(self, _value: &U) -> Result<bool, Unclear> {
            Err(Unclear)
        }

        refuse!(Unclear => bool: bytes, lists, objects, variants);
    };
}

impl<T: Serialize + ?Sized> Serializer for Against<'_, T> {
    scalars!();
}

impl Serializer for Is<'_> {
    scalars!();
}

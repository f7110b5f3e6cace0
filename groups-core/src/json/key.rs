use std::fmt;

use serde::ser::{Impossible, Serializer};

use crate::json::escape::write_str;
use crate::json::kinds::{refuse, see_through};
use crate::json::serializer::write_displayed;
use crate::json::{EncodeError, Json, Written};

/// Writes a map's key: text, or a number or boolean in quotes, as `serde_json` does.
pub(crate) struct Key<'a> {
    pub(crate) out: &'a mut Vec<u8>,
}

macro_rules! quoted {
    ($($method:ident: $type:ty),*) => {$(
        fn $method(self, value: $type) -> Result<(), EncodeError> {
            self.out.push(b'"');
            let written = Json { out: self.out }.$method(value)?;
            if written == Written::Null {
                return Err(EncodeError::new("float key must be finite (got NaN or +/-inf)"));
            }
            self.out.push(b'"');
            Ok(())
        }
    )*};
}

impl Serializer for Key<'_> {
    type Ok = ();
    type Error = EncodeError;
    type SerializeSeq = Impossible<(), EncodeError>;
    type SerializeTuple = Impossible<(), EncodeError>;
    type SerializeTupleStruct = Impossible<(), EncodeError>;
    type SerializeTupleVariant = Impossible<(), EncodeError>;
    type SerializeMap = Impossible<(), EncodeError>;
    type SerializeStruct = Impossible<(), EncodeError>;
    type SerializeStructVariant = Impossible<(), EncodeError>;

    quoted!(
        serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32,
        serialize_i64: i64, serialize_i128: i128, serialize_u8: u8, serialize_u16: u16,
        serialize_u32: u32, serialize_u64: u64, serialize_u128: u128, serialize_f32: f32,
        serialize_f64: f64
    );

    #[inline]
    fn serialize_str(self, value: &str) -> Result<(), EncodeError> {
        write_str(self.out, value);
        Ok(())
    }

    fn serialize_char(self, value: char) -> Result<(), EncodeError> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_unit_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
    ) -> Result<(), EncodeError> {
        self.serialize_str(variant)
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, value: &T) -> Result<(), EncodeError> {
        write_displayed(self.out, value)
    }

    see_through!(());
    refuse!(EncodeError::new("key must be a string") => ():
        bytes, nothing, lists, objects, variants);
}

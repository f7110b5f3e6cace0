//! What our serde serializers have in common: an error without words for those that only ask, and as
//! macros the methods for which serde has no default.

use std::fmt;

use serde::ser;

/// The answer of a serializer that asks something of a value.
#[derive(Debug)]
pub(crate) struct Differs;

impl fmt::Display for Differs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no")
    }
}

impl std::error::Error for Differs {}

impl ser::Error for Differs {
    fn custom<T: fmt::Display>(_message: T) -> Self {
        Self
    }
}

/// The methods that a serializer of only some kinds of value refuses, all with one error.
macro_rules! refuse {
    ($error:expr => $ok:ty: $($kind:ident),*) => {
        $($crate::json::kinds::refuse!(@$kind $error, $ok);)*
    };
    (@scalars $error:expr, $ok:ty) => {
        $crate::json::kinds::refuse!(@methods $error =>
            serialize_bool(bool) -> $ok;
            serialize_i8(i8) -> $ok;
            serialize_i16(i16) -> $ok;
            serialize_i32(i32) -> $ok;
            serialize_i64(i64) -> $ok;
            serialize_u8(u8) -> $ok;
            serialize_u16(u16) -> $ok;
            serialize_u32(u32) -> $ok;
            serialize_u64(u64) -> $ok;
            serialize_char(char) -> $ok;
            serialize_str(&str) -> $ok;
            serialize_unit_variant(&'static str, u32, &'static str) -> $ok;
        );
    };
    (@floats $error:expr, $ok:ty) => {
        $crate::json::kinds::refuse!(@methods $error =>
            serialize_f32(f32) -> $ok;
            serialize_f64(f64) -> $ok;
        );
    };
    (@bytes $error:expr, $ok:ty) => {
        $crate::json::kinds::refuse!(@methods $error => serialize_bytes(&[u8]) -> $ok;);
    };
    (@nothing $error:expr, $ok:ty) => {
        $crate::json::kinds::refuse!(@methods $error =>
            serialize_none() -> $ok;
            serialize_unit() -> $ok;
            serialize_unit_struct(&'static str) -> $ok;
        );
    };
    (@lists $error:expr, $ok:ty) => {
        $crate::json::kinds::refuse!(@methods $error =>
            serialize_seq(Option<usize>) -> Self::SerializeSeq;
            serialize_tuple(usize) -> Self::SerializeTuple;
            serialize_tuple_struct(&'static str, usize) -> Self::SerializeTupleStruct;
        );
    };
    (@objects $error:expr, $ok:ty) => {
        $crate::json::kinds::refuse!(@methods $error =>
            serialize_map(Option<usize>) -> Self::SerializeMap;
            serialize_struct(&'static str, usize) -> Self::SerializeStruct;
        );
    };
    (@variants $error:expr, $ok:ty) => {
        $crate::json::kinds::refuse!(@methods $error =>
            serialize_newtype_variant(&'static str, u32, &'static str, &V) <V> -> $ok;
            serialize_tuple_variant(&'static str, u32, &'static str, usize)
                -> Self::SerializeTupleVariant;
            serialize_struct_variant(&'static str, u32, &'static str, usize)
                -> Self::SerializeStructVariant;
        );
    };
    (@methods $error:expr =>
        $($method:ident($($type:ty),*) $(<$generic:ident>)? -> $ok:ty;)*
    ) => {$(
        fn $method $(<$generic: serde::Serialize + ?Sized>)? (self, $(_: $type),*)
            -> Result<$ok, Self::Error>
        {
            Err($error)
        }
    )*};
}
pub(crate) use refuse;

/// What holds one value is that value.
macro_rules! see_through {
    ($ok:ty) => {
        #[inline]
        fn serialize_some<V: serde::Serialize + ?Sized>(
            self,
            value: &V,
        ) -> Result<$ok, Self::Error> {
            value.serialize(self)
        }

        #[inline]
        fn serialize_newtype_struct<V: serde::Serialize + ?Sized>(
            self,
            _name: &'static str,
            value: &V,
        ) -> Result<$ok, Self::Error> {
            value.serialize(self)
        }
    };
}
pub(crate) use see_through;

/// All ways to say nothing are `serialize_unit`.
macro_rules! same_nothing {
    ($ok:ty) => {
        #[inline]
        fn serialize_none(self) -> Result<$ok, Self::Error> {
            self.serialize_unit()
        }

        #[inline]
        fn serialize_unit_struct(self, _name: &'static str) -> Result<$ok, Self::Error> {
            self.serialize_unit()
        }
    };
}
pub(crate) use same_nothing;

/// Lists whose type has the methods `item` and `close`.
macro_rules! items {
    ($type:ty => $ok:ty, $error:ty: $($trait:ident::$method:ident),*) => {$(
        impl serde::ser::$trait for $type {
            type Ok = $ok;
            type Error = $error;

            #[inline]
            fn $method<V: serde::Serialize + ?Sized>(&mut self, value: &V) -> Result<(), $error> {
                self.item(value)
            }

            #[inline]
            fn end(self) -> Result<$ok, $error> {
                self.close()
            }
        }
    )*};
}
pub(crate) use items;

/// Objects whose type has the methods `field` and `close`.
macro_rules! fields {
    ($type:ty => $ok:ty, $error:ty: $($trait:ident),*) => {$(
        impl serde::ser::$trait for $type {
            type Ok = $ok;
            type Error = $error;

            #[inline]
            fn serialize_field<V: serde::Serialize + ?Sized>(
                &mut self,
                key: &'static str,
                value: &V,
            ) -> Result<(), $error> {
                self.field(key, value)
            }

            #[inline]
            fn end(self) -> Result<$ok, $error> {
                self.close()
            }
        }
    )*};
}
pub(crate) use fields;

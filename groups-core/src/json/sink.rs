//! The serde serializer of this crate, and the trait of what it serializes into.
//!
//! serde asks for some forty methods. [`IntoSink`] and [`IntoParts`] have them, and bring them down to the five of a
//! [`Sink`] and the few of its [`Parts`].

use std::fmt;
use std::mem;

use serde_core::ser::{self, Serialize, Serializer};

/// A boolean or a number; integers of up to 64 bits are widened.
#[derive(Clone, Copy)]
pub(crate) enum Scalar {
    Bool(bool),
    I64(i64),
    U64(u64),
    I128(i128),
    U128(u128),
    F32(f32),
    F64(f64),
}

/// The shape of a value that holds other values; a variant of an enum with its name.
#[derive(Clone, Copy)]
pub(crate) enum Shape {
    /// A list, tuple or tuple struct.
    List,
    Map,
    Struct,
    /// A struct whose only field is JSON text: how `serde_json`'s `RawValue` and, with its feature
    /// `arbitrary_precision`, `Number` come through serde.
    RawJson,
    /// A variant with one item.
    NewtypeVariant(&'static str),
    TupleVariant(&'static str),
    StructVariant(&'static str),
}

/// A destination of serialized values: a writer of JSON, or a check that writes nothing.
///
/// By default a sink takes `null` only and refuses other values.
pub(crate) trait Sink: Sized {
    type Ok;
    type Error: ser::Error;
    type Parts: Parts<Ok = Self::Ok, Error = Self::Error>;

    /// The message of the error for a value that the sink refuses.
    const REFUSAL: &'static str = "";

    /// Takes `None`, a unit or a unit struct.
    fn null(self) -> Result<Self::Ok, Self::Error>;

    #[inline]
    fn scalar(self, _scalar: Scalar) -> Result<Self::Ok, Self::Error> {
        Err(ser::Error::custom(Self::REFUSAL))
    }

    /// Takes a variant without data: as its name, by default.
    #[inline]
    fn unit_variant(self, name: &'static str) -> Result<Self::Ok, Self::Error> {
        self.text(name)
    }

    /// Takes text or a character.
    #[inline]
    fn text(self, _text: &str) -> Result<Self::Ok, Self::Error> {
        Err(ser::Error::custom(Self::REFUSAL))
    }

    /// Takes the text of a `Display` implementation.
    fn displayed<T: fmt::Display + ?Sized>(self, _value: &T) -> Result<Self::Ok, Self::Error> {
        Err(ser::Error::custom(Self::REFUSAL))
    }

    /// Starts a value that holds other values.
    #[inline]
    fn open(self, _shape: Shape) -> Result<Self::Parts, Self::Error> {
        Err(ser::Error::custom(Self::REFUSAL))
    }

    /// Serializes `value` into the sink.
    #[inline]
    fn write<T: Serialize + ?Sized>(self, value: &T) -> Result<Self::Ok, Self::Error> {
        value.serialize(IntoSink(self))
    }
}

/// The parts of a value that [`Sink::open`] started: items, or keys with values, by its shape.
pub(crate) trait Parts: Sized {
    type Ok;
    type Error: ser::Error;

    fn item<T: Serialize + ?Sized>(&mut self, _value: &T) -> Result<(), Self::Error> {
        unreachable!("`open` refuses shapes with items")
    }

    fn key<T: Serialize + ?Sized>(&mut self, _key: &T) -> Result<(), Self::Error> {
        unreachable!("`open` refuses shapes with keys")
    }

    fn value<T: Serialize + ?Sized>(&mut self, _value: &T) -> Result<(), Self::Error> {
        unreachable!("`open` refuses shapes with keys")
    }

    #[inline]
    fn field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), Self::Error> {
        self.key(key)?;
        self.value(value)
    }

    fn end(self) -> Result<Self::Ok, Self::Error>;
}

/// The error of a sink that checks values and reports no reason: the value does not pass.
#[derive(Debug)]
pub(crate) struct Mismatch;

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the value does not match")
    }
}

impl std::error::Error for Mismatch {}

impl ser::Error for Mismatch {
    #[inline]
    fn custom<T: fmt::Display>(_message: T) -> Self {
        Self
    }
}

/// A serializer into a [`Sink`].
pub(crate) struct IntoSink<S>(pub(crate) S);

macro_rules! scalars {
    ($($method:ident($type:ty) => $scalar:ident;)*) => {$(
        #[inline]
        fn $method(self, value: $type) -> Result<S::Ok, S::Error> {
            self.0.scalar(Scalar::$scalar(value.into()))
        }
    )*};
}

impl<S: Sink> Serializer for IntoSink<S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = IntoParts<S::Parts>;
    type SerializeTuple = IntoParts<S::Parts>;
    type SerializeTupleStruct = IntoParts<S::Parts>;
    type SerializeTupleVariant = IntoParts<S::Parts>;
    type SerializeMap = IntoParts<S::Parts>;
    type SerializeStruct = IntoParts<S::Parts>;
    type SerializeStructVariant = IntoParts<S::Parts>;

    scalars!(
        serialize_bool(bool) => Bool;
        serialize_i8(i8) => I64;
        serialize_i16(i16) => I64;
        serialize_i32(i32) => I64;
        serialize_i64(i64) => I64;
        serialize_i128(i128) => I128;
        serialize_u8(u8) => U64;
        serialize_u16(u16) => U64;
        serialize_u32(u32) => U64;
        serialize_u64(u64) => U64;
        serialize_u128(u128) => U128;
        serialize_f32(f32) => F32;
        serialize_f64(f64) => F64;
    );

    #[inline]
    fn serialize_char(self, value: char) -> Result<S::Ok, S::Error> {
        self.0.text(value.encode_utf8(&mut [0; 4]))
    }

    #[inline]
    fn serialize_str(self, value: &str) -> Result<S::Ok, S::Error> {
        self.0.text(value)
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.0.displayed(value)
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<S::Ok, S::Error> {
        self.collect_seq(value)
    }

    #[inline]
    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        self.0.null()
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        value.serialize(self)
    }

    #[inline]
    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        self.0.null()
    }

    #[inline]
    fn serialize_unit_struct(self, _name: &'static str) -> Result<S::Ok, S::Error> {
        self.0.null()
    }

    #[inline]
    fn serialize_unit_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
    ) -> Result<S::Ok, S::Error> {
        self.0.unit_variant(variant)
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        let mut parts = self.0.open(Shape::NewtypeVariant(variant))?;
        parts.item(value)?;
        parts.end()
    }

    #[inline]
    fn serialize_seq(self, _len: Option<usize>) -> Result<IntoParts<S::Parts>, S::Error> {
        self.0.open(Shape::List).map(IntoParts::new)
    }

    #[inline]
    fn serialize_tuple(self, _len: usize) -> Result<IntoParts<S::Parts>, S::Error> {
        self.0.open(Shape::List).map(IntoParts::new)
    }

    #[inline]
    fn serialize_tuple_struct(
        self,
        _name: &'static str,
        _len: usize,
    ) -> Result<IntoParts<S::Parts>, S::Error> {
        self.0.open(Shape::List).map(IntoParts::new)
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<IntoParts<S::Parts>, S::Error> {
        self.0
            .open(Shape::TupleVariant(variant))
            .map(IntoParts::new)
    }

    #[inline]
    fn serialize_map(self, _len: Option<usize>) -> Result<IntoParts<S::Parts>, S::Error> {
        self.0.open(Shape::Map).map(IntoParts::new)
    }

    #[inline]
    fn serialize_struct(
        self,
        name: &'static str,
        _len: usize,
    ) -> Result<IntoParts<S::Parts>, S::Error> {
        let shape = match name {
            "$serde_json::private::RawValue" | "$serde_json::private::Number" => Shape::RawJson,
            _ => Shape::Struct,
        };
        self.0.open(shape).map(IntoParts::new)
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<IntoParts<S::Parts>, S::Error> {
        self.0
            .open(Shape::StructVariant(variant))
            .map(IntoParts::new)
    }
}

/// A serializer into the [`Parts`] of a value.
///
/// It refuses all parts after one that failed, and members of a map that are not a key and then its value: a `Serialize`
/// that passes such would make text that is not JSON.
pub(crate) struct IntoParts<P> {
    parts: P,
    state: State,
}

/// What the next part may be.
#[derive(Clone, Copy, PartialEq)]
enum State {
    Ready,
    /// A key waits for its value.
    HasKey,
    /// Nothing: a part failed, or panicked.
    Broken,
}

#[cold]
fn mistake<E: ser::Error>(state: State) -> E {
    E::custom(match state {
        State::Ready => "its `Serialize` passes a value without a key",
        State::HasKey => "its `Serialize` passes a key without a value",
        State::Broken => "its `Serialize` goes on after an error",
    })
}

#[allow(clippy::inline_always)] // Names of fields are constants where they are written.
impl<P: Parts> IntoParts<P> {
    #[inline]
    fn new(parts: P) -> Self {
        Self {
            parts,
            state: State::Ready,
        }
    }

    /// Writes a part, which leads from one state to the other.
    #[inline(always)]
    fn write(
        &mut self,
        [before, after]: [State; 2],
        write: impl FnOnce(&mut P) -> Result<(), P::Error>,
    ) -> Result<(), P::Error> {
        let state = mem::replace(&mut self.state, State::Broken);
        if state != before {
            return Err(mistake(state));
        }
        write(&mut self.parts)?;
        self.state = after;
        Ok(())
    }

    #[inline(always)]
    fn finish(self) -> Result<P::Ok, P::Error> {
        if self.state != State::Ready {
            return Err(mistake(self.state));
        }
        self.parts.end()
    }
}

macro_rules! parts {
    ($($trait:ident::$method:ident($($key:ident)?) => $part:ident;)*) => {$(
        #[allow(clippy::inline_always)] // As above.
        impl<P: Parts> ser::$trait for IntoParts<P> {
            type Ok = P::Ok;
            type Error = P::Error;

            #[inline(always)]
            fn $method<T: Serialize + ?Sized>(
                &mut self,
                $($key: &'static str,)?
                value: &T,
            ) -> Result<(), P::Error> {
                self.write([State::Ready; 2], |parts| parts.$part($($key,)? value))
            }

            #[inline(always)]
            fn end(self) -> Result<P::Ok, P::Error> {
                self.finish()
            }
        }
    )*};
}

parts!(
    SerializeSeq::serialize_element() => item;
    SerializeTuple::serialize_element() => item;
    SerializeTupleStruct::serialize_field() => item;
    SerializeTupleVariant::serialize_field() => item;
    SerializeStruct::serialize_field(key) => field;
    SerializeStructVariant::serialize_field(key) => field;
);

impl<P: Parts> ser::SerializeMap for IntoParts<P> {
    type Ok = P::Ok;
    type Error = P::Error;

    #[inline]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), P::Error> {
        self.write([State::Ready, State::HasKey], |parts| parts.key(key))
    }

    #[inline]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), P::Error> {
        self.write([State::HasKey, State::Ready], |parts| parts.value(value))
    }

    #[inline]
    fn end(self) -> Result<P::Ok, P::Error> {
        self.finish()
    }
}

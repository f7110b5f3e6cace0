//! Writes values as JSON, by serde, into the bytes of a batch.
//!
//! [`sink`] has the serde serializer, which serializes into a [`Sink`]. [`Json`] is the sink that writes any value,
//! byte for byte as `serde_json` does. [`object`] writes the properties of a map or struct whose names are known at
//! run time only, and [`list`] the items of a `$union`. [`null`] finds out whether a value serializes to `null`,
//! without writing it. [`escape`] writes text. [`members`] and [`item`] read JSON that was written elsewhere.
//!
//! Sinks write into a buffer that their caller owns.

mod encode_error;
pub(crate) mod escape;
pub(crate) mod item;
pub(crate) mod key;
pub(crate) mod list;
pub(crate) mod members;
pub(crate) mod null;
mod number;
pub(crate) mod object;
pub(crate) mod serializer;
pub(crate) mod sink;

pub use self::encode_error::EncodeError;
pub use self::list::{List, sorted};

pub(crate) use self::key::Key;
pub(crate) use self::serializer::{Json, Written, close, push_json};
pub(crate) use self::sink::Sink;

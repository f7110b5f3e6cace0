#![doc = include_str!("../README.md")]
// docs.rs says of each item which feature brings it.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

// The rooms. Which may import which is in `tests/project/layers.rs`, from the one that knows nothing of the others to those
// that know most.
pub mod buffered;
pub mod client;
mod group;
mod json;
pub mod outbox;
mod profile;
pub mod record;
#[cfg(all(test, simulation))]
mod simulation;
pub mod snapshot;
mod util;

// Its examples and links need what this feature brings.
#[cfg(all(any(doc, doctest), feature = "derive"))]
pub mod guide;

pub use buffered::BufferedClient;
pub use client::{Client, ClientBuilder, Compression, Region, RetryPolicy};
pub use group::{Group, GroupId, Id, Operation, Property};
pub use json::{List, sorted};
pub use outbox::{MemoryOutbox, Outbox};
pub use profile::Profile;
pub use record::event::{self, Event};
pub use record::{
    EncodedUpdate, Error, ErrorKind, MixpanelGroup, Rejection, Report, Undelivered, Update,
};
pub use snapshot::Snapshot;

#[cfg(feature = "derive")]
pub use mixpanel_groups_derive::MixpanelGroup;

/// The name of [`RetryPolicy`] for short: `.retry(Retry::none())`.
pub use client::RetryPolicy as Retry;

/// For generated code only: not part of the public interface.
#[doc(hidden)]
pub mod __private {
    pub use crate::json::EncodeError;
    pub use crate::record::visit::{Field, SerializeField, Values, Visitor, Walk, id, unless};
    pub use core::primitive::str;
    pub use core::result::Result::{self, Ok};
    pub use serde_core::{Serialize, Serializer};
}

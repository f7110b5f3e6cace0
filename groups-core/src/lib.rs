#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod absent;
/// For tests and the fuzz target only.
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod any_answer;
mod batch;
mod buffered;
mod changes;
mod client;
mod compression;
mod delivery;
mod differences;
#[cfg(feature = "emulator")]
mod emulator;
mod encode;
mod endpoint;
mod error;
mod escape;
mod event;
mod fold;
mod group;
#[cfg(feature = "sqlite")]
mod group_commit;
#[cfg(any(doc, doctest))]
pub mod guide;
mod id;
mod json;
mod list;
mod mixpanel_group;
mod object;
mod operation;
mod outbox;
#[cfg(feature = "postgres")]
mod postgres_outbox;
mod profile;
mod progress;
mod property;
mod random;
mod records;
mod rejection;
mod relay;
mod report;
mod response;
mod retry;
mod same;
mod scratch;
mod sending;
mod serializer;
mod snapshot;
mod snapshot_file;
#[cfg(feature = "sqlite")]
mod sqlite_outbox;
mod stored_update;
mod transport;
mod undelivered;
mod update;
mod visit;

pub use batch::Batch;
pub use buffered::{BufferedClient, BufferedClientBuilder, Drained, Stats, Trouble, WhenFull};
pub use changes::Changes;
pub use client::{Client, ClientBuilder};
pub use compression::Compression;
#[cfg(feature = "emulator")]
pub use emulator::{Emulator, EmulatorBuilder, Fault, Received};
pub use endpoint::Region;
pub use error::{Error, ErrorKind};
pub use event::{Event, Time};
pub use group::Group;
pub use id::{GroupId, Id};
pub use list::List;
pub use mixpanel_group::MixpanelGroup;
pub use operation::Operation;
pub use outbox::{Capacity, Depth, MemoryOutbox, Outbox, Waiting};
#[cfg(feature = "postgres")]
pub use postgres_outbox::{PostgresOutbox, PostgresOutboxBuilder};
pub use profile::Profile;
pub use progress::Progress;
pub use property::Property;
pub use rejection::{RecordName, Rejection};
pub use report::Report;
pub use retry::Retry;
pub use sending::Sending;
pub use snapshot::Snapshot;
#[cfg(feature = "sqlite")]
pub use sqlite_outbox::{SqliteOutbox, Synchronous};
pub use stored_update::StoredUpdate;
pub use undelivered::{Undelivered, UndeliveredIter};
pub use update::{Update, Updates};

#[cfg(feature = "derive")]
pub use mixpanel_groups_derive::MixpanelGroup;

/// For generated code only: no part of the public interface.
#[doc(hidden)]
pub mod __private {
    pub use crate::json::EncodeError;
    pub use crate::visit::{Field, SerializeField, Visitor, Walk, id, unless};
    pub use core::primitive::str;
    pub use core::result::Result::{self, Ok};
    pub use serde::{Serialize, Serializer};
}

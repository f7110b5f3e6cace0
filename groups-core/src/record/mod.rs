//! Updates and events, and their outcomes.
//!
//! An [`Update`] is made from a struct that derives [`MixpanelGroup`], or from a [`Group`](crate::Group). An
//! [`EncodedUpdate`] is an update's JSON on its own, which can wait and cross threads; an [`EncodedEvent`] is that of an
//! [`Event`], and an [`EncodedRecord`] either of them. Each ends in a [`Report`] as accepted or as a [`Rejection`], or
//! comes back in an [`Error`] as [`Undelivered`].

// An update or an event is a `Record`: it writes its own JSON (`encode`) into a buffer, and has a `group_hash`, by which
// connections share groups out. A derived struct is walked by visitors (`visit`): one encodes, one writes `tokens`, by which
// `unchanged` compares two versions where their values are not known to be the `same`, one compares their properties
// (`changes`), and `diff` makes updates of what differs.
// Outcomes are in this room because an error gives updates back. Everything in here is plain data: no I/O, no threads, no
// locks.

pub(crate) mod changes;
pub(crate) mod diff;
mod edit;
pub(crate) mod encode;
mod encoded_event;
pub(crate) mod encoded_record;
pub(crate) mod encoded_update;
pub(crate) mod error;
pub mod event;
mod foreign_update;
mod group;
pub(crate) mod group_hash;
mod into;
pub(crate) mod mixpanel_group;
pub(crate) mod rejection;
pub(crate) mod report;
pub(crate) mod same;
pub(crate) mod tokens;
pub(crate) mod unchanged;
mod undelivered;
pub(crate) mod update;
pub(crate) mod visit;

pub use self::changes::Changes;
pub use self::encoded_event::EncodedEvent;
pub use self::encoded_record::EncodedRecord;
pub use self::encoded_update::EncodedUpdate;
pub use self::error::{Error, ErrorKind};
pub use self::event::Event;
pub use self::into::{IntoEvents, IntoRecord, IntoRecords, IntoUpdates};
pub use self::mixpanel_group::{MixpanelGroup, ThreadSafe};
pub use self::rejection::{RecordRef, Rejection};
pub use self::report::Report;
pub use self::undelivered::Undelivered;
pub use self::update::{Update, Updates};

pub(crate) use self::encode::Encoded;

use crate::util::Buffer;

/// The largest record in bytes: 1 MB, in the reading that every server takes.
/// ([Groups API, Limits](https://developer.mixpanel.com/reference/group-profiles))
pub(crate) const MAX_RECORD: usize = 1_000_000;

/// An element of a request's JSON array: an update of a group profile, or an event.
pub(crate) trait Record {
    /// Appends the members of the record's object without its first bracket. Appends nothing where
    /// there is nothing to send.
    fn write(&self, out: &mut Buffer) -> Result<Option<Encoded>, Box<Rejection>>;

    /// Returns a hash of an update's group, the same however the update is kept. An event has one of its own.
    fn group_hash(&self) -> u64;
}

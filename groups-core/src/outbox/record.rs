use std::fmt::Debug;

use crate::record::{EncodedEvent, EncodedRecord, EncodedUpdate, Error};

/// A record in an outbox: [`EncodedUpdate`] or [`EncodedEvent`]. An engine can be written once, for both.
pub trait OutboxRecord:
    Clone + Debug + PartialEq + Into<EncodedRecord> + Send + Sync + sealed::Sealed + 'static
{
    /// Their name in messages: `updates` or `events`.
    const NAME: &'static str;

    /// Parses a record from the JSON that is kept.
    ///
    /// # Errors
    /// As [`EncodedUpdate::from_json`] and [`EncodedEvent::from_json`].
    fn from_json(json: &str) -> Result<Self, Error>;

    /// Returns the JSON to keep.
    fn as_json(&self) -> &str;

    /// Returns bytes that identify the group of an update; `None` for an event.
    fn group_bytes(&self) -> Option<&[u8]>;
}

impl OutboxRecord for EncodedUpdate {
    const NAME: &'static str = "updates";

    fn from_json(json: &str) -> Result<Self, Error> {
        Self::from_json(json)
    }

    fn as_json(&self) -> &str {
        self.as_json()
    }

    fn group_bytes(&self) -> Option<&[u8]> {
        Some(self.group_bytes())
    }
}

impl OutboxRecord for EncodedEvent {
    const NAME: &'static str = "events";

    fn from_json(json: &str) -> Result<Self, Error> {
        Self::from_json(json)
    }

    fn as_json(&self) -> &str {
        self.as_json()
    }

    fn group_bytes(&self) -> Option<&[u8]> {
        None
    }
}

mod sealed {
    pub trait Sealed {}

    impl Sealed for crate::record::EncodedUpdate {}
    impl Sealed for crate::record::EncodedEvent {}
}

/// Returns how many bytes of JSON they are.
pub(crate) fn total_bytes<R: OutboxRecord>(records: &[R]) -> usize {
    records.iter().map(|record| record.as_json().len()).sum()
}

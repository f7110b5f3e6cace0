use serde_json::{Map, Value};

use crate::json::members::Members;
use crate::record::{EncodedEvent, EncodedUpdate, Error, MAX_RECORD, RecordRef, Rejection};

/// An update or an event as JSON: what [`publish`](crate::BufferedClient::publish) makes of its argument.
///
/// An event is recognized by its member `event`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncodedRecord {
    /// An update of a group profile, for `/groups`.
    Update(EncodedUpdate),
    /// An event, for `/import`.
    Event(EncodedEvent),
}

impl EncodedRecord {
    /// Reads an update or an event from JSON.
    ///
    /// # Errors
    /// As [`EncodedUpdate::from_json`] and [`EncodedEvent::from_json`].
    pub fn from_json(json: &str) -> Result<Self, Error> {
        EncodedUpdate::from_json(json)
            .map(Self::Update)
            .or_else(|why| {
                let is_event = Members::parse(json)
                    .is_ok_and(|members| members.0.iter().any(|(name, _)| name == "event"));
                if !is_event {
                    return Err(why);
                }
                EncodedEvent::from_json(json).map(Self::Event)
            })
    }

    /// Returns the record as it is sent, without an update's `$token`.
    #[must_use]
    pub fn as_json(&self) -> &str {
        match self {
            Self::Update(update) => update.as_json(),
            Self::Event(event) => event.as_json(),
        }
    }

    /// Returns how many bytes of JSON the record is.
    #[must_use]
    #[allow(clippy::len_without_is_empty)] // No record is empty.
    pub fn len(&self) -> usize {
        self.as_json().len()
    }

    /// Returns the record as `hook` leaves its JSON object; `None` if the hook returns `false`.
    pub(crate) fn edit(
        &self,
        hook: impl FnOnce(&mut Map<String, Value>) -> bool,
    ) -> Result<Option<Self>, Error> {
        Ok(match self {
            Self::Update(update) => update.edit(hook)?.map(Self::Update),
            Self::Event(event) => event.edit(hook)?.map(Self::Event),
        })
    }
}

impl From<EncodedUpdate> for EncodedRecord {
    fn from(update: EncodedUpdate) -> Self {
        Self::Update(update)
    }
}

impl From<EncodedEvent> for EncodedRecord {
    fn from(event: EncodedEvent) -> Self {
        Self::Event(event)
    }
}

/// Returns an error, with the record's `name`, if one with this JSON is too large to be sent.
pub(super) fn check_limit(json: &str, name: fn(&[u8]) -> RecordRef) -> Result<(), Error> {
    let bytes = json.len();
    if bytes <= MAX_RECORD {
        return Ok(());
    }
    let name = name(&json.as_bytes()[1..]);
    Err(Error::invalid(&Rejection::too_large(
        name, bytes, MAX_RECORD,
    )))
}

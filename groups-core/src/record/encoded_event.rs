use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::record::encoded_record::check_limit;
use crate::record::encoded_update::text;
use crate::record::event::shown;
use crate::record::group_hash::hash_written;
use crate::record::{Encoded, Error, ErrorKind, Event, Record, Rejection};
use crate::util::Buffer;

/// An event as JSON, which can be stored, in memory or in a database, and sent to another thread. Cheap to clone.
///
/// Its time and its `$insert_id` are those of the [`Event`]: however often it is sent, Mixpanel keeps it once.
/// Neither the token nor credentials are part of it, unless they are among the event's properties. `Debug` hides the property
/// `token`, in which many SDKs write the project's.
#[derive(Clone, PartialEq, Eq)]
pub struct EncodedEvent {
    json: Arc<str>,
    encoded: Encoded,
}

impl EncodedEvent {
    /// Encodes an event.
    ///
    /// # Errors
    /// If it cannot be imported, also because it is too large: the error names event, property and cause.
    pub fn new(event: &Event) -> Result<Self, Error> {
        let encoded = Self::written(|json| Record::write(&event, json))?;
        check_limit(&encoded.json, Event::name).map(|()| encoded)
    }

    /// Parses an event: what [`as_json`](Self::as_json) returned, or what another program wrote in Mixpanel's format. Every
    /// value stays as it is written, except that a property with `null` is left out.
    ///
    /// An event that is too large is read all the same, and rejected when it is sent. A time before 1971 or more than an hour
    /// ahead is rejected by [`import`](crate::Client::import) and [`publish`](crate::BufferedClient::publish); that of an
    /// event that is in an outbox already is checked by Mixpanel alone.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidUpdate`] if the JSON is not an event: `event` as text and `properties` as an object with
    /// `time` (an integer), `distinct_id` and `$insert_id`. The error says what is wrong.
    pub fn from_json(json: &str) -> Result<Self, Error> {
        let event = parse(json)?;
        Self::written(|out| event.write_at_any_time(out).map(Some))
    }

    fn written(
        write: impl FnOnce(&mut Buffer) -> Result<Option<Encoded>, Box<Rejection>>,
    ) -> Result<Self, Error> {
        let mut json = Buffer::default();
        json.push(b'{');
        let encoded = write(&mut json).map_err(|rejection| Error::invalid(&rejection))?;
        let encoded = encoded.expect("an event is never empty");
        let json = text(json)?.into();
        Ok(Self { json, encoded })
    }

    /// Returns the event as `hook` leaves its JSON object; `None` if the hook returns `false`.
    pub(crate) fn edit(
        &self,
        hook: impl FnOnce(&mut Map<String, Value>) -> bool,
    ) -> Result<Option<Self>, Error> {
        let edited = super::edit::edit(&self.json, hook);
        let event = edited.map(|json| Self::new(&parse(&json)?));
        event.transpose()
    }

    /// Returns the event as it is sent.
    #[must_use]
    pub fn as_json(&self) -> &str {
        &self.json
    }

    /// Returns how many bytes of JSON the event is.
    #[must_use]
    #[allow(clippy::len_without_is_empty)] // No event is empty.
    pub fn len(&self) -> usize {
        self.json.len()
    }

    pub(crate) fn encoded(&self) -> Encoded {
        self.encoded
    }

    /// Returns all but the first bracket.
    pub(crate) fn members(&self) -> &[u8] {
        &self.json.as_bytes()[1..]
    }
}

fn parse(json: &str) -> Result<Event, Error> {
    Event::parse(json)
        .map_err(|why| Error::new(ErrorKind::InvalidUpdate, format!("not an event: {why}")))
}

impl Record for EncodedEvent {
    fn write(&self, out: &mut Buffer) -> Result<Option<Encoded>, Box<Rejection>> {
        out.extend_from_slice(self.members());
        Ok(Some(self.encoded))
    }

    fn group_hash(&self) -> u64 {
        hash_written(&self.members()[..self.encoded.head])
    }
}

/// The event, ready to be imported: `client.import(events.into_iter().map(Event::from))`.
impl From<EncodedEvent> for Event {
    fn from(event: EncodedEvent) -> Self {
        Self::read(event.members())
    }
}

impl fmt::Debug for EncodedEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EncodedEvent({})", shown(&self.json))
    }
}

//! The arguments of `send`, `import`, `publish` and `publish_all`: one record or many. The traits exist for the compiler's
//! messages, which name the right method after a mix-up.

use std::borrow::Borrow;

use crate::record::{EncodedEvent, EncodedRecord, EncodedUpdate, Error, Event, Update};

/// The argument of [`send`](crate::Client::send): one update, or several. Implemented for [`EncodedUpdate`], for references to
/// it, and for every iterator, list or set of values that implement `Into<Update>`, as one [`Update`] is.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is neither an update nor an iterator of updates",
    label = "expected updates, such as `company.updates()` or `company.set()`",
    note = "for a struct that derives `MixpanelGroup`, write `company.updates()`; for several, \
            `companies.iter().flat_map(|company| company.updates())`",
    note = "events are sent by `client.import(event)`"
)]
pub trait IntoUpdates<'u> {
    /// Returns an iterator of the updates.
    fn into_updates(self) -> impl Iterator<Item = Update<'u>>;
}

#[diagnostic::do_not_recommend]
impl<'u, I> IntoUpdates<'u> for I
where
    I: IntoIterator,
    I::Item: Into<Update<'u>>,
{
    fn into_updates(self) -> impl Iterator<Item = Update<'u>> {
        self.into_iter().map(Into::into)
    }
}

#[diagnostic::do_not_recommend]
impl<'u> IntoUpdates<'u> for EncodedUpdate {
    fn into_updates(self) -> impl Iterator<Item = Update<'u>> {
        Update::from(self).into_iter()
    }
}

#[diagnostic::do_not_recommend]
impl<'u> IntoUpdates<'u> for &'u EncodedUpdate {
    fn into_updates(self) -> impl Iterator<Item = Update<'u>> {
        Update::from(self).into_iter()
    }
}

/// The argument of [`import`](crate::Client::import): one event, or several. Implemented for every iterator, list or set of
/// events or of references to them.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is neither an event nor an iterator of events",
    label = "expected events, such as `Event::new(\"Purchase\")`",
    note = "updates of group profiles are sent by `client.send(updates)`"
)]
pub trait IntoEvents {
    /// Returns an iterator of the events.
    fn into_events(self) -> impl Iterator<Item: Borrow<Event>>;
}

#[diagnostic::do_not_recommend]
impl<I> IntoEvents for I
where
    I: IntoIterator,
    I::Item: Borrow<Event>,
{
    fn into_events(self) -> impl Iterator<Item: Borrow<Event>> {
        self.into_iter()
    }
}

/// The argument of [`publish`](crate::BufferedClient::publish): an update or an event. Implemented for [`Event`],
/// [`EncodedEvent`] and [`EncodedRecord`], for references to them, and for every `Into<Update>`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is neither an update nor an event",
    label = "expected one update, such as `company.set()`, or one event",
    note = "for several updates, such as `company.updates()`, call `publish_all`, or `publish_all_in` in a transaction",
    note = "for a struct that derives `MixpanelGroup`, name what is to be sent: `company.set()` or, with \
            `publish_all`, `company.updates()`"
)]
pub trait IntoRecord {
    /// Encodes the record; `None` if there is nothing to send.
    ///
    /// # Errors
    /// If it cannot be sent: the error names group or event, property and cause.
    fn into_record(self) -> Result<Option<EncodedRecord>, Error>;
}

#[diagnostic::do_not_recommend]
impl<'u, T: Into<Update<'u>>> IntoRecord for T {
    fn into_record(self) -> Result<Option<EncodedRecord>, Error> {
        Ok(EncodedUpdate::new(&self.into())?.map(EncodedRecord::Update))
    }
}

impl IntoRecord for Event {
    fn into_record(self) -> Result<Option<EncodedRecord>, Error> {
        (&self).into_record()
    }
}

impl IntoRecord for &Event {
    fn into_record(self) -> Result<Option<EncodedRecord>, Error> {
        EncodedEvent::new(self).map(|event| Some(EncodedRecord::Event(event)))
    }
}

#[diagnostic::do_not_recommend]
impl IntoRecord for EncodedEvent {
    fn into_record(self) -> Result<Option<EncodedRecord>, Error> {
        Event::from(self).into_record() // which checks its time and its size
    }
}

#[diagnostic::do_not_recommend]
impl IntoRecord for &EncodedEvent {
    fn into_record(self) -> Result<Option<EncodedRecord>, Error> {
        self.clone().into_record()
    }
}

#[diagnostic::do_not_recommend]
impl IntoRecord for EncodedRecord {
    fn into_record(self) -> Result<Option<EncodedRecord>, Error> {
        match self {
            Self::Update(update) => update.into_record(),
            Self::Event(event) => event.into_record(),
        }
    }
}

#[diagnostic::do_not_recommend]
impl IntoRecord for &EncodedRecord {
    fn into_record(self) -> Result<Option<EncodedRecord>, Error> {
        self.clone().into_record()
    }
}

/// The argument of [`publish_all`](crate::BufferedClient::publish_all): several updates or events. Implemented for every
/// iterator, list or set of values that implement [`IntoRecord`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an iterator of updates or events",
    label = "expected updates, such as `company.updates()` or `company.set()`, or events",
    note = "for a struct that derives `MixpanelGroup`, write `company.updates()`; for several, \
            `companies.iter().flat_map(|company| company.updates())`"
)]
pub trait IntoRecords {
    /// Returns an iterator of the records.
    fn into_records(self) -> impl Iterator<Item: IntoRecord>;
}

#[diagnostic::do_not_recommend]
impl<I> IntoRecords for I
where
    I: IntoIterator,
    I::Item: IntoRecord,
{
    fn into_records(self) -> impl Iterator<Item: IntoRecord> {
        self.into_iter()
    }
}

//! What `send`, `import` and `publish` take: one record or many. The traits exist for the compiler's
//! messages, which name the method that a mix-up was meant for.

use std::borrow::Borrow;

use crate::record::{Event, Update};

/// An update, or a reference to one: what [`publish`](crate::BufferedClient::publish) takes. Implemented for
/// everything that is `Into<Update>`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an update",
    label = "expected one update, such as `company.set()`",
    note = "for several updates, such as `company.updates()`, call `publish_all`",
    note = "for a struct that derives `MixpanelGroup`, name what is to be sent: `company.set()` or, with \
            `publish_all`, `company.updates()`"
)]
pub trait IntoUpdate<'u> {
    /// Returns the update.
    fn into_update(self) -> Update<'u>;
}

#[diagnostic::do_not_recommend]
impl<'u, T: Into<Update<'u>>> IntoUpdate<'u> for T {
    fn into_update(self) -> Update<'u> {
        self.into()
    }
}

/// One update or an iterator of updates: what [`send`](crate::Client::send) and
/// [`publish_all`](crate::BufferedClient::publish_all) take. Implemented for every iterator, list or set of
/// what is `Into<Update>`.
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

/// One event or an iterator of events: what [`import`](crate::Client::import) takes. Implemented for every
/// iterator, list or set of events or of references to them.
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

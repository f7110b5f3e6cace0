//! What is different for updates and for events.

use crate::buffered::DeliveryEvent;
use crate::client::Client;
use crate::client::delivery::Route;
use crate::outbox::OutboxRecord;
use crate::record::{EncodedEvent, EncodedUpdate, Record};

/// A kind of records, which has a queue of its own.
pub(super) trait Kind: OutboxRecord + Record {
    /// Returns where the client sends them.
    fn route(client: &Client) -> &Route;

    /// Returns the event for so many of the oldest records that were dropped.
    fn dropped(count: usize) -> DeliveryEvent<'static>;
}

impl Kind for EncodedUpdate {
    fn route(client: &Client) -> &Route {
        client.groups_route()
    }

    fn dropped(count: usize) -> DeliveryEvent<'static> {
        DeliveryEvent::Dropped(count)
    }
}

impl Kind for EncodedEvent {
    fn route(client: &Client) -> &Route {
        client.import_route()
    }

    fn dropped(count: usize) -> DeliveryEvent<'static> {
        DeliveryEvent::DroppedEvents(count)
    }
}

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::outbox::Capacity;
use crate::record::{EncodedUpdate, Error, Rejection};

/// What happens to an update for which there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OverflowPolicy {
    /// Publishing waits for room that long; then it is an error, as with `Reject`.
    Block(Duration),
    /// Publishing is an error that gives the update [back](Error::undelivered).
    Reject,
    /// The oldest updates are dropped, counted and told to [`on_error`].
    ///
    /// [`on_error`]: crate::buffered::BufferedClientBuilder::on_error
    DropOldest,
}

/// What [`on_error`](crate::buffered::BufferedClientBuilder::on_error) is told.
#[derive(Debug)]
#[non_exhaustive]
pub enum DeliveryEvent<'a> {
    /// Mixpanel refused an update, which is lost to it (an outbox may keep it).
    Rejected(&'a EncodedUpdate, &'a Rejection),
    /// A delivery failed; what was not delivered keeps waiting and is tried again.
    Undelivered(&'a Error),
    /// So many of the oldest updates were dropped to make room.
    Dropped(usize),
    /// The outbox failed; what is in it keeps waiting.
    Outbox(&'a Error),
}

pub(super) struct Settings {
    pub(super) flush_interval: Duration,
    pub(super) capacity: Capacity,
    pub(super) overflow: OverflowPolicy,
    pub(super) coalesce: bool,
    pub(super) drop_timeout: Duration,
    pub(super) on_error: Option<Arc<OnError>>,
    pub(super) before_send: Option<Arc<BeforeSend>>,
}

type OnError = dyn Fn(&DeliveryEvent<'_>) + Send + Sync;
type BeforeSend = dyn Fn(&mut Map<String, Value>) -> bool + Send + Sync;

impl Default for Settings {
    fn default() -> Self {
        Self {
            flush_interval: Duration::from_secs(1),
            capacity: Capacity {
                updates: 100_000,
                bytes: 64 << 20,
            },
            overflow: OverflowPolicy::Block(Duration::from_secs(1)),
            coalesce: true,
            drop_timeout: Duration::from_secs(5),
            on_error: None,
            before_send: None,
        }
    }
}

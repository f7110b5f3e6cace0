use std::time::Duration;

use serde::ser::{Serialize, SerializeStruct as _, Serializer};

use crate::record::EncodedUpdate;

/// How much there was and is to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Updates that wait, those under way included.
    pub queued: usize,
    /// The bytes of JSON of these.
    pub queued_bytes: usize,
    /// How long the oldest of them has waited.
    pub oldest: Option<Duration>,
    /// Updates that went out in at least one request, each counted once a delivery.
    pub sent: usize,
    /// Updates that Mixpanel accepted, those coalesced into others included.
    pub accepted: usize,
    /// Updates that Mixpanel refused.
    pub rejected: usize,
    /// Updates that were dropped to make room.
    pub dropped: usize,
    /// Updates that `before_send` kept back.
    pub withheld: usize,
    /// Requests.
    pub requests: usize,
    /// Requests that were repeated after a failure.
    pub retries: usize,
    /// Bytes of all request bodies.
    pub bytes: u64,
}

/// Serializes durations as seconds.
impl Serialize for Stats {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut stats = serializer.serialize_struct("Stats", 11)?;
        stats.serialize_field("queued", &self.queued)?;
        stats.serialize_field("queued_bytes", &self.queued_bytes)?;
        stats.serialize_field("oldest", &self.oldest.map(|oldest| oldest.as_secs_f64()))?;
        stats.serialize_field("sent", &self.sent)?;
        stats.serialize_field("accepted", &self.accepted)?;
        stats.serialize_field("rejected", &self.rejected)?;
        stats.serialize_field("dropped", &self.dropped)?;
        stats.serialize_field("withheld", &self.withheld)?;
        stats.serialize_field("requests", &self.requests)?;
        stats.serialize_field("retries", &self.retries)?;
        stats.serialize_field("bytes", &self.bytes)?;
        stats.end()
    }
}

/// What [`flush`](crate::BufferedClient::flush) and [`shutdown`](crate::BufferedClient::shutdown)
/// leave.
#[derive(Clone, Debug)]
#[must_use = "it holds what was not delivered"]
#[non_exhaustive]
pub struct FlushOutcome {
    /// How many updates still wait: in an outbox that outlives the process, or, after a `flush`,
    /// in memory.
    pub waiting: usize,
    /// After a `shutdown`, the updates that were in memory only and not delivered, in order.
    pub undelivered: Vec<EncodedUpdate>,
    /// What was done since the start.
    pub stats: Stats,
}

impl FlushOutcome {
    /// Whether everything that was published has been accepted or rejected.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.waiting == 0 && self.undelivered.is_empty()
    }
}

use std::fmt;
use std::time::Duration;

use serde::ser::{Serialize, SerializeStruct as _, Serializer};

use crate::record::{EncodedUpdate, Event};

/// The counts of a [`BufferedClient`](crate::BufferedClient) since its start, and the depth of its outbox. Updates and
/// events are counted separately.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Updates in the outbox, including those being sent. `None` if the outbox cannot be read.
    pub queued: Option<usize>,
    /// The bytes of their JSON.
    pub queued_bytes: Option<usize>,
    /// The age of the oldest of them. `None` if the outbox is empty or cannot be read.
    pub oldest: Option<Duration>,
    /// Updates that were in at least one request, each counted once per delivery.
    pub sent: usize,
    /// Updates that Mixpanel accepted, including those coalesced into others.
    pub accepted: usize,
    /// Updates that were rejected, by Mixpanel or because they cannot be read.
    pub rejected: usize,
    /// Updates that were dropped to make room.
    pub dropped: usize,
    /// Updates that `before_send` withheld.
    pub withheld: usize,
    /// Requests to Mixpanel, including retries.
    pub requests: usize,
    /// Requests that were retries.
    pub retries: usize,
    /// Bytes of all request bodies.
    pub bytes: u64,
}

impl Stats {
    /// Returns the counts of a queue that is not there.
    pub(super) fn nothing() -> Self {
        Self {
            queued: Some(0),
            queued_bytes: Some(0),
            ..Self::default()
        }
    }
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

/// The outcome of a [`flush`](crate::BufferedClient::flush) or a
/// [`shutdown`](crate::BufferedClient::shutdown).
#[derive(Clone, Debug)]
#[must_use = "it holds what was not delivered"]
#[non_exhaustive]
pub struct FlushOutcome {
    /// The number of updates and events that are still queued: in an outbox that outlives the process, or, after a
    /// `flush`, in memory. `None` if the outbox cannot be read.
    pub waiting: Option<usize>,
    /// After a `shutdown`, the updates that were only in memory and were not delivered, in order.
    pub undelivered: Vec<EncodedUpdate>,
    /// After a `shutdown`, the events that were only in memory and were not delivered, to pass to `client.import`.
    pub undelivered_events: Vec<Event>,
    /// The counts of the updates since the start.
    pub stats: Stats,
    /// The counts of the events since the start.
    pub event_stats: Stats,
}

impl FlushOutcome {
    /// Returns the outcome of which nothing is known.
    pub(super) fn unknown() -> Self {
        Self {
            waiting: None,
            undelivered: Vec::new(),
            undelivered_events: Vec::new(),
            stats: Stats::default(),
            event_stats: Stats::default(),
        }
    }

    /// Returns whether everything that was published is known to be accepted or rejected.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.waiting == Some(0) && self.undelivered.is_empty() && self.undelivered_events.is_empty()
    }
}

/// Writes how many updates wait and how many were handed back, and the same of events if there are any.
impl fmt::Display for FlushOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let write =
            |f: &mut fmt::Formatter<'_>, kind: &str, waiting: Option<usize>, handed_back: usize| {
                match waiting {
                    Some(waiting) => write!(f, "{waiting} {kind} still wait")?,
                    None => write!(f, "an unknown number of {kind} still waits")?,
                }
                if handed_back > 0 {
                    write!(f, ", {handed_back} were handed back")?;
                }
                Ok(())
            };
        write(f, "updates", self.stats.queued, self.undelivered.len())?;
        let events = (self.event_stats.queued, self.undelivered_events.len());
        if events != (Some(0), 0) {
            f.write_str("; ")?;
            write(f, "events", events.0, events.1)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_as_text_names_what_waits_and_what_was_handed_back() {
        let mut outcome = FlushOutcome::unknown();
        let unknown = "an unknown number of updates still waits; \
            an unknown number of events still waits";
        assert_eq!(outcome.to_string(), unknown);
        (outcome.stats, outcome.event_stats) = (Stats::nothing(), Stats::nothing());
        assert_eq!(outcome.to_string(), "0 updates still wait");
        let json = r#"{"$group_key":"company","$group_id":"1","$delete":""}"#;
        outcome.undelivered = vec![EncodedUpdate::from_json(json).unwrap(); 2];
        assert_eq!(
            outcome.to_string(),
            "0 updates still wait, 2 were handed back"
        );
        outcome.event_stats.queued = Some(3);
        let both = "0 updates still wait, 2 were handed back; 3 events still wait";
        assert_eq!(outcome.to_string(), both);
    }

    #[test]
    fn of_a_queue_that_is_not_there_all_is_known() {
        let stats = Stats::nothing();
        assert_eq!(
            (stats.queued, stats.queued_bytes, stats.oldest),
            (Some(0), Some(0), None)
        );
    }
}

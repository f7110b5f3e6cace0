use std::fmt;
use std::time::Duration;

use serde_core::ser::{Serialize, SerializeStruct as _, Serializer};

use crate::record::{EncodedUpdate, Event};

/// The counts of a [`BufferedClient`](crate::BufferedClient) since its start, and the depth of its outbox. Updates and
/// events are counted separately.
///
/// The depth is that of now. A delivery is counted when it ends, so one that Mixpanel does not accept is counted after the
/// last of its retries, by default within five minutes: look at `oldest` for whether Mixpanel can be reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Updates in the outbox, including those being sent. `None` if the outbox cannot be read.
    pub queued: Option<usize>,
    /// The bytes of their JSON.
    pub queued_bytes: Option<usize>,
    /// The age of the oldest of them. `None` if the outbox is empty or cannot be read.
    pub oldest: Option<Duration>,
    /// Updates that were in at least one request, each counted once per delivery. Those coalesced into one count as one.
    pub sent: usize,
    /// Updates that Mixpanel accepted, including those coalesced into others.
    pub accepted: usize,
    /// Updates that were rejected, by Mixpanel, because they cannot be read, or because they were blocked alone in three
    /// deliveries, and others were accepted after them.
    pub rejected: usize,
    /// Updates that were dropped to make room.
    pub dropped: usize,
    /// Updates that `before_send` withheld.
    pub withheld: usize,
    /// Updates that were only in memory, and that a [`shutdown`](crate::BufferedClient::shutdown) handed back undelivered.
    pub handed_back: usize,
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
        let mut stats = serializer.serialize_struct("Stats", 12)?;
        stats.serialize_field("queued", &self.queued)?;
        stats.serialize_field("queued_bytes", &self.queued_bytes)?;
        stats.serialize_field("oldest", &self.oldest.map(|oldest| oldest.as_secs_f64()))?;
        stats.serialize_field("sent", &self.sent)?;
        stats.serialize_field("accepted", &self.accepted)?;
        stats.serialize_field("rejected", &self.rejected)?;
        stats.serialize_field("dropped", &self.dropped)?;
        stats.serialize_field("withheld", &self.withheld)?;
        stats.serialize_field("handed_back", &self.handed_back)?;
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

    /// Returns whether everything that was published is known to be accepted, rejected or dropped: nothing waits, and nothing
    /// was handed back, by this call or an earlier one.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.waiting == Some(0) && self.stats.handed_back == 0 && self.event_stats.handed_back == 0
    }
}

/// Writes how many updates and events wait, and how many were handed back.
impl fmt::Display for FlushOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = [
            waiting("update", self.stats.queued),
            handed_back("update", self.stats.handed_back),
            waiting("event", self.event_stats.queued),
            handed_back("event", self.event_stats.handed_back),
        ]
        .into_iter()
        .flatten()
        .collect();
        if parts.is_empty() {
            return f.write_str("nothing is left to send");
        }
        f.write_str(&parts.join(", "))
    }
}

fn waiting(kind: &str, count: Option<usize>) -> Option<String> {
    match count {
        Some(0) => None,
        Some(1) => Some(format!("1 {kind} still waits")),
        Some(count) => Some(format!("{} still wait", counted(count, kind))),
        None => Some(format!("an unknown number of {kind}s still waits")),
    }
}

fn handed_back(kind: &str, count: usize) -> Option<String> {
    match count {
        0 => None,
        1 => Some(format!("1 {kind} was handed back")),
        count => Some(format!("{} were handed back", counted(count, kind))),
    }
}

/// Returns so many updates or events in words.
pub(super) fn counted(count: usize, kind: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {kind}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::sync::run_test;

    #[test]
    fn an_outcome_names_only_what_is_left() {
        run_test(|| {
            let outcome = |updates, events| FlushOutcome {
                stats: Stats {
                    queued: updates,
                    ..Stats::default()
                },
                event_stats: Stats {
                    queued: events,
                    ..Stats::default()
                },
                ..FlushOutcome::unknown()
            };
            let text = |updates, events| outcome(updates, events).to_string();
            assert_eq!(text(Some(0), Some(0)), "nothing is left to send");
            assert_eq!(
                text(Some(1), Some(2)),
                "1 update still waits, 2 events still wait"
            );
            assert_eq!(
                text(None, Some(0)),
                "an unknown number of updates still waits"
            );
            let mut handed_back = outcome(Some(0), Some(0));
            handed_back.stats.handed_back = 1;
            handed_back.event_stats.handed_back = 2;
            assert_eq!(
                handed_back.to_string(),
                "1 update was handed back, 2 events were handed back"
            );
        });
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

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::outbox::Capacity;
use crate::record::{Error, Rejection};

/// A policy for publishing to a full outbox. The default waits for room, for at most 1 s.
///
/// As text: `reject`, `drop_oldest`, or `block:` with seconds, such as `block:1` or `block:0.5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OverflowPolicy {
    /// Publishing waits for room for at most this time, in addition to the [time for the outbox]. Then it returns an error,
    /// as with `Reject`.
    ///
    /// [time for the outbox]: crate::buffered::BufferedClientBuilder::outbox_timeout
    Block(Duration),
    /// Publishing returns an error, which gives the update [back](Error::undelivered).
    Reject,
    /// The oldest updates are dropped, counted and reported to [`on_error`], except for those that are being sent. If the
    /// others are too few to make room, publishing returns an error, as with `Reject`. The log has one line for the first
    /// that is dropped, and one for those that follow until the delivery in progress ends. Where other processes fill the
    /// outbox too, the capacity should be well above what all of them publish in a flush interval, because each counts only
    /// its own updates towards a batch.
    ///
    /// [`on_error`]: crate::buffered::BufferedClientBuilder::on_error
    DropOldest,
}

impl Default for OverflowPolicy {
    fn default() -> Self {
        Self::Block(Duration::from_secs(1))
    }
}

/// Writes `reject`, `drop_oldest` or, for example, `block:1`.
impl fmt::Display for OverflowPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reject => f.write_str("reject"),
            Self::DropOldest => f.write_str("drop_oldest"),
            Self::Block(time) if time.subsec_nanos() == 0 => write!(f, "block:{}", time.as_secs()),
            Self::Block(time) => {
                let nanos = format!("{:09}", time.subsec_nanos());
                let fraction = nanos.trim_end_matches('0');
                write!(f, "block:{}.{fraction}", time.as_secs())
            }
        }
    }
}

/// Reads `reject`, `drop_oldest` or, for example, `block:1`.
impl FromStr for OverflowPolicy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let policy = match text {
            "reject" => Some(Self::Reject),
            "drop_oldest" => Some(Self::DropOldest),
            _ => text
                .strip_prefix("block:")
                .and_then(parse_seconds)
                .map(Self::Block),
        };
        policy.ok_or_else(|| {
            Error::config(format!(
                "unknown overflow policy {text:?}: \
                 expected reject, drop_oldest or block: with seconds, such as block:1"
            ))
        })
    }
}

/// Reads seconds with up to nine decimals, exactly.
fn parse_seconds(text: &str) -> Option<Duration> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(seconds) || !is_number(fraction) || !(1..=9).contains(&fraction.len()) {
        return None;
    }
    let nanos = format!("{fraction:0<9}").parse().ok()?;
    Some(Duration::new(seconds.parse().ok()?, nanos))
}

/// A failure in the background: the argument of
/// [`on_error`](crate::buffered::BufferedClientBuilder::on_error).
#[non_exhaustive]
pub enum DeliveryEvent<'a> {
    /// An update or an event was rejected, by Mixpanel, because it cannot be read, or because it was blocked alone in three
    /// deliveries, and others were accepted after it: its JSON, and the reason. It is not sent again. An outbox may keep it.
    Rejected(&'a str, &'a Rejection),
    /// A delivery failed, after all retries. What was not delivered stays queued and is sent again.
    Undelivered(&'a Error),
    /// This many of the oldest updates were dropped to make room.
    Dropped(usize),
    /// This many of the oldest events were dropped to make room.
    DroppedEvents(usize),
    /// The outbox failed. What is in it stays queued.
    Outbox(&'a Error),
}

/// Writes no JSON of a record, which may hold a token.
impl fmt::Debug for DeliveryEvent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeliveryEvent({self})")
    }
}

/// Writes one line, with the causes of an error.
impl fmt::Display for DeliveryEvent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(_, rejection) => write!(f, "rejected {}", rejection.reason()),
            Self::Undelivered(error) => {
                let is_event = error.undelivered().updates().next().is_none();
                let kind = if is_event { "events" } else { "updates" };
                write!(f, "{kind} keep waiting: {error:#}")
            }
            Self::Dropped(updates) => {
                write!(f, "dropped {updates} of the oldest updates to make room")
            }
            Self::DroppedEvents(events) => {
                write!(f, "dropped {events} of the oldest events to make room")
            }
            Self::Outbox(error) => write!(f, "the outbox failed: {error:#}"),
        }
    }
}

pub(super) struct Settings {
    pub(super) flush_interval: Duration,
    pub(super) capacity: Capacity,
    pub(super) overflow: OverflowPolicy,
    pub(super) coalesce: bool,
    pub(super) drop_timeout: Duration,
    pub(super) outbox_timeout: Duration,
    pub(super) on_error: Option<Arc<OnError>>,
    pub(super) before_send: Option<Arc<BeforeSend>>,
}

type OnError = dyn Fn(&DeliveryEvent<'_>) + Send + Sync;
type BeforeSend = dyn Fn(&mut Map<String, Value>) -> bool + Send + Sync;

impl Settings {
    /// Checks that the settings make sense.
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.flush_interval.is_zero() {
            return Err(Error::config("invalid flush_interval: it is zero"));
        }
        if self.outbox_timeout.is_zero() {
            return Err(Error::config("invalid outbox_timeout: it is zero"));
        }
        let Capacity { updates, bytes } = self.capacity;
        if updates == 0 || bytes == 0 {
            return Err(Error::config(format!(
                "invalid capacity of {updates} updates and {bytes} bytes: neither can be zero"
            )));
        }
        Ok(())
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            flush_interval: Duration::from_secs(1),
            capacity: Capacity::default(),
            overflow: OverflowPolicy::default(),
            coalesce: true,
            drop_timeout: Duration::from_secs(5),
            outbox_timeout: Duration::from_secs(5),
            on_error: None,
            before_send: None,
        }
    }
}

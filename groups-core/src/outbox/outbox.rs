//! The trait of all outboxes, and its entries.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::record::{EncodedEvent, EncodedUpdate, Error, RecordRef, Rejection};

use crate::outbox::OutboxRecord;

/// A queue of updates between publishers and the worker that sends them.
///
/// [`BufferedClient`](crate::BufferedClient) appends to it and drains it. The default is in memory; `SqliteOutbox` and
/// `PostgresOutbox` survive a crash of the process or the machine. Implement this trait for another engine.
///
/// # What an implementation promises
/// - **Append**: when `append` returns `Ok(true)`, the updates are stored as safely as the engine can, after all earlier
///   ones. It stores all of them or, with `Ok(false)` or an error, none.
/// - **Take in order**: `take` returns the updates of each group in the order in which they were appended. It never
///   returns one while another process has taken an earlier one of the same group. Taken updates stay in the outbox.
/// - **Settle**: only `settle` and `drop_oldest` remove updates. Accepted ones are deleted; rejected ones are moved to
///   where a person can inspect them, if the engine has such a place. Updates that were taken and not settled can be taken
///   again after `release`, or when the process that took them has died.
/// - **Hold**: if several processes share an outbox, what one of them took is leased to it until a time, which `hold`
///   extends. No other process takes it before that, so a taker that was killed or paused does not overtake its successor.
///   (A server may still apply a request after the client gave it up. No client can prevent that.)
/// - **Deadlines**: no call waits for other processes or for a network longer than the time of
///   [`set_timeout`](Self::set_timeout), and `depth` does not wait for writers at all. The client does not rely
///   on it, unless `set_timeout` returns `true`: it calls the outbox on a thread of its own, for its publishers one call
///   after the other (what several publish meanwhile is one `append`), and they wait until their deadline. A call that
///   panics is an error for the client.
/// - All methods can be called from any thread at any time; only one thread of a process takes.
///
/// # Events
/// An outbox that keeps events too has a second queue for them, [`events`](Self::events): an `Outbox<EncodedEvent>`
/// with the same promises and a capacity of its own, so that neither kind waits for the other. What is
/// said of updates holds for events there, except that events have no group and no order.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an outbox",
    label = "expected an outbox, such as `SqliteOutbox::open(path)?`",
    note = "outboxes on disk or in a database are in the crates mixpanel-groups-sqlite and mixpanel-groups-postgres; the \
            default, in memory, needs no call of `outbox`"
)]
pub trait Outbox<R = EncodedUpdate>: Send + Sync {
    /// Appends updates. Returns `false` if they do not all fit within the capacity.
    ///
    /// # Errors
    /// If they cannot be kept.
    fn append(&self, updates: &[R], capacity: Capacity) -> Result<bool, Error>;

    /// Returns the oldest updates that can be sent now, at most `most`; fewer if they would be more than some tens of MiB of
    /// JSON, because the worker holds several copies. Returns an empty list only if nothing can be sent.
    ///
    /// With [`usize::MAX`], an outbox that is not [durable](Self::is_durable) returns all, however many bytes: so a client
    /// takes back at its shutdown what ends with the process.
    ///
    /// # Errors
    /// If the outbox cannot be read.
    fn take(&self, most: usize) -> Result<Vec<OutboxEntry<R>>, Error>;

    /// Removes taken updates whose outcome is known. What is still there after it returned `Ok` is sent again, after a pause.
    ///
    /// If another process has taken them since, because the lease had ended, this removes nothing and fails: the other
    /// process may have sent some of them again, and must be able to continue.
    ///
    /// # Errors
    /// If they cannot be removed. They may then be taken again.
    fn settle(&self, accepted: &[i64], rejected: &[(i64, &Rejection)]) -> Result<(), Error>;

    /// Extends the lease on what was taken by that time. Returns `false` if the lease has ended.
    ///
    /// The worker calls this before each request, retries included, with the longest time that the request can take. It
    /// starts no request without a lease that covers it. So the next taker sends nothing before every request of this
    /// one has ended.
    ///
    /// By default `true`, for an outbox of a single process.
    ///
    /// # Errors
    /// If the lease cannot be extended or read. No request starts then.
    fn hold(&self, time: Duration) -> Result<bool, Error> {
        let _ = time;
        Ok(true)
    }

    /// Makes available again what was taken and not settled.
    ///
    /// # Errors
    /// If the outbox cannot be written.
    fn release(&self) -> Result<(), Error>;

    /// Removes the oldest updates that are not taken, until this much more fits within the capacity. Returns how many
    /// were removed. If it removes some, and there is still no room, the client calls it again.
    ///
    /// # Errors
    /// If they cannot be removed.
    fn drop_oldest(&self, updates: usize, bytes: usize, capacity: Capacity)
    -> Result<usize, Error>;

    /// Returns how much the outbox holds, with the [age of the oldest](Depth::oldest), on which the worker relies. It calls
    /// this after each delivery.
    ///
    /// # Errors
    /// If the outbox cannot be read.
    fn depth(&self) -> Result<Depth, Error>;

    /// Returns the queue of events. The default returns `None`: the outbox keeps only updates, and publishing an event is an
    /// error.
    fn events(&self) -> Option<Arc<dyn Outbox<EncodedEvent>>> {
        None
    }

    /// Sets how long a call may wait for other processes, a disk or a network before it fails with
    /// [`ErrorKind::Timeout`](crate::ErrorKind::Timeout). Returns whether every call ends by that time; the default returns
    /// `false`.
    ///
    /// The client calls this once, before any other method. If it returns `true`, the client calls the outbox on the
    /// publishing threads, several at once. Otherwise it calls the outbox on one thread of its own, and waits for that
    /// thread with a deadline. Its start waits without one for this call, and for those of [`is_durable`](Self::is_durable),
    /// [`on_append`](Self::on_append) and [`events`](Self::events).
    fn set_timeout(&self, timeout: Duration) -> bool {
        let _ = timeout;
        false
    }

    /// Returns whether the content outlives the process. If not, a shutdown hands it back.
    fn is_durable(&self) -> bool {
        true
    }

    /// Sets a function to call when another process has appended. The worker then sends at once, without waiting for the
    /// flush interval. By default it is not called, and the worker polls once in a flush interval.
    fn on_append(&self, wake: Arc<dyn Fn() + Send + Sync>) {
        drop(wake);
    }

    // Nothing calls it any more; for outboxes that were written before.
    #[doc(hidden)]
    fn on_loss(&self, stop: Arc<dyn Fn() + Send + Sync>) {
        drop(stop);
    }
}

/// An update in an outbox, or an event in its queue of events.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutboxEntry<R = EncodedUpdate> {
    /// The id of the entry in the outbox, which no later entry gets.
    pub id: i64,
    /// The update, or the content that cannot be read as one. The worker rejects such an entry, with the reason, as
    /// Mixpanel would reject an update.
    pub update: Result<R, UnreadableEntry>,
}

impl<R: OutboxRecord> OutboxEntry<R> {
    /// Returns an entry with an update.
    #[must_use]
    pub fn new(id: i64, update: R) -> Self {
        let update = Ok(update);
        Self { id, update }
    }

    /// Parses an entry from its stored JSON.
    #[must_use]
    pub fn read(id: i64, json: &str) -> Self {
        match R::from_json(json) {
            Ok(update) => Self::new(id, update),
            Err(error) => Self::unreadable(id, json, format!("{error:#}")),
        }
    }

    /// Returns an entry that cannot be read, with its content, as far as it is text, and the reason.
    #[must_use]
    pub fn unreadable(id: i64, json: impl Into<String>, reason: impl Into<String>) -> Self {
        let (json, reason) = (json.into(), reason.into());
        let update = Err(UnreadableEntry { json, reason });
        Self { id, update }
    }

    /// Returns the stored JSON, as far as it is text.
    #[must_use]
    pub fn json(&self) -> &str {
        match &self.update {
            Ok(update) => update.as_json(),
            Err(unreadable) => &unreadable.json,
        }
    }
}

/// The content of an outbox entry that cannot be read: see [`OutboxEntry::update`].
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnreadableEntry {
    /// The stored content, as far as it is text.
    pub json: String,
    /// Why it cannot be read.
    pub reason: String,
}

impl UnreadableEntry {
    pub(crate) fn rejection(&self) -> Rejection {
        Rejection::new(RecordRef::unreadable(&self.json), None, &*self.reason)
    }
}

/// Without what may be a token.
impl fmt::Debug for UnreadableEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("UnreadableEntry");
        debug.field("record", &RecordRef::unreadable(&self.json));
        debug.field("reason", &self.reason).finish()
    }
}

impl fmt::Display for UnreadableEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for UnreadableEntry {}

/// The most that an outbox may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capacity {
    /// The number of updates.
    pub updates: usize,
    /// The number of bytes of JSON.
    pub bytes: usize,
}

/// The content of an outbox in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Depth {
    /// The number of updates.
    pub updates: usize,
    /// The number of bytes of their JSON.
    pub bytes: usize,
    /// The age of the oldest, if it is known.
    ///
    /// A flush ends when the oldest is younger than the flush; so does a shutdown. Without it, they end only when nothing waits
    /// at all: while others publish all the time, they take all of their timeout. And the worker sends as long as anything
    /// waits, without a pause of the flush interval.
    pub oldest: Option<Duration>,
}

impl Capacity {
    /// Returns a capacity of this many updates and this many bytes of JSON.
    #[must_use]
    pub const fn new(updates: usize, bytes: usize) -> Self {
        Self { updates, bytes }
    }
}

impl Default for Capacity {
    /// Returns 100,000 updates and 64 MiB.
    fn default() -> Self {
        Self::new(100_000, 64 << 20)
    }
}

impl Depth {
    /// Returns the depth of an outbox with this many updates and this many bytes of JSON.
    #[must_use]
    pub fn new(updates: usize, bytes: usize) -> Self {
        Self {
            updates,
            bytes,
            oldest: None,
        }
    }

    /// Returns the same depth with the age of the oldest update, if there is one. A flush [relies](Self::oldest) on it. An age
    /// that is not known, as after a clock was set back, is `None`: with zero, a flush would not wait for the update.
    #[must_use]
    pub fn with_oldest(mut self, oldest: impl Into<Option<Duration>>) -> Self {
        self.oldest = oldest.into();
        self
    }

    /// Returns whether this much more fits within the capacity.
    #[must_use]
    pub fn has_room(self, updates: usize, bytes: usize, capacity: Capacity) -> bool {
        self.updates.saturating_add(updates) <= capacity.updates
            && self.bytes.saturating_add(bytes) <= capacity.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::Group;
    use crate::util::sync::run_test;

    #[test]
    fn an_entry_has_its_content_whether_it_can_be_read_or_not() {
        let json = r#"{"$group_key":"company","$group_id":"acme","$delete":""}"#;
        let entry = OutboxEntry::<EncodedUpdate>::read(7, json);
        assert_eq!((entry.id, entry.json()), (7, json));
        assert_eq!(
            entry,
            OutboxEntry::new(7, EncodedUpdate::from_json(json).unwrap())
        );

        let unreadable = OutboxEntry::<EncodedUpdate>::read(8, "{}");
        assert_eq!((unreadable.id, unreadable.json()), (8, "{}"));
        let why = unreadable.update.unwrap_err();
        assert!(
            why.to_string().ends_with("`$group_key` is missing"),
            "{why}"
        );
        assert_eq!(why.rejection().message, why.reason);
        assert_eq!(why.rejection().record, RecordRef::unreadable("{}"));
    }

    /// An outbox that implements no more than it must.
    struct Least;

    impl Outbox for Least {
        fn append(&self, _: &[EncodedUpdate], _: Capacity) -> Result<bool, Error> {
            Ok(false)
        }

        fn take(&self, _: usize) -> Result<Vec<OutboxEntry>, Error> {
            Ok(Vec::new())
        }

        fn settle(&self, _: &[i64], _: &[(i64, &Rejection)]) -> Result<(), Error> {
            Ok(())
        }

        fn release(&self) -> Result<(), Error> {
            Ok(())
        }

        fn drop_oldest(&self, _: usize, _: usize, _: Capacity) -> Result<usize, Error> {
            Ok(0)
        }

        fn depth(&self) -> Result<Depth, Error> {
            Ok(Depth::default())
        }
    }

    #[test]
    fn by_default_an_outbox_is_of_one_process_durable_and_without_deadlines_or_events() {
        assert!(Least.hold(Duration::MAX).unwrap() && Least.is_durable());
        assert!(!Least.set_timeout(Duration::ZERO));
        assert!(Least.events().is_none());
    }

    #[test]
    fn there_is_room_up_to_the_capacity() {
        let oldest = Duration::from_secs(1);
        let depth = Depth::new(3, 30).with_oldest(oldest);
        assert_eq!(
            (depth.updates, depth.bytes, depth.oldest),
            (3, 30, Some(oldest))
        );
        let capacity = Capacity::new(5, 50);
        for (updates, bytes, has_room) in [
            (2, 20, true),
            (3, 20, false),
            (2, 21, false),
            (0, 0, true),
            (usize::MAX, 0, false),
            (0, usize::MAX, false),
        ] {
            assert_eq!(depth.has_room(updates, bytes, capacity), has_room);
        }
        assert_eq!(Capacity::default(), Capacity::new(100_000, 67_108_864));
    }

    #[test]
    fn updates_of_one_group_have_the_same_bytes() {
        let bytes = |group: Group<'_>, name: &str| {
            let update = EncodedUpdate::new(&group.unset([name])).unwrap().unwrap();
            OutboxRecord::group_bytes(&update).map(<[u8]>::to_vec)
        };
        let acme = Group::new("company", "acme");
        let one = bytes(acme.clone(), "a");
        assert!(one.is_some());
        assert_eq!(one, bytes(acme, "b"));
        assert_ne!(one, bytes(Group::new("company", "globex"), "a"));
    }

    #[test]
    fn an_event_has_no_group() {
        run_test(|| {
            let json = r#"{"event":"Signup","properties":{"time":1700000000,"distinct_id":"","$insert_id":"id","ip":0}}"#;
            let event = EncodedEvent::from_json(json).unwrap();
            assert_eq!(OutboxRecord::group_bytes(&event), None);
            assert_eq!(OutboxRecord::as_json(&event), json);
        });
    }
}

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::buffered::kind::Kind;
use crate::buffered::publisher::Publisher;
use crate::buffered::queues::Queues;
use crate::buffered::settings::Settings;
#[cfg(simulation)]
use crate::buffered::state::Shared;
use crate::buffered::stats::counted;
use crate::buffered::{DeliveryEvent, FlushOutcome, OverflowPolicy, Stats, worker};
use crate::client::Client;
use crate::outbox::{Capacity, MemoryOutbox, Outbox};
use crate::record::{Error, ErrorKind, IntoRecord, IntoRecords};
use crate::util::sync::thread;

/// A client that sends updates and events in the background.
///
/// [`publish`](Self::publish) appends to a bounded outbox. With the outbox in memory, that takes about a microsecond.
/// Two worker threads deliver, one for updates and one for events, so neither kind waits for the other.
///
/// A batch is sent when 2,000 updates or 2,000,000 bytes are queued, or half of the capacity if that is less, or after the
/// flush interval. What is published while a batch is sent waits in the same way. A failed delivery is retried until it
/// succeeds; if nothing was accepted in time, with less at once. [`OverflowPolicy`] sets what happens when the outbox is
/// full.
///
/// A group's updates are sent in the order in which they were published. Events have no order; Mixpanel keeps each once,
/// however often it is sent. A request that the server applies late can still change the order: see [`Client::send`].
///
/// Clones are cheap and share the workers. [`shutdown`](Self::shutdown) ends them and returns what was not delivered.
/// Dropping the last clone shuts down too, within the [drop timeout](BufferedClientBuilder::drop_timeout), and logs how
/// much is left. A client in a `static` is never dropped: call `shutdown` before the process ends.
///
/// ```no_run
/// use std::time::Duration;
///
/// use mixpanel_groups::{Client, MixpanelGroup};
///
/// # #[derive(mixpanel_groups::MixpanelGroup)]
/// # #[mixpanel(group_key = "company")]
/// # struct Company { #[mixpanel(group_id)] id: u64, plan: String }
/// # fn main() -> Result<(), mixpanel_groups::Error> {
/// # let acme = Company { id: 1, plan: "free".into() };
/// let buffered = Client::from_env()?.buffered().start()?;
/// buffered.publish(acme.set())?;
/// let outcome = buffered.shutdown(Duration::from_secs(5));
/// assert!(outcome.is_complete());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "dropping the last clone flushes it and shuts it down"]
pub struct BufferedClient {
    queues: Arc<Queues>,
    /// Shuts down with the last clone. The workers have no part in it, unlike in the queues.
    _last_clone: Arc<LastClone>,
}

struct LastClone(Arc<Queues>);

/// The settings of a [`BufferedClient`]: see [`Client::buffered`].
#[must_use = "nothing is sent before `start`"]
pub struct BufferedClientBuilder {
    client: Client,
    outbox: Arc<dyn Outbox>,
    settings: Settings,
}

impl Client {
    /// Returns a builder of a client that sends in the background.
    pub fn buffered(&self) -> BufferedClientBuilder {
        BufferedClientBuilder::new(self.clone())
    }
}

impl BufferedClientBuilder {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            outbox: Arc::new(MemoryOutbox::new()),
            settings: Settings::default(),
        }
    }

    /// Sets how long an update waits at most for others to share its request; default 1 s.
    ///
    /// Under a steady load there is one delivery in each interval, of all that waits. If a delivery takes longer, what was
    /// published meanwhile has waited for long enough, and follows at once. An outbox that
    /// [reports](Outbox::on_append) what is appended, as `PostgresOutbox` does by default, is sent at once: nothing waits
    /// for the interval, except after a failed delivery.
    ///
    /// After a failed delivery, which the client's [`RetryPolicy`](crate::RetryPolicy) has given up, the wait is twice as
    /// long. It doubles with each further failure, up to a minute, or this interval if that is longer. A `Retry-After` that
    /// is longer counts instead, up to an hour.
    pub fn flush_interval(mut self, interval: Duration) -> Self {
        self.settings.flush_interval = interval;
        self
    }

    /// Sets how many updates, and how many bytes of their JSON, the outbox may hold; default 100,000 and 64 MiB. Events
    /// have the same limits, and are counted separately.
    pub fn capacity(mut self, updates: usize, bytes: usize) -> Self {
        self.settings.capacity = Capacity::new(updates, bytes);
        self
    }

    /// Sets what publishing does when the capacity is reached. By default it waits for room, for at most 1 s, and then
    /// returns an error.
    pub fn overflow(mut self, overflow: OverflowPolicy) -> Self {
        self.settings.overflow = overflow;
        self
    }

    /// Sets whether queued updates of one group are [coalesced](crate::client::Batch::coalesce); default yes. If the result
    /// is refused, they are sent one by one, so that none is rejected for another.
    pub fn coalesce(mut self, coalesce: bool) -> Self {
        self.settings.coalesce = coalesce;
        self
    }

    /// Sets how long dropping the last clone may take to send what is queued; default 5 s.
    pub fn drop_timeout(mut self, timeout: Duration) -> Self {
        self.settings.drop_timeout = timeout;
        self
    }

    /// Sets how long a call of the outbox may take, such as a write to its disk or database; default 5 s.
    ///
    /// After that, [`publish`](BufferedClient::publish) returns an error ([`ErrorKind::Timeout`], or the outbox's own), and
    /// [`stats`](BufferedClient::stats) return `None` for what is queued. An update whose `publish` timed out may be in
    /// the outbox all the same.
    pub fn outbox_timeout(mut self, timeout: Duration) -> Self {
        self.settings.outbox_timeout = timeout;
        self
    }

    /// Calls the function at every failure, on the thread where it happens, often a worker.
    ///
    /// The function may call any method of the client, and of others. A failure within such a call is logged and does not call
    /// this function again, nor that of another client; a panic in the function is logged. `publish` does not wait for room in
    /// the outbox, since deliveries wait for the function. On a worker thread, which cannot send meanwhile, `flush`, `shutdown`
    /// and dropping the last clone do not wait either: `shutdown` ends the client at once and returns what is not delivered,
    /// and `flush` keeps the pause after a failure.
    pub fn on_error(
        mut self,
        callback: impl Fn(&DeliveryEvent<'_>) + Send + Sync + 'static,
    ) -> Self {
        self.settings.on_error = Some(Arc::new(callback));
        self
    }

    /// Calls the function with the JSON object of each update (`$group_key`, `$group_id`, `$set`…) and event (`event`,
    /// `properties`) that is passed to [`publish`](BufferedClient::publish) or [`publish_all`](BufferedClient::publish_all),
    /// before it is queued, on the publishing thread.
    ///
    /// What reaches the outbox in another way does not pass the function: what is published in a transaction or with SQL, and
    /// what was queued by an earlier run. Apply privacy rules there before you publish. What `publish` and `shutdown` give
    /// back has passed it, and passes it again if you publish it again: the function must leave its own output as it is.
    ///
    /// The function may change the object. If it returns `false` or panics, the update or event is not sent, and counts as
    /// [withheld](Stats::withheld); a panic is logged too. If what it leaves cannot be sent, publishing returns
    /// [`ErrorKind::InvalidUpdate`]. The function cannot publish itself: that returns [`ErrorKind::Config`].
    pub fn before_send(
        mut self,
        callback: impl Fn(&mut Map<String, Value>) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.settings.before_send = Some(Arc::new(callback));
        self
    }

    /// Sets the outbox. The default is in memory; an outbox on disk or in a database survives a crash.
    pub fn outbox(mut self, outbox: impl Outbox + 'static) -> Self {
        self.outbox = Arc::new(outbox);
        self
    }

    /// Starts the worker threads and returns the client.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if the capacity, the flush interval or the outbox timeout is zero. [`ErrorKind::Io`] if a
    /// thread cannot be started.
    pub fn start(self) -> Result<BufferedClient, Error> {
        self.settings.check()?;
        let queues = Arc::new(Queues::new(&self.client, &self.outbox, self.settings)?);
        // An error ends the worker that was started.
        let last_clone = Arc::new(LastClone(Arc::clone(&queues)));
        let of_updates = start_worker("mixpanel-groups worker", &queues.updates);
        let of_events = queues.events.as_ref();
        let of_events = of_events.map(|events| start_worker("mixpanel-groups events", events));
        of_updates.and(of_events.unwrap_or(Ok(())))?;
        Ok(BufferedClient {
            _last_clone: last_clone,
            queues,
        })
    }
}

fn start_worker<R: Kind>(name: &str, publisher: &Arc<Publisher<R>>) -> Result<(), Error> {
    let its_publisher = Arc::clone(publisher);
    let worker = thread::Builder::new().name(name.to_owned());
    let started = worker.spawn(move || worker::run(&its_publisher));
    started.map(drop).map_err(|error| {
        publisher.shared.end(); // Nobody waits for it.
        Error::new(ErrorKind::Io, "cannot start the worker thread").with_source(error)
    })
}

impl BufferedClient {
    /// Queues an update or an event to be sent. It is encoded before this returns, so nothing stays borrowed.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidUpdate`] if it cannot be sent: the error names group or event, property and cause.
    /// - [`ErrorKind::Full`] if the outbox has no room (see [`OverflowPolicy`]), or never has, since the update or event has
    ///   more bytes than the [capacity](BufferedClientBuilder::capacity): the message says so.
    /// - [`ErrorKind::Timeout`] if the outbox does not reply in [time](BufferedClientBuilder::outbox_timeout), or the
    ///   outbox's own error.
    /// - [`ErrorKind::Closed`] if the client was shut down, or this process is a fork of the one that started it.
    /// - [`ErrorKind::Config`] for an event if the outbox keeps only updates.
    ///
    /// Except for the first, the error gives the update or event [back](Error::undelivered).
    pub fn publish(&self, record: impl IntoRecord) -> Result<(), Error> {
        self.queues.publish(record)
    }

    /// Queues several updates or events, up to 2,000 or 32 MiB at once, and half of the capacity at most. With an outbox on
    /// disk, that is much faster than one by one. If the iterator panics, those since the last ones at once are not queued.
    ///
    /// # Errors
    /// As [`publish`](Self::publish), at the first that is not taken. The error gives back all
    /// that were not, except for those that cannot be sent: it names these, and if they are more than twenty, the log does.
    pub fn publish_all(&self, records: impl IntoRecords) -> Result<(), Error> {
        self.queues.publish_all(records.into_records())
    }

    /// Sends what is queued now, without waiting for the flush interval. Returns when all of it has been accepted or
    /// rejected, or after the timeout. Then it reads how much is left, which takes some tenths of a second longer if the outbox
    /// hangs, and up to two seconds with a `PostgresOutbox` whose database does not respond.
    pub fn flush(&self, timeout: Duration) -> FlushOutcome {
        self.queues.flush(timeout)
    }

    /// Closes the outbox to publishers, sends what is queued, and ends the workers. Returns what could not be delivered,
    /// after the timeout at the latest. (Ending a request in progress, or an outbox that hangs, may add some tenths of a
    /// second, and a `PostgresOutbox` whose database does not respond two seconds.)
    ///
    /// With an outbox to which other processes publish, it does not wait for what they publish meanwhile: that stays for them.
    ///
    /// After the timeout, the request in progress is aborted and its updates are returned. Mixpanel may have applied
    /// them, or may still do so: no client can know.
    ///
    /// From then on, [`publish`](Self::publish) of any clone returns [`ErrorKind::Closed`]. A second call is harmless, and
    /// does not return the same updates again. It returns what an outbox of your own in memory failed to give back in the first:
    /// [`waiting`](FlushOutcome::waiting) is not zero then.
    pub fn shutdown(&self, timeout: Duration) -> FlushOutcome {
        self.queues.shut_down(timeout)
    }

    /// Returns whether the workers have ended: what they broke off cannot be sent any more.
    #[cfg(simulation)]
    pub(crate) fn has_ended(&self) -> bool {
        self.queues.states().all(Shared::has_ended)
    }

    /// Returns the counts of updates since the start and the depth of the outbox, for a metrics endpoint. Returns after the
    /// [outbox timeout](BufferedClientBuilder::outbox_timeout) at the latest.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.queues.stats()
    }

    /// Returns the same for events.
    #[must_use]
    pub fn event_stats(&self) -> Stats {
        self.queues.event_stats()
    }
}

impl Drop for LastClone {
    fn drop(&mut self) {
        let Self(queues) = self;
        // In a forked child there is no worker, and the locks may never be released.
        if queues.is_forked() || queues.is_shut_down() {
            return;
        }
        let outcome = queues.shut_down(queues.settings.drop_timeout);
        if let Some(loss) = loss(&outcome) {
            log::error!("{loss}");
        }
    }
}

/// Returns what there is to log about a client that was dropped.
fn loss(outcome: &FlushOutcome) -> Option<String> {
    let updates = outcome.undelivered.len();
    let events = outcome.undelivered_events.len();
    let lost = match (updates, events) {
        (0, 0) if outcome.is_complete() => return None,
        (0, 0) => return Some(format!("the client was dropped: {outcome}")),
        (updates, 0) => counted(updates, "update"),
        (0, events) => counted(events, "event"),
        (updates, events) => {
            format!(
                "{} and {}",
                counted(updates, "update"),
                counted(events, "event")
            )
        }
    };
    let message = "the client was dropped before they were sent";
    Some(format!("lost {lost}: {message}"))
}

impl fmt::Debug for BufferedClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferedClient")
            .field("client", &self.queues.updates.client)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for BufferedClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferedClientBuilder")
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::Mutex;
    use std::time::Instant;

    use super::*;
    use crate::group::Group;

    /// Keeps what this room logs.
    struct Logger(Mutex<Vec<String>>);

    static LOGGER: Logger = Logger(Mutex::new(Vec::new()));

    impl log::Log for Logger {
        fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
            metadata.target().contains("::buffered::")
        }

        fn log(&self, record: &log::Record<'_>) {
            if self.enabled(record.metadata()) {
                self.0.lock().unwrap().push(record.args().to_string());
            }
        }

        fn flush(&self) {}
    }

    #[test]
    fn dropping_the_last_clone_logs_what_is_left() {
        log::set_logger(&LOGGER).unwrap();
        log::set_max_level(log::LevelFilter::Error);
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", silent.local_addr().unwrap());
        let client = Client::builder("TOKEN").endpoint(endpoint).build().unwrap();
        let timeout = Duration::from_millis(50);
        let buffered = client.buffered().drop_timeout(timeout).start().unwrap();
        for id in 0..3 {
            buffered
                .publish(Group::new("company", id).delete())
                .unwrap();
        }
        let start = Instant::now();
        drop(buffered.clone());
        drop(buffered);
        assert!(start.elapsed() < Duration::from_secs(5));
        let expected = "lost 3 updates: the client was dropped before they were sent";
        assert_eq!(*LOGGER.0.lock().unwrap(), [expected]);
    }
}

#[cfg(test)]
#[cfg(simulation)]
mod simulation {
    use super::*;
    use crate::record::{EncodedUpdate, Event};
    use crate::util::simulated::simulate_rule;

    #[test]
    fn what_dropping_loses_is_told_with_its_kind() {
        simulate_rule(|| {
            let event = Event::new("Signed Up").distinct_id("1");
            let json = r#"{"$group_key":"company","$group_id":"1","$delete":""}"#;
            let update = EncodedUpdate::from_json(json).unwrap();
            let told = |waiting: usize, updates: usize, events: usize| {
                let mut outcome = FlushOutcome::unknown();
                outcome.waiting = Some(waiting);
                outcome.stats.queued = Some(waiting);
                outcome.event_stats.queued = Some(0);
                outcome.undelivered = vec![update.clone(); updates];
                outcome.undelivered_events = vec![event.clone(); events];
                loss(&outcome)
            };
            let lost = |what| {
                let message = "the client was dropped before they were sent";
                Some(format!("lost {what}: {message}"))
            };
            assert_eq!(told(0, 0, 0), None);
            let waits = "the client was dropped: 3 updates still wait";
            assert_eq!(told(3, 0, 0).as_deref(), Some(waits));
            assert_eq!(told(0, 2, 0), lost("2 updates"));
            assert_eq!(told(0, 0, 2), lost("2 events"));
            assert_eq!(told(3, 1, 0), lost("1 update"));
            assert_eq!(told(3, 2, 1), lost("2 updates and 1 event"));
        });
    }
}

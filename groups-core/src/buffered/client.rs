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
use crate::buffered::{DeliveryEvent, FlushOutcome, OverflowPolicy, Stats, worker};
use crate::client::Client;
use crate::outbox::{Capacity, MemoryOutbox, Outbox};
use crate::record::{Error, ErrorKind, IntoRecord, IntoRecords};
use crate::util::sync::thread;

/// A client that sends updates and events in the background: [`publish`](Self::publish) returns in about a
/// microsecond where they wait in memory, and two threads deliver, one for each kind. Neither kind waits for the other.
///
/// Batches leave when 2,000 updates wait, or after the flush interval. A failed delivery is tried
/// again until it succeeds; what waits is bounded, and what happens when the bound is reached is
/// [your choice](OverflowPolicy).
///
/// A group's updates are sent in the order in which they were published; events are in no order, and each is kept by
/// Mixpanel once, however often it is sent. What no client can prevent, a
/// request that is applied late, is described at [`Client::send`].
///
/// A clone is cheap, and all clones share the thread. [`shutdown`](Self::shutdown) ends it and hands back
/// what was not delivered. Dropping the last clone shuts it down too, within the
/// [drop timeout](BufferedClientBuilder::drop_timeout), and logs how much is left.
///
/// ```no_run
/// # use std::time::Duration;
/// # use mixpanel_groups::{Client, MixpanelGroup};
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

    /// Sets how long an update waits at most for others to share a request; default 1 s. After a delivery
    /// that failed it doubles, up to a minute.
    pub fn flush_interval(mut self, interval: Duration) -> Self {
        self.settings.flush_interval = interval;
        self
    }

    /// Sets how many updates, and how many bytes of their JSON, may wait; default 100,000 and 64 MiB. As many events
    /// may wait beside them.
    pub fn capacity(mut self, updates: usize, bytes: usize) -> Self {
        self.settings.capacity = Capacity::new(updates, bytes);
        self
    }

    /// Sets what happens when the capacity is reached; by default publishing waits for room, 1 s at most,
    /// and is an error then.
    pub fn overflow(mut self, overflow: OverflowPolicy) -> Self {
        self.settings.overflow = overflow;
        self
    }

    /// Sets whether updates of one group that wait together are
    /// [coalesced](crate::client::Batch::coalesce); default yes.
    pub fn coalesce(mut self, coalesce: bool) -> Self {
        self.settings.coalesce = coalesce;
        self
    }

    /// Sets how long dropping the last clone may take to send what waits; default 5 s.
    pub fn drop_timeout(mut self, timeout: Duration) -> Self {
        self.settings.drop_timeout = timeout;
        self
    }

    /// Sets how long a call of the outbox may take, such as a write to its disk or database, before
    /// [`publish`](BufferedClient::publish) is an error ([`ErrorKind::Timeout`], or what the outbox returns) and
    /// [`stats`](BufferedClient::stats) do not know what waits; default 5 s. An update whose `publish` timed out may be
    /// in the outbox nevertheless.
    pub fn outbox_timeout(mut self, timeout: Duration) -> Self {
        self.settings.outbox_timeout = timeout;
        self
    }

    /// Calls the function when something goes wrong, on the thread where it does, often the worker. A panic
    /// in it is logged. What goes wrong in a call of this client from the function is logged too, and does
    /// not call it again. The function may call everything. On the worker, which can send nothing meanwhile,
    /// `flush`, `shutdown` and dropping the last clone do not wait: a shutdown there ends the client at once, and
    /// returns what is not delivered.
    pub fn on_error(
        mut self,
        callback: impl Fn(&DeliveryEvent<'_>) + Send + Sync + 'static,
    ) -> Self {
        self.settings.on_error = Some(Arc::new(callback));
        self
    }

    /// Calls the function with the JSON object of each update (`$group_key`, `$group_id`, `$set`…) and event (`event`,
    /// `properties`) before it waits, on the thread that publishes. The function may change the object. If it
    /// returns `false` or panics, the update or event is not sent. If what it leaves is neither,
    /// publishing is an error ([`ErrorKind::InvalidUpdate`]). What the function itself publishes would need it again: that
    /// is an error ([`ErrorKind::Config`]).
    pub fn before_send(
        mut self,
        callback: impl Fn(&mut Map<String, Value>) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.settings.before_send = Some(Arc::new(callback));
        self
    }

    /// Sets where updates wait: in memory by default; another [`Outbox`] keeps them over a crash.
    pub fn outbox(mut self, outbox: impl Outbox + 'static) -> Self {
        self.outbox = Arc::new(outbox);
        self
    }

    /// Starts the worker, the thread that sends.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if a setting makes no sense: a capacity of no updates or no bytes, a flush
    /// interval of zero. [`ErrorKind::Io`] if the thread cannot be started.
    pub fn start(self) -> Result<BufferedClient, Error> {
        self.settings.check()?;
        let queues = Arc::new(Queues::new(&self.client, &self.outbox, self.settings)?);
        // From here on, an error ends the worker that was started.
        let last_clone = Arc::new(LastClone(Arc::clone(&queues)));
        start_worker("mixpanel-groups worker", &queues.updates)?;
        if let Some(events) = &queues.events {
            start_worker("mixpanel-groups events", events)?;
        }
        Ok(BufferedClient {
            _last_clone: last_clone,
            queues,
        })
    }
}

fn start_worker<R: Kind>(name: &str, publisher: &Arc<Publisher<R>>) -> Result<(), Error> {
    let publisher = Arc::clone(publisher);
    let worker = thread::Builder::new().name(name.to_owned());
    let started = worker.spawn(move || worker::run(&publisher));
    started.map(drop).map_err(|error| {
        Error::new(ErrorKind::Io, "cannot start the worker thread").with_source(error)
    })
}

impl BufferedClient {
    /// Publishes an update or an event, to be sent soon. It is encoded here and now; nothing is borrowed from it.
    ///
    /// # Errors
    /// If it cannot be sent (the error names group or event, property and cause), if there is no room
    /// for it (see [`OverflowPolicy`]), if the outbox fails or does not reply in
    /// [time](BufferedClientBuilder::outbox_timeout), or if the client was shut down or belongs to the process of which
    /// this one is a fork ([`ErrorKind::Closed`]). Except for the first, the error gives it [back](Error::undelivered).
    /// [`ErrorKind::Config`] for an event where the outbox keeps updates alone.
    pub fn publish(&self, record: impl IntoRecord) -> Result<(), Error> {
        self.queues.publish(record)
    }

    /// Publishes many updates or events; with an outbox on disk that is much faster than one by one.
    ///
    /// # Errors
    /// As [`publish`](Self::publish), at the first that is not taken. The error gives back all
    /// that were not, except for those that cannot be sent.
    pub fn publish_all(&self, records: impl IntoRecords) -> Result<(), Error> {
        self.queues.publish_all(records.into_records())
    }

    /// Sends what waits now, without waiting for the flush interval. Returns when all of it has
    /// been accepted or rejected, at the latest after the timeout.
    pub fn flush(&self, timeout: Duration) -> FlushOutcome {
        self.queues.flush(timeout)
    }

    /// Ends publishing, sends what waits, and ends the thread. Returns at the latest after the timeout, with
    /// what could not be delivered. (Ending what is under way, and an outbox that hangs, may add some tenths of a second.)
    ///
    /// After the timeout the request under way is broken off. What it carried is handed back, though Mixpanel
    /// may have applied it, or may still do so: no client can know.
    ///
    /// From then on [`publish`](Self::publish) of any clone is an error ([`ErrorKind::Closed`]). Calling it
    /// again is harmless: what was handed back once is not handed back again.
    pub fn shutdown(&self, timeout: Duration) -> FlushOutcome {
        self.queues.shut_down(timeout)
    }

    /// Returns whether the workers have ended: what they broke off cannot be sent any more.
    #[cfg(simulation)]
    pub(crate) fn has_ended(&self) -> bool {
        self.queues.states().all(Shared::has_ended)
    }

    /// Returns which updates wait and what was done with others since the start, for a metrics endpoint, at the latest
    /// after the [outbox's time](BufferedClientBuilder::outbox_timeout).
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.queues.stats()
    }

    /// Returns the same of events.
    #[must_use]
    pub fn event_stats(&self) -> Stats {
        self.queues.event_stats()
    }
}

impl Drop for LastClone {
    fn drop(&mut self) {
        let Self(queues) = self;
        // In a forked child there is no worker, and the locks may be held for ever.
        if queues.is_forked() || queues.is_shut_down() {
            return;
        }
        let outcome = queues.shut_down(queues.settings.drop_timeout);
        let updates = outcome.undelivered.len();
        let events = outcome.undelivered_events.len();
        if updates + events > 0 {
            let lost = match (updates, events) {
                (updates, 0) => format!("{updates} updates"),
                (0, events) => format!("{events} events"),
                (updates, events) => format!("{updates} updates and {events} events"),
            };
            log::error!("lost {lost}: the client was dropped before they were sent");
        } else if !outcome.is_complete() {
            log::error!("the client was dropped: {outcome}");
        }
    }
}

impl fmt::Debug for BufferedClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferedClient")
            .field("client", &self.queues.updates.client)
            .field("counts", &self.queues.counts())
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

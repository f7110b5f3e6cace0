use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use serde_json::{Map, Value};

use super::settings::{DeliveryEvent, OverflowPolicy};
use super::stats::{FlushOutcome, Stats};
use crate::buffered::publisher::{Publisher, give_back};
use crate::buffered::settings::Settings;
use crate::buffered::worker;
use crate::client::Client;
use crate::outbox::MemoryOutbox;
use crate::outbox::{Capacity, Outbox};
use crate::record::{Error, ErrorKind, IntoUpdate, IntoUpdates};

/// Sends in the background: [`publish`](Self::publish) returns in about a microsecond, and one
/// thread delivers.
///
/// Batches leave when 2,000 updates wait, or after the flush interval. A failed delivery is tried
/// again until it succeeds; what waits is bounded, and what happens when the bound is reached is
/// [your choice](OverflowPolicy). End it with [`shutdown`](Self::shutdown), which says what was not
/// delivered; dropping it shuts it down too, within a few seconds, and logs what is left.
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
/// let drained = buffered.shutdown(Duration::from_secs(5));
/// assert!(drained.is_complete());
/// # Ok(())
/// # }
/// ```
///
/// A clone is cheap, and all clones share the one thread.
#[derive(Clone)]
#[must_use = "dropping the last clone flushes it and shuts it down"]
pub struct BufferedClient {
    handle: Arc<Handle>,
}

/// What the clones share. The worker has the publisher alone, so the last clone's drop ends it.
struct Handle {
    publisher: Arc<Publisher>,
}

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

    /// How long an update waits at most for others to share a request; default 1 s. After a delivery
    /// that failed it doubles, up to a minute.
    pub fn flush_interval(mut self, interval: Duration) -> Self {
        self.settings.flush_interval = interval;
        self
    }

    /// How many updates, and how many bytes of their JSON, may wait; default 100,000 and 64 MiB.
    pub fn capacity(mut self, updates: usize, bytes: usize) -> Self {
        self.settings.capacity = Capacity { updates, bytes };
        self
    }

    /// What happens when the capacity is reached; by default publishing waits for room, 1 s at most,
    /// and is an error then.
    pub fn overflow(mut self, overflow: OverflowPolicy) -> Self {
        self.settings.overflow = overflow;
        self
    }

    /// Whether updates of one group that wait together are [coalesced](crate::client::Batch::coalesce); default
    /// yes.
    pub fn coalesce(mut self, coalesce: bool) -> Self {
        self.settings.coalesce = coalesce;
        self
    }

    /// How long dropping the client may take to send what waits; default 5 s.
    pub fn drop_timeout(mut self, timeout: Duration) -> Self {
        self.settings.drop_timeout = timeout;
        self
    }

    /// Calls the function when something goes wrong, on the thread where it does. If it panics, that
    /// is logged and no more.
    pub fn on_error(
        mut self,
        callback: impl Fn(&DeliveryEvent<'_>) + Send + Sync + 'static,
    ) -> Self {
        self.settings.on_error = Some(Arc::new(callback));
        self
    }

    /// Calls the function with each update's JSON object before it waits (`$group_key`,
    /// `$group_id`, `$set`…), on the thread that publishes. It may change it; with `false` the
    /// update is not sent. If it panics, the update is not sent; if what it leaves is no update,
    /// publishing is an error ([`ErrorKind::InvalidUpdate`]).
    pub fn before_send(
        mut self,
        callback: impl Fn(&mut Map<String, Value>) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.settings.before_send = Some(Arc::new(callback));
        self
    }

    /// Where updates wait: in memory by default; another [`Outbox`] keeps them over a crash.
    pub fn outbox(mut self, outbox: impl Outbox + 'static) -> Self {
        self.outbox = Arc::new(outbox);
        self
    }

    /// Starts the thread that sends.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if a setting makes no sense: a capacity or a flush interval of zero;
    /// [`ErrorKind::Io`] if the thread cannot be started.
    pub fn start(self) -> Result<BufferedClient, Error> {
        self.settings.check()?;
        let publisher = Publisher::new(self.client, self.outbox, self.settings);
        let publisher = Arc::new(publisher);
        let its_publisher = Arc::clone(&publisher);
        thread::Builder::new()
            .name("mixpanel-groups worker".to_owned())
            .spawn(move || worker::run(&its_publisher))
            .map_err(|error| {
                Error::new(ErrorKind::Io, "cannot start the thread that sends").with_source(error)
            })?;
        let handle = Arc::new(Handle { publisher });
        Ok(BufferedClient { handle })
    }
}

impl BufferedClient {
    /// Takes an update to be sent soon. It is encoded here and now; nothing is borrowed from it.
    ///
    /// # Errors
    /// If the update cannot be sent (the error names group, property and cause), if there is no room
    /// for it (see [`OverflowPolicy`]), or if the outbox fails. But for the first, the error gives the
    /// update [back](Error::undelivered).
    pub fn publish<'u>(&self, update: impl IntoUpdate<'u>) -> Result<(), Error> {
        match self.handle.publisher.prepare(&update.into_update())? {
            Some(update) => self.handle.publisher.append(&[update]),
            None => Ok(()),
        }
    }

    /// Takes many updates; with an outbox on disk that is much faster than one by one.
    ///
    /// # Errors
    /// As [`publish`](Self::publish), at the first update that is not taken. The error gives back all
    /// that were not, but for those that cannot be sent.
    pub fn publish_all<'u>(&self, updates: impl IntoUpdates<'u>) -> Result<(), Error> {
        let mut updates = updates
            .into_updates()
            .filter_map(|update| self.handle.publisher.prepare(&update).transpose());
        loop {
            let mut some = Vec::new();
            let prepared = self.handle.publisher.read_some(&mut updates, &mut some);
            if prepared.is_ok() && some.is_empty() {
                return Ok(());
            }
            if let Err(error) = prepared.and_then(|()| self.handle.publisher.append(&some)) {
                let rest = updates.filter_map(Result::ok);
                return Err(give_back(error, some.into_iter().chain(rest)));
            }
        }
    }

    /// Sends what waits now, without waiting for the flush interval; returns when all of it has
    /// been accepted or rejected, and after that time at the latest.
    pub fn flush(&self, timeout: Duration) -> FlushOutcome {
        self.handle.publisher.flush(timeout)
    }

    /// Takes no more updates, from any clone, sends what waits, and ends; returns after that time at the
    /// latest, with what could not be delivered. From then on [`publish`](Self::publish) is an error
    /// ([`ErrorKind::Closed`]) that gives the update back. A second call does no harm.
    pub fn shutdown(&self, timeout: Duration) -> FlushOutcome {
        self.handle.publisher.shut_down(timeout)
    }

    /// How much there was and is to do, for a metrics endpoint.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.handle.publisher.stats()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let publisher = &*self.publisher;
        if publisher.shared.is_shut_down() {
            return;
        }
        let outcome = publisher.shut_down(publisher.settings.drop_timeout);
        if !outcome.is_complete() {
            log::error!("dropped with updates that are not sent: {outcome}");
        }
    }
}

impl fmt::Debug for BufferedClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferedClient")
            .field("client", &self.handle.publisher.client)
            .field("stats", &self.stats())
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

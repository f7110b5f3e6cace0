use std::fmt;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Duration;

use crate::client::ClientBuilder;
use crate::client::SendOptions;
use crate::client::delivery::{Resources, Route};
use crate::client::endpoint::Endpoint;
use crate::client::transport::{NoopTransport, Transport};
use crate::record::{Error, IntoEvents, IntoUpdates, Report};
use crate::util::sync::{Mutex, MutexGuard, has_one_core};

/// A blocking client: it sends updates and events to Mixpanel, and waits until each is accepted, rejected or given up.
///
/// Clones are cheap and share connections. At most 16 idle connections are kept open between calls, or as many as one
/// call uses. A client is `Send + Sync`, so one serves all threads. Between calls it keeps memory for the next batches: at
/// most 1 MiB for each of the [`connections`](ClientBuilder::connections) of a call, and 3 MiB more.
///
/// ```no_run
/// # fn main() -> Result<(), mixpanel_groups::Error> {
/// use mixpanel_groups::{Client, Group, Region};
///
/// let client = Client::builder("PROJECT_TOKEN").region(Region::Eu).build()?;
/// let report = client.send(Group::new("company", "old_company").delete())?;
/// println!("{report}");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client(pub(super) Arc<Inner>);

pub(super) struct Inner {
    /// The project's, a secret.
    pub(super) token: String,
    pub(super) endpoint: Endpoint,
    pub(super) groups: Route,
    pub(super) import: Route,
    pub(super) open: Box<OpenConnection>,
    pub(super) connections: usize,
    /// The longest time that a request can take.
    pub(super) timeout: Duration,
    /// Whether it sends nothing: see [`Client::disabled`].
    pub(super) is_disabled: bool,
    /// What no `send` uses at the moment.
    pub(super) idle: Mutex<Resources>,
    /// The process whose connections these are: a fork has the same sockets, and must leave them alone.
    pub(super) process: AtomicU32,
    pub(super) has_one_core: OnceLock<bool>,
}

/// The most idle connections that a client keeps for later calls, unless one call uses more.
const MAX_IDLE: usize = 16;

/// The most bytes of buffers that a client keeps for later calls, for each of its connections and three more.
const MAX_BUFFERED: usize = 1 << 20;

/// Returns a new connection.
pub(crate) type OpenConnection = dyn Fn() -> Arc<dyn Transport> + Send + Sync;

impl Client {
    /// Returns a client for the project with this token (Project Settings → Access Keys), in the US region, with default
    /// settings.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if the token is empty or contains other characters than letters,
    /// digits, `-` and `_`, or if a proxy or `SSL_CERT_FILE` of the environment is invalid.
    pub fn new(token: impl Into<String>) -> Result<Self, Error> {
        Self::builder(token).build()
    }

    /// Returns a builder, to change settings.
    pub fn builder(token: impl Into<String>) -> ClientBuilder {
        ClientBuilder::new(token.into())
    }

    /// Returns a client with the settings of the environment: `MIXPANEL_TOKEN`, and optionally `MIXPANEL_REGION` (`us`, `eu`
    /// or `in`) and `MIXPANEL_ENDPOINT` (scheme, host and port). The endpoint overrides the region.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if `MIXPANEL_TOKEN` is not set, or a variable is invalid. An empty
    /// variable is invalid, so that a forgotten value does not send data to the US region.
    pub fn from_env() -> Result<Self, Error> {
        ClientBuilder::from_env()?.build()
    }

    /// Sends any number of updates and returns a report of them.
    ///
    /// Pass an iterator such as `company.updates()`, a list, or a single update such as `company.set()`. The updates of a
    /// struct borrow it. [`Update::into_owned`](crate::Update::into_owned) makes them independent, for rows that a database
    /// yields one by one:
    ///
    /// ```
    /// use mixpanel_groups::{Client, Error, MixpanelGroup, Report, Update};
    ///
    /// # #[derive(MixpanelGroup)]
    /// # #[mixpanel(group_key = "company")]
    /// # struct Company { #[mixpanel(group_id)] id: u64 }
    /// fn send_all(client: &Client, rows: impl Iterator<Item = Company>) -> Result<Report, Error> {
    ///     client.send(rows.flat_map(|row| row.updates().map(Update::into_owned).collect::<Vec<_>>()))
    /// }
    /// # send_all(&Client::disabled(), std::iter::empty())?;
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// An update that Mixpanel rejects is not an error: the [`Report`] lists it with its position, and the others are
    /// delivered.
    ///
    /// Updates are sent in batches of up to 2,000 updates and 2,000,000 bytes, in order for each group. At most a few
    /// batches are in memory at a time. One update may have 1,000,000 bytes.
    /// ([Groups API, limits](https://developer.mixpanel.com/reference/group-profiles))
    ///
    /// A batch is sent when it is full, or when the iterator ends. While an iterator waits for its next update, as on a
    /// channel, what it has yielded may wait too: [`buffered`](Self::buffered) sends that after a second.
    ///
    /// While a batch is sent, the next one is filled: each connection has a thread during the call. A call with one batch
    /// sends it on the caller's thread, as does every call over one connection where the process has one core.
    ///
    /// Failed requests are retried by the [`RetryPolicy`](crate::RetryPolicy). A request that is too large is split.
    ///
    /// # What happens when …
    /// Each update ends in exactly one place: accepted, rejected, or undelivered in the error. “Retried” means by the
    /// [`RetryPolicy`](crate::RetryPolicy), with the error if the last attempt fails as well. “Stops” means the error at
    /// once, because the same request would fail again.
    ///
    /// | when | then |
    /// |---|---|
    /// | 200 with `1`, `{"status": 1, …}` or `{"status": "OK", …}`, with no `error`, or an empty one | all of the request is accepted |
    /// | 400 or 200 with `failed_records` | these are rejected, each with its field and message, and the others accepted |
    /// | 400 or 200 that refuses all (`0`, `{"status": 0, …}`, or an `error` beside a status), lists a record that is not in the request, or counts other records as accepted (`num_good_events`, `num_records_imported`) | the request is halved until the bad updates are found; these are rejected |
    /// | 401, 403 with Mixpanel's JSON (`error` and `status`) | stops, [`Unauthorized`](crate::ErrorKind::Unauthorized) |
    /// | 404 with Mixpanel's JSON | stops, [`NotFound`](crate::ErrorKind::NotFound) |
    /// | 415 for a body with gzip | sent again at once without, as is the rest of the call |
    /// | a refusal of all of a body with gzip, while none was accepted yet | the same, unless it is not accepted without either: then the request is halved, with gzip |
    /// | 2xx, 400, 401, 403, 404 without Mixpanel's JSON (HTML, nothing, or JSON that is cut off or unknown), any other 4xx, or a redirect, which is not followed: a firewall, proxy or captive portal | retried; after the last attempt, halved until the blocked updates are alone; these come back with [`UnexpectedResponse`](crate::ErrorKind::UnexpectedResponse), and so do later ones of their groups, and the others are accepted. If three single updates in a row are blocked, one more is tried, of this batch or the next: if that is blocked too, everything comes back |
    /// | 413 | the request is halved until it fits, and later ones are no larger; an update that is too large alone is rejected |
    /// | 429 | retried, and no connection sends before that; in the end [`RateLimited`](crate::ErrorKind::RateLimited) |
    /// | 502, 503 | retried, in the end [`Server`](crate::ErrorKind::Server) |
    /// | 500, 504, other 5xx | retried, the first time soon, in the end [`Server`](crate::ErrorKind::Server) |
    /// | 408 | retried, the first time soon, in the end [`Timeout`](crate::ErrorKind::Timeout) |
    /// | `Retry-After`, in seconds, or as a date by the clock of the server (`Date`) | the retry is not before that; if it is after [`RetryPolicy::deadline`](crate::RetryPolicy::deadline), the error at once, with [`retry_after`](Error::retry_after). Only the parts of a blocked request do not wait for it |
    /// | any other status | retried, in the end [`UnexpectedResponse`](crate::ErrorKind::UnexpectedResponse) |
    /// | a response of more than 1 MiB | the first MiB is read, and counts as cut off |
    /// | a response that is not HTTP, or whose head has 32 KiB or more than 128 headers | retried, the first time soon, in the end [`UnexpectedResponse`](crate::ErrorKind::UnexpectedResponse) |
    /// | the host is not found; this machine has no thread to look it up, or no socket; the connection is refused, or reset before, during or after the request, or within the body of a 2xx | retried, the first time soon, in the end [`Network`](crate::ErrorKind::Network) |
    /// | a kept connection turns out to be closed | retried at once, but not with [`RetryPolicy::none`](crate::RetryPolicy::none) |
    /// | no response in time: connecting, waiting for the head or within the body of a 2xx | retried, the first time soon, in the end [`Timeout`](crate::ErrorKind::Timeout) |
    /// | any other status, whose body ends too early or not in time | what arrived counts, as a body that is cut off; the next request is over a new connection |
    /// | a response, and the connection closed, before the request was read | the response counts, if the system still has it |
    /// | the proxy requires a user name and password, or rejects them (407 or 401 to `CONNECT`, or the refusal of SOCKS) | stops, [`Network`](crate::ErrorKind::Network) |
    /// | no secure connection: an unknown issuer, another host name, expired (a damaged message, or an internal error of the server, is a connection that broke) | stops, [`Tls`](crate::ErrorKind::Tls); the message says why |
    /// | the iterator panics | requests in progress are aborted, and the panic goes on: no report says what was accepted |
    ///
    /// # Order
    /// A retried request may have been applied already, if its response was lost. Applying it again changes nothing, except
    /// that an item that was removed from a list and added again moves to its end. A group's later updates are not sent
    /// before the retried request has its response.
    ///
    /// One thing no client can prevent: a request that timed out or was aborted may still reach the server, which then
    /// applies it after the retried one, and after later updates of the same group. The older value then stays until the
    /// next update of that property.
    ///
    /// # Errors
    /// If an update could not be delivered. The error holds the [report](Error::report) so far and every
    /// [undelivered](Error::undelivered) update. To collect these, `updates` is read to its end.
    pub fn send<'u>(&self, updates: impl IntoUpdates<'u>) -> Result<Report, Error> {
        self.with_options().send(updates)
    }

    /// Imports any number of events, which link users to groups, and returns a report of them.
    ///
    /// Works as [`send`](Self::send) does for updates, with batches of up to 2,000 events and 10,000,000 bytes before
    /// compression. An event that is sent twice counts once, because its time and its insert id stay the same.
    /// ([Import API](https://developer.mixpanel.com/reference/import-events))
    ///
    /// ```no_run
    /// use mixpanel_groups::{Client, Event, Group};
    ///
    /// let client = Client::builder("PROJECT_TOKEN")
    ///     .service_account("SERVICE_ACCOUNT", "SECRET", "PROJECT_ID")
    ///     .build()?;
    /// let acme = Group::new("company", "acme_corp"); // or a derived struct
    /// let event = Event::new("Purchase")
    ///     .distinct_id("user123")
    ///     .group(&acme)
    ///     .property("amount", 99.99);
    /// client.import([event])?.into_result()?;
    /// # Ok::<(), mixpanel_groups::Error>(())
    /// ```
    ///
    /// # Errors
    /// If an event could not be delivered. The error holds the [report](Error::report) so far and every
    /// [undelivered](Error::undelivered) event. To collect these, `events` is read to its end.
    pub fn import(&self, events: impl IntoEvents) -> Result<Report, Error> {
        self.with_options().import(events)
    }

    /// Returns the options of one `send` or `import`: progress, cancellation, coalescing.
    ///
    /// ```no_run
    /// use std::sync::atomic::AtomicBool;
    ///
    /// # let client = mixpanel_groups::Client::new("token")?;
    /// # let updates = Vec::<mixpanel_groups::Update>::new();
    /// let stop = AtomicBool::new(false); // set by a handler of Ctrl-C
    /// let report = client
    ///     .with_options()
    ///     .cancel_on(&stop)
    ///     .on_progress(|progress| eprintln!("{} accepted", progress.accepted))
    ///     .send(updates)?;
    /// # Ok::<(), mixpanel_groups::Error>(())
    /// ```
    pub fn with_options(&self) -> SendOptions<'_> {
        SendOptions::new(self)
    }

    /// Returns a client that sends nothing and reports everything as accepted, for tests and development machines.
    ///
    /// An update that cannot be sent is rejected all the same. A [`Snapshot`](crate::Snapshot) does not record what this
    /// client reports.
    ///
    /// In the background, it empties the outbox: what waits in a file or database is removed as if it had been sent. So it is
    /// not a way to pause sending.
    #[must_use]
    pub fn disabled() -> Self {
        let open = Box::new(|| Arc::new(NoopTransport) as Arc<dyn Transport>);
        let mut builder = ClientBuilder::new("disabled".to_owned());
        builder.is_disabled = true;
        builder.connect(Endpoint::nowhere(), open)
    }

    pub(crate) fn groups_route(&self) -> &Route {
        &self.0.groups
    }

    pub(crate) fn import_route(&self) -> &Route {
        &self.0.import
    }

    /// Returns a connection for each lane of a `send`, idle ones first, and empty batches of earlier calls.
    pub(crate) fn take_idle(&self) -> Resources {
        let inner = &*self.0;
        let mut idle = self.idle();
        let process = process::id();
        if inner.process.swap(process, Ordering::Relaxed) != process {
            idle.connections.clear();
        }
        let kept = idle.connections.len().saturating_sub(inner.connections);
        let mut resources = Resources {
            connections: idle.connections.split_off(kept),
            buffers: std::mem::take(&mut idle.buffers),
        };
        drop(idle);
        let connections = &mut resources.connections;
        connections.resize_with(inner.connections, &inner.open);
        resources
    }

    pub(crate) fn keep_idle(&self, resources: Resources) {
        let lanes = self.0.connections;
        let mut idle = self.idle();
        let Resources {
            connections,
            buffers,
        } = &mut *idle;
        connections.extend(resources.connections);
        connections.truncate(MAX_IDLE.max(lanes));
        let new = resources.buffers.into_iter();
        buffers.extend(new.filter(|buffer| buffer.capacity() > 0));
        // A lane fills one, has one waiting and sends one.
        buffers.truncate(3 * lanes);
        let mut left = MAX_BUFFERED * (lanes + 3);
        buffers.retain(|buffer| {
            let is_kept = buffer.capacity() <= left;
            left -= if is_kept { buffer.capacity() } else { 0 };
            is_kept
        });
    }

    fn idle(&self) -> MutexGuard<'_, Resources> {
        let idle = self.0.idle.lock();
        idle.unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether the process may use one core only.
    pub(crate) fn has_one_core(&self) -> bool {
        *self.0.has_one_core.get_or_init(has_one_core)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("endpoint", &self.0.endpoint)
            .field("connections", &self.0.connections)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::records::Records;
    use crate::group::Group;
    use crate::util::sync::run_test;

    #[test]
    fn a_client_keeps_few_buffers_however_often_it_sends() {
        run_test(|| {
            let client = Client::disabled();
            for _ in 0..100 {
                let report = client.send(Group::new("company", "acme").delete());
                assert_eq!(report.unwrap().accepted, 1);
            }
            assert!(client.take_idle().buffers.len() <= 3);
            client.keep_idle(Resources {
                buffers: (0..100).map(|_| Records::default()).collect(),
                ..Resources::default()
            });
            assert!(
                client.take_idle().buffers.is_empty(),
                "without memory they are of no use"
            );
        });
    }
}

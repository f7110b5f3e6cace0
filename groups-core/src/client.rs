use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::batch::opening;
use crate::compression::Compression;
use crate::delivery::Route;
use crate::endpoint::{Endpoint, Region};
use crate::records::{Limits, MAX_RECORDS};
use crate::transport::{HttpConfig, Transport};
use crate::{Error, Report, Retry, Sending, Update};

/// Sends updates to Mixpanel, and waits until each is accepted, rejected or given up.
///
/// Cheap to clone; clones share connections, which are kept open between calls. `Send + Sync`: one
/// client serves all threads.
///
/// ```no_run
/// # fn main() -> Result<(), mixpanel_groups::Error> {
/// use mixpanel_groups::{Client, Group, Region};
///
/// let client = Client::builder("PROJECT_TOKEN").region(Region::Eu).build()?;
/// let report = client.send([Group::new("company", "old_company").delete()])?;
/// println!("{report}");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    endpoint: Endpoint,
    groups: Route,
    http: HttpConfig,
    connections: usize,
    /// Connections that no `send` uses at the moment.
    idle: Mutex<Vec<Arc<dyn Transport>>>,
}

impl Client {
    /// A client for the project of that token, in the US region, with every setting at its default.
    ///
    /// # Errors
    /// If the token is empty.
    pub fn new(token: impl Into<String>) -> Result<Self, Error> {
        Self::builder(token).build()
    }

    /// A client with other settings.
    pub fn builder(token: impl Into<String>) -> ClientBuilder {
        ClientBuilder::new(token.into())
    }

    /// A client from the environment: `MIXPANEL_TOKEN`, and if set `MIXPANEL_REGION` (`us`, `eu` or
    /// `in`) and `MIXPANEL_ENDPOINT` (scheme, host and port), which comes before the region.
    ///
    /// # Errors
    /// If `MIXPANEL_TOKEN` is not set, or one of them is not valid.
    pub fn from_env() -> Result<Self, Error> {
        ClientBuilder::from_env()?.build()
    }

    /// Sends any number of updates, and returns what became of them.
    ///
    /// They go out in batches of up to 2,000 updates and 2 MB, in order for each group; no more than
    /// a few batches are in memory at a time. Failed requests are repeated as [`Retry`] says, a
    /// request that is too large is split, and where Mixpanel refuses some updates, the others are
    /// delivered. The [`Report`] lists those that were refused, with their positions.
    ///
    /// # What happens when …
    /// Whatever happens, each update ends in one place: accepted, rejected, or undelivered in the
    /// error. “Retried” is as [`Retry`] says, and the error if the last attempt fails as well.
    /// “Stops” is the error at once, since the same request would fail again.
    ///
    /// | when | then |
    /// |---|---|
    /// | 200 with `1`, `{"status": 1, …}` or `{"status": "OK", …}` | all of the request is accepted |
    /// | 400 or 200 with `failed_records` | these are rejected, each with its field and message, and the others accepted |
    /// | 400 or 200 that refuses all (`0`, `{"status": 0, …}`, an `error`), or lists a record that is not in the request | the request is halved until the bad updates are found; these are rejected |
    /// | 401, 403 | stops, [`Unauthorized`](crate::ErrorKind::Unauthorized) |
    /// | 404 | stops, [`NotFound`](crate::ErrorKind::NotFound) |
    /// | 413 | the request is halved until it fits, and later ones are no larger; an update that is too large alone is rejected |
    /// | 429 | retried, and no connection sends before; in the end [`RateLimited`](crate::ErrorKind::RateLimited) |
    /// | 502, 503 | retried, in the end [`Server`](crate::ErrorKind::Server) |
    /// | 500, 504, other 5xx | retried, the first time soon, in the end [`Server`](crate::ErrorKind::Server) |
    /// | 408 | retried, the first time soon, in the end [`Timeout`](crate::ErrorKind::Timeout) |
    /// | `Retry-After`, in seconds or as a date | the retry is not before, but waits no longer than [`Retry::ceiling`] for it |
    /// | a redirect | is not followed; stops, [`UnexpectedAnswer`](crate::ErrorKind::UnexpectedAnswer) |
    /// | any other status | stops, [`UnexpectedAnswer`](crate::ErrorKind::UnexpectedAnswer) |
    /// | 200 or 400 with HTML, nothing, or JSON that is cut off or unknown | stops, [`UnexpectedAnswer`](crate::ErrorKind::UnexpectedAnswer); with another status, the status decides |
    /// | an answer of more than 1 MiB | the first MiB is read and counts as cut off |
    /// | an answer that is no HTTP | retried, the first time soon, in the end [`UnexpectedAnswer`](crate::ErrorKind::UnexpectedAnswer) |
    /// | the host is not known; the connection is refused, or reset before, during or after the request | retried, the first time soon, in the end [`Network`](crate::ErrorKind::Network) |
    /// | a kept connection turns out to be closed | retried at once |
    /// | no answer in time: connecting, waiting for the head or within the body | retried, the first time soon, in the end [`Timeout`](crate::ErrorKind::Timeout) |
    /// | no secure connection | stops, [`Tls`](crate::ErrorKind::Tls) |
    ///
    /// What is retried may have been applied already, its answer lost. Applying it again changes
    /// nothing, and a group's later updates are not sent before.
    ///
    /// # Errors
    /// If an update could not be delivered. The error holds the [report](Error::report) so far and
    /// every [undelivered](Error::undelivered) update; for these, the rest of `updates` is read to
    /// its end.
    pub fn send<'u, I>(&self, updates: I) -> Result<Report, Error>
    where
        I: IntoIterator,
        I::Item: Into<Update<'u>>,
    {
        self.sending().send(updates)
    }

    /// A `send` with options of its own: progress, cancellation.
    ///
    /// ```no_run
    /// # use std::sync::atomic::AtomicBool;
    /// # let client = mixpanel_groups::Client::new("token")?;
    /// # let updates = Vec::<mixpanel_groups::Update>::new();
    /// let stop = AtomicBool::new(false); // set by a handler of Ctrl-C
    /// let report = client
    ///     .sending()
    ///     .cancel_on(&stop)
    ///     .on_progress(|progress| eprintln!("{} accepted", progress.accepted))
    ///     .send(updates)?;
    /// # Ok::<(), mixpanel_groups::Error>(())
    /// ```
    pub fn sending(&self) -> Sending<'_> {
        Sending::new(self)
    }

    pub(crate) fn groups_route(&self) -> &Route {
        &self.0.groups
    }

    /// A connection for each lane of a `send`: kept ones first.
    pub(crate) fn take_connections(&self) -> Vec<Arc<dyn Transport>> {
        let inner = &*self.0;
        let mut idle = inner.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle.len().saturating_sub(inner.connections);
        let mut connections = idle.split_off(kept);
        connections.resize_with(inner.connections, || Arc::new(inner.http.open()));
        connections
    }

    pub(crate) fn keep_connections(&self, connections: Vec<Arc<dyn Transport>>) {
        let mut idle = self.0.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.extend(connections);
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

/// The settings of a [`Client`]: see [`Client::builder`].
#[derive(Clone)]
#[must_use = "a builder does nothing before `build`"]
pub struct ClientBuilder {
    token: String,
    endpoint: String,
    allow_plain_http: bool,
    limits: Limits,
    connections: usize,
    compression: Compression,
    retry: Retry,
    timeout: Duration,
    connect_timeout: Duration,
    strict: bool,
}

impl ClientBuilder {
    fn new(token: String) -> Self {
        Self {
            token,
            endpoint: Region::default().endpoint().to_owned(),
            allow_plain_http: false,
            limits: Limits::default(),
            connections: 1,
            compression: Compression::default(),
            retry: Retry::default(),
            timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            strict: true,
        }
    }

    fn from_env() -> Result<Self, Error> {
        let token = variable("MIXPANEL_TOKEN")?
            .ok_or_else(|| Error::config("the environment variable MIXPANEL_TOKEN is not set"))?;
        let mut builder = Self::new(token);
        if let Some(region) = variable("MIXPANEL_REGION")? {
            builder = builder.region(region.parse()?);
        }
        if let Some(endpoint) = variable("MIXPANEL_ENDPOINT")? {
            builder = builder.endpoint(endpoint);
        }
        Ok(builder)
    }

    /// The region that the project's data is kept in; the default is the US.
    pub fn region(self, region: Region) -> Self {
        self.endpoint(region.endpoint())
    }

    /// Another host, as scheme, host and port: `"http://127.0.0.1:8080"`. `/groups` is added.
    ///
    /// Plain `http` is accepted for this machine only (see [`allow_plain_http`]); a proxy named in
    /// the environment (`HTTPS_PROXY`) is used for other machines only.
    ///
    /// [`allow_plain_http`]: Self::allow_plain_http
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoint = endpoint.into();
        self
    }

    /// Accepts plain `http` endpoints on other machines, where everybody on the way can read token
    /// and data.
    pub fn allow_plain_http(mut self, allow: bool) -> Self {
        self.allow_plain_http = allow;
        self
    }

    /// How many updates go into a request at most: from 1 to 2,000, which is Mixpanel's limit and
    /// the default. Others count as the nearest of these.
    pub fn max_batch(mut self, records: usize) -> Self {
        self.limits.records = records.clamp(1, MAX_RECORDS);
        self
    }

    /// How many bytes a request's body has at most, before compression; the default of 2,000,000
    /// is below every limit that Mixpanel documents. An update that is larger is rejected.
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.limits.bytes = bytes;
        self
    }

    /// Over how many connections one `send` sends side by side; default 1, and 0 counts as 1.
    ///
    /// Mixpanel advises 10 to 20 for much data. A group's updates always take the same connection,
    /// so their order holds. Each takes a thread while `send` runs, and the memory of four batches
    /// at most.
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections.max(1);
        self
    }

    /// How request bodies are compressed; the default is not at all, since Mixpanel does not
    /// document compression for `/groups`.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// When a failed request is repeated.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// How long one request may take, from name resolution to the answer's last byte; default 30 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long finding the server's address may take, and then connecting to it; default 10 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Whether Mixpanel validates every update and says which are wrong; default yes. If not, it
    /// accepts a request when at least one of its updates is valid, and does not say which are not.
    pub fn strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// The client.
    ///
    /// # Errors
    /// If the token is empty, or the endpoint is not one.
    pub fn build(self) -> Result<Client, Error> {
        if self.token.trim().is_empty() {
            return Err(Error::config("the project token is empty"));
        }
        let endpoint = Endpoint::parse(&self.endpoint, self.allow_plain_http)?;
        let strict = u8::from(self.strict);
        let groups = Route {
            url: endpoint.url(&format!("/groups?ip=0&strict={strict}&verbose=1")),
            authorization: None,
            opening: opening(&self.token),
            limits: self.limits,
            compression: self.compression,
            retry: self.retry,
        };
        Ok(Client(Arc::new(Inner {
            http: HttpConfig::new(&endpoint, self.timeout, self.connect_timeout),
            endpoint,
            groups,
            connections: self.connections,
            idle: Mutex::default(),
        })))
    }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder").finish_non_exhaustive()
    }
}

fn variable(name: &str) -> Result<Option<String>, Error> {
    match std::env::var(name) {
        Ok(value) => Ok(Some(value)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(Error::config(format!(
            "the environment variable {name} is not UTF-8"
        ))),
    }
}

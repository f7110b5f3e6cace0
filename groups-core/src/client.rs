use std::borrow::Borrow;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::batch::opening;
use crate::compression::Compression;
use crate::delivery::Route;
use crate::endpoint::{Endpoint, Region};
use crate::records::{Limits, MAX_RECORDS};
use crate::transport::{HttpConfig, Nowhere, Transport};
use crate::{BufferedClientBuilder, Error, Event, Report, Retry, Sending, Update};

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
/// let report = client.send(Group::new("company", "old_company").delete())?;
/// println!("{report}");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    endpoint: Endpoint,
    groups: Route,
    import: Route,
    /// None, if nothing is to be sent.
    http: Option<HttpConfig>,
    connections: usize,
    /// Connections that no `send` uses at the moment.
    idle: Mutex<Vec<Arc<dyn Transport>>>,
}

/// How many bytes of events a request may have before compression: 10 MB.
/// ([Import API](https://developer.mixpanel.com/reference/import-events))
const MAX_IMPORT: usize = 10_000_000;

impl Client {
    /// A client for the project of that token (Project Settings → Access Keys), in the US region, with
    /// every setting at its default.
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
    /// If `MIXPANEL_TOKEN` is not set, or one of them is not valid. The empty text is not: what was to
    /// point elsewhere must not end in the US region.
    pub fn from_env() -> Result<Self, Error> {
        ClientBuilder::from_env()?.build()
    }

    /// Sends any number of updates, and returns what became of them.
    ///
    /// They are given as an iterator, `company.updates()`, as a list, or as a single one,
    /// `company.set()`. The updates of a struct borrow it; [`Update::into_owned`] frees them, for
    /// rows that a database yields one by one:
    ///
    /// ```
    /// # use mixpanel_groups::{Client, Error, MixpanelGroup, Report, Update};
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
    /// An update that Mixpanel refuses is no error: it is in the report, beside what was accepted.
    ///
    /// They go out in batches of up to 2,000 updates and 2,000,000 bytes, in order for each group; no
    /// more than a few batches are in memory at a time. One update may have 1 MB.
    /// ([Groups API, limits](https://developer.mixpanel.com/reference/group-profiles))
    ///
    /// Failed requests are repeated as [`Retry`] says, a request that is too large is split, and where
    /// Mixpanel refuses some updates, the others are delivered. The [`Report`] lists those that were
    /// refused, with their positions.
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

    /// Imports any number of events, and returns what became of them: the way to link users to
    /// groups.
    ///
    /// As [`send`](Self::send) does for updates, with batches of up to 2,000 events and 10,000,000
    /// bytes before compression. An event that is sent twice counts once, for its insert id.
    /// ([Import API](https://developer.mixpanel.com/reference/import-events))
    ///
    /// ```no_run
    /// # use mixpanel_groups::{Client, Event, Group};
    /// let client = Client::builder("PROJECT_TOKEN")
    ///     .service_account("SERVICE_ACCOUNT", "SECRET", "PROJECT_ID")
    ///     .build()?;
    /// let acme = Group::new("company", "acme_corp"); // or a derived struct
    /// let event = Event::new("Purchase")
    ///     .distinct_id("user123")
    ///     .group(&acme)
    ///     .property("amount", 99.99);
    /// client.import([event])?;
    /// # Ok::<(), mixpanel_groups::Error>(())
    /// ```
    ///
    /// # Errors
    /// If an event could not be delivered. The error holds the [report](Error::report) so far and
    /// every [undelivered](Error::undelivered) event; for these, the rest of `events` is read to
    /// its end.
    pub fn import<I>(&self, events: I) -> Result<Report, Error>
    where
        I: IntoIterator,
        I::Item: Borrow<Event>,
    {
        self.sending().import(events)
    }

    /// A `send` or `import` with options of its own: progress, cancellation.
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

    /// A client that sends in the background.
    pub fn buffered(&self) -> BufferedClientBuilder {
        BufferedClientBuilder::new(self.clone())
    }

    /// A client that sends nothing and reports all as accepted, for tests and development machines.
    ///
    /// An update that cannot be sent is rejected all the same.
    #[must_use]
    pub fn disabled() -> Self {
        ClientBuilder::new("disabled".to_owned()).connect(Endpoint::nowhere(), None)
    }

    pub(crate) fn groups_route(&self) -> &Route {
        &self.0.groups
    }

    pub(crate) fn import_route(&self) -> &Route {
        &self.0.import
    }

    /// A connection for each lane of a `send`: kept ones first.
    pub(crate) fn take_connections(&self) -> Vec<Arc<dyn Transport>> {
        let inner = &*self.0;
        let mut idle = inner.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle.len().saturating_sub(inner.connections);
        let mut connections = idle.split_off(kept);
        connections.resize_with(inner.connections, || match &inner.http {
            Some(http) => Arc::new(http.open()),
            None => Arc::new(Nowhere),
        });
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
    service_account: Option<ServiceAccount>,
    endpoint: String,
    allow_plain_http: bool,
    max_batch: usize,
    max_body: Option<usize>,
    connections: usize,
    compression: Option<Compression>,
    retry: Retry,
    timeout: Duration,
    connect_timeout: Duration,
    strict: bool,
}

/// Who imports events, in place of the project's token.
#[derive(Clone)]
struct ServiceAccount {
    user: String,
    secret: String,
    project_id: String,
}

impl ServiceAccount {
    fn check(&self) -> Result<(), Error> {
        // HTTP's Basic authorization ends the user name at the first colon.
        if self.user.is_empty() || self.user.contains(':') {
            return Err(Error::config(
                "a service account's user name is not empty and has no colon",
            ));
        }
        if self.secret.is_empty() {
            return Err(Error::config("the service account's secret is empty"));
        }
        let is_id = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if self.project_id.is_empty() || !self.project_id.bytes().all(is_id) {
            let message = "the project id is not one: it is the number in the project's settings";
            return Err(Error::config(message));
        }
        Ok(())
    }
}

impl ClientBuilder {
    fn new(token: String) -> Self {
        Self {
            token,
            service_account: None,
            endpoint: Region::default().endpoint().to_owned(),
            allow_plain_http: false,
            max_batch: MAX_RECORDS,
            max_body: None,
            connections: 1,
            compression: None,
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

    /// The region that the project's data is kept in; the default is the US. Of this and
    /// [`endpoint`](Self::endpoint) the last one counts.
    pub fn region(self, region: Region) -> Self {
        self.endpoint(region.endpoint())
    }

    /// The service account that imports events into the project of that id, the number in the
    /// project's settings. Updates of groups need none; without one, events are imported with the
    /// project's token.
    /// ([Import API](https://developer.mixpanel.com/reference/import-events))
    pub fn service_account(
        mut self,
        user: impl Into<String>,
        secret: impl Into<String>,
        project_id: impl fmt::Display,
    ) -> Self {
        self.service_account = Some(ServiceAccount {
            user: user.into(),
            secret: secret.into(),
            project_id: project_id.to_string(),
        });
        self
    }

    /// Another host, as scheme, host and port: `"http://127.0.0.1:8080"`. `/groups` and `/import`
    /// are added.
    ///
    /// Plain `http` is accepted for this machine only (see [`allow_plain_http`]); a proxy named in
    /// the environment (`HTTPS_PROXY`) is used for other machines only.
    ///
    /// [`allow_plain_http`]: Self::allow_plain_http
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoint = endpoint.into();
        self
    }

    /// Accepts plain `http` endpoints on other machines too, where everybody on the way can read
    /// token and data; default no.
    pub fn allow_plain_http(mut self, allow: bool) -> Self {
        self.allow_plain_http = allow;
        self
    }

    /// How many updates or events go into a request at most: from 1 to 2,000, which is Mixpanel's
    /// limit and the default. Others count as the nearest of these.
    /// ([Groups API, limits](https://developer.mixpanel.com/reference/group-profiles))
    pub fn max_batch(mut self, records: usize) -> Self {
        self.max_batch = records.clamp(1, MAX_RECORDS);
        self
    }

    /// How many bytes a request's body has at most, before compression. By default 2,000,000 of
    /// updates, which is below every limit that Mixpanel documents, and 10,000,000 of events. An
    /// update or event that is larger is rejected, and one of more than 1 MB in any case.
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.max_body = Some(bytes);
        self
    }

    /// Over how many connections one `send` sends side by side; default 1, and 0 counts as 1.
    ///
    /// Mixpanel advises 10 to 20 for much data
    /// ([Import API](https://developer.mixpanel.com/reference/import-events)). A group's updates always take the same connection,
    /// so their order holds. Each takes a thread while `send` runs, and the memory of four batches
    /// at most.
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections.max(1);
        self
    }

    /// How request bodies are compressed. By default events are, with gzip, and updates are not,
    /// since Mixpanel documents compression for `/import` only
    /// ([Import API](https://developer.mixpanel.com/reference/import-events)).
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = Some(compression);
        self
    }

    /// When a failed request is repeated; by default as Mixpanel advises, up to 6 times within 5
    /// minutes.
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

    /// Whether Mixpanel validates every record and says which are wrong (`strict=1`); default yes. If
    /// not, it accepts a request when at least one of its records is valid, and does not say which
    /// are not.
    pub fn strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// The client.
    ///
    /// # Errors
    /// If the token is empty, or the endpoint or the service account is not one.
    pub fn build(self) -> Result<Client, Error> {
        if self.token.trim().is_empty() {
            return Err(Error::config("the project token is empty"));
        }
        let endpoint = Endpoint::parse(&self.endpoint, self.allow_plain_http)?;
        if let Some(account) = &self.service_account {
            account.check()?;
        }
        let http = HttpConfig::new(&endpoint, self.timeout, self.connect_timeout);
        Ok(self.connect(endpoint, Some(http)))
    }

    fn connect(self, endpoint: Endpoint, http: Option<HttpConfig>) -> Client {
        Client(Arc::new(Inner {
            groups: self.groups(&endpoint),
            import: self.import(&endpoint),
            endpoint,
            http,
            connections: self.connections,
            idle: Mutex::default(),
        }))
    }

    /// Where updates of groups go.
    fn groups(&self, endpoint: &Endpoint) -> Route {
        let strict = u8::from(self.strict);
        Route {
            url: endpoint.url(&format!("/groups?ip=0&strict={strict}&verbose=1")),
            authorization: None,
            opening: opening(&self.token),
            limits: self.limits(Limits::default().bytes),
            compression: self.compression.unwrap_or_default(),
            retry: self.retry,
        }
    }

    /// Where events go.
    fn import(&self, endpoint: &Endpoint) -> Route {
        let strict = u8::from(self.strict);
        let (query, credentials) = match &self.service_account {
            None => (String::new(), format!("{}:", self.token)),
            Some(account) => {
                let query = format!("&project_id={}", account.project_id);
                (query, format!("{}:{}", account.user, account.secret))
            }
        };
        let credentials = BASE64_STANDARD.encode(credentials);
        Route {
            url: endpoint.url(&format!("/import?strict={strict}{query}")),
            authorization: Some(format!("Basic {credentials}")),
            opening: b"{".to_vec(),
            limits: self.limits(MAX_IMPORT),
            compression: self.compression.unwrap_or(Compression::OF_EVENTS),
            retry: self.retry,
        }
    }

    fn limits(&self, bytes: usize) -> Limits {
        Limits {
            records: self.max_batch,
            bytes: self.max_body.unwrap_or(bytes),
        }
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

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ureq::Proxy;

use crate::client::batch::opening;
use crate::client::client::{Inner, OpenConnection};
use crate::client::delivery::Route;
use crate::client::endpoint::Endpoint;
use crate::client::records::{Limits, MAX_RECORDS};
use crate::client::transport::HttpConfig;
use crate::client::{Client, Compression, Region, RetryPolicy};
use crate::record::Error;
use crate::util::sync::Mutex;

/// How many bytes of events a request may have before compression: 10 MB.
/// ([Import API](https://developer.mixpanel.com/reference/import-events))
const MAX_IMPORT: usize = 10_000_000;

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
    retry: RetryPolicy,
    timeout: Duration,
    connect_timeout: Duration,
    strict: bool,
    proxy: ProxySetting,
}

/// The most connections of a client, each of which is a thread while it sends.
const MAX_CONNECTIONS: usize = 256;

/// The smallest limit of a body, below which no update fits.
const MIN_BODY: usize = 100;

fn in_range(name: &str, value: usize, range: RangeInclusive<usize>) -> Result<(), Error> {
    if range.contains(&value) {
        return Ok(());
    }
    let (least, most) = range.into_inner();
    let expected = match most {
        usize::MAX => format!("at least {least}"),
        _ => format!("{least} to {most}"),
    };
    Err(Error::config(format!(
        "invalid {name} {value}: expected {expected}"
    )))
}

#[derive(Clone)]
enum ProxySetting {
    /// As the environment variables say.
    Environment,
    None,
    /// It may hold a password.
    Url(String),
}

impl ProxySetting {
    fn resolve(&self, endpoint: &Endpoint) -> Result<Option<Proxy>, Error> {
        match self {
            Self::None => Ok(None),
            Self::Environment if endpoint.is_loopback() => Ok(None),
            Self::Environment => Ok(Proxy::try_from_env()),
            // Neither the text nor the cause, which quotes it, is shown: there may be a password.
            Self::Url(url) => Proxy::new(url).map(Some).map_err(|_| {
                Error::config(
                    "invalid proxy: expected scheme, host and port, such as http://proxy:3128",
                )
            }),
        }
    }
}

/// The account that imports events, in place of the project's token.
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
    pub(super) fn new(token: String) -> Self {
        Self {
            token,
            service_account: None,
            endpoint: Region::default().endpoint().to_owned(),
            allow_plain_http: false,
            max_batch: MAX_RECORDS,
            max_body: None,
            connections: 1,
            compression: None,
            retry: RetryPolicy::default(),
            timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            strict: true,
            proxy: ProxySetting::Environment,
        }
    }

    /// Returns a builder with the settings of the environment, to which others can be added:
    /// `MIXPANEL_TOKEN`, and if set `MIXPANEL_REGION` (`us`, `eu` or `in`) and `MIXPANEL_ENDPOINT`
    /// (scheme, host and port), which comes before the region.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if `MIXPANEL_TOKEN` is not set, or one of them is
    /// not valid. An empty text is not valid: what was meant to point elsewhere must not end in the US
    /// region.
    pub fn from_env() -> Result<Self, Error> {
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

    /// Sets the project's token, in place of the one that the builder was made with.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = token.into();
        self
    }

    /// Sets the region that the project's data is kept in; the default is the US. Of this and
    /// [`endpoint`](Self::endpoint) the last one counts.
    pub fn region(self, region: Region) -> Self {
        self.endpoint(region.endpoint())
    }

    /// Sets the service account that imports events into the project of that id, the number in the
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

    /// Sets another host, as scheme, host and port: `"http://127.0.0.1:8080"`. `/groups` and `/import`
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

    /// Sets how many updates or events go into a request at most: from 1 to 2,000, which is Mixpanel's
    /// limit and the default.
    /// ([Groups API, limits](https://developer.mixpanel.com/reference/group-profiles))
    pub fn max_batch(mut self, records: usize) -> Self {
        self.max_batch = records;
        self
    }

    /// Sets how many bytes a request's body has at most, before compression. By default 2,000,000 of
    /// updates, which is below every limit that Mixpanel documents, and 10,000,000 of events. An
    /// update or event that is larger is rejected, and one of more than 1 MB in any case.
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.max_body = Some(bytes);
        self
    }

    /// Sets over how many connections one `send` sends side by side: from 1, the default, to 256.
    ///
    /// Mixpanel advises 10 to 20 for much data
    /// ([Import API](https://developer.mixpanel.com/reference/import-events)). A group's updates always take the same connection,
    /// so their order holds. Each takes a thread while `send` runs, and the memory of four batches
    /// at most.
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// Sets how request bodies are compressed. By default events are, with gzip, and updates are not,
    /// since Mixpanel documents compression for `/import` only
    /// ([Import API](https://developer.mixpanel.com/reference/import-events)).
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = Some(compression);
        self
    }

    /// Sets when a failed request is repeated; by default as Mixpanel advises, up to 6 times within 5
    /// minutes.
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// Sets how long one request may take, from name resolution to the answer's last byte; default 30 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets how long finding the server's address may take, and then connecting to it; default 10 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets whether Mixpanel validates every record and says which are wrong (`strict=1`); default yes. If
    /// not, it accepts a request when at least one of its records is valid, and does not say which
    /// are not.
    pub fn strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// Sets the proxy that requests go through, as `http://host:port` or `socks5://host:port`, with
    /// `user:password@` before the host if it asks for that. By default it is taken from the environment
    /// (`HTTPS_PROXY`, `NO_PROXY`), and never used for this machine itself.
    pub fn proxy(mut self, proxy: impl Into<String>) -> Self {
        self.proxy = ProxySetting::Url(proxy.into());
        self
    }

    /// Uses no proxy, whatever the environment says.
    pub fn no_proxy(mut self) -> Self {
        self.proxy = ProxySetting::None;
        self
    }

    /// Returns the client.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config), with the setting's name and value, if one makes no
    /// sense: an empty token, an endpoint or proxy that is not one, a number outside its range, a time
    /// limit of zero.
    pub fn build(self) -> Result<Client, Error> {
        if self.token.trim().is_empty() {
            return Err(Error::config("the project token is empty"));
        }
        let endpoint = Endpoint::parse(&self.endpoint, self.allow_plain_http)?;
        if let Some(account) = &self.service_account {
            account.check()?;
        }
        in_range("max_batch", self.max_batch, 1..=MAX_RECORDS)?;
        in_range("connections", self.connections, 1..=MAX_CONNECTIONS)?;
        if let Some(bytes) = self.max_body {
            in_range("max_body", bytes, MIN_BODY..=usize::MAX)?;
        }
        for (name, time) in [
            ("timeout", self.timeout),
            ("connect_timeout", self.connect_timeout),
        ] {
            if time.is_zero() {
                return Err(Error::config(format!("invalid {name}: it is zero")));
            }
        }
        self.compression.unwrap_or_default().check()?;
        self.retry.check()?;
        let proxy = self.proxy.resolve(&endpoint)?;
        let http = HttpConfig::new(&endpoint, self.timeout, self.connect_timeout, proxy);
        Ok(self.connect(endpoint, Box::new(move || Arc::new(http.open()))))
    }

    pub(crate) fn connect(self, endpoint: Endpoint, open: Box<OpenConnection>) -> Client {
        Client(Arc::new(Inner {
            groups: self.groups(&endpoint),
            import: self.import(&endpoint),
            endpoint,
            open,
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

/// Shows neither the token nor another secret.
impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("connections", &self.connections)
            .field("compression", &self.compression)
            .field("retry", &self.retry)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
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

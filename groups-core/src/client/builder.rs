use std::fmt;
use std::ops::RangeInclusive;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ureq::Proxy;
#[cfg(feature = "tls")]
use ureq::tls::RootCerts;

use crate::client::batch::opening;
use crate::client::client::{Inner, OpenConnection};
use crate::client::credentials::{self, ServiceAccount};
use crate::client::delivery::Route;
use crate::client::endpoint::Endpoint;
use crate::client::proxy::ProxySetting;
use crate::client::records::{Limits, MAX_RECORDS};
use crate::client::secrets::Secrets;
#[cfg(feature = "tls")]
use crate::client::tls::Roots;
use crate::client::transport::{HttpConfig, HttpOptions};
use crate::client::{Client, Compression, Region, RetryPolicy};
use crate::record::{Error, Event, Update};
use crate::util::sync::{LONGEST_WAIT, Mutex};

/// The most bytes of events in a request, before compression: 10 MB.
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
    #[cfg(feature = "tls")]
    roots: Roots,
    pub(super) is_disabled: bool,
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
            #[cfg(feature = "tls")]
            roots: Roots::Environment,
            is_disabled: false,
        }
    }

    /// Returns a builder with the settings of the environment, to which you can add others: `MIXPANEL_TOKEN`, and optionally
    /// `MIXPANEL_REGION` (`us`, `eu` or `in`) and `MIXPANEL_ENDPOINT` (scheme, host and port). The endpoint overrides the
    /// region.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if `MIXPANEL_TOKEN` is not set, or a variable is invalid. An empty
    /// variable is invalid, so that a forgotten value does not send data to the US region.
    pub fn from_env() -> Result<Self, Error> {
        let token = not_empty("MIXPANEL_TOKEN")?
            .ok_or_else(|| Error::config("the environment variable MIXPANEL_TOKEN is not set"))?;
        let mut builder = Self::new(token);
        if let Some(region) = not_empty("MIXPANEL_REGION")? {
            builder = builder.region(region.trim().parse()?);
        }
        if let Some(endpoint) = not_empty("MIXPANEL_ENDPOINT")? {
            builder = builder.endpoint(endpoint);
        }
        Ok(builder)
    }

    /// Sets the project's token, replacing the builder's first one. White space around it is removed.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = token.into();
        self
    }

    /// Sets the region that stores the project's data; the default is the US. This and [`endpoint`](Self::endpoint) override
    /// each other.
    pub fn region(self, region: Region) -> Self {
        self.endpoint(region.endpoint())
    }

    /// Sets the service account that imports events, and the project's id, which is the number in the project's settings.
    ///
    /// Group updates do not need one. Without one, events are imported with the project's token. White space around the
    /// values is removed. User name and secret consist of visible ASCII characters without quotes.
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

    /// Sets another server, as scheme, host and port: `"http://127.0.0.1:8080"`. The client appends `/groups` and `/import`.
    ///
    /// Plain `http` is accepted only for this machine (see [`allow_plain_http`]). A proxy from the environment is used only
    /// for other machines (see [`proxy`](Self::proxy)).
    ///
    /// [`allow_plain_http`]: Self::allow_plain_http
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoint = endpoint.into();
        self
    }

    /// Sets whether plain `http` is accepted for other machines too; default no. Anyone on the network path can then read
    /// the token and the data.
    pub fn allow_plain_http(mut self, allow: bool) -> Self {
        self.allow_plain_http = allow;
        self
    }

    /// Sets the most updates or events in one request: from 1 to 2,000, which is Mixpanel's limit and the default.
    /// ([Groups API, limits](https://developer.mixpanel.com/reference/group-profiles))
    pub fn max_batch(mut self, records: usize) -> Self {
        self.max_batch = records;
        self
    }

    /// Sets the most bytes of a request's body, before compression; at least 100.
    ///
    /// The default is 2,000,000 for updates, which is below every limit that Mixpanel documents, and 10,000,000 for events.
    /// A single update or event that is larger is rejected, as is one of more than 1,000,000 bytes in any case.
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.max_body = Some(bytes);
        self
    }

    /// Sets the number of parallel connections of one `send`: from 1, the default, to 256.
    ///
    /// Mixpanel recommends 10 to 20 for large amounts of data
    /// ([Import API](https://developer.mixpanel.com/reference/import-events)). A group's updates always use the same
    /// connection, so their order holds. Each connection needs a thread while `send` runs, and the memory of at most four
    /// batches.
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// Sets how request bodies are compressed. By default, events are compressed with gzip and updates are not, because
    /// Mixpanel documents compression only for `/import`
    /// ([Import API](https://developer.mixpanel.com/reference/import-events)).
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = Some(compression);
        self
    }

    /// Sets when a failed request is retried. The default follows Mixpanel's advice: up to 6 retries within 5 minutes.
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// Sets how long one request may take, from name resolution to the last byte of the response; default 30 s. More
    /// than a year counts as a year.
    ///
    /// Through a SOCKS proxy on a line that hardly moves, a request may take longer, by the time that 16 KiB of it take.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets how long opening a connection may take, within the [`timeout`](Self::timeout); default 10 s. This includes name
    /// resolution, the proxy and TLS.
    ///
    /// The name is resolved for each new connection, and the address is kept as long as the connection: until it breaks or
    /// was idle for 15 s. If a name has several addresses, they are tried one after the other. An address without a route
    /// or a listener fails at once; one that does not respond takes about half of the time that is left.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets whether Mixpanel validates every record and reports those that are invalid (`strict=1`); default yes. Without it,
    /// Mixpanel accepts a request that has at least one valid record, and drops the invalid ones without reporting them.
    pub fn strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// Sets the proxy, in place of the environment's: `http://host:port`, with `user:password@` before the host if the proxy
    /// requires it, both percent-encoded. Version 5 of SOCKS needs 1 to 255 bytes of each.
    ///
    /// The scheme is `http`, `https` (with the feature `tls`), `socks5` or `socks4`, or `socks5h` or `socks4a` if the proxy
    /// resolves the endpoint's name. The default port is 80, 443 or 1080. Through a proxy of `http` or `https`, requests take
    /// a tunnel (`CONNECT`), also those to an `http` endpoint, where curl sends them to the proxy itself.
    ///
    /// By default the proxy comes from the environment, read when the client is built, by the rules of
    /// [curl](https://curl.se/docs/manpage.html#ENVIRONMENT). For an `https` endpoint it is the first of `https_proxy`,
    /// `HTTPS_PROXY`, `all_proxy` and `ALL_PROXY` that is not empty, unless `no_proxy` or `NO_PROXY` lists the endpoint's
    /// host. Such a list contains names, which include their subdomains (`mixpanel.com`, `.mixpanel.com`), addresses and
    /// networks (`10.0.0.0/8`), each with or without a port, or `*` for every host. For an endpoint on this machine, the
    /// environment is ignored.
    pub fn proxy(mut self, proxy: impl Into<String>) -> Self {
        self.proxy = ProxySetting::Url(proxy.into());
        self
    }

    /// Connects without a proxy, ignoring the environment.
    pub fn no_proxy(mut self) -> Self {
        self.proxy = ProxySetting::None;
        self
    }

    /// Trusts only the root certificates in this PEM text: those of your company's own authority, or of a proxy that
    /// inspects TLS.
    ///
    /// ```no_run
    /// use mixpanel_groups::Client;
    ///
    /// let pem = std::fs::read("company-ca.pem")?;
    /// let client = Client::builder("PROJECT_TOKEN").root_certificates(pem).build()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// By default the client trusts the certificates in the file that the environment variable `SSL_CERT_FILE` names, as curl
    /// and OpenSSL do, and without that variable Mozilla's list, which is compiled in. `SSL_CERT_DIR` is not read. If a
    /// proxy inspects only some connections, the text or file must contain the public authorities too.
    #[cfg(feature = "tls")]
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.roots = Roots::Pem(pem.into());
        self
    }

    /// Trusts the certificates that the operating system trusts: by its own verifier on Windows and macOS, by its list of
    /// certificates (`/etc/ssl`) on Linux and the like.
    ///
    /// The first connection can be slower, and the result depends on the machine's setup. This and
    /// [`root_certificates`](Self::root_certificates) override each other.
    #[cfg(feature = "platform-verifier")]
    pub fn platform_verifier(mut self) -> Self {
        self.roots = Roots::Platform;
        self
    }

    /// Returns the client.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if a setting is invalid: a token that is empty or contains other
    /// characters than letters, digits, `-` and `_`, an invalid endpoint, proxy or certificate, a number outside its range,
    /// a timeout of zero. The error names the setting and its value, but never the value of a secret.
    pub fn build(mut self) -> Result<Client, Error> {
        let token = credentials::token(&self.token)?.to_owned();
        self.token = token;
        let endpoint = Endpoint::parse(&self.endpoint, self.allow_plain_http)?;
        if let Some(account) = &mut self.service_account {
            *account = account.trimmed()?;
        }
        in_range("max_batch", self.max_batch, 1..=MAX_RECORDS)?;
        in_range("connections", self.connections, 1..=MAX_CONNECTIONS)?;
        if let Some(bytes) = self.max_body {
            in_range("max_body", bytes, MIN_BODY..=usize::MAX)?;
        }
        for (name, time) in [
            ("timeout", &mut self.timeout),
            ("connect_timeout", &mut self.connect_timeout),
        ] {
            if time.is_zero() {
                return Err(Error::config(format!("invalid {name}: it is zero")));
            }
            *time = LONGEST_WAIT.min(*time);
        }
        self.compression.unwrap_or_default().check()?;
        self.retry.check()?;
        let proxy = self.proxy.resolve(&endpoint, variable)?;
        let options = HttpOptions {
            timeout: self.timeout,
            connect_timeout: self.connect_timeout,
            #[cfg(feature = "tls")]
            roots: self.roots(&endpoint, proxy.as_ref())?,
            secrets: self.secrets(proxy.as_ref()),
            proxy,
        };
        let http = HttpConfig::new(&endpoint, options);
        Ok(self.connect(endpoint, Box::new(move || Arc::new(http.open()))))
    }

    pub(crate) fn connect(self, endpoint: Endpoint, open: Box<OpenConnection>) -> Client {
        Client(Arc::new(Inner {
            groups: self.groups(&endpoint),
            import: self.import(&endpoint),
            token: self.token,
            endpoint,
            open,
            connections: self.connections,
            timeout: self.timeout,
            is_disabled: self.is_disabled,
            idle: Mutex::default(),
            process: AtomicU32::default(),
            has_one_core: OnceLock::new(),
        }))
    }

    /// Returns the route of updates.
    fn groups(&self, endpoint: &Endpoint) -> Route {
        let strict = u8::from(self.strict);
        Route {
            url: endpoint.url(&format!("/groups?ip=0&strict={strict}&verbose=1")),
            authorization: None,
            opening: opening(&self.token),
            name: Update::name,
            limits: self.limits(Limits::default().bytes),
            compression: self.compression.unwrap_or_default(),
            retry: self.retry,
        }
    }

    /// Returns the route of events.
    fn import(&self, endpoint: &Endpoint) -> Route {
        let strict = u8::from(self.strict);
        let query = self
            .service_account
            .as_ref()
            .map(|account| format!("&project_id={}", account.project_id))
            .unwrap_or_default();
        let credentials = self.credentials();
        Route {
            url: endpoint.url(&format!("/import?strict={strict}{query}")),
            authorization: Some(format!("Basic {credentials}")),
            opening: b"{".to_vec(),
            name: Event::name,
            limits: self.limits(MAX_IMPORT),
            compression: self.compression.unwrap_or(Compression::OF_EVENTS),
            retry: self.retry,
        }
    }

    /// Returns the Basic authorization of `/import`.
    fn credentials(&self) -> String {
        BASE64_STANDARD.encode(match &self.service_account {
            None => format!("{}:", self.token),
            Some(account) => format!("{}:{}", account.user, account.secret),
        })
    }

    fn secrets(&self, proxy: Option<&Proxy>) -> Secrets {
        let mut secrets = vec![self.token.clone(), self.credentials()];
        secrets.extend(
            self.service_account
                .iter()
                .map(|account| account.secret.clone()),
        );
        if let Some(user) = proxy.and_then(Proxy::username) {
            let password = proxy.and_then(Proxy::password).unwrap_or_default();
            secrets.push(BASE64_STANDARD.encode(format!("{user}:{password}")));
            // Without a password, the user name is the secret.
            let secret = if password.is_empty() { user } else { password };
            secrets.push(secret.to_owned());
        }
        Secrets::new(secrets)
    }

    #[cfg(feature = "tls")]
    fn roots(&self, endpoint: &Endpoint, proxy: Option<&Proxy>) -> Result<RootCerts, Error> {
        let is_used = endpoint.is_https()
            || proxy.is_some_and(|proxy| proxy.protocol() == ureq::ProxyProtocol::Https);
        let variable = |name: &str| if is_used { variable(name) } else { Ok(None) };
        self.roots.resolve(variable)
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

fn not_empty(name: &str) -> Result<Option<String>, Error> {
    match variable(name)? {
        Some(value) if value.trim().is_empty() => Err(Error::config(format!(
            "the environment variable {name} is empty"
        ))),
        value => Ok(value),
    }
}

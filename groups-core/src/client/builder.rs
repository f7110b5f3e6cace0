use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
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
            builder = builder.region(region.trim().parse()?);
        }
        if let Some(endpoint) = variable("MIXPANEL_ENDPOINT")? {
            builder = builder.endpoint(endpoint);
        }
        Ok(builder)
    }

    /// Sets the project's token, in place of the one that the builder was made with. White space
    /// around it is removed.
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
    /// project's token. White space around each is removed; user name and secret have visible ASCII
    /// characters without quotes.
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
    /// the environment is used for other machines only (see [`proxy`](Self::proxy)).
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

    /// Sets how long opening a connection may take, default 10 s: finding the address, connecting, and
    /// what a proxy and TLS take.
    ///
    /// The address is found anew for each connection. It is kept as long as that connection: until it
    /// breaks, or was idle for 15 s. Where a name has several addresses, they are tried one after the
    /// other: one without a route or a listener costs nothing, and one that does not answer about half
    /// of the time that is left.
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

    /// Sets the proxy that requests go through, whatever the environment says: `http://host:port`, with
    /// `user:password@` before the host if it asks for that. The scheme is `http`, `https` (with the
    /// feature `tls`), `socks5` or `socks4`, or `socks5h` or `socks4a` for a proxy that looks up the
    /// endpoint's name itself; without a port it is 80, 443 or 1080.
    ///
    /// By default the proxy is taken from the environment when the client is built, by the rules of
    /// [curl](https://curl.se/docs/manpage.html#ENVIRONMENT): for an `https` endpoint from the first
    /// of `https_proxy`, `HTTPS_PROXY`, `all_proxy` and `ALL_PROXY` that is not empty, unless
    /// `no_proxy` or `NO_PROXY` lists the endpoint's host. Such a list has names, which include all
    /// names below them (`mixpanel.com`, `.mixpanel.com`), addresses and networks (`10.0.0.0/8`), each
    /// with or without a port, or `*` for all. An endpoint on this machine needs no proxy of the
    /// environment.
    pub fn proxy(mut self, proxy: impl Into<String>) -> Self {
        self.proxy = ProxySetting::Url(proxy.into());
        self
    }

    /// Uses no proxy, whatever the environment says.
    pub fn no_proxy(mut self) -> Self {
        self.proxy = ProxySetting::None;
        self
    }

    /// Trusts the certificates of this text in PEM, and no others: those of your company's own
    /// authority, or of a proxy that opens TLS to inspect it.
    ///
    /// ```no_run
    /// # use mixpanel_groups::Client;
    /// let pem = std::fs::read("company-ca.pem")?;
    /// let client = Client::builder("PROJECT_TOKEN").root_certificates(pem).build()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// By default the certificates of the file that the environment variable `SSL_CERT_FILE` names are
    /// trusted, as by curl and OpenSSL, and without it those of Mozilla's list, which is part of the
    /// program. `SSL_CERT_DIR` is not read. Where a proxy opens only some connections, the text or the
    /// file needs the public authorities too.
    #[cfg(feature = "tls")]
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.roots = Roots::Pem(pem.into());
        self
    }

    /// Lets the operating system decide which certificates are trusted: on Windows and macOS its own
    /// verifier, on Linux and the like its list of certificates (`/etc/ssl`).
    ///
    /// It can be slower at the first connection, and depends on how the machine is set up. Of this and
    /// [`root_certificates`](Self::root_certificates) the last one counts.
    #[cfg(feature = "platform-verifier")]
    pub fn platform_verifier(mut self) -> Self {
        self.roots = Roots::Platform;
        self
    }

    /// Returns the client.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config), with the setting's name and value, if one makes no
    /// sense: a token that is empty or has other characters than letters, digits, `-` and `_`, an
    /// endpoint or proxy that is not one, a number outside its range, a time limit of zero. Values of
    /// secrets are not shown.
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
            ("timeout", self.timeout),
            ("connect_timeout", self.connect_timeout),
        ] {
            if time.is_zero() {
                return Err(Error::config(format!("invalid {name}: it is zero")));
            }
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
            endpoint,
            open,
            connections: self.connections,
            timeout: self.timeout,
            is_disabled: self.is_disabled,
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
            limits: self.limits(MAX_IMPORT),
            compression: self.compression.unwrap_or(Compression::OF_EVENTS),
            retry: self.retry,
        }
    }

    /// What `/import` gets as HTTP's Basic authorization.
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
        if let Some(password) = proxy.and_then(Proxy::password) {
            let user = proxy.and_then(Proxy::username).unwrap_or_default();
            secrets.push(BASE64_STANDARD.encode(format!("{user}:{password}")));
            secrets.push(password.to_owned());
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

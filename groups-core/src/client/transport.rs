//! One request and its answer over HTTP.

use std::io::{self, Read as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use ureq::config::Config;
use ureq::{Agent, Body, Proxy, http};

use crate::client::endpoint::Endpoint;
use crate::client::retry::Failure;
use crate::record::{Error, ErrorKind};

/// How much of an answer is kept.
pub(crate) const MAX_ANSWER: u64 = 1 << 20;

/// What the delivery needs of a network: a connection that carries one request at a time.
pub(crate) trait Transport: Send + Sync {
    /// Posts a body and reads the answer, whatever its status.
    fn post(&self, request: Request<'_>) -> Result<Response, TransportError>;

    /// Makes the request that is under way fail now, and each later one.
    fn abort(&self);
}

/// A POST request.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) url: &'a str,
    /// The value of `Authorization`, a secret.
    pub(crate) authorization: Option<&'a str>,
    pub(crate) gzip: bool,
    pub(crate) body: &'a [u8],
}

/// An answer, as far as it is of use.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<Duration>,
    /// At most [`MAX_ANSWER`] bytes.
    pub(crate) body: Vec<u8>,
}

/// There was no whole answer.
#[derive(Debug)]
pub(crate) struct TransportError {
    pub(crate) error: Error,
    /// Whether and how it may be tried again.
    pub(crate) failure: Option<Failure>,
}

/// HTTP/1.1 over a connection that is kept open between requests.
pub(crate) struct Http {
    /// For what errors say.
    endpoint: Endpoint,
    /// With a pool of one connection.
    agent: Agent,
    /// Whether there was an answer already, so that the connection may be a kept one.
    answered: AtomicBool,
}

/// How requests are made.
#[derive(Clone, Debug)]
pub(crate) struct HttpConfig {
    endpoint: Endpoint,
    config: Config,
}

impl HttpConfig {
    pub(crate) fn new(
        endpoint: &Endpoint,
        timeout: Duration,
        connect_timeout: Duration,
        proxy: Option<Proxy>,
    ) -> Self {
        Self {
            endpoint: endpoint.clone(),
            config: Agent::config_builder()
                .http_status_as_error(false)
                // A redirected POST loses its body or goes to a host that nobody named.
                .max_redirects(0)
                .timeout_global(Some(timeout))
                .timeout_resolve(Some(connect_timeout.min(timeout)))
                .timeout_connect(Some(connect_timeout.min(timeout)))
                .max_idle_connections(1)
                .max_idle_connections_per_host(1)
                .user_agent(concat!("mixpanel-groups/", env!("CARGO_PKG_VERSION")))
                .accept("application/json")
                .accept_encoding("identity")
                .proxy(proxy)
                .build(),
        }
    }

    pub(crate) fn open(&self) -> Http {
        Http {
            endpoint: self.endpoint.clone(),
            agent: self.config.new_agent(),
            answered: AtomicBool::new(false),
        }
    }
}

impl Transport for Http {
    fn post(&self, request: Request<'_>) -> Result<Response, TransportError> {
        let mut post = self
            .agent
            .post(request.url)
            .content_type("application/json");
        if let Some(authorization) = request.authorization {
            post = post.header("Authorization", authorization);
        }
        if request.gzip {
            post = post.header("Content-Encoding", "gzip");
        }
        let was_open = self.answered.swap(false, Ordering::Relaxed);
        let response = post
            .send(request.body)
            .map_err(|error| broken(&self.endpoint, error, was_open))?;
        let answer = read(response).map_err(|error| broken(&self.endpoint, error.into(), false))?;
        self.answered.store(true, Ordering::Relaxed);
        Ok(answer)
    }

    fn abort(&self) {
        self.agent.clone().shutdown();
    }
}

/// Sends nothing, and says that all was accepted.
pub(crate) struct NoopTransport;

impl Transport for NoopTransport {
    fn post(&self, _request: Request<'_>) -> Result<Response, TransportError> {
        Ok(Response {
            status: 200,
            retry_after: None,
            body: b"1".to_vec(),
        })
    }

    fn abort(&self) {}
}

/// Reads the answer, and no more of its body than is of use.
pub(crate) fn read(mut response: http::Response<Body>) -> io::Result<Response> {
    let header = response.headers().get("Retry-After");
    let retry_after = header
        .and_then(|value| value.to_str().ok())
        .and_then(|value| parse_retry_after(value, SystemTime::now()));
    let mut body = Vec::new();
    response
        .body_mut()
        .as_reader()
        .take(MAX_ANSWER)
        .read_to_end(&mut body)?;
    Ok(Response {
        status: response.status().as_u16(),
        retry_after,
        body,
    })
}

/// `Retry-After` in seconds or as an HTTP date.
/// ([RFC 9110, 10.2.3](https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3))
fn parse_retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a number holds are as good as for ever.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

/// What a failed exchange means; `was_open` if it went over a kept connection.
fn broken(endpoint: &Endpoint, error: ureq::Error, was_open: bool) -> TransportError {
    use ErrorKind::{Network, Timeout, Tls, UnexpectedAnswer};
    let (kind, failure, message) = match &error {
        ureq::Error::Timeout(_) => (Timeout, Some(Failure::Breakage), "no answer in time"),
        ureq::Error::Io(io) if is_tls(io) => (Tls, None, "no secure connection"),
        ureq::Error::Io(io) if was_open && is_closed(io) => (
            Network,
            Some(Failure::StaleConnection),
            "the connection broke",
        ),
        ureq::Error::Io(_) => (Network, Some(Failure::Breakage), "the connection failed"),
        ureq::Error::HostNotFound => (Network, Some(Failure::Breakage), "the host is not known"),
        ureq::Error::ConnectionFailed | ureq::Error::ConnectProxyFailed(_) => {
            (Network, Some(Failure::Breakage), "the connection failed")
        }
        ureq::Error::Protocol(_) | ureq::Error::LargeResponseHeader(..) => (
            UnexpectedAnswer,
            Some(Failure::Breakage),
            "the response is not HTTP",
        ),
        #[cfg(feature = "tls")]
        ureq::Error::Rustls(_) | ureq::Error::Pem(_) => (Tls, None, "no secure connection"),
        ureq::Error::Tls(_) | ureq::Error::TlsRequired => (Tls, None, "no secure connection"),
        _ => (Network, None, "the request failed"),
    };
    let new = Error::new(kind, format!("{endpoint}: {message}"));
    TransportError {
        error: match error {
            ureq::Error::Io(io) => new.with_source(io),
            other => new.with_source(other),
        },
        failure,
    }
}

fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(
        error.kind(),
        UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe
    )
}

/// What rustls finds wrong arrives as an I/O error of its own kind.
fn is_tls(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData
}

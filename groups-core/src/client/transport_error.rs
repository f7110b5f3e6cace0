//! The meaning of a failed exchange: its message, and whether it is retried.

use std::borrow::Cow;
use std::io;

use crate::client::retry::Failure;
use crate::client::secrets::Secrets;
#[cfg(feature = "tls")]
use crate::client::tls;
use crate::record::{Error, ErrorKind};

/// There was no complete response.
#[derive(Debug)]
pub(crate) struct TransportError {
    pub(crate) error: Error,
    /// Whether and how it may be retried.
    pub(crate) failure: Option<Failure>,
}

impl TransportError {
    /// Converts an error of ureq. `peer` is what the message names; `was_open` is whether the exchange used an idle connection.
    pub(super) fn new(peer: &str, secrets: &Secrets, error: ureq::Error, was_open: bool) -> Self {
        let (kind, failure, message) = meaning(&error, was_open);
        let new = Error::new(kind, format!("{peer}: {message}"));
        let text = error.to_string();
        let error = match (secrets.scrub(text.as_bytes()), error) {
            (Cow::Owned(scrubbed), _) => new.with_source(String::from_utf8_lossy(&scrubbed)),
            (_, ureq::Error::Io(io)) => new.with_source(io),
            (_, other) => new.with_source(other),
        };
        Self { error, failure }
    }
}

fn meaning(error: &ureq::Error, was_open: bool) -> (ErrorKind, Option<Failure>, &'static str) {
    use ErrorKind::{Network, Timeout, Tls, UnexpectedResponse};
    if let Some(problem) = tls_problem(error) {
        return (Tls, None, problem);
    }
    let retried = Some(Failure::Breakage);
    match error {
        ureq::Error::Timeout(_) => (Timeout, retried, "no response in time"),
        ureq::Error::Io(io) if was_open && is_closed(io) => {
            let stale = Some(Failure::StaleConnection);
            (Network, stale, "the connection broke")
        }
        ureq::Error::Io(io) if is_login_refused(io) => (Network, None, REFUSED_BY_PROXY),
        // The last: the response ends within the length of a chunk.
        ureq::Error::Io(_) | ureq::Error::ConnectionFailed | ureq::Error::BodyStalled => {
            (Network, retried, "the connection failed")
        }
        ureq::Error::HostNotFound => (Network, retried, "host not found"),
        // The second one from a proxy that has no other status for it, such as tinyproxy.
        ureq::Error::ConnectProxyFailed(reason)
            if reason.contains("407") || reason.contains("401") =>
        {
            (Network, None, REFUSED_BY_PROXY)
        }
        ureq::Error::ConnectProxyFailed(_) => {
            (Network, retried, "the proxy refused the connection")
        }
        ureq::Error::LargeResponseHeader(..) => (UnexpectedResponse, retried, LARGE_HEAD),
        ureq::Error::Protocol(error) if error.to_string().contains("too many headers") => {
            (UnexpectedResponse, retried, LARGE_HEAD)
        }
        ureq::Error::Protocol(_) => (UnexpectedResponse, retried, "the response is not HTTP"),
        _ => (Network, None, "the request failed"),
    }
}

fn tls_problem(error: &ureq::Error) -> Option<&'static str> {
    match error {
        #[cfg(feature = "tls")]
        ureq::Error::Io(io) => tls::problem(io),
        #[cfg(feature = "tls")]
        ureq::Error::Rustls(_) => Some("no secure connection"),
        ureq::Error::Tls(_) | ureq::Error::TlsRequired => Some("no secure connection"),
        _ => None,
    }
}

const LARGE_HEAD: &str = "the head of the response is too large";

const REFUSED_BY_PROXY: &str = "the proxy requires a valid user name and password";

/// What ureq says where a SOCKS proxy accepts no method of authentication that is offered, or chooses another one.
const NO_METHOD: [&str; 2] = ["no acceptable auth methods", "unknown auth method"];

/// Returns whether an error is ureq's for a SOCKS proxy's refusal. The system's own errors have a number.
pub(super) fn is_login_refused(error: &io::Error) -> bool {
    let is_refusal = match error.kind() {
        io::ErrorKind::PermissionDenied => true,
        io::ErrorKind::Other => NO_METHOD.contains(&&*error.to_string()),
        _ => false,
    };
    is_refusal && error.raw_os_error().is_none()
}

pub(super) fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(
        error.kind(),
        UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe
    )
}

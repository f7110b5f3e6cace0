use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use crate::record::Rejection;
use crate::record::{Report, Undelivered};

/// What went wrong, with what a program needs to go on.
///
/// An error of a `send` carries the [`Report`] so far and every update that was
/// [not delivered](Self::undelivered), in order and ready to be sent again. No error shows a token
/// or a secret.
#[must_use = "an error of `send` holds the updates that were not delivered"]
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    status: Option<u16>,
    retry_after: Option<Duration>,
    source: Option<Box<dyn StdError + Send + Sync>>,
    report: Option<Report>,
    undelivered: Undelivered,
}

/// The kinds of [`Error`], for a program to match on; what to do about each is in
/// [the guide](https://docs.rs/mixpanel-groups/latest/mixpanel_groups/guide/errors/).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting of the client is wrong: nothing was sent.
    Config,
    /// An update or event cannot be sent: it names no group or user, has a value that cannot be JSON,
    /// is too large.
    InvalidUpdate,
    /// Mixpanel does not accept the credentials (401, 403, in Mixpanel's own words).
    Unauthorized,
    /// Mixpanel knows no such address (404): check the endpoint.
    NotFound,
    /// The project exceeded its rate limit (429), also after all retries.
    RateLimited,
    /// The server failed (5xx), also after all retries.
    Server,
    /// There was no answer in time, also after all retries; or an outbox did not reply in time.
    Timeout,
    /// There was no connection, or it broke: name resolution, refused, reset.
    Network,
    /// There was no secure connection: certificates, protocol versions.
    Tls,
    /// The answer is not one that Mixpanel gives, also after all retries: the page of a proxy, firewall
    /// or captive portal, an empty body.
    UnexpectedResponse,
    /// A thread, a file or a database was refused.
    Io,
    /// The file of a snapshot or outbox is damaged, or was written by a newer version of this library.
    Damaged,
    /// Mixpanel refused updates or events: see [`Report::into_result`].
    Rejected,
    /// There is no room for more updates, in a batch or in an outbox.
    Full,
    /// The [`BufferedClient`](crate::BufferedClient) was shut down, its thread has ended, or this process is a fork of the
    /// one in which that thread runs.
    Closed,
    /// The caller asked to stop, or the client was shut down while it was sending.
    Cancelled,
    /// The iterator that the data came from returned an error: see
    /// [`Snapshot::try_sync`](crate::Snapshot::try_sync).
    Source,
}

impl Error {
    /// Returns an error of that kind, for an implementation of [`Outbox`](crate::Outbox) or a tool beside
    /// this library.
    ///
    /// The message is lower case and without a full stop: what is wrong, then the value, then what to
    /// do. The cause belongs into [`with_source`](Self::with_source).
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            status: None,
            retry_after: None,
            source: None,
            report: None,
            undelivered: Undelivered::default(),
        }))
    }

    pub(crate) fn config(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, message)
    }

    pub(crate) fn invalid(rejection: &Rejection) -> Self {
        Self::new(ErrorKind::InvalidUpdate, rejection.reason().to_string())
    }

    pub(crate) fn with_status(mut self, status: u16) -> Self {
        self.0.status = Some(status);
        self
    }

    pub(crate) fn with_retry_after(mut self, retry_after: Option<Duration>) -> Self {
        self.0.retry_after = retry_after;
        self
    }

    /// Adds the cause, which [`source`](std::error::Error::source) returns.
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Adds updates or events that this error gives back.
    pub fn with_undelivered(mut self, undelivered: Undelivered) -> Self {
        self.0.undelivered = undelivered;
        self
    }

    pub(crate) fn with_report(mut self, report: Report) -> Self {
        self.0.report = Some(report);
        self
    }

    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The HTTP status of the answer, if there was one.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.0.status
    }

    /// How long the server asked to wait (`Retry-After`).
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Returns what was sent before the error, for an error of `send` or `import`.
    #[must_use]
    pub fn report(&self) -> Option<&Report> {
        self.0.report.as_ref()
    }

    /// Returns the updates or events that were not delivered, in the caller's order. It is empty for an
    /// error of something else than sending or publishing.
    ///
    /// `client.send(error.undelivered())` sends the updates again, and
    /// `client.import(error.undelivered().events())` the events. One whose answer was lost may have
    /// been applied; applying it again changes nothing.
    #[must_use]
    pub fn undelivered(&self) -> &Undelivered {
        &self.0.undelivered
    }

    /// Takes the undelivered updates and events out of the error.
    #[must_use]
    pub fn into_undelivered(self) -> Undelivered {
        self.0.undelivered
    }

    /// Whether an answer did not come in time.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        self.kind() == ErrorKind::Timeout
    }

    /// Whether the project exceeded its rate limit.
    #[must_use]
    pub fn is_rate_limited(&self) -> bool {
        self.kind() == ErrorKind::RateLimited
    }

    /// Whether Mixpanel did not accept the credentials.
    #[must_use]
    pub fn is_unauthorized(&self) -> bool {
        self.kind() == ErrorKind::Unauthorized
    }

    /// Whether the caller asked to stop.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.kind() == ErrorKind::Cancelled
    }

    /// Whether sending the same again later can succeed without changing anything: a rate limit, a
    /// server that failed, an unexpected answer, a time-out, no connection, a cancellation, no room
    /// to wait.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        use ErrorKind::{
            Cancelled, Full, Network, RateLimited, Server, Timeout, UnexpectedResponse,
        };
        matches!(
            self.kind(),
            RateLimited | Server | UnexpectedResponse | Timeout | Network | Cancelled | Full
        )
    }
}

#[allow(non_upper_case_globals)] // Once a variant.
impl ErrorKind {
    /// The name by which programs were written before.
    #[doc(hidden)]
    pub const UnexpectedAnswer: Self = Self::UnexpectedResponse;
}

/// Returns the report of a delivery, however it ended, and what is undelivered.
pub(crate) fn outcome(result: &Result<Report, Error>) -> (Option<&Report>, &Undelivered) {
    static NOTHING: Undelivered = Undelivered::empty();
    match result {
        Ok(report) => (Some(report), &NOTHING),
        Err(error) => (error.report(), error.undelivered()),
    }
}

/// Writes the message and, if something is undelivered, how much. The cause is in
/// [`source`](std::error::Error::source); the alternate form (`{error:#}`) writes the chain of causes too.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        if !self.0.undelivered.is_empty() {
            write!(f, " ({} undelivered)", self.0.undelivered.len())?;
        }
        if f.alternate() {
            let mut source = self.source();
            while let Some(cause) = source {
                write!(f, ": {cause}")?;
                source = cause.source();
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("message", &self.0.message)
            .field("status", &self.0.status)
            .field("source", &self.0.source)
            .field("report", &self.0.report)
            .field("undelivered", &self.0.undelivered.len())
            .finish_non_exhaustive()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

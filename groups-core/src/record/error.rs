use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use crate::record::EncodedRecord;
use crate::record::Rejection;
use crate::record::{Report, Undelivered};
use crate::util::printable::Message;

/// How many records an error names that cannot be sent, beside the first one.
const MOST_NAMED: usize = 20;

/// An error of this library.
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
    /// A setting of the client is wrong, or its token is of another project than the snapshot: nothing was sent.
    Config,
    /// An update or event cannot be sent: its group or user is missing, a value cannot be JSON, or it is too large.
    InvalidUpdate,
    /// Mixpanel rejected the credentials (401 or 403, with Mixpanel's JSON).
    Unauthorized,
    /// Mixpanel does not know the path (404): check region and endpoint.
    NotFound,
    /// The project exceeded its rate limit (429), also after all retries.
    RateLimited,
    /// The server failed (5xx), also after all retries.
    Server,
    /// No response in time, also after all retries; or an outbox, or the database of a snapshot, did not reply in time.
    Timeout,
    /// The connection could not be opened, or broke: name resolution, refused, reset.
    Network,
    /// The secure connection failed: certificates, protocol versions.
    Tls,
    /// The response is not Mixpanel's, also after all retries: the page of a proxy, firewall or captive portal, or an empty
    /// body.
    UnexpectedResponse,
    /// A thread could not be started, a file or database failed, or a snapshot is in use by another run.
    Io,
    /// The file of a snapshot or outbox is damaged or of another version of this library, or rows that the outbox in
    /// PostgreSQL needs are missing.
    Damaged,
    /// Mixpanel refused updates or events: see [`Report::into_result`].
    Rejected,
    /// A batch or an outbox has no room for more.
    Full,
    /// The [`BufferedClient`](crate::BufferedClient) was shut down, its worker has ended, or this process is a fork of the
    /// one that started it, or that opened the outbox or the snapshot.
    Closed,
    /// The caller cancelled, or the client was shut down while it was sending.
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
    /// do. The cause belongs in [`with_source`](Self::with_source).
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

    /// Adds the records that this error gives back, and those after them. Of these it names the ones that cannot be sent.
    pub(crate) fn with_rest(
        mut self,
        mut undelivered: Vec<EncodedRecord>,
        rest: impl Iterator<Item = Result<EncodedRecord, Self>>,
    ) -> Self {
        let (mut messages, mut more) = (vec![self.0.message], 0);
        for record in rest {
            match record {
                Ok(record) => undelivered.push(record),
                Err(error) => {
                    log::warn!("not queued: {error}");
                    let message = error.to_string();
                    if messages.len() <= MOST_NAMED && !messages.contains(&message) {
                        messages.push(message);
                    } else {
                        more += 1;
                    }
                }
            }
        }
        if more > 0 {
            messages.push(format!("{more} more cannot be sent: the log names them"));
        }
        self.0.message = messages.join("; ");
        self.with_undelivered(undelivered.into_iter().collect())
    }

    pub(crate) fn with_report(mut self, report: Report) -> Self {
        self.0.report = Some(report);
        self
    }

    /// Returns the kind of error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns the HTTP status of the response, if there was one.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.0.status
    }

    /// Returns how long to wait before the next request, if the server sent `Retry-After`.
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
    /// error from anything but sending or publishing.
    ///
    /// `client.send(error.undelivered())` sends the updates again, and
    /// `client.import(error.undelivered())` the events. One whose response was lost may have
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

    /// Returns whether a response, or a reply of an outbox, did not arrive in time.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        self.kind() == ErrorKind::Timeout
    }

    /// Returns whether the project exceeded its rate limit.
    #[must_use]
    pub fn is_rate_limited(&self) -> bool {
        self.kind() == ErrorKind::RateLimited
    }

    /// Returns whether Mixpanel rejected the credentials.
    #[must_use]
    pub fn is_unauthorized(&self) -> bool {
        self.kind() == ErrorKind::Unauthorized
    }

    /// Returns whether the caller cancelled, or the client was shut down while it was sending.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.kind() == ErrorKind::Cancelled
    }

    /// Returns whether sending the same again later can succeed without a change: after a rate limit, a failed server, an
    /// unexpected response, a timeout, a failed connection, a cancellation or a full queue.
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
        write!(f, "{}", Message(&self.0.message))?;
        if !self.0.undelivered.is_empty() {
            write!(f, " ({} undelivered)", self.0.undelivered.len())?;
        }
        if f.alternate() {
            let mut source = self.source();
            while let Some(cause) = source {
                write!(f, ": {}", Message(&cause.to_string()))?;
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

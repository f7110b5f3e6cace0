use std::fmt;

use serde_core::ser::{Serialize, SerializeStruct as _, Serializer};

use crate::record::{Error, ErrorKind, Rejection};

/// The outcome of the updates of one `send`, or of the events of one `import`.
///
/// Each ends in exactly one place: accepted, rejected, made part of another one, or
/// [undelivered](crate::Error::undelivered) in the error. An update with nothing to send is not counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "updates may have been rejected: check `is_all_accepted` or call `into_result`"]
#[non_exhaustive]
pub struct Report {
    /// Records that were in at least one request, each counted once.
    pub sent: usize,
    /// Records that Mixpanel accepted.
    pub accepted: usize,
    /// Records that were rejected, by Mixpanel or before they were sent, in the caller's order.
    pub rejected: Vec<Rejection>,
    /// Updates that became part of another one and share its outcome: see
    /// [`SendOptions::coalesce`](crate::client::SendOptions::coalesce). They are not counted as sent.
    pub coalesced: usize,
    /// Requests, including retries.
    pub requests: usize,
    /// Requests that were retries.
    pub retries: usize,
    /// Bytes of all request bodies, as sent: after compression, if there is any.
    pub bytes: u64,
    /// Records whose requests something before Mixpanel refuses when they are alone in them.
    pub(crate) blocked: Vec<BlockedRecord>,
    /// The delivery was given up since other records were blocked as well.
    pub(crate) is_all_blocked: bool,
    /// The number of the last request of which something was accepted.
    pub(crate) last_accepted: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockedRecord {
    pub(crate) position: usize,
    /// How many requests had been started when the first one with this record was blocked. If anything of a later one was
    /// accepted, not everything was blocked.
    pub(crate) requests_before: usize,
}

impl Report {
    /// Returns whether nothing was rejected.
    #[must_use]
    pub fn is_all_accepted(&self) -> bool {
        self.rejected.is_empty()
    }

    /// Returns an error if something was rejected: it names the first rejection and holds the report.
    ///
    /// ```
    /// use mixpanel_groups::{Client, Error, ErrorKind, Group};
    ///
    /// fn delete(client: &Client, id: &str) -> Result<(), Error> {
    ///     client.send(Group::new("company", id).delete())?.into_result()
    /// }
    /// let error = delete(&Client::disabled(), "").unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Rejected);
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Rejected`] if there is a rejection.
    pub fn into_result(self) -> Result<(), Error> {
        let Some(first) = self.rejected.first() else {
            return Ok(());
        };
        let message = match self.rejected.len() {
            1 => format!("1 record was rejected: {first}"),
            more => format!("{more} records were rejected, the first: {first}"),
        };
        Err(Error::new(ErrorKind::Rejected, message).with_report(self))
    }
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut report = serializer.serialize_struct("Report", 7)?;
        report.serialize_field("sent", &self.sent)?;
        report.serialize_field("accepted", &self.accepted)?;
        report.serialize_field("rejected", &self.rejected)?;
        report.serialize_field("coalesced", &self.coalesced)?;
        report.serialize_field("requests", &self.requests)?;
        report.serialize_field("retries", &self.retries)?;
        report.serialize_field("bytes", &self.bytes)?;
        report.end()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            sent,
            accepted,
            rejected,
            coalesced,
            requests,
            retries,
            bytes,
            blocked: _,
            is_all_blocked: _,
            last_accepted: _,
        } = self;
        let rejected = rejected.len();
        write!(f, "sent {sent}, accepted {accepted}, rejected {rejected}")?;
        if *coalesced > 0 {
            write!(f, ", coalesced {coalesced}")?;
        }
        write!(f, "; requests {requests}, retries {retries}, bytes {bytes}")
    }
}

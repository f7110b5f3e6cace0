use std::fmt;

use crate::Rejection;

/// What became of the updates of one `send`, or of the events of one `import`.
///
/// Each ends in exactly one place: accepted, rejected, folded into another one, or
/// [undelivered](crate::Error::undelivered) in the error. One with nothing to say is no update and
/// is counted nowhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Records that went out in at least one request, each counted once.
    pub sent: usize,
    /// Records that Mixpanel accepted.
    pub accepted: usize,
    /// Records that were refused, by Mixpanel or before they were sent, in the caller's order.
    pub rejected: Vec<Rejection>,
    /// Updates that became part of another one (see [`Sending::fold`](crate::Sending::fold)), whose
    /// fate they share; they are not among the sent ones.
    pub folded: usize,
    /// Requests, repeated ones included.
    pub requests: usize,
    /// Requests that were repeated after a failure.
    pub retries: usize,
    /// Bytes of all request bodies, as they went out (compressed, if they were).
    pub bytes: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            sent,
            accepted,
            rejected,
            folded,
            requests,
            retries,
            bytes,
        } = self;
        let rejected = rejected.len();
        write!(f, "sent {sent}, accepted {accepted}, rejected {rejected}")?;
        if *folded > 0 {
            write!(f, ", folded {folded}")?;
        }
        write!(f, "; requests {requests}, retries {retries}, bytes {bytes}")
    }
}

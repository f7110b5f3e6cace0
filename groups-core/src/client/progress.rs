use std::time::Duration;

/// How far a `send` has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Records that went out in at least one request.
    pub sent: usize,
    /// Records that Mixpanel accepted.
    pub accepted: usize,
    /// Records that were refused, by Mixpanel or before they were sent.
    pub rejected: usize,
    /// Requests that were repeated after a failure.
    pub retries: usize,
    /// Bytes of all request bodies, as they went out.
    pub bytes: u64,
    /// How much longer a request waits before it is repeated, if one does.
    pub backing_off: Option<Duration>,
}

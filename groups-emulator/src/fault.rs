use std::time::Duration;

/// What the emulator does wrong with one request, on purpose.
///
/// Where it says "nothing is applied", the profiles are as if the request had never come.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Answers this status, with a body as Mixpanel gives it. Nothing is applied.
    ///
    /// Here and below, a number that is no status counts as 500, and a status that allows no body,
    /// such as 204, is answered without one.
    Status(u16),
    /// Answers this status with a `Retry-After` header: seconds or an HTTP date, or whatever else
    /// a client should survive. Nothing is applied.
    RetryAfter {
        /// The status, 429 or 503 usually.
        status: u16,
        /// The header's value.
        after: String,
    },
    /// Answers this status and body, as `application/json`. Nothing is applied.
    Answer {
        /// The status.
        status: u16,
        /// The body, which need not be JSON.
        body: String,
    },
    /// Answers 502 with a page of HTML, as a proxy does. Nothing is applied.
    Html,
    /// Closes the connection before the body is read. Nothing is applied.
    CloseBefore,
    /// Applies the request and closes the connection without an answer.
    CloseAfter,
    /// Applies the request and closes the connection in the midst of the answer.
    CloseMidAnswer,
    /// Applies the request at once and answers after this time.
    Delay(Duration),
    /// Refuses the records at these positions, counted from 0, and applies the others.
    Reject(Vec<usize>),
    /// Answers 413 if the request has more records than this, and applies nothing then.
    TooLarge(usize),
}

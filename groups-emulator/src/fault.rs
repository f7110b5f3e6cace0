use std::time::Duration;

use serde_json::Value;
use ureq_proto::http::{HeaderValue, StatusCode};

/// A fault that the emulator injects into one request, by
/// [`fail_next`](crate::Emulator::fail_next), or into every request, by
/// [`fail_always`](crate::Emulator::fail_always).
///
/// If a variant says "nothing is applied", profiles and events stay as they were before the request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Responds with this status. Nothing is applied.
    ///
    /// With 401, 413 and 429 the body is the one that Mixpanel documents, on `/import` another 401 than on
    /// `/groups`. With other statuses it is JSON of the same form, with a message of the emulator.
    ///
    /// In this and the next two variants, a number that is not the status of a final response (200 to 999) counts as 500, and
    /// a status that allows no body, such as 204, comes without one.
    Status(u16),
    /// Responds with this status and a `Retry-After` header. Nothing is applied.
    RetryAfter {
        /// The status, usually 429 or 503.
        status: u16,
        /// The header's value: seconds, an HTTP date, or anything else that a client should survive. What a header cannot have
        /// is left out together with the header: control characters, such as a line break, and more than 32 KiB.
        after: String,
    },
    /// Responds with this status and body, as `application/json`. Nothing is applied.
    Response {
        /// The status.
        status: u16,
        /// The body, which need not be JSON.
        body: String,
    },
    /// Responds 502 with an HTML page, as a proxy does. Nothing is applied.
    Html,
    /// Responds 403 with an HTML page to a request whose body contains this text, as a web application
    /// firewall does that blocks one record. Nothing of that request is applied. Other requests are
    /// processed as usual. The body is that of
    /// [`ReceivedRequest::body`](crate::ReceivedRequest::body), so a text is written as in JSON.
    ///
    /// [`fail_next`](crate::Emulator::fail_next) uses it up on the next request, also if that does not contain the text.
    Firewall(String),
    /// Closes the connection before it reads the body. Nothing is applied.
    CloseBefore,
    /// Applies the request and closes the connection without a reply.
    CloseAfter,
    /// Applies the request and closes the connection in the middle of the reply.
    CloseMidResponse,
    /// Applies the request at once and replies after this time.
    Delay(Duration),
    /// Reads the whole request, closes the connection without a reply, and applies the request after
    /// this time, or when [`apply_late`](crate::Emulator::apply_late) is called. The client may have
    /// sent the request again by then, and later ones as well. An emulator that is dropped or reset
    /// earlier never applies it.
    ApplyLate(Duration),
    /// Refuses the records at these positions, counted from 0, and applies the others.
    ///
    /// [`fail_next`](crate::Emulator::fail_next) uses it up on the next request, also if that has no record there.
    Reject(Vec<usize>),
    /// Responds 413 if the request has more records than this; nothing is applied then.
    TooLarge(usize),

    // The names by which tests were written before.
    #[doc(hidden)]
    Answer { status: u16, body: String },
    #[doc(hidden)]
    CloseMidAnswer,
}

/// The largest `Retry-After`: a reply's whole head has at most 64 KiB.
const MAX_HEADER: usize = 32 * 1024;

/// Returns the status of a reply. One below 200 is not: it comes before the reply.
pub(crate) fn final_status(status: u16) -> Option<StatusCode> {
    let status = StatusCode::from_u16(status).ok();
    status.filter(|status| !status.is_informational())
}

/// Returns whether a header can have this value.
pub(crate) fn is_header(value: &str) -> bool {
    value.len() <= MAX_HEADER && HeaderValue::from_str(value).is_ok()
}

impl Fault {
    /// The form of each fault in JSON, as `/emulator/fail_next` takes it.
    pub(crate) const FORMS: [&str; 12] = [
        r#"{"status": 503}"#,
        r#"{"retry_after": {"status": 429, "after": "2"}}"#,
        r#"{"response": {"status": 200, "body": "0"}}"#,
        r#""html""#,
        r#"{"firewall": "text"}"#,
        r#""close_before""#,
        r#""close_after""#,
        r#""close_mid_response""#,
        r#"{"delay_ms": 5000}"#,
        r#"{"apply_late_ms": 5000}"#,
        r#"{"reject": [0, 2]}"#,
        r#"{"too_large": 10}"#,
    ];

    /// Returns the fault that has one of these forms: its name, with its value in an object.
    pub(crate) fn from_json(json: &Value) -> Option<Self> {
        let (name, value) = match json {
            Value::String(name) => (name, &Value::Null),
            Value::Object(members) if members.len() == 1 => members.iter().next()?,
            _ => return None,
        };
        let status = |value: &Value| {
            let status = u16::try_from(value.as_u64()?).ok();
            status.filter(|status| final_status(*status).is_some())
        };
        let number = |value: &Value| usize::try_from(value.as_u64()?).ok();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let time = || value.as_u64().map(Duration::from_millis);
        Some(match name.as_str() {
            "status" => Self::Status(status(value)?),
            "retry_after" => Self::RetryAfter {
                status: status(&value["status"])?,
                after: text(&value["after"]).filter(|after| is_header(after))?,
            },
            "response" => Self::Response {
                status: status(&value["status"])?,
                body: text(&value["body"])?,
            },
            "html" if value.is_null() => Self::Html,
            "firewall" => Self::Firewall(text(value)?),
            "close_before" if value.is_null() => Self::CloseBefore,
            "close_after" if value.is_null() => Self::CloseAfter,
            "close_mid_response" if value.is_null() => Self::CloseMidResponse,
            "delay_ms" => Self::Delay(time()?),
            "apply_late_ms" => Self::ApplyLate(time()?),
            "reject" => Self::Reject(
                value
                    .as_array()?
                    .iter()
                    .map(number)
                    .collect::<Option<_>>()?,
            ),
            "too_large" => Self::TooLarge(number(value)?),
            _ => return None,
        })
    }

    /// Returns the same fault by its present name.
    pub(crate) fn by_present_name(self) -> Self {
        match self {
            Self::Answer { status, body } => Self::Response { status, body },
            Self::CloseMidAnswer => Self::CloseMidResponse,
            fault => fault,
        }
    }
}

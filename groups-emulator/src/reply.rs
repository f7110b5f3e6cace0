//! Replies, in the forms that Mixpanel's documentation shows.
//!
//! Documented for `/groups`: the bare `1` and `0`, the verbose form, 401 and 403. Documented for
//! `/import` and inferred for `/groups`: the strict form with `failed_records`, 413 and 429. A 401 has
//! another form on each path, as documented: `{"error", "status": "error"}` for updates, and
//! `{"code", "error": "Invalid credentials", "status": "Unauthorized"}` for events. Guesses, where the
//! documentation is silent:
//!
//! - `strict` decides the form where `verbose` is set too.
//! - The verbose `error` is null as soon as one record is valid.
//! - Without `strict`, `/import` replies as if all records were valid, with the number of those that
//!   are. With `verbose`, it replies as `/groups` does, which the SDK for Python reads, and with that number,
//!   which the one for Go reads.
//! - A body that cannot be decoded gets a 400, with or without `strict`. Mixpanel documents that for
//!   `/import`; its `0` on `/groups` ("no data objects in the body are valid") may be for such a body too.
//! - The `code` of a 404 is 404. Mixpanel's example has 200 there, which is probably a mistake.

use serde_json::{Value, json};
use ureq_proto::http::{Response, StatusCode, header};

use crate::fault::{Fault, final_status, is_header};
use crate::received::DroppedRecord;

const NO_RECORDS: &str = "no data objects in the body";
const HTML: &str = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n\
    <center><h1>502 Bad Gateway</h1></center>\r\n</body>\r\n</html>\r\n";

const FIREWALL: &str = "<html>\r\n<head><title>403 Forbidden</title></head>\r\n<body>\r\n\
    <center><h1>403 Forbidden</h1></center>\r\n<p>The request was blocked by a security rule.</p>\r\n\
    </body>\r\n</html>\r\n";

pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    content_type: &'static str,
    /// Headers beside content type and length.
    extra_headers: Vec<(header::HeaderName, String)>,
    pub(crate) body: String,
    /// Why the request is refused as a whole, for the log.
    pub(crate) error: Option<String>,
}

/// What a request is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Groups,
    Import,
}

impl Endpoint {
    /// Returns the endpoint of a path, which may end in a slash, or `None` for an unknown path.
    pub(crate) fn of(path: &str) -> Option<Self> {
        match path.strip_suffix('/').unwrap_or(path) {
            "/groups" => Some(Self::Groups),
            "/import" => Some(Self::Import),
            _ => None,
        }
    }
}

/// The format that a request asks for: `strict=1`, `verbose=1`.
#[derive(Clone, Copy, Default)]
pub(crate) struct ReplyFormat {
    pub(crate) strict: bool,
    pub(crate) verbose: bool,
}

/// A record that is not valid, as `failed_records` lists it.
pub(crate) struct FailedRecord {
    pub(crate) record: DroppedRecord,
    /// The `$insert_id` of an event.
    pub(crate) insert_id: Option<String>,
}

impl ReplyFormat {
    /// Reads the parameters of a query or a form: the official Python SDK sends `verbose` beside
    /// `data`. The documented values are 0 and 1; any other counts as 0.
    pub(crate) fn read(&mut self, parameters: &[u8]) {
        for (name, value) in form_urlencoded::parse(parameters) {
            match &*name {
                "strict" => self.strict = value == "1",
                "verbose" => self.verbose = value == "1",
                _ => {}
            }
        }
    }
}

impl FailedRecord {
    fn to_json(&self) -> Value {
        let mut json = json!({
            "index": self.record.position,
            "field": self.record.field,
            "message": self.record.message,
        });
        if let Some(insert_id) = &self.insert_id {
            json["$insert_id"] = insert_id.as_str().into();
        }
        json
    }
}

impl Reply {
    fn new(status: StatusCode, content_type: &'static str, body: impl Into<String>) -> Self {
        let has_body = ![StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&status);
        Self {
            status,
            content_type,
            extra_headers: Vec::new(),
            body: if has_body { body.into() } else { String::new() },
            error: None,
        }
    }

    pub(crate) fn json(status: StatusCode, json: String) -> Self {
        Self::new(status, "application/json", json)
    }

    pub(crate) fn html(page: &str) -> Self {
        Self::new(StatusCode::OK, "text/html; charset=utf-8", page)
    }

    /// Returns a reply without a body.
    pub(crate) fn empty() -> Self {
        Self::new(StatusCode::NO_CONTENT, "text/plain", "")
    }

    pub(crate) fn with_header(
        mut self,
        name: header::HeaderName,
        value: impl Into<String>,
    ) -> Self {
        self.extra_headers.push((name, value.into()));
        self
    }

    fn with_error(mut self, error: impl Into<String>) -> Self {
        self.error = Some(error.into());
        self
    }

    /// Returns the reply that refuses a whole request. The documented 401 and 403 have another form
    /// than the other statuses.
    pub(crate) fn error(status: StatusCode, message: &str) -> Self {
        let body = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                json!({"error": message, "status": "error"})
            }
            _ => json!({
                "code": status.as_u16(),
                "error": message,
                "status": reason(status),
            }),
        };
        Self::json(status, body.to_string()).with_error(message)
    }

    /// Returns the 401 of a path. Its message on `/import` is documented, so the reason is for the log
    /// alone.
    pub(crate) fn unauthorized(endpoint: Endpoint, reason: &str) -> Self {
        if endpoint == Endpoint::Groups {
            return Self::error(StatusCode::UNAUTHORIZED, reason);
        }
        let body = json!({"code": 401, "error": "Invalid credentials", "status": "Unauthorized"});
        Self::json(StatusCode::UNAUTHORIZED, body.to_string()).with_error(reason)
    }

    pub(crate) fn not_found(path: &str) -> Self {
        Self::error(StatusCode::NOT_FOUND, "unknown path")
            .with_error(format!("unknown path {path}: expected /groups or /import"))
    }

    pub(crate) fn method_not_allowed(allowed: &str) -> Self {
        Self::error(StatusCode::METHOD_NOT_ALLOWED, "method not allowed")
            .with_header(header::ALLOW, allowed)
    }

    pub(crate) fn too_large(max: usize, unit: &str) -> Self {
        let message = format!("request exceeds max limit of {max} {unit}");
        Self::error(StatusCode::PAYLOAD_TOO_LARGE, &message)
    }

    /// Returns the reply to a request of which `good` records are valid.
    pub(crate) fn to_records(
        endpoint: Endpoint,
        format: ReplyFormat,
        good: usize,
        failed: &[FailedRecord],
    ) -> Self {
        let reply = Self::form(endpoint, format, good, failed);
        if good == 0 && failed.is_empty() {
            return reply.with_error(NO_RECORDS);
        }
        reply
    }

    fn form(endpoint: Endpoint, format: ReplyFormat, good: usize, failed: &[FailedRecord]) -> Self {
        if format.strict || (endpoint == Endpoint::Import && !format.verbose) {
            return Self::counted(endpoint, format, good, failed);
        }
        if !format.verbose {
            let body = if good > 0 { "1" } else { "0" };
            return Self::new(StatusCode::OK, "text/plain", body);
        }
        let error = failed.first().map(|first| first.record.to_string());
        let error = error.unwrap_or_else(|| NO_RECORDS.to_owned());
        let mut body = if good > 0 {
            json!({"status": 1, "error": null})
        } else {
            json!({"status": 0, "error": error})
        };
        if endpoint == Endpoint::Import {
            body["code"] = 200.into();
            body["num_records_imported"] = good.into();
        }
        Self::json(StatusCode::OK, body.to_string())
    }

    fn counted(
        endpoint: Endpoint,
        format: ReplyFormat,
        good: usize,
        failed: &[FailedRecord],
    ) -> Self {
        if !format.strict || (failed.is_empty() && good > 0) {
            let count = match endpoint {
                Endpoint::Groups => "num_good_events",
                Endpoint::Import => "num_records_imported",
            };
            let body = json!({"code": 200, count: good, "status": "OK"});
            return Self::json(StatusCode::OK, body.to_string());
        }
        let error = if failed.is_empty() {
            NO_RECORDS
        } else {
            "some data points in the request failed validation"
        };
        let failed: Vec<Value> = failed.iter().map(FailedRecord::to_json).collect();
        let status = StatusCode::BAD_REQUEST;
        let body = json!({
            "code": status.as_u16(),
            "status": reason(status),
            "error": error,
            "num_records_imported": good,
            "failed_records": failed,
        });
        Self::json(status, body.to_string())
    }

    /// Returns the reply that the fault puts in place of the documented one. Returns `None` for a fault
    /// that leaves the reply as it is. `body` is that of the request, and `max_body` the largest that its
    /// path accepts, in bytes.
    pub(crate) fn of_fault(
        fault: &Fault,
        endpoint: Option<Endpoint>,
        body: &str,
        max_body: usize,
    ) -> Option<Self> {
        let endpoint = endpoint.unwrap_or(Endpoint::Groups);
        let faulty = |status| Self::faulty(status, endpoint, max_body);
        let reply = match fault {
            Fault::RetryAfter { status, after } if is_header(after) => {
                faulty(*status).with_header(header::RETRY_AFTER, after.as_str())
            }
            Fault::Status(status) | Fault::RetryAfter { status, .. } => faulty(*status),
            Fault::Response { status, body } => {
                Self::new(status_or_500(*status), "application/json", body.as_str())
            }
            Fault::Html => Self::new(StatusCode::BAD_GATEWAY, "text/html", HTML),
            Fault::Firewall(text) if body.contains(text) => {
                Self::new(StatusCode::FORBIDDEN, "text/html", FIREWALL)
            }
            _ => return None,
        };
        Some(reply.with_error(format!("a fault of the emulator, as requested: {fault:?}")))
    }

    fn faulty(status: u16, endpoint: Endpoint, max_body: usize) -> Self {
        const MESSAGE: &str = "a fault of the emulator, as requested";
        match status_or_500(status) {
            StatusCode::UNAUTHORIZED => Self::unauthorized(endpoint, MESSAGE),
            StatusCode::PAYLOAD_TOO_LARGE => Self::too_large(max_body, "bytes"),
            StatusCode::TOO_MANY_REQUESTS => Self::error(
                StatusCode::TOO_MANY_REQUESTS,
                "Project exceeded rate limits. Please retry the request with exponential backoff.",
            ),
            other => Self::error(other, MESSAGE),
        }
    }

    pub(crate) fn head(&self) -> Result<Response<()>, ureq_proto::http::Error> {
        let mut head = Response::builder()
            .status(self.status)
            .header(header::CONTENT_TYPE, self.content_type)
            .header(header::CONTENT_LENGTH, self.body.len());
        for (name, value) in &self.extra_headers {
            head = head.header(name, value);
        }
        head.body(())
    }
}

/// Converts a number to a status; one that is not that of a reply becomes 500.
fn status_or_500(status: u16) -> StatusCode {
    final_status(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Returns Mixpanel's name of the status, which for 413 is not that of the current RFC.
fn reason(status: StatusCode) -> &'static str {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => "Request Entity Too Large",
        _ => status.canonical_reason().unwrap_or("Error"),
    }
}

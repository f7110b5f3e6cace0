//! Replies, in the forms that Mixpanel's documentation shows.
//!
//! Documented for `/groups`: the bare `1` and `0`, the verbose form, 401 and 403. Documented for
//! `/import` and inferred for `/groups`: the strict form with `failed_records`, 413 and 429. Two
//! forms of a 401 are documented; this uses `{"error", "status": "error"}` on both paths. Unknown, and
//! chosen here: `strict` decides the form where `verbose` is set too, and without `strict` the verbose
//! `error` is null as soon as one record is valid.

use serde_json::{Value, json};
use ureq_proto::http::{Response, StatusCode, header};

use crate::fault::Fault;

const NO_RECORDS: &str = "no data objects in the body";
const HTML: &str = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n\
    <center><h1>502 Bad Gateway</h1></center>\r\n</body>\r\n</html>\r\n";

pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    content_type: &'static str,
    /// A header beside content type and length.
    extra_header: Option<(header::HeaderName, String)>,
    pub(crate) body: String,
}

/// The format that a request asks for: `strict=1`, `verbose=1`.
#[derive(Clone, Copy, Default)]
pub(crate) struct ReplyFormat {
    pub(crate) strict: bool,
    pub(crate) verbose: bool,
}

/// A record that is not valid, as `failed_records` lists it.
pub(crate) struct FailedRecord {
    pub(crate) index: usize,
    /// The `$insert_id` of an event.
    pub(crate) insert_id: Option<String>,
    pub(crate) field: String,
    pub(crate) message: String,
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
            "index": self.index,
            "field": self.field,
            "message": self.message,
        });
        if let Some(insert_id) = &self.insert_id {
            json["$insert_id"] = insert_id.as_str().into();
        }
        json
    }
}

impl Reply {
    fn new(status: StatusCode, content_type: &'static str, body: impl Into<String>) -> Self {
        let has_body = !status.is_informational()
            && ![StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&status);
        Self {
            status,
            content_type,
            extra_header: None,
            body: if has_body { body.into() } else { String::new() },
        }
    }

    pub(crate) fn json(status: StatusCode, body: &Value) -> Self {
        Self::new(status, "application/json", body.to_string())
    }

    pub(crate) fn html(page: &str) -> Self {
        Self::new(StatusCode::OK, "text/html; charset=utf-8", page)
    }

    fn with_header(mut self, name: header::HeaderName, value: impl Into<String>) -> Self {
        self.extra_header = Some((name, value.into()));
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
        Self::json(status, &body)
    }

    pub(crate) fn not_found() -> Self {
        Self::error(StatusCode::NOT_FOUND, "unknown path")
    }

    pub(crate) fn method_not_allowed(allowed: &str) -> Self {
        Self::error(StatusCode::METHOD_NOT_ALLOWED, "method not allowed")
            .with_header(header::ALLOW, allowed)
    }

    pub(crate) fn too_large(max: usize, unit: &str) -> Self {
        let message = format!("request exceeds max limit of {max} {unit}");
        Self::error(StatusCode::PAYLOAD_TOO_LARGE, &message)
    }

    /// Returns the reply to a request of which `good` records are valid. `count` is the name that the
    /// path's strict form gives to their number.
    pub(crate) fn to_records(
        format: ReplyFormat,
        count: &'static str,
        good: usize,
        failed: &[FailedRecord],
    ) -> Self {
        if format.strict {
            return Self::strict(count, good, failed);
        }
        if !format.verbose {
            let body = if good > 0 { "1" } else { "0" };
            return Self::new(StatusCode::OK, "text/plain", body);
        }
        let error = failed.first().map_or(NO_RECORDS, |first| &first.message);
        let body = if good > 0 {
            json!({"status": 1, "error": null})
        } else {
            json!({"status": 0, "error": error})
        };
        Self::json(StatusCode::OK, &body)
    }

    fn strict(count: &'static str, good: usize, failed: &[FailedRecord]) -> Self {
        if failed.is_empty() && good > 0 {
            let body = json!({"code": 200, count: good, "status": "OK"});
            return Self::json(StatusCode::OK, &body);
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
        Self::json(status, &body)
    }

    /// Returns the reply that the fault puts in place of the documented one. Returns `None` for a fault
    /// that leaves the reply as it is.
    pub(crate) fn of_fault(fault: &Fault) -> Option<Self> {
        Some(match fault {
            Fault::Status(status) => Self::faulty(*status),
            Fault::RetryAfter { status, after } => {
                Self::faulty(*status).with_header(header::RETRY_AFTER, after.as_str())
            }
            Fault::Answer { status, body } => {
                Self::new(status_or_500(*status), "application/json", body.as_str())
            }
            Fault::Html => Self::new(StatusCode::BAD_GATEWAY, "text/html", HTML),
            _ => return None,
        })
    }

    fn faulty(status: u16) -> Self {
        let message = match status {
            429 => {
                "Project exceeded rate limits. Please retry the request with exponential backoff."
            }
            _ => "a fault of the emulator, as requested",
        };
        Self::error(status_or_500(status), message)
    }

    pub(crate) fn head(&self) -> Result<Response<()>, ureq_proto::http::Error> {
        let mut head = Response::builder()
            .status(self.status)
            .header(header::CONTENT_TYPE, self.content_type)
            .header(header::CONTENT_LENGTH, self.body.len());
        if let Some((name, value)) = &self.extra_header {
            head = head.header(name, value);
        }
        head.body(())
    }
}

/// Converts a number to a status; one that is not a status becomes 500.
fn status_or_500(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Returns Mixpanel's name of the status, which for 413 is not that of the current RFC.
fn reason(status: StatusCode) -> &'static str {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => "Request Entity Too Large",
        _ => status.canonical_reason().unwrap_or("Error"),
    }
}

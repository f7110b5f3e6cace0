//! The forms of answer that Mixpanel's documentation shows.

use serde_json::{Value, json};
use ureq_proto::http::{Response, StatusCode, header};

use crate::fault::Fault;
use crate::flags::Flags;

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    content_type: &'static str,
    /// One header more, where there is one.
    header: Option<(header::HeaderName, String)>,
    pub(crate) body: String,
}

/// Why a record is invalid.
pub(crate) struct Failure {
    pub(crate) index: usize,
    /// Of an event.
    pub(crate) insert_id: Option<String>,
    pub(crate) field: String,
    pub(crate) message: String,
}

impl Failure {
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

impl Answer {
    fn new(status: StatusCode, content_type: &'static str, body: impl Into<String>) -> Self {
        let has_body = !status.is_informational()
            && ![StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&status);
        Self {
            status,
            content_type,
            header: None,
            body: if has_body { body.into() } else { String::new() },
        }
    }

    pub(crate) fn json(status: StatusCode, body: &Value) -> Self {
        Self::new(status, "application/json", body.to_string())
    }

    fn with(mut self, name: header::HeaderName, value: impl Into<String>) -> Self {
        self.header = Some((name, value.into()));
        self
    }

    /// What a whole request is refused with. The documented 401 and 403 have another form than the
    /// other statuses.
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

    pub(crate) fn html(page: &str) -> Self {
        Self::new(StatusCode::OK, "text/html; charset=utf-8", page)
    }

    pub(crate) fn not_found() -> Self {
        Self::error(StatusCode::NOT_FOUND, "no such path")
    }

    pub(crate) fn method_not_allowed(allowed: &str) -> Self {
        Self::error(StatusCode::METHOD_NOT_ALLOWED, "no such method").with(header::ALLOW, allowed)
    }

    pub(crate) fn too_large(max: usize, unit: &str) -> Self {
        let message = format!("request exceeds max limit of {max} {unit}");
        Self::error(StatusCode::PAYLOAD_TOO_LARGE, &message)
    }

    /// How a request of `good` valid records is answered; `count` is how their number is called.
    /// Not documented, and chosen here: `strict` decides where `verbose` is on too, and without
    /// `strict` the records that are valid are all that counts, so `error` is null then.
    pub(crate) fn to_records(
        flags: Flags,
        count: &'static str,
        good: usize,
        failed: &[Failure],
    ) -> Self {
        if flags.strict {
            return Self::strict(count, good, failed);
        }
        if !flags.verbose {
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

    fn strict(count: &'static str, good: usize, failed: &[Failure]) -> Self {
        if failed.is_empty() && good > 0 {
            let body = json!({"code": 200, count: good, "status": "OK"});
            return Self::json(StatusCode::OK, &body);
        }
        let error = if failed.is_empty() {
            NO_RECORDS
        } else {
            "some data points in the request failed validation"
        };
        let failed: Vec<Value> = failed.iter().map(Failure::to_json).collect();
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

    /// The answer that the fault gives in place of the documented one.
    pub(crate) fn of_fault(fault: &Fault) -> Option<Self> {
        Some(match fault {
            Fault::Status(code) => Self::faulty(*code),
            Fault::RetryAfter { status, after } => {
                Self::faulty(*status).with(header::RETRY_AFTER, after.as_str())
            }
            Fault::Answer { status, body } => {
                Self::new(code(*status), "application/json", body.as_str())
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
            _ => "a fault of the emulator, as asked for",
        };
        Self::error(code(status), message)
    }

    pub(crate) fn head(&self) -> Result<Response<()>, ureq_proto::http::Error> {
        let mut head = Response::builder()
            .status(self.status)
            .header(header::CONTENT_TYPE, self.content_type)
            .header(header::CONTENT_LENGTH, self.body.len());
        if let Some((name, value)) = &self.header {
            head = head.header(name, value);
        }
        head.body(())
    }
}

const NO_RECORDS: &str = "no data objects in the body";
const HTML: &str = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n\
    <center><h1>502 Bad Gateway</h1></center>\r\n</body>\r\n</html>\r\n";

/// A number that is no status becomes 500.
fn code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Mixpanel's name of the status, which for 413 is not the one of the current RFC.
fn reason(status: StatusCode) -> &'static str {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => "Request Entity Too Large",
        _ => status.canonical_reason().unwrap_or("Error"),
    }
}

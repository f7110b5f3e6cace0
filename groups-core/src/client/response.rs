//! From a status and a body to what became of the records.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::client::retry::Failure;
use crate::record::{Error, ErrorKind};

/// How much of an answer that is not understood an error shows.
const SHOWN: usize = 200;

/// How many bytes of the server's words on one record are kept.
const MAX_WORDS: usize = 500;

/// What the server said of a request.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Every record was accepted.
    Accepted,
    /// The records at these places were not, the others were.
    Partly(BTreeMap<usize, FailedRecord>),
    /// At least one record was not accepted, and the answer does not say which.
    Refused(String),
    /// The request has too many bytes or records.
    TooLarge(String),
    /// The request may be repeated.
    Again(Failure, Error),
    /// Repeating the request leads nowhere.
    Final(Error),
}

/// What is wrong with one record.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct FailedRecord {
    pub(crate) field: Option<String>,
    pub(crate) message: String,
}

/// Reads the answer to a request of that many records.
pub(crate) fn interpret(status: u16, body: &[u8], records: usize) -> Verdict {
    let answer = serde_json::from_slice(body).unwrap_or(Value::Null);
    let error = |kind, message: &str| {
        let said = match answer.get("error").and_then(Value::as_str) {
            Some(error) => excerpt(status, error.as_bytes()),
            None => excerpt(status, body),
        };
        Error::new(kind, format!("{message}: {said}")).with_status(status)
    };
    match status {
        200..300 => accepted(&answer, records)
            .unwrap_or_else(|| Verdict::Final(error(ErrorKind::UnexpectedAnswer, UNEXPECTED))),
        400 => refused(&answer, records)
            .unwrap_or_else(|| Verdict::Final(error(ErrorKind::UnexpectedAnswer, UNEXPECTED))),
        401 | 403 => Verdict::Final(error(
            ErrorKind::Unauthorized,
            "Mixpanel does not accept the credentials",
        )),
        404 => Verdict::Final(error(
            ErrorKind::NotFound,
            "there is no such address; is the endpoint Mixpanel's?",
        )),
        413 => Verdict::TooLarge(reason(&answer)),
        429 => Verdict::Again(
            Failure::Overload,
            error(
                ErrorKind::RateLimited,
                "the project exceeded its rate limit",
            ),
        ),
        502 | 503 => Verdict::Again(
            Failure::Overload,
            error(ErrorKind::Server, "the server is overloaded"),
        ),
        408 => Verdict::Again(
            Failure::Breakage,
            error(
                ErrorKind::Timeout,
                "the server waited too long for the request",
            ),
        ),
        500..600 => Verdict::Again(
            Failure::Breakage,
            error(ErrorKind::Server, "the server failed"),
        ),
        _ => Verdict::Final(error(ErrorKind::UnexpectedAnswer, UNEXPECTED)),
    }
}

const UNEXPECTED: &str = "this is no answer of Mixpanel";

/// An answer of success, which with `verbose` or without `strict` may still say no.
fn accepted(answer: &Value, records: usize) -> Option<Verdict> {
    if let Some(verdict) = listed(answer, records) {
        return Some(verdict);
    }
    let status = match answer {
        Value::Object(_) => answer
            .get("status")
            .or_else(|| answer.get("code"))
            .unwrap_or(answer),
        bare => bare,
    };
    match (status.as_u64(), status.as_str()) {
        (Some(1 | 200), _) => Some(Verdict::Accepted),
        (_, Some(text)) if text.eq_ignore_ascii_case("ok") => Some(Verdict::Accepted),
        (Some(0), _) => Some(Verdict::Refused(reason(answer))),
        _ => None,
    }
}

fn refused(answer: &Value, records: usize) -> Option<Verdict> {
    let says_no = answer.is_object() || *answer == 0;
    listed(answer, records).or_else(|| says_no.then(|| Verdict::Refused(reason(answer))))
}

/// What follows from `failed_records`, if there are any. Where one of them is not in the request,
/// nobody knows which it is.
fn listed(answer: &Value, records: usize) -> Option<Verdict> {
    let failed = answer.get("failed_records")?.as_array()?;
    if failed.is_empty() {
        return None;
    }
    let mut failed_records = BTreeMap::new();
    for record in failed {
        let index = record.get("index").and_then(Value::as_u64);
        let index = index.and_then(|index| usize::try_from(index).ok());
        let Some(index) = index.filter(|index| *index < records) else {
            return Some(Verdict::Refused(reason(answer)));
        };
        let text = |key| record.get(key).and_then(Value::as_str).map(words);
        let field = text("field").filter(|field| !field.is_empty());
        let message = text("message").unwrap_or_else(|| reason(answer));
        failed_records
            .entry(index)
            .or_insert(FailedRecord { field, message });
    }
    Some(Verdict::Partly(failed_records))
}

/// The server's own words.
fn reason(answer: &Value) -> String {
    let error = answer.get("error").and_then(Value::as_str);
    words(error.unwrap_or("the server does not say why"))
}

/// A text of the server, cut where it is too long to be kept for each of many records.
fn words(text: &str) -> String {
    let mut end = text.len().min(MAX_WORDS);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// The beginning of an answer, for a person to see what it was.
fn excerpt(status: u16, body: &[u8]) -> String {
    let start = &body[..body.len().min(4 * SHOWN)];
    let text: String = String::from_utf8_lossy(start).chars().take(SHOWN).collect();
    match text.trim() {
        "" => format!("status {status} with an empty body"),
        text => format!("status {status}, {text:?}"),
    }
}

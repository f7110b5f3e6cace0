//! From the status and body of a response to the verdict on its records.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;

use crate::client::retry::Failure;
use crate::client::transport::{Response, Transport};
use crate::record::{Error, ErrorKind};

/// How many bytes of an unexpected response an error shows.
const SHOWN: usize = 200;

/// How many bytes of it are searched for secrets, so that none is cut in two.
const MAX_SCRUBBED: usize = 64 * SHOWN;

/// How many bytes of the server's message about one record are kept.
const MAX_WORDS: usize = 500;

/// The verdict of a server on a request.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Every record was accepted.
    Accepted,
    /// The records at these positions were rejected, the others accepted.
    Partly(BTreeMap<usize, FailedRecord>),
    /// At least one record was rejected, and the response does not show which.
    Refused(String),
    /// The request has too many bytes or records.
    TooLarge(String),
    /// The request may be retried.
    Again(Failure, Error),
    /// Blocked by something between this machine and Mixpanel, maybe for one record's text. The
    /// request may be retried, and then parts of it.
    Blocked(Error),
    /// A retry would fail as well.
    Final(Error),
}

/// The failure of one record.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct FailedRecord {
    pub(crate) field: Option<String>,
    pub(crate) message: String,
}

/// Interprets the response to a request of that many records, which came over that connection.
pub(crate) fn interpret(
    response: &Response,
    records: usize,
    connection: &dyn Transport,
) -> Verdict {
    let Response { status, body, .. } = response;
    let status = *status;
    let mut json = serde_json::from_slice(body).unwrap_or(Value::Null);
    scrub(&mut json, connection);
    let error = |kind, message: &str| {
        let said = match json.get("error").and_then(Value::as_str) {
            Some(error) => excerpt(status, error.as_bytes()),
            None => excerpt(
                status,
                &connection.scrub(&body[..body.len().min(MAX_SCRUBBED)]),
            ),
        };
        Error::new(kind, format!("{message}: {said}")).with_status(status)
    };
    let verdict = match status {
        200..300 => accepted(&json, records),
        400 => refused(&json, records),
        401 | 403 if is_refusal(&json) => Some(Verdict::Final(error(
            ErrorKind::Unauthorized,
            "Mixpanel rejected the credentials",
        ))),
        404 if is_refusal(&json) => Some(Verdict::Final(error(
            ErrorKind::NotFound,
            "path not found (is the endpoint Mixpanel's?)",
        ))),
        413 => Some(Verdict::TooLarge(reason(&json))),
        429 => Some(Verdict::Again(
            Failure::Overload,
            error(
                ErrorKind::RateLimited,
                "the project exceeded its rate limit",
            ),
        )),
        502 | 503 => Some(Verdict::Again(
            Failure::Overload,
            error(ErrorKind::Server, "the server is overloaded"),
        )),
        408 => Some(Verdict::Again(
            Failure::Breakage,
            error(
                ErrorKind::Timeout,
                "the server timed out waiting for the request",
            ),
        )),
        500..600 => Some(Verdict::Again(
            Failure::Breakage,
            error(ErrorKind::Server, "the server failed"),
        )),
        _ => None,
    };
    verdict.unwrap_or_else(|| {
        let message = match connection.proxy() {
            Some(proxy) => format!("unexpected response through the proxy {proxy}"),
            None => "unexpected response (is there a proxy in between?)".to_owned(),
        };
        let error = error(ErrorKind::UnexpectedResponse, &message);
        match status {
            400..500 => Verdict::Blocked(error),
            _ => Verdict::Again(Failure::Overload, error),
        }
    })
}

/// Removes secrets from the messages in a response, and leaves alone the parts that are interpreted.
fn scrub(json: &mut Value, connection: &dyn Transport) {
    if let Some(error) = json.get_mut("error").filter(|error| !error.is_null())
        && !error.is_string()
    {
        *error = error.to_string().into();
    }
    scrub_texts(json, connection);
}

fn scrub_texts(value: &mut Value, connection: &dyn Transport) {
    match value {
        Value::String(text) => {
            if let Cow::Owned(scrubbed) = connection.scrub(text.as_bytes()) {
                *text = String::from_utf8_lossy(&scrubbed).into_owned();
            }
        }
        Value::Array(items) => items
            .iter_mut()
            .for_each(|item| scrub_texts(item, connection)),
        Value::Object(members) => {
            let texts = members.iter_mut().filter(|(name, _)| *name != "status");
            texts.for_each(|(_, value)| scrub_texts(value, connection));
        }
        _ => {}
    }
}

/// Interprets a response of success, which with `verbose` or without `strict` may still be a refusal. Returns `None` if it
/// is not Mixpanel's.
fn accepted(json: &Value, records: usize) -> Option<Verdict> {
    if let Some(verdict) = listed(json, records) {
        return Some(verdict);
    }
    let status = match json {
        Value::Object(_) => json
            .get("status")
            .or_else(|| json.get("code"))
            .unwrap_or(json),
        bare => bare,
    };
    let says_yes = match (status.as_u64(), status.as_str()) {
        (Some(1 | 200), _) => true,
        (_, Some(text)) if text.eq_ignore_ascii_case("ok") => true,
        (Some(0), _) => false,
        _ => return None,
    };
    let is_refused = !says_yes || json.get("error").is_some_and(|error| !error.is_null());
    match counted(json) {
        _ if is_refused => Some(Verdict::Refused(reason(json))),
        None => Some(Verdict::Accepted),
        Some(count) if count == records => Some(Verdict::Accepted),
        // One record has no halves.
        Some(1..) if records == 1 => None,
        Some(_) => Some(Verdict::Refused(reason(json))),
    }
}

/// Interprets a response of refusal. Returns `None` if it is not Mixpanel's.
fn refused(json: &Value, records: usize) -> Option<Verdict> {
    let says_no = is_refusal(json) || *json == 0;
    listed(json, records).or_else(|| says_no.then(|| Verdict::Refused(reason(json))))
}

/// Returns whether the response has the form of Mixpanel's refusals.
fn is_refusal(json: &Value) -> bool {
    let has = |key| json.get(key).is_some();
    has("error") && (has("status") || has("failed_records"))
}

/// Returns the number of records that the response counts as accepted, if it has a count. It is more than any number of
/// records if the count is not a number, or if there are two that differ.
fn counted(json: &Value) -> Option<usize> {
    let counts = ["num_good_events", "num_records_imported"].map(|name| json.get(name));
    let counts = counts.into_iter().flatten();
    let number = |count: &Value| usize::try_from(count.as_u64()?).ok();
    counts
        .filter(|count| !count.is_null())
        .map(|count| number(count).unwrap_or(usize::MAX))
        .reduce(|one, other| if one == other { one } else { usize::MAX })
}

/// Interprets `failed_records`, if there are any. If one of them is not in the request, or the response does not count
/// exactly the others as accepted, it does not show which records failed.
fn listed(json: &Value, records: usize) -> Option<Verdict> {
    let unknown = || Some(Verdict::Refused(reason(json)));
    let failed = json.get("failed_records").filter(|list| !list.is_null())?;
    let Some(failed) = failed.as_array() else {
        return unknown();
    };
    if failed.is_empty() {
        return None;
    }
    let mut failed_records = BTreeMap::new();
    for record in failed {
        let index = record.get("index").and_then(Value::as_u64);
        let index = index.and_then(|index| usize::try_from(index).ok());
        let Some(index) = index.filter(|index| *index < records) else {
            return unknown();
        };
        let text = |key| record.get(key).and_then(Value::as_str).map(words);
        let field = text("field").filter(|field| !field.is_empty());
        let message = text("message").unwrap_or_else(|| reason(json));
        failed_records
            .entry(index)
            .or_insert(FailedRecord { field, message });
    }
    let accepted = records - failed_records.len();
    if records > 1 && counted(json).is_some_and(|count| count != accepted) {
        return unknown();
    }
    Some(Verdict::Partly(failed_records))
}

/// Returns the server's message.
fn reason(json: &Value) -> String {
    match json.get("error") {
        None | Some(Value::Null) => "the server gave no reason".to_owned(),
        Some(error) => words(error.as_str().unwrap_or_default()),
    }
}

/// Returns a text of the server, truncated if it is too long to be kept for each of many records.
fn words(text: &str) -> String {
    let mut end = text.len().min(MAX_WORDS);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// Returns the beginning of a response, for error messages.
fn excerpt(status: u16, body: &[u8]) -> String {
    let start = &body[..body.len().min(4 * SHOWN)];
    let text: String = String::from_utf8_lossy(start).chars().take(SHOWN).collect();
    match text.trim() {
        "" => format!("status {status} with an empty body"),
        text => format!("status {status}, {text:?}"),
    }
}

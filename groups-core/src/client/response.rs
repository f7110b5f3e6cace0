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
    /// The request has too many bytes or records. With the beginning of the response.
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
    // Some proxies put a byte order mark before what they pass on.
    let text = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    let mut json = serde_json::from_slice(text).unwrap_or(Value::Null);
    scrub(&mut json, connection);
    let said = || match json.get("error").and_then(Value::as_str) {
        Some(error) => excerpt(status, error.as_bytes()),
        None => excerpt(
            status,
            &connection.scrub(&body[..body.len().min(MAX_SCRUBBED)]),
        ),
    };
    let error = |kind, message: &str| {
        Error::new(kind, format!("{message}: {}", said())).with_status(status)
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
        413 => Some(Verdict::TooLarge(said())),
        429 => Some(Verdict::Again(
            Failure::Overload,
            error(
                ErrorKind::RateLimited,
                "the project exceeded its rate limit",
            ),
        )),
        502 | 503 => Some(Verdict::Again(
            Failure::Overload,
            error(ErrorKind::Server, "the server is unavailable"),
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
            // Not only 4xx: some firewalls respond with 200 or a redirect.
            200..500 => Verdict::Blocked(error),
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
    let is_error = |error: &Value| !error.is_null() && error != "";
    let is_refused = !says_yes || json.get("error").is_some_and(is_error);
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
/// exactly the others as accepted, it does not show which records failed. In a request of one record, the only failure is
/// that record's.
fn listed(json: &Value, records: usize) -> Option<Verdict> {
    let unknown = || Some(Verdict::Refused(reason(json)));
    let failed = json.get("failed_records").filter(|list| !list.is_null())?;
    let Some(failed) = failed.as_array() else {
        return unknown();
    };
    if failed.is_empty() {
        return None;
    }
    let is_only = records == 1 && failed.len() == 1;
    let mut failed_records = BTreeMap::new();
    for record in failed {
        let index = record.get("index").and_then(Value::as_u64);
        let index = index.and_then(|index| usize::try_from(index).ok());
        let index = index.filter(|index| *index < records);
        let Some(index) = index.or(is_only.then_some(0)) else {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::client::transport::{Request, TransportError};

    /// A connection that hides the word `secret`.
    struct Connection(Option<&'static str>);

    impl Transport for Connection {
        fn post(&self, _request: Request<'_>) -> Result<Response, TransportError> {
            unreachable!("nothing is sent")
        }

        fn abort(&self) {}

        fn proxy(&self) -> Option<&str> {
            self.0
        }

        fn scrub<'a>(&self, text: &'a [u8]) -> Cow<'a, [u8]> {
            let scrubbed = String::from_utf8_lossy(text).replace("secret", "…");
            Cow::Owned(scrubbed.into_bytes())
        }
    }

    fn verdict(status: u16, body: &[u8], records: usize) -> Verdict {
        let response = Response {
            status,
            retry_after: None,
            body: body.to_vec(),
        };
        interpret(&response, records, &Connection(None))
    }

    /// Returns the verdict in short.
    fn short(status: u16, body: &str, records: usize) -> String {
        match verdict(status, body.as_bytes(), records) {
            Verdict::Accepted => "accepted".to_owned(),
            Verdict::Partly(failed) => {
                let failed = failed
                    .iter()
                    .map(|(index, FailedRecord { field, message })| {
                        format!(" {index} {} {message};", field.as_deref().unwrap_or("-"))
                    });
                format!("partly{}", failed.collect::<String>())
            }
            Verdict::Refused(reason) => format!("refused {reason}"),
            Verdict::TooLarge(reason) => format!("too large {reason}"),
            Verdict::Again(failure, error) => format!("again {failure:?} {:?}", error.kind()),
            Verdict::Blocked(error) => format!("blocked {:?}", error.kind()),
            Verdict::Final(error) => format!("final {:?}", error.kind()),
        }
    }

    const NO_REASON: &str = "refused the server gave no reason";
    const NO_STATUS: &str = "again Overload UnexpectedResponse";
    const BLOCKED: &str = "blocked UnexpectedResponse";

    #[test]
    fn the_status_of_a_response_decides_what_a_failure_is() {
        let refusal = r#"{"error":"no","status":"error"}"#;
        let unknown = "<html>";
        for (status, body, expected) in [
            (401, refusal, "final Unauthorized"),
            (403, refusal, "final Unauthorized"),
            (404, refusal, "final NotFound"),
            // Something in between, which may have read the text of one record.
            (401, unknown, BLOCKED),
            (403, unknown, BLOCKED),
            (404, unknown, BLOCKED),
            (400, unknown, BLOCKED),
            (422, refusal, BLOCKED),
            (499, refusal, BLOCKED),
            (413, unknown, "too large status 413, \"<html>\""),
            (413, "", "too large status 413 with an empty body"),
            (413, refusal, "too large status 413, \"no\""),
            (429, unknown, "again Overload RateLimited"),
            (502, unknown, "again Overload Server"),
            (503, unknown, "again Overload Server"),
            (408, unknown, "again Breakage Timeout"),
            (500, unknown, "again Breakage Server"),
            (504, unknown, "again Breakage Server"),
            (599, unknown, "again Breakage Server"),
            (200, unknown, BLOCKED),
            (204, "", BLOCKED),
            (300, refusal, BLOCKED),
            (302, unknown, BLOCKED),
            (399, "1", BLOCKED),
            (600, refusal, NO_STATUS),
            (199, "1", NO_STATUS),
            (201, "1", "accepted"),
            (299, "1", "accepted"),
        ] {
            assert_eq!(short(status, body, 3), expected, "{status} {body}");
        }
    }

    #[test]
    fn a_response_of_success_may_still_refuse() {
        for (body, expected) in [
            ("1", "accepted"),
            ("200", "accepted"),
            ("0", NO_REASON),
            ("2", BLOCKED),
            ("true", BLOCKED),
            ("{}", BLOCKED),
            ("[]", BLOCKED),
            (r#""Ok""#, "accepted"),
            (r#"{"status":1,"error":null}"#, "accepted"),
            (r#"{"status":"OK"}"#, "accepted"),
            (r#"{"code":200}"#, "accepted"),
            (r#"{"status":"bad"}"#, BLOCKED),
            ("\u{feff}1", "accepted"),
            (r#"{"status":1,"error":""}"#, "accepted"),
            (r#"{"code":200,"status":"OK","error":""}"#, "accepted"),
            (r#"{"status":1,"error":"no"}"#, "refused no"),
            (r#"{"status":0,"error":"no"}"#, "refused no"),
            (r#"{"status":0,"error":null}"#, NO_REASON),
            (r#"{"status":0}"#, NO_REASON),
            (r#"{"status":1,"error":["no"]}"#, r#"refused ["no"]"#),
            // A count that does not fit: some were refused, and it is not known which.
            (r#"{"status":1,"num_good_events":3}"#, "accepted"),
            (r#"{"status":1,"num_good_events":2}"#, NO_REASON),
            (r#"{"status":1,"num_records_imported":4}"#, NO_REASON),
            (r#"{"status":1,"num_good_events":null}"#, "accepted"),
            (r#"{"status":1,"num_good_events":"3"}"#, NO_REASON),
            (
                r#"{"status":1,"num_good_events":3,"num_records_imported":3}"#,
                "accepted",
            ),
            (
                r#"{"status":1,"num_good_events":3,"num_records_imported":2}"#,
                NO_REASON,
            ),
        ] {
            assert_eq!(short(200, body, 3), expected, "{body}");
        }
        // One record has no halves: a count of others is not of this request.
        for (count, expected) in [(0, NO_REASON), (1, "accepted"), (2, BLOCKED)] {
            let body = json!({"status": 1, "num_good_events": count});
            assert_eq!(short(200, &body.to_string(), 1), expected, "{count}");
        }
    }

    #[test]
    fn a_response_of_400_refuses_if_it_is_mixpanels() {
        for (body, expected) in [
            ("0", NO_REASON),
            ("1", BLOCKED),
            (r#"{"error":"no"}"#, BLOCKED),
            (r#"{"status":"Bad Request"}"#, BLOCKED),
            (r#"{"error":"no","status":"Bad Request"}"#, "refused no"),
            (r#"{"error":"no","failed_records":[]}"#, "refused no"),
            (r#"{"error":"no","failed_records":null}"#, "refused no"),
        ] {
            assert_eq!(short(400, body, 3), expected, "{body}");
        }
    }

    #[test]
    fn failed_records_are_believed_if_they_are_in_the_request_and_the_count_fits() {
        for (failed, more, expected) in [
            (json!([{"index": 1}]), "", "partly 1 - no;"),
            (
                json!([{"index": 2, "field": "$set.a", "message": "bad"}, {"index": 0, "field": ""}]),
                "",
                "partly 0 - no; 2 $set.a bad;",
            ),
            // The first one of two counts.
            (
                json!([{"index": 1, "message": "first"}, {"index": 1, "message": "second"}]),
                r#","num_good_events":2"#,
                "partly 1 - first;",
            ),
            (
                json!([{"index": 1}]),
                r#","num_good_events":2"#,
                "partly 1 - no;",
            ),
            (
                json!([{"index": 1}]),
                r#","num_good_events":3"#,
                "refused no",
            ),
            (
                json!([{"index": 1}]),
                r#","num_good_events":1"#,
                "refused no",
            ),
            (json!([{"index": 3}]), "", "refused no"),
            (json!([{"index": 1}, {}]), "", "refused no"),
            (json!({"index": 1}), "", "refused no"),
        ] {
            let body = format!(r#"{{"error":"no","failed_records":{failed}{more}}}"#);
            for status in [200, 400] {
                assert_eq!(short(status, &body, 3), expected, "{body}");
            }
        }
        // One record: whatever is counted, it failed.
        let body = r#"{"error":"no","failed_records":[{"index":0}],"num_good_events":1}"#;
        assert_eq!(short(400, body, 1), "partly 0 - no;");
        // The only failure is the only record's, whatever its index.
        for index in ["", r#""index":"0","#, r#""index":7,"#] {
            let failed = format!(r#"{{{index}"field":"$set.a","message":"why"}}"#);
            for status in [200, 400] {
                let body = format!(r#"{{"error":null,"status":"no","failed_records":[{failed}]}}"#);
                assert_eq!(short(status, &body, 1), "partly 0 $set.a why;", "{body}");
                let body = format!(r#"{{"error":"no","failed_records":[{failed},{failed}]}}"#);
                assert_eq!(short(status, &body, 1), "refused no", "{body}");
            }
        }
    }

    /// Returns the message of the error that a response becomes.
    fn message(status: u16, body: &str, proxy: Option<&'static str>) -> String {
        let body = body.as_bytes().to_vec();
        let response = Response {
            status,
            retry_after: None,
            body,
        };
        match interpret(&response, 3, &Connection(proxy)) {
            Verdict::Again(_, error) | Verdict::Blocked(error) | Verdict::Final(error) => {
                assert_eq!(error.status(), Some(status));
                error.to_string()
            }
            verdict => panic!("{verdict:?}"),
        }
    }

    #[test]
    fn an_error_shows_the_beginning_of_the_response_without_secrets() {
        let unexpected = "unexpected response (is there a proxy in between?)";
        assert_eq!(
            message(204, "", None),
            format!("{unexpected}: status 204 with an empty body")
        );
        assert_eq!(
            message(403, " <secret> ", Some("http://proxy")),
            r#"unexpected response through the proxy http://proxy: status 403, "<…>""#
        );
        assert_eq!(
            message(401, r#"{"error":"secret","status":"error"}"#, None),
            r#"Mixpanel rejected the credentials: status 401, "…""#
        );
        // No secret is shown in part where the response is cut.
        for length in [SHOWN - 3, MAX_SCRUBBED - 8] {
            let long = message(500, &("x".repeat(length) + "secret"), None);
            assert!(!long.contains("sec"), "{long}");
            assert!(long.contains(&"x".repeat(SHOWN - 3)));
            assert!(long.len() < 2 * SHOWN, "{long}");
        }
        let many = message(500, &"é".repeat(SHOWN + 1), None);
        assert_eq!(many.matches('é').count(), SHOWN, "characters, not bytes");
        // What came is read only as far as it is searched for secrets, however long it is.
        let zeros = message(500, &"\0".repeat(2 * MAX_SCRUBBED), None);
        assert_eq!(zeros.matches("\\0").count(), SHOWN);
    }

    #[test]
    fn the_servers_words_about_records_have_no_secrets_and_are_cut_between_characters() {
        let body = json!({
            "error": "a secret",
            "status": "error",
            "failed_records": [{"index": 0, "message": "the secret", "field": "secret"}, {"index": 1}],
        });
        assert_eq!(
            short(400, &body.to_string(), 3),
            "partly 0 … the …; 1 - a …;"
        );
        // The parts that are interpreted stay, even if they look like a secret.
        assert_eq!(short(200, r#"{"status":"secret"}"#, 3), BLOCKED);
        for (text, kept) in [
            ("x".repeat(MAX_WORDS), MAX_WORDS),
            ("x".repeat(MAX_WORDS + 1), MAX_WORDS),
            (format!("x{}", "é".repeat(MAX_WORDS)), MAX_WORDS - 1),
        ] {
            let Verdict::Refused(reason) = verdict(
                400,
                json!({"error": text, "status": 0}).to_string().as_bytes(),
                3,
            ) else {
                panic!("it is a refusal");
            };
            assert_eq!(reason.len(), kept);
            assert!(text.starts_with(&reason));
        }
    }
}

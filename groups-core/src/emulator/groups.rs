//! `POST /groups`: the records of one request.

use serde_json::Value;
use ureq_proto::http::StatusCode;

use super::answer::{Answer, Failure};
use super::fault::Fault;
use super::profiles::Change;
use super::record::{self, MAX_UPDATE};

/// The most updates in one request. (Groups API, Limits)
const MAX_RECORDS: usize = 2_000;

/// What the valid records say, and what is wrong with the others.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) changes: Vec<Change>,
    pub(super) failed: Vec<Failure>,
}

/// Reads a body: a list of records, or a single one. Other JSON has no records.
///
/// How too many records are answered, and records of a token that the project does not have, is
/// not documented: both refuse the whole request.
pub(super) fn read(
    json: &[u8],
    token: Option<&str>,
    fault: Option<&Fault>,
) -> Result<Batch, Answer> {
    let records = match serde_json::from_slice(json) {
        Ok(Value::Array(records)) => records,
        Ok(record @ Value::Object(_)) => vec![record],
        Ok(_) => vec![],
        Err(error) => {
            let message = format!("the body is not JSON: {error}");
            return Err(Answer::error(StatusCode::BAD_REQUEST, &message));
        }
    };
    let max = match fault {
        Some(Fault::TooLarge(max)) => MAX_RECORDS.min(*max),
        _ => MAX_RECORDS,
    };
    if records.len() > max {
        return Err(Answer::too_large(max, "records"));
    }
    if token.is_some_and(|token| records.iter().any(|record| record["$token"] != *token)) {
        let message = "a project token is missing or unknown";
        return Err(Answer::error(StatusCode::UNAUTHORIZED, message));
    }
    // No record of a smaller body can be over the limit.
    let check_size = json.len() > MAX_UPDATE;
    let mut batch = Batch::default();
    for (index, record) in records.into_iter().enumerate() {
        let result = match fault {
            Some(Fault::Reject(positions)) if positions.contains(&index) => {
                record::invalid("", "refused by a fault, as asked for")
            }
            _ => record::read(record, check_size),
        };
        match result {
            Ok(change) => batch.changes.push(change),
            Err((field, message)) => batch.failed.push(Failure {
                index,
                field,
                message,
            }),
        }
    }
    Ok(batch)
}

//! The records of one request, to `/groups` or `/import`.

use std::io::{self, Write};

use serde_json::Value;
use ureq_proto::http::StatusCode;

use crate::answer::{Answer, Failure};
use crate::fault::Fault;

/// The most records in one request. (Groups API and Import API, Limits)
const MAX_RECORDS: usize = 2_000;

/// The most bytes of one record, 1 MB, as JSON without spaces. (Groups API and Import API, Limits)
const MAX_RECORD: usize = 1024 * 1024;

/// The field of a record that is wrong, and why.
pub(crate) type Invalid = (String, String);

pub(crate) fn invalid<T>(field: &str, message: impl Into<String>) -> Result<T, Invalid> {
    Err((field.to_owned(), message.into()))
}

/// What the valid records say, and what is wrong with the others.
pub(crate) struct Batch<T> {
    pub(crate) good: Vec<T>,
    pub(crate) failed: Vec<Failure>,
}

/// The records in a body: a list, or a single one. Other JSON has no records.
pub(crate) fn parse(json: &[u8]) -> Result<Vec<Value>, Answer> {
    match serde_json::from_slice(json) {
        Ok(Value::Array(records)) => Ok(records),
        Ok(record @ Value::Object(_)) => Ok(vec![record]),
        Ok(_) => Ok(vec![]),
        Err(error) => Err(not_json(&error)),
    }
}

/// The records in a body of one a line.
pub(crate) fn parse_lines(json: &[u8]) -> Result<Vec<Value>, Answer> {
    let lines = serde_json::Deserializer::from_slice(json).into_iter();
    lines
        .collect::<Result<_, _>>()
        .map_err(|error| not_json(&error))
}

fn not_json(error: &serde_json::Error) -> Answer {
    let message = format!("the body is not JSON: {error}");
    Answer::error(StatusCode::BAD_REQUEST, &message)
}

/// Reads each record of a body of so many bytes. How too many are answered is not documented: none is taken.
pub(crate) fn read<T>(
    records: Vec<Value>,
    bytes: usize,
    fault: Option<&Fault>,
    read: impl Fn(Value) -> Result<T, Invalid>,
) -> Result<Batch<T>, Answer> {
    let max = match fault {
        Some(Fault::TooLarge(max)) => MAX_RECORDS.min(*max),
        _ => MAX_RECORDS,
    };
    if records.len() > max {
        return Err(Answer::too_large(max, "records"));
    }
    let mut batch = Batch {
        good: Vec::new(),
        failed: Vec::new(),
    };
    for (index, record) in records.into_iter().enumerate() {
        let insert_id = record.pointer("/properties/$insert_id");
        let insert_id = insert_id.and_then(Value::as_str).map(str::to_owned);
        let result = match fault {
            Some(Fault::Reject(positions)) if positions.contains(&index) => {
                invalid("", "refused by a fault, as asked for")
            }
            _ if bytes > MAX_RECORD && is_too_large(&record) => {
                invalid("", format!("the record is larger than {MAX_RECORD} bytes"))
            }
            _ => read(record),
        };
        match result {
            Ok(good) => batch.good.push(good),
            Err((field, message)) => batch.failed.push(Failure {
                index,
                insert_id,
                field,
                message,
            }),
        }
    }
    Ok(batch)
}

/// Whether a record is over 1 MB.
fn is_too_large(record: &Value) -> bool {
    let mut room = Room(MAX_RECORD);
    serde_json::to_writer(&mut room, record).is_err()
}

/// Takes so many bytes and no more.
struct Room(usize);

impl Write for Room {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = self.0.checked_sub(bytes.len());
        self.0 = left.ok_or(io::ErrorKind::WriteZero)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

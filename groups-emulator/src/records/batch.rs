//! The records of one request, to `/groups` or `/import`.

use std::fmt;
use std::io::{self, Write};

use serde_json::{Map, Value};
use ureq_proto::http::StatusCode;

use crate::fault::Fault;
use crate::received::DroppedRecord;
use crate::records::rules::{MAX_LEVELS, MAX_RECORD_BYTES, MAX_RECORDS};
use crate::reply::{FailedRecord, Reply};

/// The field of a record that is not valid, and why.
pub(crate) type InvalidField = (String, String);

pub(crate) fn invalid<T>(field: &str, message: impl Into<String>) -> Result<T, InvalidField> {
    Err((field.to_owned(), message.into()))
}

/// The valid records of a request, read, and the others with the reason.
pub(crate) struct ParsedBatch<T> {
    /// Each with its position in the request.
    pub(crate) good: Vec<(usize, T)>,
    pub(crate) failed: Vec<FailedRecord>,
}

/// Returns the records in a body of JSON: those of an array, or a single one. Other JSON than an object is
/// a record that is not valid.
pub(crate) fn parse(json: &[u8]) -> Result<Vec<Value>, Reply> {
    match serde_json::from_slice(json) {
        Ok(Value::Array(records)) => Ok(records),
        Ok(record) => Ok(vec![record]),
        Err(error) => Err(not_json(error)),
    }
}

/// Returns the records in a body that has one a line. Empty lines are passed over.
pub(crate) fn parse_lines(json: &[u8]) -> Result<Vec<Value>, Reply> {
    let lines = json.split(|byte| *byte == b'\n').enumerate();
    let lines = lines.filter(|(_, line)| !line.trim_ascii().is_empty());
    let read = |(index, line)| {
        serde_json::from_slice(line).map_err(|error| {
            let (number, column) = (index + 1, error.column());
            // Of a line, serde_json says that it is the first one.
            let reason = error.to_string();
            let reason = reason.split(" at line ").next().unwrap_or_default();
            not_json(format_args!("{reason} at line {number} column {column}"))
        })
    };
    lines.map(read).collect()
}

fn not_json(reason: impl fmt::Display) -> Reply {
    let message = format!("the body is not JSON: {reason}");
    Reply::error(StatusCode::BAD_REQUEST, &message)
}

/// Reads each record of a body of `bytes` bytes. What Mixpanel does with too many records is not
/// documented: this refuses the request.
pub(crate) fn read<T>(
    records: Vec<Value>,
    bytes: usize,
    fault: Option<&Fault>,
    read: impl Fn(Map<String, Value>) -> Result<T, InvalidField>,
) -> Result<ParsedBatch<T>, Reply> {
    let max = match fault {
        Some(Fault::TooLarge(max)) => MAX_RECORDS.min(*max),
        _ => MAX_RECORDS,
    };
    if records.len() > max {
        return Err(Reply::too_large(max, "records"));
    }
    let mut batch = ParsedBatch {
        good: Vec::new(),
        failed: Vec::new(),
    };
    for (index, record) in records.into_iter().enumerate() {
        let insert_id = record.pointer("/properties/$insert_id");
        let insert_id = insert_id.and_then(Value::as_str).map(str::to_owned);
        let result = match fault {
            Some(Fault::Reject(positions)) if positions.contains(&index) => {
                invalid("", "refused by a fault of the emulator, as requested")
            }
            _ if bytes > MAX_RECORD_BYTES && is_too_large(&record) => invalid(
                "",
                format!("record is larger than {MAX_RECORD_BYTES} bytes"),
            ),
            _ if is_deeper_than(MAX_LEVELS, &record) => invalid(
                "",
                format!("record is nested in more than {MAX_LEVELS} levels"),
            ),
            _ => match record {
                Value::Object(record) => read(record),
                Value::String(_) => invalid(
                    "",
                    "the record is a text, not an object: is it encoded twice?",
                ),
                _ => invalid("", "the record is not an object"),
            },
        };
        match result {
            Ok(good) => batch.good.push((index, good)),
            Err(reason) => batch.failed.push(FailedRecord {
                insert_id,
                ..failed(index, reason)
            }),
        }
    }
    Ok(batch)
}

/// Returns a record that was valid by itself, and is dropped all the same.
pub(crate) fn failed(position: usize, (field, message): InvalidField) -> FailedRecord {
    FailedRecord {
        record: DroppedRecord {
            position,
            field,
            message,
        },
        insert_id: None,
    }
}

/// Returns whether a record is larger than allowed, written as JSON without spaces.
fn is_too_large(record: &Value) -> bool {
    let mut limit = ByteLimit(MAX_RECORD_BYTES);
    serde_json::to_writer(&mut limit, record).is_err()
}

/// Returns whether objects and lists are nested in more levels. A text has none.
fn is_deeper_than(levels: usize, value: &Value) -> bool {
    match value {
        Value::Array(items) => {
            levels == 0 || items.iter().any(|item| is_deeper_than(levels - 1, item))
        }
        Value::Object(members) => {
            levels == 0
                || members
                    .values()
                    .any(|value| is_deeper_than(levels - 1, value))
        }
        _ => false,
    }
}

/// A sink for so many bytes; writing more is an error.
struct ByteLimit(usize);

impl Write for ByteLimit {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = self.0.checked_sub(bytes.len());
        self.0 = left.ok_or(io::ErrorKind::WriteZero)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

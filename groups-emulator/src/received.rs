use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::ser::{Serialize, SerializeStruct as _, Serializer};
use ureq_proto::http::Request;

use crate::memory::milliseconds_since_1970;

/// A request that the emulator has received, from [`Emulator::requests`](crate::Emulator::requests).
///
/// Query, headers and body contain what the client sent, tokens and secrets included. `Debug` leaves
/// these fields out; `Serialize` writes them, so mind where the output goes.
#[derive(Clone)]
#[non_exhaustive]
pub struct ReceivedRequest {
    /// The number of the request, counted from 0 since the emulator was started.
    pub number: usize,
    /// The method, for instance `POST`. It is empty if what arrived is not HTTP.
    pub method: String,
    /// The path, for instance `/groups`.
    pub path: String,
    /// The query without its question mark, for instance `ip=0&strict=1`.
    pub query: String,
    /// The headers in the order in which they came, with names in lower case.
    pub headers: Vec<(String, String)>,
    /// The JSON in the body, out of gzip, form and base64. If it could not be decoded, this is the body
    /// as it came; if the body was not read, it is empty.
    pub body: String,
    /// The number of the connection that the request came over, counted from 0.
    pub connection: usize,
    /// The status of the reply, or `None` if the connection was closed without one.
    pub status: Option<u16>,
    /// The number of records that were valid and are kept.
    pub accepted: usize,
    /// The records that were not valid, or are dropped for another reason. Mixpanel reports them only
    /// if the request has `strict=1`.
    pub dropped: Vec<DroppedRecord>,
    /// Why the request was refused as a whole, or its connection was closed. `None` if it had records, and
    /// each of them was looked at.
    pub error: Option<String>,
    /// When the request came, in milliseconds since 1970.
    pub(crate) at: u64,
    /// The version of the memory when the request was kept.
    pub(crate) version: u64,
}

/// A record of a request that the emulator did not keep, from [`ReceivedRequest::dropped`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DroppedRecord {
    /// The position of the record in its request, counted from 0.
    pub position: usize,
    /// The field that is the reason, for instance `$group_id`. Empty if it is the record as a whole.
    pub field: String,
    /// The reason.
    pub message: String,
}

impl ReceivedRequest {
    /// Returns the request without its body and what became of it, which are not known yet.
    pub(crate) fn new(number: usize, request: &Request<()>, connection: usize) -> Self {
        let headers = request.headers().iter();
        Self {
            method: request.method().to_string(),
            path: request.uri().path().to_owned(),
            query: request.uri().query().unwrap_or_default().to_owned(),
            headers: headers
                .map(|(name, value)| {
                    let value = String::from_utf8_lossy(value.as_bytes());
                    (name.to_string(), value.into_owned())
                })
                .collect(),
            ..Self::not_http(number, connection)
        }
    }

    /// Returns what stands for bytes that are not an HTTP request.
    pub(crate) fn not_http(number: usize, connection: usize) -> Self {
        Self {
            number,
            method: String::new(),
            path: String::new(),
            query: String::new(),
            headers: Vec::new(),
            body: String::new(),
            connection,
            status: None,
            accepted: 0,
            dropped: Vec::new(),
            error: None,
            at: milliseconds_since_1970(),
            version: 0,
        }
    }

    /// Returns the value of the first header of this name, ignoring case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Returns whether anything went wrong: the request was refused, its connection was closed without a
    /// reply, or one of its records was dropped, also where the reply does not say so.
    #[must_use]
    pub fn is_failed(&self) -> bool {
        self.error.is_some() || !self.dropped.is_empty()
    }

    /// Returns about how many bytes the request takes in memory.
    fn bytes(&self) -> usize {
        let dropped = self.dropped.iter();
        let dropped = dropped.map(|record| 64 + record.field.len() + record.message.len());
        let headers = self.headers.iter();
        let headers = headers.map(|(name, value)| name.len() + value.len());
        let error = self.error.as_ref().map_or(0, String::len);
        let line = self.method.len() + self.path.len() + self.query.len();
        line + headers.sum::<usize>() + self.body.len() + dropped.sum::<usize>() + error
    }
}

impl fmt::Debug for ReceivedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceivedRequest")
            .field("number", &self.number)
            .field("method", &self.method)
            .field("path", &self.path)
            .field("status", &self.status)
            .field("accepted", &self.accepted)
            .field("dropped", &self.dropped)
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

/// Writes a struct of all fields, in the order of their declaration. A header is a pair of name and
/// value. Query, headers and body may contain tokens and secrets.
impl Serialize for ReceivedRequest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut request = serializer.serialize_struct("ReceivedRequest", 11)?;
        request.serialize_field("number", &self.number)?;
        request.serialize_field("method", &self.method)?;
        request.serialize_field("path", &self.path)?;
        request.serialize_field("query", &self.query)?;
        request.serialize_field("headers", &self.headers)?;
        request.serialize_field("body", &self.body)?;
        request.serialize_field("connection", &self.connection)?;
        request.serialize_field("status", &self.status)?;
        request.serialize_field("accepted", &self.accepted)?;
        request.serialize_field("dropped", &self.dropped)?;
        request.serialize_field("error", &self.error)?;
        request.end()
    }
}

/// Writes a struct of all fields, in the order of their declaration.
/// Writes position, field and reason: `record 0: $group_id: not a text`.
impl fmt::Display for DroppedRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record {}: ", self.position)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

impl Serialize for DroppedRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut record = serializer.serialize_struct("DroppedRecord", 3)?;
        record.serialize_field("position", &self.position)?;
        record.serialize_field("field", &self.field)?;
        record.serialize_field("message", &self.message)?;
        record.end()
    }
}

/// The last requests, as many as fit.
#[derive(Default)]
pub(crate) struct RequestLog {
    by_number: BTreeMap<usize, Arc<ReceivedRequest>>,
    /// The number of the next request.
    next: usize,
    /// The bytes of the requests that are kept.
    bytes: usize,
    /// How many there have been, and how many of them failed.
    pub(crate) received: usize,
    pub(crate) failed: usize,
}

impl RequestLog {
    const MAX_REQUESTS: usize = 1_000;
    /// The most bytes of these requests, unless it is one.
    const MAX_BYTES: usize = 16 * 1024 * 1024;

    /// Returns the number of a request that has just arrived.
    pub(crate) fn next_number(&mut self) -> usize {
        self.next += 1;
        self.next - 1
    }

    /// Goes on with the numbers of an earlier log.
    pub(crate) fn continue_after(&mut self, earlier: &Self) {
        self.next = earlier.next;
    }

    pub(crate) fn push(&mut self, request: ReceivedRequest) {
        self.received += 1;
        self.failed += usize::from(request.is_failed());
        self.bytes += request.bytes();
        self.by_number.insert(request.number, Arc::new(request));
        while self.by_number.len() > Self::MAX_REQUESTS
            || (self.bytes > Self::MAX_BYTES && self.by_number.len() > 1)
        {
            let oldest = self.by_number.pop_first();
            self.bytes -= oldest.map_or(0, |(_, oldest)| oldest.bytes());
        }
    }

    /// Returns all requests, shared with the log.
    pub(crate) fn all(&self) -> Vec<Arc<ReceivedRequest>> {
        self.by_number.values().cloned().collect()
    }
}

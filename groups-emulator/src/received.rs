use std::collections::VecDeque;
use std::fmt;

use serde::ser::{Serialize, SerializeStruct as _, Serializer};
use ureq_proto::http::Request;

/// A request that the emulator has received, from [`Emulator::requests`](crate::Emulator::requests).
///
/// Query, headers and body contain what the client sent, tokens and secrets included. `Debug` leaves
/// these fields out; `Serialize` writes them, so mind where the output goes.
#[derive(Clone)]
#[non_exhaustive]
pub struct ReceivedRequest {
    /// The method, for instance `POST`.
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
}

impl ReceivedRequest {
    /// Returns the request without its body and status, which are not known yet.
    pub(crate) fn new(request: &Request<()>, connection: usize) -> Self {
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
            body: String::new(),
            connection,
            status: None,
        }
    }

    /// Returns the value of the first header of this name, ignoring case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

impl fmt::Debug for ReceivedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceivedRequest")
            .field("method", &self.method)
            .field("path", &self.path)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

/// Writes a struct of all fields, in the order of their declaration. A header is a pair of name and
/// value. Query, headers and body may contain tokens and secrets.
impl Serialize for ReceivedRequest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut request = serializer.serialize_struct("ReceivedRequest", 7)?;
        request.serialize_field("method", &self.method)?;
        request.serialize_field("path", &self.path)?;
        request.serialize_field("query", &self.query)?;
        request.serialize_field("headers", &self.headers)?;
        request.serialize_field("body", &self.body)?;
        request.serialize_field("connection", &self.connection)?;
        request.serialize_field("status", &self.status)?;
        request.end()
    }
}

/// The last requests, as many as fit.
#[derive(Default)]
pub(crate) struct RequestLog {
    requests: VecDeque<ReceivedRequest>,
    /// The bytes of their bodies.
    bytes: usize,
}

impl RequestLog {
    const MAX_REQUESTS: usize = 1_000;
    const MAX_BYTES: usize = 16 * 1024 * 1024;

    pub(crate) fn push(&mut self, request: ReceivedRequest) {
        self.bytes += request.body.len();
        self.requests.push_back(request);
        while self.requests.len() > Self::MAX_REQUESTS || self.bytes > Self::MAX_BYTES {
            let oldest = self.requests.pop_front();
            self.bytes -= oldest.map_or(0, |oldest| oldest.body.len());
        }
    }

    pub(crate) fn all(&self) -> Vec<ReceivedRequest> {
        self.requests.iter().cloned().collect()
    }
}

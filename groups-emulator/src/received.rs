use std::collections::VecDeque;
use std::fmt;

use ureq_proto::http::Request;

/// A request that the emulator has received.
///
/// `Debug` leaves out query, headers and body, where tokens are.
#[derive(Clone)]
#[non_exhaustive]
pub struct ReceivedRequest {
    /// The method: `POST`.
    pub method: String,
    /// The path: `/groups`.
    pub path: String,
    /// What stands behind the path's question mark: `ip=0&strict=1`.
    pub query: String,
    /// The headers, their names in lower case.
    pub headers: Vec<(String, String)>,
    /// The JSON, freed of gzip, form and base64. If that failed, the body as it came; nothing if it
    /// was not read.
    pub body: String,
    /// Which of the emulator's connections it came over, counted from 0.
    pub connection: usize,
    /// The answer's status, if there was an answer.
    pub status: Option<u16>,
}

impl ReceivedRequest {
    /// A request whose body is not read yet.
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

    /// The first header of this name, which is in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(other, _)| other == name);
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

/// The last requests, as many as fit.
#[derive(Default)]
pub(crate) struct Log {
    requests: VecDeque<ReceivedRequest>,
    /// Of their bodies together.
    bytes: usize,
}

impl Log {
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

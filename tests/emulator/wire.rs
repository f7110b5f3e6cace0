//! What the tests send and receive with.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use mixpanel_groups_emulator::Emulator;
use serde_json::{Value, json};

/// Long enough for any response; reached only where a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) retry_after: Option<String>,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.content_type, "application/json", "{self:?}");
        serde_json::from_str(&self.body).unwrap()
    }
}

/// A client with its own keep-alive connection.
pub(crate) struct Sender {
    agent: ureq::Agent,
    endpoint: String,
}

impl Sender {
    pub(crate) fn new(emulator: &Emulator) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .proxy(None)
            .build();
        Self {
            agent: config.into(),
            endpoint: emulator.endpoint(),
        }
    }

    pub(crate) fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response, ureq::Error> {
        let mut request = self.agent.post(format!("{}{path}", self.endpoint));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Self::read(request.send(body)?)
    }

    pub(crate) fn get(&self, path: &str) -> Response {
        let request = self.agent.get(format!("{}{path}", self.endpoint));
        Self::read(request.call().unwrap()).unwrap()
    }

    fn read(mut response: ureq::http::Response<ureq::Body>) -> Result<Response, ureq::Error> {
        let text = |name| {
            let value = response.headers().get(name)?;
            Some(value.to_str().unwrap().to_owned())
        };
        Ok(Response {
            status: response.status().as_u16(),
            content_type: text("content-type").unwrap_or_default(),
            retry_after: text("retry-after"),
            body: response.body_mut().read_to_string()?,
        })
    }

    /// Posts JSON to `/groups` with this query.
    pub(crate) fn send(&self, query: &str, body: &Value) -> Response {
        let path = format!("/groups?{query}");
        self.post(&path, &JSON, body.to_string().as_bytes())
            .unwrap()
    }
}

/// Sends bytes as they are, and returns what comes until the emulator closes the connection.
pub(crate) fn raw(emulator: &Emulator, bytes: &[u8]) -> String {
    let mut stream = connect(emulator);
    stream.write_all(bytes).unwrap();
    let mut response = Vec::new();
    // A connection that is reset ends the response as well.
    let _ = stream.read_to_end(&mut response);
    String::from_utf8(response).unwrap()
}

pub(crate) fn connect(emulator: &Emulator) -> TcpStream {
    let address = emulator.endpoint();
    let stream = TcpStream::connect(address.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// One response whose end its `content-length` tells.
pub(crate) fn read_response(stream: &mut TcpStream) -> String {
    let mut response = String::new();
    let mut byte = [0];
    let mut read = |response: &mut String| {
        stream.read_exact(&mut byte).unwrap();
        response.push(byte[0].into());
    };
    while !response.ends_with("\r\n\r\n") {
        read(&mut response);
    }
    let (_, length) = response.split_once("content-length: ").unwrap();
    let length = length.split_once("\r\n").unwrap().0.parse().unwrap();
    (0..length).for_each(|_: usize| read(&mut response));
    response
}

/// An update of the group `company` of this id.
pub(crate) fn update(id: &str, operation: &str, value: Value) -> Value {
    json!({"$token": "TOKEN", "$group_key": "company", "$group_id": id, operation: value})
}

//! What the tests send and receive with.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use mixpanel_groups_emulator::Emulator;
use serde_json::{Value, json};

/// Long enough for any answer; reached only where a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) retry_after: Option<String>,
    pub(crate) body: String,
}

impl Answer {
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
    ) -> Result<Answer, ureq::Error> {
        let mut request = self.agent.post(format!("{}{path}", self.endpoint));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut response = request.send(body)?;
        let text = |name| {
            let value = response.headers().get(name)?;
            Some(value.to_str().unwrap().to_owned())
        };
        Ok(Answer {
            status: response.status().as_u16(),
            content_type: text("content-type").unwrap_or_default(),
            retry_after: text("retry-after"),
            body: response.body_mut().read_to_string()?,
        })
    }

    /// Posts JSON to `/groups` with this query.
    pub(crate) fn send(&self, query: &str, body: &Value) -> Answer {
        let path = format!("/groups?{query}");
        self.post(&path, &JSON, body.to_string().as_bytes())
            .unwrap()
    }
}

/// Sends bytes as they are, and returns what comes until the emulator closes the connection.
pub(crate) fn raw(emulator: &Emulator, bytes: &[u8]) -> String {
    let mut stream = connect(emulator);
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    // A connection that is reset ends the answer as well.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

pub(crate) fn connect(emulator: &Emulator) -> TcpStream {
    let address = emulator.endpoint();
    let stream = TcpStream::connect(address.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// One answer whose end its `content-length` tells.
pub(crate) fn read_answer(stream: &mut TcpStream) -> String {
    let mut answer = String::new();
    let mut byte = [0];
    let mut read = |answer: &mut String| {
        stream.read_exact(&mut byte).unwrap();
        answer.push(byte[0].into());
    };
    while !answer.ends_with("\r\n\r\n") {
        read(&mut answer);
    }
    let (_, length) = answer.split_once("content-length: ").unwrap();
    let length = length.split_once("\r\n").unwrap().0.parse().unwrap();
    (0..length).for_each(|_: usize| read(&mut answer));
    answer
}

/// An update of the group `company` of this id.
pub(crate) fn update(id: &str, operation: &str, value: Value) -> Value {
    json!({"$token": "TOKEN", "$group_key": "company", "$group_id": id, operation: value})
}

//! How the emulator answers a request.

use std::borrow::Cow;
use std::io;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use ureq_proto::http::{Method, Request, StatusCode};

use crate::answer::Answer;
use crate::connection::{Connection, Unread};
use crate::fault::Fault;
use crate::flags::Flags;
use crate::memory::Memory;
use crate::received::ReceivedRequest;
use crate::server::Life;
use crate::settings::Settings;
use crate::{auth, batch, body, event, update, view};

pub(crate) struct Service {
    settings: Settings,
    pub(crate) memory: Mutex<Memory>,
    /// How many connections there have been.
    connections: AtomicUsize,
}

impl Service {
    pub(crate) fn new(settings: Settings, memory: Memory) -> Self {
        Self {
            settings,
            memory: Mutex::new(memory),
            connections: AtomicUsize::new(0),
        }
    }

    pub(crate) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers the requests of one connection.
    pub(crate) fn serve(&self, stream: &TcpStream, life: &Life) -> io::Result<()> {
        let number = self.connections.fetch_add(1, Ordering::Relaxed);
        let mut connection = Connection::new(stream)?;
        while let Some((request, unread)) = connection.head()? {
            // A page that looks on is no client: it is neither kept nor gets a fault.
            let stays_open = if view::is_for(&request) {
                let max = self.max_body(&request);
                let (_, pending) = connection.body(request.headers(), unread, max)?;
                connection.answer(pending, &view::answer(&request, &self.memory()))?
            } else {
                let received = ReceivedRequest::new(&request, number);
                self.serve_one(&mut connection, &request, unread, received, life)?
            };
            if !stays_open {
                break;
            }
        }
        Ok(())
    }

    /// Answers a request, as its fault says; whether the connection stays open.
    fn serve_one(
        &self,
        connection: &mut Connection<'_>,
        request: &Request<()>,
        unread: Unread,
        mut received: ReceivedRequest,
        life: &Life,
    ) -> io::Result<bool> {
        let fault = self.memory().next_fault();
        if fault == Some(Fault::CloseBefore) {
            self.memory().log.push(received);
            return Ok(false);
        }
        let max = self.max_body(request);
        let (body, pending) = connection.body(request.headers(), unread, max)?;
        let (json, answer) = self.answer(request, body.as_deref(), fault.as_ref());
        received.body = json;
        if fault != Some(Fault::CloseAfter) {
            received.status = Some(answer.status.as_u16());
        }
        self.memory().log.push(received);
        match fault {
            Some(Fault::CloseAfter) => Ok(false),
            Some(Fault::CloseMidAnswer) => connection.answer_half(pending, &answer).map(|()| false),
            Some(Fault::Delay(time)) if life.pause(time) => Ok(false),
            _ => connection.answer(pending, &answer),
        }
    }

    fn max_body(&self, request: &Request<()>) -> usize {
        self.settings.max_body(request.uri().path())
    }

    /// The JSON in the request's body, and the answer to it, once it is applied. No body is one
    /// that is too large.
    fn answer(
        &self,
        request: &Request<()>,
        body: Option<&[u8]>,
        fault: Option<&Fault>,
    ) -> (String, Answer) {
        let max = self.max_body(request);
        let query = request.uri().query().unwrap_or_default().as_bytes();
        let mut flags = Flags::default();
        flags.read(query);
        let json = match body {
            None => Err(Answer::too_large(max, "bytes")),
            Some(_) if request.method() == Method::GET => body::decode_form(query),
            Some(body) => body::decode(request.headers(), body, max, &mut flags),
        };
        let text = json.as_deref().unwrap_or(body.unwrap_or_default());
        let text = String::from_utf8_lossy(text).into_owned();
        let answer = match fault.and_then(Answer::of_fault) {
            Some(answer) => answer,
            None => self
                .apply(request, json, flags, fault)
                .unwrap_or_else(|refused| refused),
        };
        (text, answer)
    }

    fn apply(
        &self,
        request: &Request<()>,
        json: Result<Cow<'_, [u8]>, Answer>,
        flags: Flags,
        fault: Option<&Fault>,
    ) -> Result<Answer, Answer> {
        match (request.uri().path(), request.method()) {
            // The reference page knows `POST` alone, but the official SDK for Node sends each
            // update as `GET` with `data` in the query, so Mixpanel must take it.
            ("/groups", &Method::GET | &Method::POST) => self.update_groups(&json?, flags, fault),
            ("/groups", _) => Err(Answer::method_not_allowed("GET, POST")),
            ("/import", &Method::POST) => {
                auth::check(request, &self.settings)?;
                self.import(&json?, body::is_ndjson(request.headers()), flags, fault)
            }
            ("/import", _) => Err(Answer::method_not_allowed("POST")),
            _ => Err(Answer::not_found()),
        }
    }

    /// `/groups`. How records of a token that the project does not have are answered is not
    /// documented: none is taken.
    fn update_groups(
        &self,
        json: &[u8],
        flags: Flags,
        fault: Option<&Fault>,
    ) -> Result<Answer, Answer> {
        let records = batch::parse(json)?;
        let is_foreign = |token: &String| records.iter().any(|record| record["$token"] != **token);
        if self.settings.token.as_ref().is_some_and(is_foreign) {
            let message = "a project token is missing or unknown";
            return Err(Answer::error(StatusCode::UNAUTHORIZED, message));
        }
        let batch = batch::read(records, json.len(), fault, update::read)?;
        let good = batch.good.len();
        self.remember(batch.good, |memory, change| {
            memory.profiles.apply(change, now());
        });
        let failed = &batch.failed;
        Ok(Answer::to_records(flags, "num_good_events", good, failed))
    }

    /// `POST /import`.
    fn import(
        &self,
        json: &[u8],
        is_ndjson: bool,
        flags: Flags,
        fault: Option<&Fault>,
    ) -> Result<Answer, Answer> {
        let parse = if is_ndjson {
            batch::parse_lines
        } else {
            batch::parse
        };
        let batch = batch::read(parse(json)?, json.len(), fault, event::read)?;
        let good = batch.good.len();
        self.remember(batch.good, |memory, event| memory.events.push(event));
        let (count, failed) = ("num_records_imported", &batch.failed);
        Ok(Answer::to_records(flags, count, good, failed))
    }

    fn remember<T>(&self, records: Vec<T>, remember: impl Fn(&mut Memory, T)) {
        let mut memory = self.memory();
        for record in records {
            remember(&mut memory, record);
        }
        memory.version += 1;
    }
}

/// In milliseconds since 1970.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

//! What the emulator remembers, and how it answers a request.

use std::collections::VecDeque;
use std::io;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use ureq_proto::http::{Method, Request, StatusCode};

use super::answer::{Answer, Flags};
use super::batch::{self, Batch};
use super::connection::Connection;
use super::events::Events;
use super::fault::Fault;
use super::log::{Log, Received};
use super::profiles::{Change, Profiles};
use super::server::Life;
use super::{auth, body, event, update, view};

#[derive(Default)]
pub(super) struct Settings {
    pub(super) token: Option<String>,
    /// User name, secret and project id.
    pub(super) service_account: Option<[String; 3]>,
    pub(super) max_body: Option<usize>,
}

impl Settings {
    /// The largest body of a request to this path, as Mixpanel has it.
    fn max_body(&self, path: &str) -> usize {
        const MIB: usize = 1024 * 1024;
        let documented = if path == "/import" { 10 * MIB } else { 2 * MIB };
        self.max_body.unwrap_or(documented)
    }
}

pub(super) struct Service {
    settings: Settings,
    pub(super) memory: Mutex<Memory>,
    /// How many connections there have been.
    connections: AtomicUsize,
}

#[derive(Default)]
pub(super) struct Memory {
    pub(super) profiles: Profiles,
    pub(super) events: Events,
    /// Another one after each change of the above.
    pub(super) version: u64,
    pub(super) log: Log,
    /// What goes wrong with the next requests, one each.
    pub(super) faults: VecDeque<Fault>,
    /// What goes wrong after that.
    pub(super) lasting: Option<Fault>,
}

impl Memory {
    fn next_fault(&mut self) -> Option<Fault> {
        self.faults.pop_front().or_else(|| self.lasting.clone())
    }
}

impl Service {
    pub(super) fn new(settings: Settings, memory: Memory) -> Self {
        Self {
            settings,
            memory: Mutex::new(memory),
            connections: AtomicUsize::new(0),
        }
    }

    pub(super) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers the requests of one connection.
    pub(super) fn serve(&self, stream: &TcpStream, life: &Life) -> io::Result<()> {
        let number = self.connections.fetch_add(1, Ordering::Relaxed);
        let mut connection = Connection::new(stream)?;
        while let Some((request, unread)) = connection.head()? {
            let max = self.settings.max_body(request.uri().path());
            // A page that looks on is no client: it is neither kept nor gets a fault.
            if view::is_for(&request) {
                let (_, pending) = connection.body(request.headers(), unread, max)?;
                let answer = view::answer(&request, &self.memory());
                if !connection.answer(pending, &answer)? {
                    return Ok(());
                }
                continue;
            }
            let fault = self.memory().next_fault();
            let mut received = Received::new(&request, number);
            if fault == Some(Fault::CloseBefore) {
                self.memory().log.push(received);
                return Ok(());
            }
            let (body, pending) = connection.body(request.headers(), unread, max)?;
            let (json, answer) = self.answer(&request, body.as_deref(), fault.as_ref());
            received.body = json;
            if fault != Some(Fault::CloseAfter) {
                received.status = Some(answer.status.as_u16());
            }
            self.memory().log.push(received);
            match fault {
                Some(Fault::CloseAfter) => return Ok(()),
                Some(Fault::CloseMidAnswer) => return connection.answer_half(pending, &answer),
                Some(Fault::Delay(time)) if life.pause(time) => return Ok(()),
                _ => {}
            }
            if !connection.answer(pending, &answer)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The JSON in the request's body, and the answer to it, once it is applied. No body is one
    /// that is too large.
    fn answer(
        &self,
        request: &Request<()>,
        body: Option<&[u8]>,
        fault: Option<&Fault>,
    ) -> (String, Answer) {
        let max = self.settings.max_body(request.uri().path());
        let query = request.uri().query().unwrap_or_default().as_bytes();
        let mut flags = Flags::default();
        flags.read(query);
        let json = match body {
            None => Err(Answer::too_large(max, "bytes")),
            Some(_) if request.method() == Method::GET => body::decode_form(query),
            Some(body) => body::decode(request.headers(), body, max, &mut flags),
        };
        let text = match &json {
            Ok(json) => json,
            Err(_) => body.unwrap_or_default(),
        };
        let text = String::from_utf8_lossy(text).into_owned();
        let answer = if let Some(answer) = fault.and_then(Answer::of_fault) {
            answer
        } else {
            let answer = match (request.uri().path(), request.method()) {
                // The reference page knows `POST` alone, but the official SDK for Node sends each
                // update as `GET` with `data` in the query, so Mixpanel must take it.
                ("/groups", &Method::GET | &Method::POST) => {
                    json.and_then(|json| self.update_groups(&json, flags, fault))
                }
                ("/groups", _) => Err(Answer::method_not_allowed("GET, POST")),
                ("/import", &Method::POST) => auth::check(request, &self.settings)
                    .and(json)
                    .and_then(|json| self.import(request, &json, flags, fault)),
                ("/import", _) => Err(Answer::method_not_allowed("POST")),
                _ => Err(Answer::not_found()),
            };
            answer.unwrap_or_else(|refused| refused)
        };
        (text, answer)
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
        let check_size = json.len() > update::MAX_RECORD;
        let batch: Batch<Change> =
            batch::read(records, fault, |record| update::read(record, check_size))?;
        let good = batch.good.len();
        let mut memory = self.memory();
        for change in batch.good {
            memory.profiles.apply(change, now());
        }
        memory.version += 1;
        Ok(Answer::to_records(
            flags,
            "num_good_events",
            good,
            &batch.failed,
        ))
    }

    /// `POST /import`.
    fn import(
        &self,
        request: &Request<()>,
        json: &[u8],
        flags: Flags,
        fault: Option<&Fault>,
    ) -> Result<Answer, Answer> {
        let records = if body::is_ndjson(request.headers()) {
            batch::parse_lines(json)?
        } else {
            batch::parse(json)?
        };
        let check_size = json.len() > update::MAX_RECORD;
        let batch: Batch<Value> =
            batch::read(records, fault, |record| event::read(record, check_size))?;
        let good = batch.good.len();
        let mut memory = self.memory();
        for event in batch.good {
            memory.events.push(event);
        }
        memory.version += 1;
        Ok(Answer::to_records(
            flags,
            "num_records_imported",
            good,
            &batch.failed,
        ))
    }
}

/// In milliseconds since 1970.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

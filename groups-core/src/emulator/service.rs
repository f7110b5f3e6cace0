//! What the emulator remembers, and how it answers a request.

use std::collections::VecDeque;
use std::io;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ureq_proto::http::{Method, Request, StatusCode};

use super::answer::{Answer, Flags};
use super::connection::Connection;
use super::fault::Fault;
use super::log::{Log, Received};
use super::profiles::Profiles;
use super::server::Life;
use super::{body, groups};

pub(super) struct Settings {
    pub(super) token: Option<String>,
    pub(super) max_body: usize,
}

pub(super) struct Service {
    settings: Settings,
    memory: Mutex<Memory>,
    /// How many connections there have been.
    connections: AtomicUsize,
}

#[derive(Default)]
pub(super) struct Memory {
    pub(super) profiles: Profiles,
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
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            memory: Mutex::default(),
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
            let fault = self.memory().next_fault();
            let mut received = Received::new(&request, number);
            if fault == Some(Fault::CloseBefore) {
                self.memory().log.push(received);
                return Ok(());
            }
            let max = self.settings.max_body;
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
        let max = self.settings.max_body;
        let mut flags = Flags::default();
        flags.read(request.uri().query().unwrap_or_default().as_bytes());
        let json = body
            .ok_or_else(|| Answer::too_large(max, "bytes"))
            .and_then(|body| body::decode(request.headers(), body, max, &mut flags));
        let text = match &json {
            Ok(json) => json,
            Err(_) => body.unwrap_or_default(),
        };
        let text = String::from_utf8_lossy(text).into_owned();
        let answer = if let Some(answer) = fault.and_then(Answer::of_fault) {
            answer
        } else if request.uri().path() != "/groups" {
            Answer::error(StatusCode::NOT_FOUND, "no such path")
        } else if request.method() != Method::POST {
            Answer::method_not_allowed()
        } else {
            json.and_then(|json| self.update_groups(&json, flags, fault))
                .unwrap_or_else(|refused| refused)
        };
        (text, answer)
    }

    /// `POST /groups`.
    fn update_groups(
        &self,
        json: &[u8],
        flags: Flags,
        fault: Option<&Fault>,
    ) -> Result<Answer, Answer> {
        let batch = groups::read(json, self.settings.token.as_deref(), fault)?;
        let good = batch.changes.len();
        let mut memory = self.memory();
        for change in batch.changes {
            memory.profiles.apply(change);
        }
        Ok(Answer::to_records(flags, good, &batch.failed))
    }
}

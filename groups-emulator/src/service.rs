//! How the emulator answers a request: the fault first, then the path, then the records.

use std::borrow::Cow;
use std::io;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use ureq_proto::http::{Method, Request};

use crate::auth::Credentials;
use crate::fault::Fault;
use crate::http::{HttpConnection, Lifecycle, UnreadBody, body};
use crate::memory::{LateRequest, Memory};
use crate::received::ReceivedRequest;
use crate::records::{batch, event, rules, update};
use crate::reply::{Reply, ReplyFormat};
use crate::view;

/// The emulated project. The emulator and its connection threads share it.
pub(crate) struct Service {
    credentials: Credentials,
    /// The largest body in bytes, in place of the documented ones.
    max_body: Option<usize>,
    pub(crate) memory: Mutex<Memory>,
    /// The number of connections so far.
    connections: AtomicUsize,
}

impl Service {
    pub(crate) fn new(credentials: Credentials, max_body: Option<usize>, memory: Memory) -> Self {
        Self {
            credentials,
            max_body,
            memory: Mutex::new(memory),
            connections: AtomicUsize::new(0),
        }
    }

    pub(crate) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers the requests of one connection until it closes.
    pub(crate) fn serve(&self, stream: &TcpStream, lifecycle: &Lifecycle) -> io::Result<()> {
        let number = self.connections.fetch_add(1, Ordering::Relaxed);
        let mut connection = HttpConnection::new(stream)?;
        while let Some((request, unread)) = connection.next_request()? {
            // Requests of the page are neither kept nor take a fault: they are not under test.
            let stays_open = if view::handles(&request) {
                let max = self.max_body(&request);
                let (_, pending) = connection.read_body(request.headers(), unread, max)?;
                let reply = view::reply(&request, &self.memory());
                connection.send(pending, &reply)?
            } else {
                let received = ReceivedRequest::new(&request, number);
                self.serve_one(&mut connection, request, unread, received, lifecycle)?
            };
            if !stays_open {
                break;
            }
        }
        Ok(())
    }

    /// Answers one request, applying its fault. Returns whether the connection stays open.
    fn serve_one(
        &self,
        connection: &mut HttpConnection<'_>,
        request: Request<()>,
        unread: UnreadBody,
        mut received: ReceivedRequest,
        lifecycle: &Lifecycle,
    ) -> io::Result<bool> {
        let fault = self.memory().take_fault();
        if fault == Some(Fault::CloseBefore) {
            self.memory().log.push(received);
            return Ok(false);
        }
        let max = self.max_body(&request);
        let (body, pending) = connection.read_body(request.headers(), unread, max)?;
        let (json, format) = self.decode(&request, body.as_deref());
        let text = json
            .as_deref()
            .unwrap_or(body.as_deref().unwrap_or_default());
        received.body = String::from_utf8_lossy(text).into_owned();
        if let Some(Fault::ApplyLate(time)) = fault {
            let late = LateRequest {
                json: json.map(Cow::into_owned),
                request,
                format,
            };
            let number = {
                let mut memory = self.memory();
                memory.log.push(received);
                memory.late.push(late)
            };
            connection.close();
            let is_stopped = lifecycle.pause(time);
            let late = self.memory().late.take(number);
            if let (Some(late), false) = (late, is_stopped) {
                self.apply_late(late);
            }
            return Ok(false);
        }
        let reply = match fault.as_ref().and_then(Reply::of_fault) {
            Some(reply) => reply,
            None => self.reply(&request, json, format, fault.as_ref()),
        };
        if fault != Some(Fault::CloseAfter) {
            received.status = Some(reply.status.as_u16());
        }
        self.memory().log.push(received);
        match fault {
            Some(Fault::CloseAfter) => Ok(false),
            Some(Fault::CloseMidAnswer) => connection.send_half(pending, &reply).map(|()| false),
            Some(Fault::Delay(time)) if lifecycle.pause(time) => Ok(false),
            _ => connection.send(pending, &reply),
        }
    }

    fn max_body(&self, request: &Request<()>) -> usize {
        let documented = || rules::max_body(request.uri().path());
        self.max_body.unwrap_or_else(documented)
    }

    /// Returns the JSON of a request's body, or the reply that refuses it, and the format of the reply.
    /// `None` stands for a body that is too large.
    fn decode<'a>(
        &self,
        request: &Request<()>,
        body: Option<&'a [u8]>,
    ) -> (Result<Cow<'a, [u8]>, Reply>, ReplyFormat) {
        let max = self.max_body(request);
        let query = request.uri().query().unwrap_or_default().as_bytes();
        let mut format = ReplyFormat::default();
        format.read(query);
        let json = match body {
            None => Err(Reply::too_large(max, "bytes")),
            Some(_) if request.method() == Method::GET => body::decode_form(query),
            Some(body) => body::decode(request.headers(), body, max, &mut format),
        };
        (json, format)
    }

    /// Applies a request whose connection is gone.
    pub(crate) fn apply_late(&self, late: LateRequest) {
        self.reply(&late.request, late.json.map(Cow::Owned), late.format, None);
    }

    /// Applies a request and returns the reply.
    fn reply(
        &self,
        request: &Request<()>,
        json: Result<Cow<'_, [u8]>, Reply>,
        format: ReplyFormat,
        fault: Option<&Fault>,
    ) -> Reply {
        self.route(request, json, format, fault)
            .unwrap_or_else(|refused| refused)
    }

    fn route(
        &self,
        request: &Request<()>,
        json: Result<Cow<'_, [u8]>, Reply>,
        format: ReplyFormat,
        fault: Option<&Fault>,
    ) -> Result<Reply, Reply> {
        match (request.uri().path(), request.method()) {
            ("/groups" | "/groups/", &Method::GET | &Method::POST) => {
                self.update_groups(&json?, format, fault)
            }
            ("/groups" | "/groups/", _) => Err(Reply::method_not_allowed("GET, POST")),
            ("/import", &Method::POST) => {
                self.credentials.check_import(request)?;
                self.import(&json?, body::is_ndjson(request.headers()), format, fault)
            }
            ("/import", _) => Err(Reply::method_not_allowed("POST")),
            _ => Err(Reply::not_found()),
        }
    }

    fn update_groups(
        &self,
        json: &[u8],
        format: ReplyFormat,
        fault: Option<&Fault>,
    ) -> Result<Reply, Reply> {
        let records = batch::parse(json)?;
        self.credentials.check_updates(&records)?;
        let batch = batch::read(records, json.len(), fault, update::read)?;
        let good = batch.good.len();
        let now = milliseconds_since_1970();
        self.store(batch.good, |memory, update| {
            memory.profiles.apply(update, now);
        });
        let failed = &batch.failed;
        Ok(Reply::to_records(format, "num_good_events", good, failed))
    }

    fn import(
        &self,
        json: &[u8],
        is_ndjson: bool,
        format: ReplyFormat,
        fault: Option<&Fault>,
    ) -> Result<Reply, Reply> {
        let parse = if is_ndjson {
            batch::parse_lines
        } else {
            batch::parse
        };
        let batch = batch::read(parse(json)?, json.len(), fault, event::read)?;
        let good = batch.good.len();
        self.store(batch.good, |memory, event| {
            if !rules::is_ignored(&event) {
                memory.events.push(event);
            }
        });
        let (count, failed) = ("num_records_imported", &batch.failed);
        Ok(Reply::to_records(format, count, good, failed))
    }

    /// Stores the records of one request in one step, as other threads see it.
    fn store<T>(&self, records: Vec<T>, store: impl Fn(&mut Memory, T)) {
        let mut memory = self.memory();
        for record in records {
            store(&mut memory, record);
        }
        memory.version += 1;
    }
}

fn milliseconds_since_1970() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

//! How the emulator replies to a request: the fault first, then the path, then the records.

use std::borrow::Cow;
use std::io;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use ureq_proto::http::{Method, Request, StatusCode};

use crate::auth::Credentials;
use crate::fault::Fault;
use crate::http::{HttpConnection, Incoming, Lifecycle, UnreadBody, body};
use crate::memory::{Arrival, LateRequest, Memory, ParsedUpdate, milliseconds_since_1970};
use crate::origin::{self, Allowed};
use crate::received::{DroppedRecord, ReceivedRequest};
use crate::records::batch::{self, ParsedBatch};
use crate::records::{event, rules, update};
use crate::reply::{Endpoint, Reply, ReplyFormat};
use crate::updates::EmulatorSnapshot;
use crate::view;

/// The emulated project. The emulator and its connection threads share it.
pub(crate) struct Service {
    pub(crate) settings: Settings,
    pub(crate) memory: Mutex<Memory>,
    /// Notified when something has arrived.
    changed: Condvar,
    /// Held while a view is rendered, so that all viewers together take one processor and leave the
    /// others to clients.
    view_turn: Mutex<()>,
    /// The number of connections with requests under test so far.
    connections: AtomicUsize,
}

/// The settings of the builder.
pub(crate) struct Settings {
    pub(crate) credentials: Credentials,
    /// The largest body in bytes, in place of the documented ones.
    pub(crate) max_body: Option<usize>,
    pub(crate) allowed: Allowed,
    /// Whether long names and texts are cut as Mixpanel does.
    pub(crate) truncates: bool,
}

/// The records of a request, read and not yet applied.
enum Records {
    Updates(ParsedBatch<ParsedUpdate>),
    Events(ParsedBatch<Value>),
}

/// The reply to a request, and what became of its records.
struct Outcome {
    reply: Reply,
    accepted: usize,
    dropped: Vec<DroppedRecord>,
}

impl From<Reply> for Outcome {
    fn from(reply: Reply) -> Self {
        Self {
            reply,
            accepted: 0,
            dropped: Vec::new(),
        }
    }
}

impl Service {
    pub(crate) fn new(settings: Settings, memory: Memory) -> Self {
        Self {
            settings,
            memory: Mutex::new(memory),
            changed: Condvar::new(),
            view_turn: Mutex::new(()),
            connections: AtomicUsize::new(0),
        }
    }

    /// Locks the memory. No one renders, reads or writes a socket while holding it.
    pub(crate) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the turn to render a view, or a part of one.
    pub(crate) fn view_turn(&self) -> MutexGuard<'_, ()> {
        self.view_turn
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the memory differs from a version of an epoch. Returns `false` if that does not
    /// happen before the deadline.
    pub(crate) fn wait_for_change(&self, epoch: &str, version: u64, deadline: Instant) -> bool {
        let mut memory = self.memory();
        while memory.version == version && memory.epoch == epoch {
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return false;
            }
            let waited = self.changed.wait_timeout(memory, left);
            (memory, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
        true
    }

    /// Waits for `time`, or until `is_over` or the server stops. Returns whether it has waited for the whole time.
    fn pause(
        &self,
        time: Duration,
        lifecycle: &Lifecycle,
        is_over: impl Fn(&Memory) -> bool,
    ) -> bool {
        let waiting = |memory: &mut Memory| !lifecycle.is_stopped() && !is_over(memory);
        let waited = self
            .changed
            .wait_timeout_while(self.memory(), time, waiting);
        waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Wakes the threads that wait, after the server has stopped.
    pub(crate) fn wake(&self) {
        // A thread that holds the lock may have seen the server as running, and be about to wait.
        drop(self.memory());
        self.changed.notify_all();
    }

    pub(crate) fn reset(&self) {
        self.memory().reset();
        self.changed.notify_all();
    }

    /// Returns what there is of profiles and events, of the same moment.
    pub(crate) fn snapshot(&self) -> EmulatorSnapshot {
        let (groups, events) = {
            let memory = self.memory();
            (memory.profiles.existing(), memory.events.all())
        };
        EmulatorSnapshot::new(groups, events)
    }

    fn log(&self, request: ReceivedRequest) {
        self.memory().keep_request(request);
        self.changed.notify_all();
    }

    /// Serves the requests of one connection until it closes.
    pub(crate) fn serve(&self, stream: &TcpStream, lifecycle: &Lifecycle) -> io::Result<()> {
        let next_number = || self.connections.fetch_add(1, Ordering::Relaxed);
        let mut connection_number = None;
        let mut connection = HttpConnection::new(stream)?;
        loop {
            let (request, unread) = match connection.next_request()? {
                Incoming::Request(request) => *request,
                Incoming::End => return Ok(()),
                Incoming::Unreadable(reply) => {
                    let number = self.memory().log.next_number();
                    let connection_number = connection_number.unwrap_or_else(next_number);
                    let mut received = ReceivedRequest::not_http(number, connection_number);
                    received.status = Some(reply.status.as_u16());
                    received.error.clone_from(&reply.error);
                    self.log(received);
                    return connection.refuse(&reply);
                }
            };
            // Requests of the page and of a test are neither kept nor take a fault: they are not under test.
            let stays_open = if view::handles(&request) {
                let max = self.max_body(None);
                let (body, pending) = connection.read_body(request.headers(), unread, max)?;
                connection.send(pending, &view::reply(&request, body.as_deref(), self))?
            } else {
                self.serve_one(
                    &mut connection,
                    request,
                    unread,
                    *connection_number.get_or_insert_with(next_number),
                    lifecycle,
                )?
            };
            if !stays_open {
                return Ok(());
            }
        }
    }

    /// Serves one request, applying its fault. Returns whether the connection stays open.
    fn serve_one(
        &self,
        connection: &mut HttpConnection<'_>,
        request: Request<()>,
        unread: UnreadBody,
        connection_number: usize,
        lifecycle: &Lifecycle,
    ) -> io::Result<bool> {
        let endpoint = Endpoint::of(request.uri().path());
        let max = self.max_body(endpoint);
        let access = origin::check(&request, &self.settings.allowed);
        if let (Ok(origin), true) = (&access, origin::is_preflight(&request)) {
            let (_, pending) = connection.read_body(request.headers(), unread, max)?;
            let reply = origin::with_cors(origin::preflight(&request), origin.as_deref());
            return connection.send(pending, &reply);
        }
        let (number, fault) = {
            let mut memory = self.memory();
            let fault = access.is_ok().then(|| memory.take_fault()).flatten();
            (memory.log.next_number(), fault)
        };
        let mut received = ReceivedRequest::new(number, &request, connection_number);
        if fault == Some(Fault::CloseBefore) {
            received.error = Some(closed_by(&Fault::CloseBefore));
            self.log(received);
            return Ok(false);
        }
        let (body, pending) = match connection.read_body(request.headers(), unread, max) {
            Ok(read) => read,
            Err(error) => {
                received.error = Some(format!("the body is incomplete or malformed: {error}"));
                self.log(received);
                return Err(error);
            }
        };
        let (json, format) = decode(&request, body.as_deref(), max);
        let text = json
            .as_deref()
            .unwrap_or(body.as_deref().unwrap_or_default());
        received.body = String::from_utf8_lossy(text).into_owned();
        if let Some(Fault::ApplyLate(time)) = fault {
            let late = LateRequest {
                number,
                json: json.map(Cow::into_owned),
                request,
                format,
            };
            received.error = Some(closed_by(&Fault::ApplyLate(time)));
            let mut memory = self.memory();
            memory.late.push(late);
            memory.keep_request(received);
            drop(memory);
            self.changed.notify_all();
            connection.close();
            if self.pause(time, lifecycle, |memory| !memory.late.contains(number)) {
                let late = self.memory().late.take(number);
                if let Some(late) = late {
                    self.apply_late(late);
                }
            }
            return Ok(false);
        }
        let by_fault = fault
            .as_ref()
            .and_then(|fault| Reply::of_fault(fault, endpoint, &received.body, max));
        let (records, origin) = match (access, by_fault) {
            (Err(reason), _) => (Err(Reply::error(StatusCode::FORBIDDEN, &reason)), None),
            (Ok(origin), Some(reply)) => (Err(reply), origin),
            (Ok(origin), None) => (self.read(&request, json, fault.as_ref()), origin),
        };
        // Applied and logged in one step: a reader that sees what a request changed sees the request.
        let mut memory = self.memory();
        let outcome = match records {
            Ok(records) => records.apply(&mut memory, format, number),
            Err(reply) => reply.into(),
        };
        let reply = origin::with_cors(outcome.reply, origin.as_deref());
        received.accepted = outcome.accepted;
        received.dropped = outcome.dropped;
        received.error.clone_from(&reply.error);
        match &fault {
            Some(Fault::CloseAfter) => received.error = Some(closed_by(&Fault::CloseAfter)),
            Some(Fault::CloseMidResponse) => {
                received.status = Some(reply.status.as_u16());
                received.error = Some(closed_by(&Fault::CloseMidResponse));
            }
            _ => received.status = Some(reply.status.as_u16()),
        }
        memory.keep_request(received);
        let epoch = memory.epoch.clone();
        drop(memory);
        self.changed.notify_all();
        if let Some(Fault::Delay(time)) = fault {
            self.pause(time, lifecycle, |memory| memory.epoch != epoch);
        }
        match fault {
            Some(Fault::CloseAfter) => Ok(false),
            Some(Fault::CloseMidResponse) => connection.send_half(pending, &reply).map(|()| false),
            _ => connection.send(pending, &reply),
        }
    }

    /// Returns the largest body in bytes. An unknown path has that of updates.
    pub(crate) fn max_body(&self, endpoint: Option<Endpoint>) -> usize {
        let documented = || rules::max_body(endpoint.unwrap_or(Endpoint::Groups));
        self.settings.max_body.unwrap_or_else(documented)
    }

    /// Applies a request that was taken from the late ones. Its connection is gone.
    pub(crate) fn apply_late(&self, late: LateRequest) {
        let json = late.json.map(Cow::Owned);
        if let Ok(records) = self.read(&late.request, json, None) {
            records.apply(&mut self.memory(), late.format, late.number);
        }
        // Also for the thread that waits until its time has come.
        self.changed.notify_all();
    }

    /// Reads the records of a request. `json` is that of its body, or the reply that refuses it.
    fn read(
        &self,
        request: &Request<()>,
        json: Result<Cow<'_, [u8]>, Reply>,
        fault: Option<&Fault>,
    ) -> Result<Records, Reply> {
        let path = request.uri().path();
        let endpoint = Endpoint::of(path).ok_or_else(|| Reply::not_found(path))?;
        let truncates = self.settings.truncates;
        match (endpoint, request.method()) {
            (Endpoint::Groups, &Method::GET | &Method::POST) => {
                let json = json?;
                let records = batch::parse(&json)?;
                self.settings.credentials.check_updates(&records)?;
                let read = |record| update::read(record, truncates);
                batch::read(records, json.len(), fault, read).map(Records::Updates)
            }
            (Endpoint::Groups, _) => Err(Reply::method_not_allowed("GET, POST")),
            (Endpoint::Import, &Method::POST) => {
                self.settings.credentials.check_import(request)?;
                let json = json?;
                let records = if body::is_ndjson(request.headers()) {
                    batch::parse_lines(&json)?
                } else {
                    batch::parse(&json)?
                };
                let read = |record| event::read(record, truncates);
                batch::read(records, json.len(), fault, read).map(Records::Events)
            }
            (Endpoint::Import, _) => Err(Reply::method_not_allowed("POST")),
        }
    }
}

/// Returns the JSON of a request's body, or the reply that refuses it, and the format of the reply.
/// `None` stands for a body that is larger than `max` bytes.
fn decode<'a>(
    request: &Request<()>,
    body: Option<&'a [u8]>,
    max: usize,
) -> (Result<Cow<'a, [u8]>, Reply>, ReplyFormat) {
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

impl Records {
    /// Applies the records of the request of this number.
    fn apply(self, memory: &mut Memory, format: ReplyFormat, request: usize) -> Outcome {
        match self {
            Self::Updates(batch) => apply_updates(batch, memory, format, request),
            Self::Events(batch) => store_events(batch, memory, format),
        }
    }
}

fn apply_updates(
    batch: ParsedBatch<ParsedUpdate>,
    memory: &mut Memory,
    format: ReplyFormat,
    request: usize,
) -> Outcome {
    let mut failed = batch.failed;
    let mut accepted = batch.good.len();
    let at = milliseconds_since_1970();
    for (position, update) in batch.good {
        let version = memory.next_version();
        let arrival = Arrival {
            version,
            at,
            request,
        };
        if let Err(reason) = memory.profiles.apply(update, arrival) {
            accepted -= 1;
            failed.push(batch::failed(position, reason));
        }
    }
    failed.sort_by_key(|failed| failed.record.position);
    let reply = Reply::to_records(Endpoint::Groups, format, accepted, &failed);
    Outcome {
        reply,
        accepted,
        dropped: failed.into_iter().map(|failed| failed.record).collect(),
    }
}

fn store_events(batch: ParsedBatch<Value>, memory: &mut Memory, format: ReplyFormat) -> Outcome {
    let good = batch.good.len();
    let reply = Reply::to_records(Endpoint::Import, format, good, &batch.failed);
    let dropped = batch.failed.into_iter().map(|failed| failed.record);
    let mut dropped: Vec<_> = dropped.collect();
    let mut accepted = good;
    for (position, event) in batch.good {
        if rules::is_ignored(&event) {
            accepted -= 1;
            dropped.push(batch::failed(position, rules::ignored()).record);
        } else {
            let version = memory.next_version();
            memory.events.push(event, version);
        }
    }
    dropped.sort_by_key(|record| record.position);
    Outcome {
        reply,
        accepted,
        dropped,
    }
}

/// Returns why a request that is received has no whole reply.
fn closed_by(fault: &Fault) -> String {
    format!("a fault of the emulator, as requested: {fault:?}")
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::TcpStream;
    use std::sync::Arc;
    use std::thread;
    use std::time::{Duration, Instant};

    use crate::{Emulator, Fault};

    const PATIENCE: Duration = Duration::from_secs(60);

    /// Each thread has the memory, and a test program may have many emulators.
    #[test]
    fn threads_that_hold_a_request_end_with_the_emulator() {
        for fault in [Fault::Delay(Duration::MAX), Fault::ApplyLate(Duration::MAX)] {
            let emulator = Emulator::start().unwrap();
            let service = Arc::downgrade(&emulator.service);
            emulator.fail_next(fault.clone());
            let address = emulator.endpoint().replace("http://", "");
            let mut client = TcpStream::connect(address).unwrap();
            let request =
                b"POST /groups HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n[]";
            client.write_all(request).unwrap();
            emulator
                .wait_for(PATIENCE, |it| it.requests().pop())
                .unwrap();
            // By then the thread waits, most of the time.
            thread::sleep(Duration::from_millis(50));
            drop(emulator);
            let dropped = Instant::now();
            while service.strong_count() > 0 {
                assert!(dropped.elapsed() < PATIENCE, "{fault:?}");
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

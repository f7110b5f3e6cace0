//! The server of a simulation, and the network before it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use shuttle::rand::{Rng as _, thread_rng};
use shuttle::thread;

use crate::client::endpoint::Endpoint;
use crate::client::retry::Failure;
use crate::client::transport::{Request, Response, Transport, TransportError};
use crate::client::{Client, RetryPolicy};
use crate::group::Operation;
use crate::record::{Error, ErrorKind};
use crate::simulation::events::Happened;
use crate::simulation::percent;
use crate::simulation::store::Store;
use crate::simulation::updates::{BLOCKED, Model, REFUSED};
use crate::util::simulated::{Condvar, Instant};
use crate::util::sync;

/// How long a client waits for a response.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

/// Mixpanel, as far as it is documented, with the faults of the way there.
#[derive(Default)]
pub(super) struct Server {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// How many of a hundred requests meet a fault.
    faults: u32,
    /// Whether a request may be applied after its client gave up.
    late: bool,
    /// Whether something in between responds to requests with the text [`BLOCKED`].
    has_firewall: bool,
    /// After how many requests it responds to all of them.
    wall_after: Option<usize>,
    requests: usize,
    /// How many records a request may have.
    most: usize,
    model: Model,
    /// The insert ids of the events that arrived.
    events: BTreeSet<String>,
    /// Requests that are still to be applied.
    pending: Vec<thread::JoinHandle<()>>,
}

/// What happens to a request.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Responded,
    /// The connection is refused.
    NotReceived,
    /// It is applied, and the response is lost.
    ResponseLost,
    /// It is applied after its client gave up.
    Late,
    /// The server responds without having looked at it.
    Status(u16),
    /// Something in between responds by chance, so with a status that is not taken for a page about one record's text.
    Nonsense,
}

impl Server {
    pub(super) fn new(faults: u32, late: bool) -> Arc<Self> {
        let most = if percent(20) {
            thread_rng().gen_range(1..4)
        } else {
            100
        };
        let state = State {
            faults,
            late,
            has_firewall: true,
            wall_after: percent(20).then(|| thread_rng().gen_range(0..8)),
            most,
            ..State::default()
        };
        Arc::new(Self {
            state: Mutex::new(state),
        })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the faults, and waits until what is still to be applied has been.
    pub(super) fn recover(&self) {
        let pending = {
            let mut state = self.state();
            state.faults = 0;
            state.has_firewall = false;
            state.wall_after = None;
            std::mem::take(&mut state.pending)
        };
        for thread in pending {
            thread.join().expect("applying does not panic");
        }
    }

    pub(super) fn is_ever_late(&self) -> bool {
        self.state().late
    }

    /// Panics unless the groups are as the model has them.
    pub(super) fn assert_is(&self, model: &Model) {
        model.assert_same(&self.state().model);
    }

    /// Panics unless these events arrived, and no others. Those that a firewall may have stopped for ever are left out.
    pub(super) fn assert_arrived(&self, happened: &[Happened]) {
        let arrived = &self.state().events;
        for event in happened.iter().filter(|event| !event.is_blocked) {
            assert_eq!(
                arrived.contains(&event.id),
                !event.is_refused,
                "event {}",
                event.id
            );
        }
        let is_known = |id: &String| happened.iter().any(|event| event.id == *id);
        assert!(arrived.iter().all(is_known), "{arrived:?}");
    }

    /// Returns a client of this server, of a process that can be killed.
    pub(super) fn client(self: &Arc<Self>, process: Option<&Arc<Process>>) -> Client {
        let mut random = thread_rng();
        let retry = RetryPolicy::default()
            .attempts(random.gen_range(1..5))
            .base_delay(Duration::from_secs(1))
            .max_delay(Duration::from_secs(4));
        let builder = Client::builder("TOKEN")
            .connections(random.gen_range(1..4))
            .max_batch(random.gen_range(1..6))
            .timeout(TIMEOUT)
            .retry(retry);
        let (server, process) = (Arc::clone(self), process.cloned());
        let open = move || -> Arc<dyn Transport> {
            Arc::new(Connection {
                server: Arc::clone(&server),
                process: process.clone(),
                is_aborted: sync::Mutex::new(false),
                changed: Condvar::new(),
            })
        };
        builder.connect(Endpoint::nowhere(), Box::new(open))
    }

    /// Returns whether something in between responds to this request.
    fn is_blocked(&self, body: &str) -> bool {
        let mut state = self.state();
        state.requests += 1;
        let is_at_wall = |after: usize| state.requests > after;
        state.wall_after.is_some_and(is_at_wall) || state.has_firewall && body.contains(BLOCKED)
    }

    fn fate(&self) -> Fate {
        let state = self.state();
        if !percent(state.faults) {
            return Fate::Responded;
        }
        match thread_rng().gen_range(0..10) {
            0 | 1 => Fate::NotReceived,
            2 | 3 => Fate::ResponseLost,
            4 | 5 if state.late => Fate::Late,
            4 | 5 => Fate::ResponseLost,
            6 => Fate::Status(503),
            7 => Fate::Status(429),
            8 => Fate::Status(500),
            _ => Fate::Nonsense,
        }
    }

    /// Applies a request and responds to it.
    fn receive(&self, body: &[u8]) -> (u16, Value) {
        let mut state = self.state();
        let records: Vec<Value> = serde_json::from_slice(body).expect("a body is a list");
        if records.len() > state.most {
            return (
                413,
                json!({"code": 413, "error": "too large", "status": "Too Large"}),
            );
        }
        let failed: Vec<_> = (0..records.len())
            .filter(|index| {
                let record = &records[*index];
                let properties = record.get("$set").or(record.get("properties"));
                properties.is_some_and(|properties| properties.get(REFUSED).is_some())
            })
            .collect();
        if !failed.is_empty() && percent(30) {
            return (200, json!({"status": 0, "error": "some record is bad"}));
        }
        for (index, record) in records.iter().enumerate() {
            if failed.contains(&index) {
                continue;
            }
            if let Some(id) = record["properties"]["$insert_id"].as_str() {
                state.events.insert(id.to_owned());
                continue;
            }
            let group = record["$group_id"].as_str().expect("the id is text");
            let members = record.as_object().expect("a record is an object");
            let operation = |(name, value): (&String, &Value)| {
                Some((Operation::from_name(name)?, value.clone()))
            };
            let (operation, value) = members
                .iter()
                .find_map(operation)
                .expect("a record has an operation");
            state.model.apply(group, operation, value);
        }
        if failed.is_empty() {
            return (200, json!({"status": 1, "error": null}));
        }
        let failed: Vec<_> = failed
            .iter()
            .map(|index| json!({"index": index, "field": "$set.refused", "message": "refused"}))
            .collect();
        (
            400,
            json!({"code": 400, "status": "Bad Request", "error": "some failed", "failed_records": failed}),
        )
    }
}

/// A process, which can be killed: from then on it starts nothing. What it had sent is on its way.
pub(super) struct Process {
    pub(super) id: u64,
    disk_faults: u32,
    /// The outbox that it may send from only while it has the lease.
    store: Option<Arc<Store>>,
    is_dead: AtomicBool,
}

impl Process {
    pub(super) fn new(id: u64, disk_faults: u32, store: &Arc<Store>) -> Self {
        Self {
            id,
            disk_faults,
            store: Some(Arc::clone(store)),
            is_dead: AtomicBool::new(false),
        }
    }

    /// Returns a process without an outbox.
    pub(super) fn alone(disk_faults: u32) -> Self {
        Self {
            id: 0,
            disk_faults,
            store: None,
            is_dead: AtomicBool::new(false),
        }
    }

    pub(super) fn kill(&self) {
        self.is_dead.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_dead(&self) -> bool {
        self.is_dead.load(Ordering::Relaxed)
    }

    /// How many of a hundred uses of its disk fail.
    pub(super) fn faults(&self) -> u32 {
        self.disk_faults
    }

    /// Whether it can start a request. The moment between its look at the lease and the request is not simulated: no
    /// client can close that gap.
    fn can_start(&self, is_import: bool) -> bool {
        let store = self.store.as_ref();
        !self.is_dead() && store.is_none_or(|store| store.covers_a_request(self.id, is_import))
    }
}

struct Connection {
    server: Arc<Server>,
    process: Option<Arc<Process>>,
    is_aborted: sync::Mutex<bool>,
    changed: Condvar,
}

fn failed(kind: ErrorKind, failure: Option<Failure>) -> TransportError {
    let error = Error::new(kind, "the connection failed");
    TransportError { error, failure }
}

impl Connection {
    /// Lets time pass; an error if the connection is aborted meanwhile.
    fn pass(&self, time: Duration) -> Result<(), TransportError> {
        let until = Instant::now() + time;
        let mut is_aborted = self
            .is_aborted
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        loop {
            if *is_aborted {
                return Err(failed(ErrorKind::Network, None));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let waited = self.changed.wait_timeout(is_aborted, left);
            is_aborted = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Transport for Connection {
    fn post(&self, request: Request<'_>) -> Result<Response, TransportError> {
        let text = String::from_utf8_lossy(request.body);
        if self.server.is_blocked(&text) {
            let body = b"<html>blocked</html>".to_vec();
            let statuses = [200, 302, 403];
            return Ok(Response {
                status: statuses[thread_rng().gen_range(0..statuses.len())],
                retry_after: None,
                body,
            });
        }
        if self
            .process
            .as_ref()
            .is_some_and(|process| !process.can_start(text.contains("\"event\":")))
        {
            return Err(failed(ErrorKind::Network, None));
        }
        let started = Instant::now();
        let latency = Duration::from_millis(thread_rng().gen_range(1..3_000));
        self.pass(latency)?;
        let respond = |status, body: Value| {
            let retry_after = (status == 429).then(|| Duration::from_secs(3));
            let body = body.to_string().into_bytes();
            Ok(Response {
                status,
                retry_after,
                body,
            })
        };
        if started.elapsed() > TIMEOUT {
            return Err(failed(ErrorKind::Timeout, Some(Failure::Breakage)));
        }
        match self.server.fate() {
            Fate::Responded => {
                let (status, body) = self.server.receive(request.body);
                self.pass(latency)?;
                respond(status, body)
            }
            Fate::NotReceived => Err(failed(ErrorKind::Network, Some(Failure::Breakage))),
            Fate::ResponseLost => {
                self.server.receive(request.body);
                self.pass(latency)?;
                Err(failed(ErrorKind::Network, Some(Failure::StaleConnection)))
            }
            Fate::Late => {
                let (server, body) = (Arc::clone(&self.server), request.body.to_vec());
                let late = thread::spawn(move || {
                    crate::util::simulated::sleep(TIMEOUT * 2);
                    server.receive(&body);
                });
                self.server.state().pending.push(late);
                self.pass(TIMEOUT)?;
                Err(failed(ErrorKind::Timeout, Some(Failure::Breakage)))
            }
            Fate::Status(status) => respond(status, json!({"error": "later", "status": "error"})),
            Fate::Nonsense => respond(600, json!("<html>")),
        }
    }

    fn abort(&self) {
        *self
            .is_aborted
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }
}

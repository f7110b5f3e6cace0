//! The emulator's state: profiles, events, received requests and pending faults.
//!
//! The service owns one [`Memory`] behind a mutex; each connection thread locks it for as long as it
//! applies a request. A view takes what it needs out of the memory, shared by `Arc`, and is rendered
//! without the lock; what could be long is taken in parts. So does [`MemoryFile`], which copies
//! profiles and events to a file and back.

mod events;
mod file;
mod late;
mod lock;
mod profiles;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::fault::Fault;
use crate::received::{ReceivedRequest, RequestLog};

pub(crate) use self::events::{EventStore, is_linked};
pub(crate) use self::file::MemoryFile;
pub(crate) use self::late::{LateRequest, LateRequests};
pub(crate) use self::profiles::{Arrival, GroupSummary, KnownGroup, ParsedUpdate, ProfileStore};

pub(crate) struct Memory {
    pub(crate) profiles: ProfileStore,
    pub(crate) events: EventStore,
    /// Counts everything that arrives: each update, event and request makes a version. So a viewer
    /// that has one version can be given what came after it.
    pub(crate) version: u64,
    /// The version that the last update, event or reset made.
    pub(crate) saved_version: u64,
    /// Differs from emulator to emulator, and changes with each reset: versions of another epoch mean
    /// nothing.
    pub(crate) epoch: String,
    pub(crate) log: RequestLog,
    /// The faults of the next requests, one each.
    faults: VecDeque<Fault>,
    /// The fault of every request after those.
    lasting: Option<Fault>,
    pub(crate) late: LateRequests,
}

impl Memory {
    pub(crate) fn new() -> Self {
        static EPOCHS: AtomicU64 = AtomicU64::new(0);
        let number = EPOCHS.fetch_add(1, Ordering::Relaxed);
        Self {
            profiles: ProfileStore::default(),
            events: EventStore::default(),
            version: 0,
            saved_version: 0,
            epoch: format!("{}.{number}", milliseconds_since_1970()),
            log: RequestLog::default(),
            faults: VecDeque::new(),
            lasting: None,
            late: LateRequests::default(),
        }
    }

    /// Returns the fault of the next request, and removes it if it is for that request alone.
    pub(crate) fn take_fault(&mut self) -> Option<Fault> {
        self.faults.pop_front().or_else(|| self.lasting.clone())
    }

    pub(crate) fn fail_next(&mut self, fault: Fault) {
        self.faults.push_back(fault.by_present_name());
    }

    pub(crate) fn fail_always(&mut self, fault: Fault) {
        self.lasting = Some(fault.by_present_name());
    }

    pub(crate) fn recover(&mut self) {
        self.faults.clear();
        self.lasting = None;
    }

    /// Returns the version of a profile or an event that is about to be stored.
    pub(crate) fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.saved_version = self.version;
        self.version
    }

    /// Adds a request to the log.
    pub(crate) fn keep_request(&mut self, mut request: ReceivedRequest) {
        self.version += 1;
        request.version = self.version;
        self.log.push(request);
    }

    /// Forgets everything, as if the emulator had just been started. Requests and versions
    /// keep counting up, for viewers that have an earlier one.
    pub(crate) fn reset(&mut self) {
        let mut empty = Self::new();
        empty.version = self.next_version();
        empty.saved_version = empty.version;
        empty.log.continue_after(&self.log);
        *self = empty;
    }
}

pub(crate) fn milliseconds_since_1970() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

//! The emulator's state: profiles, events, received requests and pending faults.
//!
//! The service owns one [`Memory`] behind a mutex; each connection thread locks it for as long as it
//! applies a request. [`MemoryFile`] copies profiles and events to a file and back, and locks the memory
//! only while it copies.

mod events;
mod file;
mod profiles;

use std::collections::{BTreeMap, VecDeque};

use ureq_proto::http::Request;

use crate::fault::Fault;
use crate::received::RequestLog;
use crate::reply::{Reply, ReplyFormat};

pub(crate) use self::events::EventStore;
pub(crate) use self::file::MemoryFile;
pub(crate) use self::profiles::{AppliedUpdate, KnownGroup, ParsedUpdate, ProfileStore};

#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) profiles: ProfileStore,
    pub(crate) events: EventStore,
    /// Counts the changes of profiles and events.
    pub(crate) version: u64,
    pub(crate) log: RequestLog,
    /// The faults of the next requests, one each.
    pub(crate) faults: VecDeque<Fault>,
    /// The fault of every request after those.
    pub(crate) lasting: Option<Fault>,
    pub(crate) late: LateRequests,
}

/// The requests that are still to be applied, by the order of their arrival.
#[derive(Default)]
pub(crate) struct LateRequests {
    by_number: BTreeMap<u64, LateRequest>,
    next: u64,
}

/// A request that was received in full, and is applied later.
pub(crate) struct LateRequest {
    pub(crate) request: Request<()>,
    /// The JSON of its body, or the reply that refuses it.
    pub(crate) json: Result<Vec<u8>, Reply>,
    pub(crate) format: ReplyFormat,
}

impl LateRequests {
    /// Appends a request and returns its number.
    pub(crate) fn push(&mut self, request: LateRequest) -> u64 {
        let number = self.next;
        self.by_number.insert(number, request);
        self.next += 1;
        number
    }

    /// Removes the request of this number, unless it was applied already.
    pub(crate) fn take(&mut self, number: u64) -> Option<LateRequest> {
        self.by_number.remove(&number)
    }

    /// Removes the oldest request.
    pub(crate) fn take_first(&mut self) -> Option<LateRequest> {
        self.by_number.pop_first().map(|(_, request)| request)
    }
}

impl Memory {
    /// Returns the fault of the next request, and removes it if it is for that request alone.
    pub(crate) fn take_fault(&mut self) -> Option<Fault> {
        self.faults.pop_front().or_else(|| self.lasting.clone())
    }
}

//! The emulator's state: profiles, events, received requests and pending faults.
//!
//! The service owns one [`Memory`] behind a mutex; each connection thread locks it for as long as it
//! applies a request. [`MemoryFile`] copies profiles and events to a file and back, and locks the memory
//! only while it copies.

mod events;
mod file;
mod profiles;

use std::collections::VecDeque;

use crate::fault::Fault;
use crate::received::RequestLog;

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
}

impl Memory {
    /// Returns the fault of the next request, and removes it if it is for that request alone.
    pub(crate) fn take_fault(&mut self) -> Option<Fault> {
        self.faults.pop_front().or_else(|| self.lasting.clone())
    }
}

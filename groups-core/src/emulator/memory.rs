use std::collections::VecDeque;

use super::events::Events;
use super::fault::Fault;
use super::profiles::Profiles;
use super::received::Log;

/// What the emulator remembers, and what it is to do wrong.
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
    pub(super) fn next_fault(&mut self) -> Option<Fault> {
        self.faults.pop_front().or_else(|| self.lasting.clone())
    }
}

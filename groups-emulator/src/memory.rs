use std::collections::VecDeque;

use crate::events::Events;
use crate::fault::Fault;
use crate::profiles::Profiles;
use crate::received::Log;

/// What the emulator remembers, and what it is to do wrong.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) profiles: Profiles,
    pub(crate) events: Events,
    /// Another one after each change of the above.
    pub(crate) version: u64,
    pub(crate) log: Log,
    /// What goes wrong with the next requests, one each.
    pub(crate) faults: VecDeque<Fault>,
    /// What goes wrong after that.
    pub(crate) lasting: Option<Fault>,
}

impl Memory {
    pub(crate) fn next_fault(&mut self) -> Option<Fault> {
        self.faults.pop_front().or_else(|| self.lasting.clone())
    }
}

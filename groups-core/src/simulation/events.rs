//! The events of a simulation.

use serde_json::json;

use crate::record::Event;
use crate::simulation::percent;
use crate::simulation::updates::{BLOCKED, REFUSED};

/// An event that was published, as the model sees it.
pub(super) struct Happened {
    pub(super) id: String,
    /// The server refuses it.
    pub(super) is_refused: bool,
    /// The firewall refuses it, as long as there is one.
    pub(super) is_blocked: bool,
}

impl Happened {
    pub(super) fn any(id: String) -> Self {
        let is_refused = percent(10);
        let is_blocked = !is_refused && percent(5);
        Self {
            id,
            is_refused,
            is_blocked,
        }
    }

    pub(super) fn event(&self) -> Event {
        let event = Event::new("Happened")
            .distinct_id("")
            .insert_id(self.id.as_str());
        if self.is_refused {
            event.property(REFUSED, json!(true))
        } else if self.is_blocked {
            event.property("text", BLOCKED)
        } else {
            event
        }
    }
}

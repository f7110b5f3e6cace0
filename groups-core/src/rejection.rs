use std::fmt;

use crate::{Group, Operation};

/// A record that Mixpanel refused, or that could not be sent to it at all: which, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rejection {
    /// Which of the caller's records, counted from 0 over all that were passed to one `send` or
    /// `import`.
    pub position: usize,
    /// What the record says of itself.
    pub record: RecordName,
    /// The property or other field that is wrong, where it is known.
    pub field: Option<String>,
    /// What is wrong with it, in the words of who refused it.
    pub message: String,
    /// Whether Mixpanel refused it. If not, it was refused here and never left the machine: an
    /// empty group id, a value that cannot be JSON, an update over 1 MB.
    pub by_server: bool,
}

/// What a rejected record is, in terms that its sender knows it by.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecordName {
    /// An update of a group profile.
    #[non_exhaustive]
    Update {
        /// The group that it was meant for.
        group: Group<'static>,
        /// What it was to do.
        operation: Operation,
    },
    /// An event.
    #[non_exhaustive]
    Event {
        /// Its name.
        name: String,
        /// Its `$insert_id`.
        insert_id: String,
    },
}

impl RecordName {
    pub(crate) fn event(name: &str, insert_id: &str) -> Self {
        Self::Event {
            name: name.to_owned(),
            insert_id: insert_id.to_owned(),
        }
    }

    pub(crate) fn update(group: &Group<'_>, operation: Operation) -> Self {
        let group = group.clone().into_owned();
        Self::Update { group, operation }
    }
}

impl Rejection {
    /// Refused here; the position is known only once the record is sent.
    #[cold]
    pub(crate) fn local(record: RecordName, field: Option<String>, message: String) -> Self {
        Self {
            position: 0,
            record,
            field,
            message,
            by_server: false,
        }
    }

    pub(crate) fn too_large(record: RecordName, bytes: usize, most: usize) -> Self {
        let message = format!("it has {bytes} bytes, and {most} are allowed");
        Self::local(record, None, message)
    }

    /// The group of a rejected update.
    #[must_use]
    pub fn group(&self) -> Option<&Group<'static>> {
        match &self.record {
            RecordName::Update { group, .. } => Some(group),
            RecordName::Event { .. } => None,
        }
    }

    /// The operation of a rejected update.
    #[must_use]
    pub fn operation(&self) -> Option<Operation> {
        match &self.record {
            RecordName::Update { operation, .. } => Some(*operation),
            RecordName::Event { .. } => None,
        }
    }

    /// The rejection without its position, for an error about the one record there is.
    pub(crate) fn reason(&self) -> impl fmt::Display + '_ {
        Reason(self)
    }
}

struct Reason<'a>(&'a Rejection);

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rejection {
            record,
            field,
            message,
            ..
        } = self.0;
        write!(f, "{record}: ")?;
        if let Some(field) = field {
            write!(f, "\"{field}\": ")?;
        }
        f.write_str(message)
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record {}, {}", self.position, Reason(self))
    }
}

impl fmt::Display for RecordName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Update { group, operation } => write!(f, "{operation} of {group}"),
            Self::Event { name, insert_id } => write!(f, "event {name:?} {insert_id}"),
        }
    }
}

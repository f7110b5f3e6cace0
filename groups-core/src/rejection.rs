use std::fmt;

use crate::{Group, Operation};

/// An update that Mixpanel refused, or that could not be sent to it at all: which, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rejection {
    /// Which of the caller's updates, counted from 0 over all that were passed to one `send`.
    pub position: usize,
    /// The update's group key.
    pub group_key: String,
    /// The update's group id.
    pub group_id: String,
    /// The update's operation.
    pub operation: Operation,
    /// The property or other field that is wrong, where it is known.
    pub field: Option<String>,
    /// What is wrong with it, in the words of who refused it.
    pub message: String,
    /// Whether Mixpanel refused it. If not, it was refused here and never left the machine: an
    /// empty group id, a value that cannot be JSON, an update over 1 MB.
    pub by_server: bool,
}

impl Rejection {
    /// Refused here; the position is known only once the update is sent.
    #[cold]
    pub(crate) fn local(
        group: &Group<'_>,
        operation: Operation,
        field: Option<String>,
        message: String,
    ) -> Self {
        Self {
            position: 0,
            group_key: group.key().to_owned(),
            group_id: group.id().to_string(),
            operation,
            field,
            message,
            by_server: false,
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            position,
            group_key,
            group_id,
            operation,
            message,
            ..
        } = self;
        write!(
            f,
            "update {position}, {operation} of {group_key} {group_id:?}: "
        )?;
        if let Some(field) = &self.field {
            write!(f, "{field}: ")?;
        }
        f.write_str(message)
    }
}

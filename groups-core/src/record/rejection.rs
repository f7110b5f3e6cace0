use std::fmt;

use serde_core::ser::{Serialize, SerializeStruct as _, Serializer};

use crate::group::{Group, Operation};
use crate::util::printable;

/// A record that Mixpanel rejected, or that could not be sent, with the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rejection {
    /// The position of the record, counted from 0 over all that were passed to one `send` or `import`.
    pub position: usize,
    /// The reference to the record.
    pub record: RecordRef,
    /// The property or other field that is wrong, if known.
    pub field: Option<String>,
    /// The reason: Mixpanel's message, or this library's.
    pub message: String,
    /// Whether Mixpanel rejected it. Otherwise this library did: before it was sent (an empty group id, a value that
    /// cannot be JSON, an update over 1 MB), or in the background, after it was blocked alone in three deliveries, and others were
    /// accepted after it.
    pub by_server: bool,
}

/// A reference to a rejected record.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecordRef {
    /// An update of a group profile.
    #[non_exhaustive]
    Update {
        /// The group that it is for.
        group: Group<'static>,
        /// Its operation.
        operation: Operation,
    },
    /// Something in an outbox that cannot be read as an update.
    #[non_exhaustive]
    Unreadable {
        /// Its beginning, as far as it is text.
        excerpt: String,
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

/// How many characters of an unreadable record are kept.
const EXCERPT: usize = 100;

impl RecordRef {
    /// Returns the reference to an event.
    #[must_use]
    pub fn event(name: &str, insert_id: &str) -> Self {
        Self::Event {
            name: name.to_owned(),
            insert_id: insert_id.to_owned(),
        }
    }

    /// Returns the reference to something in an outbox that cannot be read as an update. What it has of the text ends before
    /// a token.
    #[must_use]
    pub fn unreadable(json: &str) -> Self {
        let public = json.split("token").next().unwrap_or_default();
        let excerpt = public.chars().take(EXCERPT).collect();
        Self::Unreadable { excerpt }
    }

    /// Returns the reference to an update of a group.
    #[must_use]
    pub fn update(group: &Group<'_>, operation: Operation) -> Self {
        let group = group.clone().into_owned();
        Self::Update { group, operation }
    }
}

impl Rejection {
    /// Returns the rejection of a record that was refused on this machine, at position 0. `field` is the
    /// property or other field that is wrong, where it is known.
    #[cold]
    #[must_use]
    pub fn new(record: RecordRef, field: Option<String>, message: impl Into<String>) -> Self {
        Self {
            position: 0,
            record,
            field,
            message: message.into(),
            by_server: false,
        }
    }

    pub(crate) fn too_large(record: RecordRef, bytes: usize, most: usize) -> Self {
        let message = format!("record is {bytes} bytes; the limit is {most}");
        Self::new(record, None, message)
    }

    /// Returns the group of a rejected update.
    #[must_use]
    pub fn group(&self) -> Option<&Group<'static>> {
        match &self.record {
            RecordRef::Update { group, .. } => Some(group),
            RecordRef::Event { .. } | RecordRef::Unreadable { .. } => None,
        }
    }

    /// Returns the operation of a rejected update.
    #[must_use]
    pub fn operation(&self) -> Option<Operation> {
        match &self.record {
            RecordRef::Update { operation, .. } => Some(*operation),
            RecordRef::Event { .. } | RecordRef::Unreadable { .. } => None,
        }
    }

    /// Returns a display of the rejection without its position, for an error about a single record.
    pub(crate) fn reason(&self) -> impl fmt::Display + '_ {
        Reason(self)
    }
}

/// Serializes what identifies the record (group key and id, or name and insert id) beside the rest.
impl Serialize for Rejection {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut rejection = serializer.serialize_struct("Rejection", 5)?;
        rejection.serialize_field("position", &self.position)?;
        rejection.serialize_field("record", &self.record)?;
        rejection.serialize_field("field", &self.field)?;
        rejection.serialize_field("message", &self.message)?;
        rejection.serialize_field("by_server", &self.by_server)?;
        rejection.end()
    }
}

impl Serialize for RecordRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Update { group, operation } => {
                let mut record = serializer.serialize_struct("Update", 3)?;
                record.serialize_field("group_key", group.key())?;
                record.serialize_field("group_id", group.id())?;
                record.serialize_field("operation", operation)?;
                record.end()
            }
            Self::Unreadable { excerpt } => {
                let mut record = serializer.serialize_struct("Unreadable", 1)?;
                record.serialize_field("excerpt", excerpt)?;
                record.end()
            }
            Self::Event { name, insert_id } => {
                let mut record = serializer.serialize_struct("Event", 2)?;
                record.serialize_field("event", name)?;
                record.serialize_field("insert_id", insert_id)?;
                record.end()
            }
        }
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
            write!(f, "{}: ", printable::Name(field))?;
        }
        write!(f, "{}", printable::Message(message))
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record {}, {}", self.position, Reason(self))
    }
}

impl fmt::Display for RecordRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Update { group, operation } => write!(f, "{operation} of {group}"),
            Self::Unreadable { excerpt } => write!(f, "unreadable {excerpt:?}"),
            Self::Event { name, insert_id } => {
                write!(f, "event {name:?}")?;
                if insert_id.is_empty() {
                    return Ok(());
                }
                write!(f, " {}", printable::Message(insert_id))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejection_knows_group_and_operation_of_an_update_alone() {
        let group = Group::new("company", "acme");
        let update = RecordRef::update(&group, Operation::Union);
        let rejection = Rejection::new(update, Some("a".to_owned()), "no");
        assert_eq!(rejection.group(), Some(&group));
        assert_eq!(rejection.operation(), Some(Operation::Union));
        assert_eq!(
            rejection.to_string(),
            r#"record 0, $union of company "acme": "a": no"#
        );
        for (record, shown) in [
            (RecordRef::event("Signup", "id"), r#"event "Signup" id"#),
            (RecordRef::event("Signup", ""), r#"event "Signup""#),
            (RecordRef::unreadable("{"), r#"unreadable "{""#),
            (
                RecordRef::unreadable(r#"{"$token":"secret"}"#),
                r#"unreadable "{\"$""#,
            ),
        ] {
            let rejection = Rejection::too_large(record, 3, 2);
            assert_eq!((rejection.group(), rejection.operation()), (None, None));
            let reason = format!("{shown}: record is 3 bytes; the limit is 2");
            assert_eq!(rejection.reason().to_string(), reason);
        }
    }
}

use std::fmt;

use serde_core::ser;

use crate::util::printable;

/// An error of a value that cannot be a property. It is a single pointer, to keep the results of serializing small.
#[derive(Clone, Debug)]
pub struct EncodeError(Box<Cause>);

#[derive(Clone, Debug)]
struct Cause {
    /// The name of the property, if known.
    property: Option<String>,
    message: String,
}

impl EncodeError {
    #[cold]
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(Box::new(Cause {
            property: None,
            message: message.into(),
        }))
    }

    /// Adds the name of the property, unless the error has one already.
    #[cold]
    pub(crate) fn of(mut self, property: &str) -> Self {
        self.0.property.get_or_insert_with(|| property.to_owned());
        self
    }

    /// Returns the name of the property, if known, and the message.
    pub(crate) fn into_parts(self) -> (Option<String>, String) {
        (self.0.property, self.0.message)
    }
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(property) = &self.0.property {
            write!(f, "property {}: ", printable::Name(property))?;
        }
        write!(f, "{}", printable::Message(&self.0.message))
    }
}

impl std::error::Error for EncodeError {}

/// Converts the error of text that is not the JSON it should be, such as an invalid `RawValue`.
impl From<serde_json::Error> for EncodeError {
    fn from(error: serde_json::Error) -> Self {
        Self::new(error.to_string())
    }
}

impl ser::Error for EncodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }
}

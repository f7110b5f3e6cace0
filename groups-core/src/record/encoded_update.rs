use std::collections::BTreeMap;
use std::fmt;
use std::str::Utf8Error;
use std::sync::Arc;

use serde_json::value::RawValue;

use crate::group::{Group, Operation};
use crate::record::Encoded;
use crate::record::encode::write_update;
use crate::record::{Error, ErrorKind, Rejection, Update};
use crate::record::{MAX_RECORD, Record};
use crate::util::scratch::with_scratch;

/// An update as JSON, free of what it was made from: it can wait, in memory or in a database, and
/// go from thread to thread. Cheap to clone.
///
/// The token is no part of it.
#[derive(Clone, PartialEq, Eq)]
pub struct EncodedUpdate {
    json: Arc<str>,
    encoded: Encoded,
}

impl EncodedUpdate {
    /// The update; nothing, if it has nothing to say.
    ///
    /// # Errors
    /// If it cannot be sent, also because it is too large: the error names group, property and cause.
    pub fn new(update: &Update<'_>) -> Result<Option<Self>, Error> {
        with_scratch(|json| {
            json.push(b'{');
            let written = update.write(json);
            let Some(encoded) = written.map_err(|rejection| Error::invalid(&rejection))? else {
                return Ok(None);
            };
            let json = std::str::from_utf8(json).map_err(not_text)?.into();
            Self { json, encoded }.within_limit().map(Some)
        })
    }

    /// Reads what [`as_json`](Self::as_json) gave.
    ///
    /// # Errors
    /// If it is no update: a JSON object with `$group_key`, `$group_id` and an operation.
    pub fn from_json(json: &str) -> Result<Self, Error> {
        let wrong = || Error::new(ErrorKind::InvalidUpdate, "not the JSON of a stored update");
        let members: BTreeMap<&str, &RawValue> =
            serde_json::from_str(json).map_err(|error| wrong().with_source(error))?;
        let operation = members.keys().find_map(|name| Operation::from_name(name));
        let operation = operation.ok_or_else(wrong)?;
        let (group, _) = Update::read(&json.trim_start().as_bytes()[1..]);
        let mut out = vec![b'{'];
        let written = write_update(&mut out, &group, operation, |out| {
            out.extend_from_slice(members[operation.name()].get().as_bytes());
            Ok(())
        });
        let encoded = written
            .map_err(|rejection| Error::invalid(&rejection))?
            .ok_or_else(wrong)?;
        let json = String::from_utf8(out).map_err(|_| wrong())?;
        Ok(Self {
            json: json.into(),
            encoded,
        })
    }

    /// What is too large to be sent must not wait.
    pub(crate) fn within_limit(self) -> Result<Self, Error> {
        let bytes = self.json.len();
        if bytes <= MAX_RECORD {
            return Ok(self);
        }
        let name = Update::name(self.members());
        let rejection = Rejection::too_large(name, bytes, MAX_RECORD);
        Err(Error::invalid(&rejection))
    }

    /// The update as it goes over the wire, but for `$token`.
    #[must_use]
    pub fn as_json(&self) -> &str {
        &self.json
    }

    /// Returns how many bytes of JSON the update is.
    #[must_use]
    #[allow(clippy::len_without_is_empty)] // No update is empty.
    pub fn len(&self) -> usize {
        self.json.len()
    }

    /// What it does.
    #[must_use]
    pub fn operation(&self) -> Operation {
        let (_, operation) = Update::read(self.members());
        operation
    }

    /// The group it is for.
    #[must_use]
    pub fn group(&self) -> Group<'static> {
        let (group, _) = Update::read(self.members());
        group
    }

    /// The bytes that say which group it is for: the same bytes, the same group.
    #[must_use]
    pub fn group_bytes(&self) -> &[u8] {
        &self.members()[..self.encoded.head]
    }

    pub(crate) fn encoded(&self) -> Encoded {
        self.encoded
    }

    /// All but the first bracket.
    pub(crate) fn members(&self) -> &[u8] {
        &self.json.as_bytes()[1..]
    }
}

/// Returns the JSON that was written.
pub(crate) fn text(json: Vec<u8>) -> Result<String, Error> {
    String::from_utf8(json).map_err(|error| not_text(error.utf8_error()))
}

fn not_text(error: Utf8Error) -> Error {
    Error::new(ErrorKind::InvalidUpdate, "the JSON is not valid UTF-8").with_source(error)
}

/// How many bytes of JSON they are.
pub(crate) fn total_bytes(updates: &[EncodedUpdate]) -> usize {
    updates.iter().map(|update| update.as_json().len()).sum()
}

impl fmt::Debug for EncodedUpdate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EncodedUpdate({})", self.json)
    }
}

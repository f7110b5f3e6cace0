use std::fmt;
use std::str::Utf8Error;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::group::{Group, Operation};
use crate::json::members::Members;
use crate::record::Encoded;
use crate::record::Record;
use crate::record::encoded_record::check_limit;
use crate::record::foreign_update::ForeignUpdate;
use crate::record::group_hash::hash_written;
use crate::record::{Error, ErrorKind, Rejection, Update};
use crate::util::{Buffer, with_scratch};

/// An update as JSON, which borrows nothing: it can be stored, in memory or in a database, and sent to another thread.
/// Cheap to clone.
///
/// The token is not part of it.
#[derive(Clone, PartialEq, Eq)]
pub struct EncodedUpdate {
    json: Arc<str>,
    encoded: Encoded,
}

impl EncodedUpdate {
    /// Encodes an update. Returns `None` if it is empty, so that there is nothing to send.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidUpdate`] if it cannot be sent, for instance because it is too large: the error names group,
    /// property and cause.
    pub fn new(update: &Update<'_>) -> Result<Option<Self>, Error> {
        with_scratch(|json| {
            json.push(b'{');
            let written = update.write(json);
            let Some(encoded) = written.map_err(|rejection| Error::invalid(&rejection))? else {
                return Ok(None);
            };
            let json = std::str::from_utf8(json).map_err(not_text)?;
            check_limit(json, Update::name)?;
            Ok(Some(Self {
                json: json.into(),
                encoded,
            }))
        })
    }

    /// Parses an update: what [`as_json`](Self::as_json) returned, or what another program wrote in Mixpanel's format,
    /// without `$token`.
    ///
    /// The members beside the operation that Mixpanel's SDKs send (`$time`, `$ip`, `$ignore_time`,
    /// `$latitude`, `$longitude`, `$ignore_alias`, `$mp_metadata`) are kept, and every value stays as it is written. An
    /// update that is too large is read all the same, and rejected when it is sent.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidUpdate`] if the JSON is not an update: `$group_key` and `$group_id` as text,
    /// `$company_id` as text if there is one, and exactly one operation with a value that it takes. The
    /// error says what is wrong, and names group and property where they are known.
    pub fn from_json(json: &str) -> Result<Self, Error> {
        let members = Members::parse(json).map_err(|error| {
            Error::new(ErrorKind::InvalidUpdate, "not an update: not a JSON object")
                .with_source(error)
        })?;
        let foreign = ForeignUpdate::read(&members)
            .map_err(|why| Error::new(ErrorKind::InvalidUpdate, format!("not an update: {why}")))?;
        let mut out = Buffer::default();
        out.push(b'{');
        let written = foreign.write(&mut out);
        let encoded = written.map_err(|rejection| Error::invalid(&rejection))?;
        let json = text(out)?.into();
        Ok(Self { json, encoded })
    }

    /// Returns the update as `hook` leaves its JSON object, of any size; `None` if the hook returns `false`.
    pub(crate) fn edit(
        &self,
        hook: impl FnOnce(&mut Map<String, Value>) -> bool,
    ) -> Result<Option<Self>, Error> {
        let edited = super::edit::edit(&self.json, hook);
        edited.map(|json| Self::from_json(&json)).transpose()
    }

    /// Returns the update as it is sent, without `$token`.
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

    /// Returns what the update does.
    #[must_use]
    pub fn operation(&self) -> Operation {
        let Some(operation) = self.encoded.operation else {
            unreachable!("events have none");
        };
        operation
    }

    /// Returns the group that the update is for.
    #[must_use]
    pub fn group(&self) -> Group<'static> {
        let Some((group, _)) = Update::read(self.members()) else {
            unreachable!("this crate wrote it");
        };
        group
    }

    /// Returns bytes that identify the group: updates with equal bytes are for the same group.
    #[must_use]
    pub fn group_bytes(&self) -> &[u8] {
        &self.members()[..self.encoded.head]
    }

    pub(crate) fn encoded(&self) -> Encoded {
        self.encoded
    }

    /// Returns all but the first bracket.
    pub(crate) fn members(&self) -> &[u8] {
        &self.json.as_bytes()[1..]
    }
}

impl Record for EncodedUpdate {
    fn write(&self, out: &mut Buffer) -> Result<Option<Encoded>, Box<Rejection>> {
        out.extend_from_slice(self.members());
        Ok(Some(self.encoded))
    }

    fn group_hash(&self) -> u64 {
        hash_written(self.group_bytes())
    }
}

/// Returns the JSON that was written.
pub(crate) fn text(json: Buffer) -> Result<String, Error> {
    String::from_utf8(json.into_vec()).map_err(|error| not_text(error.utf8_error()))
}

fn not_text(error: Utf8Error) -> Error {
    Error::new(ErrorKind::InvalidUpdate, "the JSON is not valid UTF-8").with_source(error)
}

impl fmt::Debug for EncodedUpdate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EncodedUpdate({})", self.json)
    }
}

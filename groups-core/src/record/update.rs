use std::borrow::Cow;
use std::fmt;

use crate::group::{Group, Operation};
use crate::json::EncodeError;
use crate::json::members::{Members, Text};
use crate::json::serializer::write_end;
use crate::record::Encoded;
use crate::record::Error;
use crate::record::MixpanelGroup;
use crate::record::encode::{AnyValue, Encoder, Unsetter, write_update_of};
use crate::record::encoded_update::text;
use crate::record::group_hash::{hash, hash_written};
use crate::record::visit::field_operations;
use crate::record::{EncodedUpdate, Record};
use crate::record::{RecordRef, Rejection};
use crate::util::Buffer;

/// A change of a group profile, ready to be sent.
///
/// Made by the methods of [`MixpanelGroup`] and [`Group`]. Those of a derived struct borrow it and
/// are encoded when they are sent, straight into the request's body.
#[derive(Clone)]
#[must_use = "an update does nothing until it is sent"]
pub struct Update<'a>(Repr<'a>);

#[derive(Clone)]
enum Repr<'a> {
    /// To be encoded when it is sent.
    Derived(&'a (dyn Source + Sync), Operation),
    /// The object's members after `$token`, to its closing bracket. Empty if there is nothing to send.
    Encoded(Cow<'a, [u8]>, Option<Encoded>),
    /// Encoded earlier, and shared.
    Stored(EncodedUpdate),
    /// Cannot be sent, for this reason.
    Invalid(Box<Rejection>),
}

/// A derived struct, whatever its type.
trait Source {
    fn group_hash(&self) -> u64;
    fn is_empty(&self, operation: Operation) -> bool;
    fn write(
        &self,
        operation: Operation,
        out: &mut Buffer,
    ) -> Result<Option<Encoded>, Box<Rejection>>;
}

impl<T: MixpanelGroup> Source for T {
    fn group_hash(&self) -> u64 {
        hash(self.group().id().as_str().as_bytes())
    }

    fn is_empty(&self, operation: Operation) -> bool {
        if operation == Operation::Unset {
            let names = &mut Buffer::default();
            let has_any = T::PROPERTIES.iter().any(|property| property.unset_none);
            return !has_any || write_unset(self, names, 0).is_ok_and(|end| end == 0);
        }
        let mut any_value = AnyValue::default();
        let visited = self.visit_properties(self, operation, &mut any_value);
        visited.is_ok() && !any_value.0
    }

    fn write(
        &self,
        operation: Operation,
        out: &mut Buffer,
    ) -> Result<Option<Encoded>, Box<Rejection>> {
        write_update_of(out, self, operation, |out, start| {
            if operation == Operation::Unset {
                let end = write_unset(self, out, start)?;
                return Ok(write_end(out, start, end, *b"[]"));
            }
            let mut encoder = Encoder {
                out,
                at: start,
                names: None,
            };
            self.visit_properties(self, operation, &mut encoder)?;
            let end = encoder.at;
            Ok(write_end(out, start, end, *b"{}"))
        })
    }
}

/// Writes the names that `updates()` unsets, whatever operation their fields have, and returns where they end.
fn write_unset<T: MixpanelGroup>(
    group: &T,
    out: &mut Buffer,
    at: usize,
) -> Result<usize, EncodeError> {
    let mut unsetter = Unsetter { out, at };
    for operation in field_operations::<T>() {
        group.visit_properties(group, operation, &mut unsetter)?;
    }
    Ok(unsetter.at)
}

impl<'a> Update<'a> {
    pub(crate) fn derived<T: MixpanelGroup + Sync>(source: &'a T, operation: Operation) -> Self {
        Self(Repr::Derived(source, operation))
    }

    pub(crate) fn encoded(
        json: impl Into<Cow<'a, [u8]>>,
        written: Result<Option<Encoded>, Box<Rejection>>,
    ) -> Self {
        Self(match written {
            Ok(encoded) => Repr::Encoded(json.into(), encoded),
            Err(rejection) => Repr::Invalid(rejection),
        })
    }

    /// Returns an update that is rejected when it is sent.
    pub(crate) fn invalid(group: &Group<'_>, operation: Operation, error: EncodeError) -> Self {
        let record = RecordRef::update(group, operation);
        let (property, message) = error.into_parts();
        let rejection = Rejection::new(record, property, message);
        Self(Repr::Invalid(Box::new(rejection)))
    }

    /// Returns whether the update is known to be rejected when it is sent.
    pub(crate) fn is_invalid(&self) -> bool {
        matches!(self.0, Repr::Invalid(_))
    }

    /// Returns what the update does.
    #[must_use]
    pub fn operation(&self) -> Option<Operation> {
        match &self.0 {
            Repr::Derived(_, operation) => Some(*operation),
            Repr::Encoded(_, encoded) => encoded.and_then(|encoded| encoded.operation),
            Repr::Stored(update) => update.encoded().operation,
            Repr::Invalid(rejection) => rejection.operation(),
        }
    }

    /// Returns the update as it is sent, without `$token`, which the client adds; `None` if
    /// there is nothing to send.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidUpdate`](crate::ErrorKind::InvalidUpdate) if the update cannot be sent: the
    /// error names group, property and cause.
    pub fn to_json(&self) -> Result<Option<String>, Error> {
        let mut json = Buffer::default();
        json.push(b'{');
        match self.write(&mut json) {
            Ok(None) => Ok(None),
            Ok(Some(_)) => text(json).map(Some),
            Err(rejection) => Err(Error::invalid(&rejection)),
        }
    }

    /// Encodes the update, so that it borrows nothing.
    pub fn into_owned(self) -> Update<'static> {
        let mut json = Buffer::default();
        let written = self.write(&mut json);
        Update::encoded(json.into_vec(), written)
    }
}

impl Record for Update<'_> {
    fn write(&self, out: &mut Buffer) -> Result<Option<Encoded>, Box<Rejection>> {
        match &self.0 {
            Repr::Derived(source, operation) => source.write(*operation, out),
            Repr::Encoded(json, encoded) => {
                out.extend_from_slice(json);
                Ok(*encoded)
            }
            Repr::Stored(update) => update.write(out),
            Repr::Invalid(rejection) => Err(rejection.clone()),
        }
    }

    fn group_hash(&self) -> u64 {
        match &self.0 {
            Repr::Derived(source, _) => source.group_hash(),
            Repr::Encoded(json, Some(encoded)) => hash_written(&json[..encoded.head]),
            Repr::Stored(update) => update.group_hash(),
            Repr::Encoded(_, None) | Repr::Invalid(_) => 0, // Nothing is sent.
        }
    }
}

impl Update<'_> {
    /// Returns what identifies the update that was written with these members.
    pub(crate) fn name(members: &[u8]) -> RecordRef {
        match Update::read(members) {
            Some((group, operation)) => RecordRef::update(&group, operation),
            // The properties come from the user's code: that they are JSON is checked, and not assumed here.
            None => RecordRef::unreadable(&String::from_utf8_lossy(members)),
        }
    }

    /// Returns the group and the operation of an update that was written with these members, whatever its
    /// properties hold; `None` if they are not JSON.
    pub(crate) fn read(members: &[u8]) -> Option<(Group<'static>, Operation)> {
        let json = [b"{", members].concat();
        let members = Members::parse(std::str::from_utf8(&json).ok()?).ok()?;
        let text = |name| {
            let (_, value) = members.0.iter().find(|(other, _)| other == name)?;
            let Text(text) = serde_json::from_str(value.get()).ok()?;
            Some(text.into_owned())
        };
        let mut group = Group::new(text("$group_key")?, text("$group_id")?);
        if let Some(company) = text("$company_id") {
            group = group.in_company(company);
        }
        let mut names = members.0.iter().map(|(name, _)| name);
        let operation = names.find_map(|name| Operation::from_name(name))?;
        Some((group, operation))
    }
}

/// The same update, borrowed.
impl<'a> From<&'a Update<'_>> for Update<'a> {
    fn from(update: &'a Update<'_>) -> Self {
        Self(match &update.0 {
            Repr::Derived(source, operation) => Repr::Derived(*source, *operation),
            Repr::Encoded(json, encoded) => Repr::Encoded(Cow::Borrowed(json), *encoded),
            Repr::Stored(update) => {
                Repr::Encoded(Cow::Borrowed(update.members()), Some(update.encoded()))
            }
            Repr::Invalid(rejection) => Repr::Invalid(rejection.clone()),
        })
    }
}

/// The update, which can wait and cross threads before.
impl From<EncodedUpdate> for Update<'_> {
    fn from(update: EncodedUpdate) -> Self {
        Self(Repr::Stored(update))
    }
}

impl<'a> From<&'a EncodedUpdate> for Update<'a> {
    fn from(update: &'a EncodedUpdate) -> Self {
        Self::encoded(update.members(), Ok(Some(update.encoded())))
    }
}

/// Two updates are equal if the same JSON is sent, or if they cannot be sent for the same reason.
impl PartialEq for Update<'_> {
    fn eq(&self, other: &Self) -> bool {
        let [mut one, mut two] = <[Buffer; 2]>::default();
        match (self.write(&mut one), other.write(&mut two)) {
            (Ok(_), Ok(_)) => one == two,
            (one, two) => one.err() == two.err(),
        }
    }
}

/// A single update can be passed wherever several can: `client.send(acme.set())`.
impl IntoIterator for Update<'_> {
    type Item = Self;
    type IntoIter = std::iter::Once<Self>;

    fn into_iter(self) -> Self::IntoIter {
        std::iter::once(self)
    }
}

#[allow(clippy::into_iter_without_iter)] // There is one.
impl IntoIterator for &Update<'_> {
    type Item = Self;
    type IntoIter = std::iter::Once<Self>;

    fn into_iter(self) -> Self::IntoIter {
        std::iter::once(self)
    }
}

impl fmt::Debug for Update<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_json() {
            Ok(json) => write!(
                f,
                "Update({})",
                json.as_deref().unwrap_or("nothing to send")
            ),
            Err(error) => write!(f, "Update({error})"),
        }
    }
}

/// An iterator over the updates of a struct: see [`MixpanelGroup::updates`].
#[derive(Clone)]
#[must_use = "updates do nothing until they are sent"]
pub struct Updates<'a> {
    source: &'a (dyn Source + Sync),
    rest: std::slice::Iter<'static, Operation>,
}

impl<'a> Updates<'a> {
    pub(crate) fn of<T: MixpanelGroup + Sync>(source: &'a T) -> Self {
        const ORDER: [Operation; 4] = [
            Operation::Set,
            Operation::SetOnce,
            Operation::Union,
            Operation::Unset,
        ];
        Self {
            source,
            rest: ORDER.iter(),
        }
    }
}

impl<'a> Iterator for Updates<'a> {
    type Item = Update<'a>;

    fn next(&mut self) -> Option<Update<'a>> {
        let source = self.source;
        self.rest
            .find(|operation| !source.is_empty(**operation))
            .map(|operation| Update(Repr::Derived(source, *operation)))
    }
}

impl fmt::Debug for Updates<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn an_update_is_named_by_its_group_or_by_its_beginning() {
        let acme = Group::new("company", "acme").in_company("x\"");
        let json = acme.set(BTreeMap::from([("a", 1)]));
        let json = json.to_json().unwrap().unwrap();
        let name = |json: &str| Update::name(&json.as_bytes()[1..]);
        assert_eq!(name(&json), RecordRef::update(&acme, Operation::Set));
        for (good, bad) in [
            ("1}", "1,,2}"),
            ("$set", "$sets"),
            ("_id\":\"acme", "_id\":\"acme\\x"),
        ] {
            let json = json.replace(good, bad);
            assert_eq!(name(&json), RecordRef::unreadable(&json[1..]));
        }
        let unreadable = RecordRef::unreadable("\u{FFFD}");
        assert_eq!(Update::name(b"\xFF"), unreadable);
    }
}

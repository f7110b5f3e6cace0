//! Encodes one update as JSON.

use serde_core::Serialize;

use crate::group::{Group, Id, Operation, Property};
use crate::json::escape::write_str;
use crate::json::list::ListJson;
use crate::json::null::{is_empty_list, is_null};
use crate::json::object::{Names, Object};
use crate::json::serializer::wrote_null;
use crate::json::{EncodeError, Json, Sink};
use crate::record::MixpanelGroup;
use crate::record::visit::Visitor;
use crate::record::{RecordRef, Rejection};
use crate::util::Buffer;

/// The group keys of Hierarchical Groups whose updates name the company. Other keys may start with `$` too:
/// Segment's Mixpanel destination uses `$group_id`.
const KEYS_WITH_COMPANY: [&str; 2] = ["$company_id", "$user_id"];

/// The facts about a record that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Encoded {
    /// The operation of an update; `None` for an event.
    pub(crate) operation: Option<Operation>,
    /// The number of bytes at the start that identify the group. Records that share them stay in order.
    pub(crate) head: usize,
}

/// Appends the members of an update's object, from `$group_key` to the closing bracket. The caller writes `$token`
/// before them. If `write_value` writes nothing, nothing is appended.
pub(crate) fn write_update(
    out: &mut Buffer,
    group: &Group<'_>,
    operation: Operation,
    write_value: impl FnOnce(&mut Buffer, usize) -> Result<usize, EncodeError>,
) -> Result<Option<Encoded>, Box<Rejection>> {
    write_update_with(out, group, |_, at| Ok(at), operation, write_value)
}

/// Appends an update as [`write_update`] does, with further members before the operation.
pub(crate) fn write_update_with(
    out: &mut Buffer,
    group: &Group<'_>,
    write_extras: impl FnOnce(&mut Buffer, usize) -> Result<usize, EncodeError>,
    operation: Operation,
    write_value: impl FnOnce(&mut Buffer, usize) -> Result<usize, EncodeError>,
) -> Result<Option<Encoded>, Box<Rejection>> {
    let write_key = |out: &mut Buffer, at: usize| {
        let key = group.key();
        if key.is_empty() {
            return Err(EncodeError::new("the group key is empty").of("$group_key"));
        }
        check_company(key, group)?;
        let at = out.put(at, *br#""$group_key":"#);
        let at = write_str(out, at, key);
        Ok(out.put(at, *br#","$group_id":"#))
    };
    write_members(out, group, write_key, write_extras, operation, write_value)
}

/// Appends an update of a struct as [`write_update`] does.
pub(crate) fn write_update_of<T: MixpanelGroup>(
    out: &mut Buffer,
    source: &T,
    operation: Operation,
    write_value: impl FnOnce(&mut Buffer, usize) -> Result<usize, EncodeError>,
) -> Result<Option<Encoded>, Box<Rejection>> {
    let group = &source.group();
    let write_key = |out: &mut Buffer, at: usize| {
        check_company(T::GROUP_KEY, group)?;
        Ok(out.put_slice(at, T::GROUP_HEAD.as_bytes()))
    };
    write_members(
        out,
        group,
        write_key,
        |_, at| Ok(at),
        operation,
        write_value,
    )
}

/// Writes the members by functions that write at a position each, and return where that ends.
fn write_members(
    out: &mut Buffer,
    group: &Group<'_>,
    write_key: impl FnOnce(&mut Buffer, usize) -> Result<usize, EncodeError>,
    write_extras: impl FnOnce(&mut Buffer, usize) -> Result<usize, EncodeError>,
    operation: Operation,
    write_value: impl FnOnce(&mut Buffer, usize) -> Result<usize, EncodeError>,
) -> Result<Option<Encoded>, Box<Rejection>> {
    let start = out.len();
    let write = || {
        let at = write_key(out, start)?;
        let mut at = write_id(out, at, group.id(), "$group_id")?;
        let head = at - start;
        if let Some(company_id) = group.company_id() {
            at = out.put(at, *br#","$company_id":"#);
            at = write_id(out, at, company_id, "$company_id")?;
        }
        at = write_extras(out, at)?;
        let (key, length) = operation.padded_key();
        out.put(at, key);
        let value = at + length;
        let end = write_value(out, value)?;
        if end == value {
            return Ok(None);
        }
        let end = out.put(end, *b"}");
        out.set_len(end);
        Ok(Some(Encoded {
            operation: Some(operation),
            head,
        }))
    };
    let written = write();
    if !matches!(written, Ok(Some(_))) {
        out.truncate(start);
    }
    written.map_err(|error: EncodeError| {
        let (property, message) = error.into_parts();
        let record = RecordRef::update(group, operation);
        Box::new(Rejection::new(record, property, message))
    })
}

/// Returns an error if updates of groups with this key need a company id, and the group has none.
#[inline]
fn check_company(key: &str, group: &Group<'_>) -> Result<(), EncodeError> {
    if KEYS_WITH_COMPANY.contains(&key) && group.company_id().is_none() {
        let message = format!("an update of {key} needs a company id: use `in_company`");
        return Err(EncodeError::new(message).of("$company_id"));
    }
    Ok(())
}

/// Writes an id as text, and returns where it ends.
#[inline]
fn write_id(out: &mut Buffer, at: usize, id: &Id<'_>, field: &str) -> Result<usize, EncodeError> {
    let text = id.as_str();
    if text.is_empty() {
        return Err(EncodeError::new("the id is empty").of(field));
    }
    Ok(write_str(out, at, text))
}

/// A visitor that writes each property as `,"name":value`, except those that are `null`.
pub(crate) struct Encoder<'a> {
    pub(crate) out: &'a mut Buffer,
    /// Where the next property is written.
    pub(crate) at: usize,
    pub(crate) names: Option<Names>,
}

impl Encoder<'_> {
    #[inline]
    fn write(
        &mut self,
        property: &'static Property,
        value: impl FnOnce(&mut Buffer, usize) -> Result<usize, EncodeError>,
    ) -> Result<(), EncodeError> {
        let at = self.out.put_slice(self.at, property.key.as_bytes());
        let end = value(self.out, at).map_err(|error| error.of(property.name))?;
        if end > at && !wrote_null(self.out, at..end) {
            self.at = end;
        }
        Ok(())
    }
}

impl Visitor for Encoder<'_> {
    #[inline]
    fn property<T: Serialize + ?Sized>(
        &mut self,
        property: &'static Property,
        new: &T,
        _old: &T,
    ) -> Result<(), EncodeError> {
        self.write(property, |out, at| Json { out, at }.write(new))
    }

    #[inline]
    fn list<T: Serialize + ?Sized>(
        &mut self,
        property: &'static Property,
        new: &T,
        _old: &T,
    ) -> Result<(), EncodeError> {
        self.write(property, |out, at| ListJson { out, at }.write(new))
    }

    fn flatten<T: Serialize + ?Sized>(
        &mut self,
        property: &'static Property,
        all: &'static [Property],
        new: &T,
        _old: &T,
    ) -> Result<(), EncodeError> {
        self.out.set_len(self.at);
        let object = Object {
            out: self.out,
            operation: property.operation,
            names: self.names.get_or_insert_with(|| Names::new(all)),
        };
        object
            .write(new)
            .map_err(|error| error.of(property.field))?;
        self.at = self.out.len();
        Ok(())
    }
}

/// A visitor that finds out whether any property is not `null`.
#[derive(Default)]
pub(crate) struct AnyValue(pub(crate) bool);

impl Visitor for AnyValue {
    fn property<T: Serialize + ?Sized>(
        &mut self,
        _property: &'static Property,
        new: &T,
        _old: &T,
    ) -> Result<(), EncodeError> {
        self.0 = self.0 || !is_null(new);
        Ok(())
    }

    fn list<T: Serialize + ?Sized>(
        &mut self,
        _property: &'static Property,
        new: &T,
        _old: &T,
    ) -> Result<(), EncodeError> {
        self.0 = self.0 || !is_empty_list(new);
        Ok(())
    }

    fn flatten<T: Serialize + ?Sized>(
        &mut self,
        property: &'static Property,
        all: &'static [Property],
        new: &T,
        old: &T,
    ) -> Result<(), EncodeError> {
        if !self.0 {
            let out = &mut Buffer::default();
            let mut encoder = Encoder {
                out,
                at: 0,
                names: None,
            };
            let found = encoder.flatten(property, all, new, old);
            self.0 = found.is_err() || encoder.at > 0;
        }
        Ok(())
    }
}

/// A visitor that writes the names of the `unset_none` properties that are `null`, each as `,"name"`. A list without
/// items is not `null`: `$union` has nothing to add, and what it added before stays.
pub(crate) struct Unsetter<'a> {
    pub(crate) out: &'a mut Buffer,
    /// Where the next name is written.
    pub(crate) at: usize,
}

impl Visitor for Unsetter<'_> {
    fn property<T: Serialize + ?Sized>(
        &mut self,
        property: &'static Property,
        new: &T,
        _old: &T,
    ) -> Result<(), EncodeError> {
        if property.unset_none && is_null(new) {
            // The key is `,"name":`; the colon is left out.
            let key = property.key.as_bytes();
            self.at = self.out.put_slice(self.at, &key[..key.len() - 1]);
        }
        Ok(())
    }

    /// Writes nothing: the names of a map that is `null` are not known.
    fn flatten<T: Serialize + ?Sized>(
        &mut self,
        _property: &'static Property,
        _all: &'static [Property],
        _new: &T,
        _old: &T,
    ) -> Result<(), EncodeError> {
        Ok(())
    }
}

//! What makes an event valid. The emulator has a reading of its own, so that a misreading of either fails a test.
//! ([Import API](https://developer.mixpanel.com/reference/import-events))

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use serde_json::value::RawValue;

use super::time::{Since1970, Time};
use crate::json::EncodeError;
use crate::json::object::{BY_MIXPANEL, Reserved};
use crate::util::printable::Name;

/// What each event has already, and properties with which Mixpanel drops an event without a word, or hides other events.
pub(crate) const RESERVED: [Reserved; 5] = [
    ("time", "call `Event::time` instead"),
    ("distinct_id", "call `Event::distinct_id` instead"),
    ("$insert_id", "call `Event::insert_id` instead"),
    ("$ignore", BY_MIXPANEL),
    ("bucket", BY_MIXPANEL),
];

/// The property that links an event to its company, in projects with Hierarchical Groups.
pub(crate) const COMPANY: &str = "$company_id";

/// The property that names a company's user, in projects with Hierarchical Groups.
pub(crate) const USER: &str = "$user_id";

/// The most groups of one key that an event may be linked to.
/// ([Group analytics](https://docs.mixpanel.com/docs/data-structure/group-analytics))
pub(crate) const MAX_GROUPS: usize = 300;

/// "Fewer than 255 properties", and as many keys in each object.
pub(super) const MAX_KEYS: usize = 254;

/// "Fewer than 255 elements". A list of groups may have [`MAX_GROUPS`].
pub(super) const MAX_ITEMS: usize = 254;

/// How deep objects may be nested. Lists are not counted: no source says that they are.
const MAX_DEPTH: usize = 3;

const MAX_INSERT_ID: usize = 36;

/// Ids that are refused, since they come from mistakes.
const PLACEHOLDERS: [&str; 17] = [
    "00000000-0000-0000-0000-000000000000",
    "anon",
    "anonymous",
    "nil",
    "none",
    "null",
    "n/a",
    "na",
    "undefined",
    "unknown",
    "<nil>",
    "0",
    "-1",
    "true",
    "false",
    "[]",
    "{}",
];

pub(crate) fn check_distinct_id(id: &str) -> Result<(), String> {
    if PLACEHOLDERS.contains(&id) {
        return Err(format!("{id:?} is a placeholder, not an id"));
    }
    Ok(())
}

pub(crate) fn check_insert_id(id: &str) -> Result<(), String> {
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if id.is_empty() || id.len() > MAX_INSERT_ID || !id.bytes().all(is_valid) {
        return Err(format!(
            "invalid insert id: expected 1 to {MAX_INSERT_ID} of the characters A-Z, a-z, 0-9 and -"
        ));
    }
    check_distinct_id(id)
}

/// The first second of 1971, counted from 1970.
pub(super) const FIRST_SECOND: i64 = 365 * 24 * 60 * 60;

pub(super) fn check_time(time: Time, now: SystemTime) -> Result<(), String> {
    const AHEAD: Duration = Duration::from_secs(60 * 60);
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let last = i64::try_from((now + AHEAD).as_millis()).unwrap_or(i64::MAX);
    let (number, first, last) = match time.0 {
        Since1970::Secs(number) => (number, FIRST_SECOND, last / 1000),
        Since1970::Millis(number) => (number, FIRST_SECOND * 1000, last),
    };
    if number < first {
        return Err("it is before 1971".to_owned());
    }
    if number > last {
        return Err("it is more than an hour ahead".to_owned());
    }
    Ok(())
}

/// Checks the number of properties, each that is not a link to groups as [`check_value`] does, and the user and company.
pub(super) fn check_properties(
    json: &[u8],
    is_group: impl Fn(&str) -> bool,
) -> Result<(), EncodeError> {
    let properties: Properties<'_> = serde_json::from_slice(json)?;
    check_keys(properties.len()).map_err(EncodeError::new)?;
    if properties.contains_key(USER) {
        check_one_id(COMPANY, &properties)?;
        check_one_id(USER, &properties)?;
    }
    for (name, value) in properties {
        if value.get().starts_with(['[', '{']) && !is_group(&name) {
            // What serde_json refuses to read is nested in more than a hundred levels.
            serde_json::from_str(value.get())
                .map_err(|_| too_deep())
                .and_then(|value| check_value(&value))
                .map_err(|message| EncodeError::new(message).of(&name))?;
        }
    }
    Ok(())
}

type Properties<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

/// Checks that an event with a user names one user, and one company of it: a user has another identity in each.
fn check_one_id(name: &str, properties: &Properties<'_>) -> Result<(), EncodeError> {
    let ids = properties.get(name).map(|value| value.get());
    let ids: Option<Vec<Value>> = ids.and_then(|ids| serde_json::from_str(ids).ok());
    let ids = ids.unwrap_or_default();
    let Some(other) = ids.iter().find(|id| **id != ids[0]) else {
        return Ok(());
    };
    let shown = |id: &Value| match id {
        Value::String(text) => Name(text).to_string(),
        other => other.to_string(),
    };
    let (first, other) = (shown(&ids[0]), shown(other));
    let message = format!("both {first} and {other}, but an event with `{USER}` has one");
    Err(EncodeError::new(message).of(name))
}

/// Checks the number of an object's keys.
pub(crate) fn check_keys(keys: usize) -> Result<(), String> {
    if keys > MAX_KEYS {
        return Err(format!("{keys} properties; the limit is {MAX_KEYS}"));
    }
    Ok(())
}

/// Checks the lists and objects in a property's value.
pub(crate) fn check_value(value: &Value) -> Result<(), String> {
    check_levels(value, MAX_DEPTH)
}

fn check_levels(value: &Value, levels: usize) -> Result<(), String> {
    match value {
        Value::Array(items) if items.len() > MAX_ITEMS => Err(format!(
            "a list of {} items; the limit is {MAX_ITEMS}",
            items.len()
        )),
        Value::Array(items) => items.iter().try_for_each(|item| check_levels(item, levels)),
        Value::Object(members) => {
            let levels = levels.checked_sub(1).ok_or_else(too_deep)?;
            check_keys(members.len())?;
            let mut values = members.values();
            values.try_for_each(|value| check_levels(value, levels))
        }
        _ => Ok(()),
    }
}

fn too_deep() -> String {
    format!("objects are nested in more than {MAX_DEPTH} levels")
}

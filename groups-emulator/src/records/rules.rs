//! Mixpanel's rules for records, read from its documentation for the emulator alone. The emulator
//! shares no check with the client, so that a misreading on either side fails a test.
//!
//! Sources: the [Groups API](https://developer.mixpanel.com/reference/group-profiles), the
//! [Import API](https://developer.mixpanel.com/reference/import-events) and the
//! [supported data types](https://docs.mixpanel.com/docs/data-structure/property-reference/data-type).
//!
//! # Documented
//! - 2,000 records and 1 MB a record, on both paths; 2 MB a body of updates (in the example of a 413)
//!   and 10 MB uncompressed of events.
//! - Updates: one operation each; `$token`, `$group_key` and `$group_id` are texts; what value each
//!   operation takes. In Hierarchical Groups, `$company_id` beside the operation.
//! - Events: `time` in seconds or milliseconds, after 1971 and at most an hour ahead; `distinct_id` and
//!   `$insert_id`, which must not be placeholders; 36 bytes of `[A-Za-z0-9-]` for the latter; fewer than
//!   255 properties; 3 levels of nested objects. Of two events with the same name, time, distinct id
//!   and insert id, one is kept.
//! - A property name is truncated at 255 characters and a text at 255 bytes, unless
//!   [`truncate_like_mixpanel`](crate::EmulatorBuilder::truncate_like_mixpanel) turns that off.
//! - Creating a group needs at least one property, so an empty `$set` creates none, and `$union` takes at
//!   least one list.
//! - An event with the property `$ignore` is accepted and dropped.
//! - A record that is not valid is dropped without a word unless `strict=1` is set.
//!
//! # Inferred
//! - The reply to a strict request of updates, and 413 and 429 on `/groups`, are as on `/import`.
//! - An object inside an event has fewer than 255 keys, as the event itself. The data types page says
//!   "255 keys", which may include the 255th.
//! - `GET /groups` with `data` in the query is accepted, because the official SDK for Node sends it.
//! - `/groups/` is `/groups`, because mixpanel-js and `RudderStack` send to it. `/import/`, which a page of
//!   the documentation names too, is `/import`.
//! - gzip is accepted on `/groups` too, because the official SDK for Java sends it, and a form on
//!   `/import` too. Each is documented for the other path alone.
//! - Beside the operation, an update may have the keys that official SDKs add, or let a caller add
//!   ([`TOP_LEVEL_KEYS`]).
//!
//! # Unknown
//! Where no source says what Mixpanel does with a record, the emulator refuses it: one that accepts more
//! than Mixpanel would hide mistakes. Hence a top-level key that no source names is refused, and so are
//! a group id that is not a text, such as a number, a property name that is empty, `$group_key` or
//! `$group_id`, two objects on one line of a body that has one a line, an event's `time` that is not an
//! integer, and a record that is nested in more than 122 levels ([`MAX_LEVELS`]). The SDK for Python sends a
//! group id and a `time` as they were given. `$add` is refused too: it is documented for groups by its name alone.
//!
//! A body with a text that is not UTF-8 is refused as a whole. The Import API has an example where such a
//! record alone fails; there the emulator is stricter.
//!
//! Three things are accepted all the same:
//!
//! - A body of a content type that is not documented, such as `text/plain`, is read as JSON, because many
//!   programs send none or a wrong one.
//! - Of two members of a JSON object with the same name, the last one counts. So an update with two `$set` loses the
//!   first one.
//! - `$time`, `$ip` and the like as names of properties are names like others. Official SDKs put them
//!   beside the operation.
//!
//! Guesses about what is truncated: a text is cut at the last whole character within 255 bytes, also in
//! lists and objects, in events as well as in profiles, but not the ids and the time of an event; the
//! names in `$unset` and `$remove` are cut like others; what `$remove` takes out is not cut, so a
//! longer item cannot be removed by its full text.
//!
//! Not checked:
//!
//! - because the sources disagree: whether 1 MB is 1,000,000 bytes (the emulator allows 1,048,576), the
//!   number of items in a list (255 or 300), whether a `time` within the next hour is kept or replaced
//!   by now (the emulator keeps it)
//! - because no source says what becomes of the rest: the 2,001st property of a profile "fails", alone
//!   or with its update; a list or an object of more than 256 KB, and an object of more than 255 keys or 3
//!   levels, in a profile
//! - because a test should see what was sent: `$company_id` without `$user_id` on an event, which gives
//!   the user another identity; a missing `ip=0`, with which Mixpanel derives a location from the sender's
//!   address; what the property `bucket` of an event does to other events; rates
//!
//! Not added: what Mixpanel itself writes into a profile. That is `$last_seen`, which moves with each update
//! unless `$ignore_time` is set beside the operation, and the location of `$ip` or of the sender. `$time`,
//! `$ip`, `$mp_metadata` and the like beside the operation are accepted, and have no effect here.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use crate::reply::Endpoint;

/// The most records in one request. (Groups API and Import API, Limits)
pub(crate) const MAX_RECORDS: usize = 2_000;

/// The most bytes of one record: 1 MB, as JSON without spaces. (Groups API and Import API, Limits)
pub(crate) const MAX_RECORD_BYTES: usize = 1024 * 1024;

/// The most levels of objects and lists in one record, itself included. No source has a limit. JSON is read
/// in at most 127 levels, and the file to keep has a record's values five levels deeper than the record.
pub(crate) const MAX_LEVELS: usize = 127 - 5;

/// The keys that may stand beside the operation of an update; from `$time` on, those that official
/// SDKs add, or let a caller add. Those for Android and iOS send `$mp_metadata` with each update, and
/// `$ignore_alias` is an option of the one for Node.
pub(crate) const TOP_LEVEL_KEYS: [&str; 11] = [
    "$token",
    "$group_key",
    "$group_id",
    COMPANY_KEY,
    "$time",
    "$ip",
    "$ignore_time",
    "$latitude",
    "$longitude",
    "$ignore_alias",
    "$mp_metadata",
];

/// An operation that the documentation names once, without saying what it does to groups.
pub(crate) const ADD: &str = "$add";

/// The property of an event that Mixpanel accepts and drops.
const IGNORE: &str = "$ignore";

/// The group keys of Hierarchical Groups, whose updates need `$company_id`.
pub(crate) const COMPANY_KEY: &str = "$company_id";
pub(crate) const USER_KEY: &str = "$user_id";

/// The longest name of a property, in characters. (User profiles, and events and properties, limits)
const NAME_CHARACTERS: usize = 255;

/// The longest text value, in bytes. (Supported data types)
const TEXT_BYTES: usize = 255;

/// "Each event must have fewer than 255 properties"; nested objects get the same bound.
const KEYS_BELOW: usize = 255;

/// "A nested object has a maximum of 3 levels."
const OBJECT_LEVELS: usize = 3;

/// "`$insert_id` must be ≤ 36 bytes and contain only alphanumeric characters or `-`."
const INSERT_ID_BYTES: usize = 36;

const HOUR: u64 = 3600;
const YEAR: u64 = 365 * 24 * HOUR;

/// Returns the largest body of a request, in bytes.
pub(crate) fn max_body(endpoint: Endpoint) -> usize {
    const MIB: usize = 1024 * 1024;
    match endpoint {
        Endpoint::Groups => 2 * MIB,
        Endpoint::Import => 10 * MIB,
    }
}

/// Returns whether a text stands for "no id" in somebody's program. Such a text is refused as
/// `distinct_id` and as `$insert_id`.
fn is_placeholder(id: &str) -> bool {
    matches!(
        id,
        "anon" | "anonymous" | "nil" | "none" | "null" | "n/a" | "na" | "undefined" | "unknown"
    ) || matches!(id, "<nil>" | "0" | "-1" | "true" | "false" | "[]" | "{}")
        || id == "00000000-0000-0000-0000-000000000000"
}

/// Names that a property of a group cannot have: mixpanel-js strips such properties.
const NOT_NAMES: [&str; 2] = ["$group_key", "$group_id"];

/// Checks the name of a group's property.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    if NOT_NAMES.contains(&name) {
        return Err(format!("a property cannot have the name {name}"));
    }
    check_name_length(name)
}

fn check_name_length(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("a property name is empty".to_owned());
    }
    match name.chars().nth(NAME_CHARACTERS) {
        Some(_) => Err(format!(
            "a property name is longer than {NAME_CHARACTERS} characters"
        )),
        None => Ok(()),
    }
}

/// Truncates a property's name as Mixpanel does.
pub(crate) fn truncate_name(name: &mut String) {
    if let Some((end, _)) = name.char_indices().nth(NAME_CHARACTERS) {
        name.truncate(end);
    }
}

/// Truncates the names of properties as Mixpanel does.
pub(crate) fn truncate_names(
    properties: Map<String, Value>,
) -> impl Iterator<Item = (String, Value)> {
    properties.into_iter().map(|(mut name, value)| {
        truncate_name(&mut name);
        (name, value)
    })
}

/// Truncates the texts in a value as Mixpanel does.
pub(crate) fn truncate_texts(value: &mut Value) {
    match value {
        Value::String(text) if text.len() > TEXT_BYTES => {
            let mut end = TEXT_BYTES;
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text.truncate(end);
        }
        Value::Array(items) => items.iter_mut().for_each(truncate_texts),
        Value::Object(members) => members.values_mut().for_each(truncate_texts),
        _ => {}
    }
}

/// Checks that an event has a `distinct_id`. `""` stands for an event without a user.
pub(crate) fn check_distinct_id(id: Option<&Value>) -> Result<(), String> {
    refuse_placeholder(text(id)?)
}

/// Checks that an event has an `$insert_id` of the documented form.
pub(crate) fn check_insert_id(id: Option<&Value>) -> Result<(), String> {
    let id = text(id)?;
    let is_allowed = |byte: u8| byte == b'-' || byte.is_ascii_alphanumeric();
    if id.is_empty() || id.len() > INSERT_ID_BYTES || !id.bytes().all(is_allowed) {
        return Err(format!(
            "must be 1 to {INSERT_ID_BYTES} alphanumeric characters or `-`"
        ));
    }
    refuse_placeholder(id)
}

fn refuse_placeholder(id: &str) -> Result<(), String> {
    if is_placeholder(id) {
        return Err(format!("{id:?} is a placeholder, not an id"));
    }
    Ok(())
}

fn text(value: Option<&Value>) -> Result<&str, String> {
    match value {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err("not a text".to_owned()),
        None => Err("missing".to_owned()),
    }
}

/// Checks an event's `time`, in seconds or milliseconds since 1970.
///
/// The two are distinguished by size: a number that is a valid time in seconds today would, as
/// milliseconds, lie before 1971.
pub(crate) fn check_time(time: Option<&Value>, now: SystemTime) -> Result<(), String> {
    let time = time.ok_or("missing")?;
    let time = time
        .as_i64()
        .ok_or("must be specified as seconds since epoch")?;
    let Ok(time) = u64::try_from(time) else {
        return Err("before 1971".to_owned());
    };
    let now = now
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_secs());
    let last = now + HOUR;
    let seconds = if time > last { time / 1000 } else { time };
    if seconds < YEAR {
        // Too large for seconds and too small for milliseconds: a time in seconds, far ahead.
        let is_ahead = time > last;
        return Err(if is_ahead { AHEAD } else { "before 1971" }.to_owned());
    }
    if seconds > last {
        return Err(AHEAD.to_owned());
    }
    Ok(())
}

const AHEAD: &str = "more than an hour ahead";

/// Checks the number of an event's properties, the length of each name, and how deep their objects are nested.
pub(crate) fn check_properties(properties: &Map<String, Value>) -> Result<(), (String, String)> {
    check_keys(properties).map_err(|message| (String::new(), message))?;
    for (name, value) in properties {
        check_name_length(name).map_err(|message| (String::new(), message))?;
        check_levels(value, OBJECT_LEVELS).map_err(|message| (name.clone(), message))?;
    }
    Ok(())
}

/// Returns whether Mixpanel accepts the event and drops it.
pub(crate) fn is_ignored(event: &Value) -> bool {
    event["properties"].get(IGNORE).is_some()
}

/// Returns the field and the reason for which the emulator drops such an event.
pub(crate) fn ignored() -> (String, String) {
    let message = "Mixpanel accepts an event with this property and drops it";
    (format!("properties.{IGNORE}"), message.to_owned())
}

fn check_keys(object: &Map<String, Value>) -> Result<(), String> {
    if object.len() >= KEYS_BELOW {
        let keys = object.len();
        return Err(format!(
            "{keys} properties, must be fewer than {KEYS_BELOW}"
        ));
    }
    Ok(())
}

fn check_levels(value: &Value, left: usize) -> Result<(), String> {
    match value {
        Value::Object(_) if left == 0 => Err(format!(
            "objects are nested in more than {OBJECT_LEVELS} levels"
        )),
        Value::Object(object) => {
            check_keys(object)?;
            object
                .values()
                .try_for_each(|value| check_levels(value, left - 1))
        }
        Value::Array(items) => items.iter().try_for_each(|item| check_levels(item, left)),
        _ => Ok(()),
    }
}

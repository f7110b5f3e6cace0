//! What Mixpanel's documentation asks of names and events, read for the emulator alone: it shares no
//! check with the client, so that a misreading on either side shows.
//! ([Import API](https://developer.mixpanel.com/reference/import-events),
//! [supported data types](https://docs.mixpanel.com/docs/data-structure/property-reference/data-type))

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

/// The longest name of a property, in characters. (User profiles, limits)
const NAME_CHARACTERS: usize = 255;

/// "Each event must have fewer than 255 properties"; objects have the same bound.
const KEYS_BELOW: usize = 255;

/// "A nested object has a maximum of 3 levels."
const OBJECT_LEVELS: usize = 3;

/// "$insert_id must be ≤ 36 bytes and contain only alphanumeric characters or `-`."
const INSERT_ID_BYTES: usize = 36;

const HOUR: u64 = 3600;
const YEAR: u64 = 365 * 24 * HOUR;

/// What stands for "no id" in someone's program: refused as `distinct_id` and as `$insert_id`.
fn is_placeholder(id: &str) -> bool {
    matches!(
        id,
        "anon" | "anonymous" | "nil" | "none" | "null" | "n/a" | "na" | "undefined" | "unknown"
    ) || matches!(id, "<nil>" | "0" | "-1" | "true" | "false" | "[]" | "{}")
        || id == "00000000-0000-0000-0000-000000000000"
}

pub(crate) fn check_name(name: &str) -> Result<(), String> {
    match name.chars().nth(NAME_CHARACTERS) {
        Some(_) => Err(format!(
            "a property name is longer than {NAME_CHARACTERS} characters"
        )),
        None => Ok(()),
    }
}

/// Checks that an event's `distinct_id` is there and names someone; `""` is for an event of no user.
pub(crate) fn check_distinct_id(id: Option<&Value>) -> Result<(), String> {
    let id = text(id)?;
    if is_placeholder(id) {
        return Err(format!("{id:?} is a placeholder, not an id"));
    }
    Ok(())
}

pub(crate) fn check_insert_id(id: Option<&Value>) -> Result<(), String> {
    let id = text(id)?;
    let is_allowed = |byte: &u8| matches!(byte, b'-' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z');
    if id.is_empty() || id.len() > INSERT_ID_BYTES || !id.as_bytes().iter().all(|b| is_allowed(b)) {
        return Err(format!(
            "must be 1 to {INSERT_ID_BYTES} alphanumeric characters or `-`"
        ));
    }
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

/// Checks seconds or milliseconds since 1970. The two are told apart by size: no time in seconds that
/// is valid now is also one in milliseconds after 1971.
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

/// Checks an event's properties: how many there are, and how deep their objects are nested. Lists are
/// not bounded: the documents disagree on whether 255 or 300 items are too many.
pub(crate) fn check_properties(properties: &Map<String, Value>) -> Result<(), (String, String)> {
    check_keys(properties).map_err(|message| (String::new(), message))?;
    for (name, value) in properties {
        check_levels(value, OBJECT_LEVELS).map_err(|message| (name.clone(), message))?;
    }
    Ok(())
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

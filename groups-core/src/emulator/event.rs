//! One record of `POST /import`: whether it is valid.
//!
//! As with updates, a record is invalid where the documentation is silent, and one that is invalid
//! is dropped without a word unless `strict` is on.

use std::time::SystemTime;

use serde_json::{Map, Value};

use super::batch::{Invalid, invalid};
use crate::event::{check_distinct_id, check_insert_id, check_keys, check_time, check_value};

/// The event, if it is valid.
pub(super) fn read(record: Value) -> Result<Value, Invalid> {
    let Value::Object(members) = &record else {
        return invalid("", "the record is not an object");
    };
    let other = members.keys().find(|key| !is_member(key));
    if let Some(other) = other {
        return invalid(
            other,
            "an event has a name and properties, and nothing else",
        );
    }
    match members.get("event") {
        Some(Value::String(name)) if !name.is_empty() => {}
        _ => return invalid("event", "'event' is invalid: it is no text or empty"),
    }
    match members.get("properties") {
        Some(Value::Object(properties)) => check(properties)?,
        _ => return invalid("properties", "'properties' is invalid: it is no object"),
    }
    Ok(record)
}

fn is_member(key: &str) -> bool {
    ["event", "properties"].contains(&key)
}

fn check(properties: &Map<String, Value>) -> Result<(), Invalid> {
    let missing = || Err("it is missing".to_owned());
    let time = properties.get("time").map_or_else(missing, |time| {
        let Some(time) = time.as_i64() else {
            return Err("must be specified as seconds since epoch".to_owned());
        };
        check_time(time, SystemTime::now())
    });
    let distinct_id = properties.get("distinct_id").map_or_else(missing, |id| {
        id.as_str().map_or_else(not_a_text, check_distinct_id)
    });
    let insert_id = properties.get("$insert_id").map_or_else(missing, |id| {
        id.as_str().map_or_else(not_a_text, check_insert_id)
    });
    name("time", time)?;
    name("distinct_id", distinct_id)?;
    name("$insert_id", insert_id)?;
    check_keys(properties.len()).or_else(|message| invalid("properties", message))?;
    let mut properties = properties.iter();
    properties.try_for_each(|(key, value)| name(key, check_value(value)))
}

fn not_a_text() -> Result<(), String> {
    Err("it is no text".to_owned())
}

/// In the words of the documentation's example.
fn name(property: &str, checked: Result<(), String>) -> Result<(), Invalid> {
    checked.map_err(|message| {
        let field = format!("properties.{property}");
        let message = format!("'{field}' is invalid: {message}");
        (field, message)
    })
}

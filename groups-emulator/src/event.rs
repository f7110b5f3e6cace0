//! One record of `POST /import`: whether it is valid.
//!
//! As with updates, a record is invalid where the documentation is silent, and one that is invalid
//! is dropped without a word unless `strict` is on.

use std::time::SystemTime;

use serde_json::{Map, Value};

use crate::batch::{Invalid, invalid};
use crate::rules::{check_distinct_id, check_insert_id, check_properties, check_time};

/// The event, if it is valid.
pub(crate) fn read(record: Value) -> Result<Value, Invalid> {
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
        _ => return invalid("event", "'event' is invalid: not a text, or empty"),
    }
    match members.get("properties") {
        Some(Value::Object(properties)) => check(properties)?,
        _ => return invalid("properties", "'properties' is invalid: not an object"),
    }
    Ok(record)
}

fn is_member(key: &str) -> bool {
    ["event", "properties"].contains(&key)
}

fn check(properties: &Map<String, Value>) -> Result<(), Invalid> {
    name(
        "time",
        check_time(properties.get("time"), SystemTime::now()),
    )?;
    name(
        "distinct_id",
        check_distinct_id(properties.get("distinct_id")),
    )?;
    name("$insert_id", check_insert_id(properties.get("$insert_id")))?;
    match check_properties(properties) {
        Err((property, message)) if property.is_empty() => invalid("properties", message),
        Err((property, message)) => name(&property, Err(message)),
        Ok(()) => Ok(()),
    }
}

/// In the words of the documentation's example.
fn name(property: &str, checked: Result<(), String>) -> Result<(), Invalid> {
    checked.map_err(|message| {
        let field = format!("properties.{property}");
        let message = format!("'{field}' is invalid: {message}");
        (field, message)
    })
}

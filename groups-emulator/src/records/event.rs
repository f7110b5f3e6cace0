//! One record of `POST /import`: whether it is valid.

use std::time::SystemTime;

use serde_json::{Map, Value};

use crate::records::batch::{InvalidField, invalid};
use crate::records::rules::{
    check_distinct_id, check_insert_id, check_properties, check_time, truncate_names,
    truncate_texts,
};

/// Returns the event, if it is valid. With `truncates`, long texts are cut.
pub(crate) fn read(mut event: Map<String, Value>, truncates: bool) -> Result<Value, InvalidField> {
    let other = event.keys().find(|key| !is_member(key));
    if let Some(other) = other {
        return invalid(other, "unknown key: an event has 'event' and 'properties'");
    }
    match event.get("event") {
        Some(Value::String(name)) if !name.is_empty() => {}
        _ => return invalid("event", "'event' is invalid: not a text, or empty"),
    }
    let Some(Value::Object(properties)) = event.get_mut("properties") else {
        return invalid("properties", "'properties' is invalid: not an object");
    };
    if truncates {
        truncate(properties);
    }
    check(properties)?;
    Ok(Value::Object(event))
}

fn truncate(properties: &mut Map<String, Value>) {
    let truncated = truncate_names(std::mem::take(properties)).map(|(name, mut value)| {
        if !["time", "distinct_id", "$insert_id"].contains(&&*name) {
            truncate_texts(&mut value);
        }
        (name, value)
    });
    properties.extend(truncated);
}

fn is_member(key: &str) -> bool {
    ["event", "properties"].contains(&key)
}

fn check(properties: &Map<String, Value>) -> Result<(), InvalidField> {
    let of = |name: &str| properties.get(name);
    in_property("time", check_time(of("time"), SystemTime::now()))?;
    in_property("distinct_id", check_distinct_id(of("distinct_id")))?;
    in_property("$insert_id", check_insert_id(of("$insert_id")))?;
    match check_properties(properties) {
        Err((property, message)) if property.is_empty() => invalid("properties", message),
        Err((property, message)) => in_property(&property, Err(message)),
        Ok(()) => Ok(()),
    }
}

/// Names the property in the error, in the words of the documentation's example.
fn in_property(property: &str, checked: Result<(), String>) -> Result<(), InvalidField> {
    checked.map_err(|message| {
        let field = format!("properties.{property}");
        let message = format!("'{field}' is invalid: {message}");
        (field, message)
    })
}

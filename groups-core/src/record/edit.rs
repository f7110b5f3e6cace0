//! Changes to a record's JSON by a hook of the user.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::json::members::Members;

const READABLE: &str = "a record is readable JSON";

/// Returns the JSON as `hook` leaves its object; `None` if the hook returns `false`.
///
/// What the hook did not touch keeps its bytes: a number that [`Value`] cannot hold exactly is changed
/// only with its property.
pub(super) fn edit(
    json: &str,
    hook: impl FnOnce(&mut Map<String, Value>) -> bool,
) -> Option<String> {
    let before: Map<String, Value> = serde_json::from_str(json).expect(READABLE);
    let mut after = before.clone();
    if !hook(&mut after) {
        return None;
    }
    if after == before {
        return Some(json.to_owned());
    }
    let members = Members::parse(json).expect(READABLE);
    Some(merge(&members, &before, &after, true))
}

/// Writes the object `after`, and where it is the same as `before` with the bytes of `members`. With
/// `is_record` that holds for the properties in its members too.
fn merge(
    members: &Members<'_>,
    before: &Map<String, Value>,
    after: &Map<String, Value>,
    is_record: bool,
) -> String {
    let written = members.0.iter().map(|(name, value)| (&**name, value.get()));
    let written: HashMap<&str, &str> = written.collect();
    let write = |(name, value): (&String, &Value)| {
        let written = written.get(name.as_str()).copied();
        let value = match (written, before.get(name), value) {
            (Some(written), Some(old), _) if old == value => written.to_owned(),
            (Some(written), Some(Value::Object(old)), Value::Object(new)) if is_record => {
                let members = Members::parse(written).expect("an object");
                merge(&members, old, new, false)
            }
            _ => value.to_string(),
        };
        format!("{}:{value}", Value::from(name.as_str()))
    };
    let members: Vec<_> = after.iter().map(write).collect();
    format!("{{{}}}", members.join(","))
}

//! Changes to a record's JSON by a hook of the user.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::json::members::Members;

const READABLE: &str = "a record is readable JSON";

/// Returns the JSON as `hook` leaves its object; `None` if the hook returns `false`.
///
/// What the hook did not touch keeps its bytes, at every depth: a number that [`Value`] cannot hold exactly is changed
/// only if it, or the list that it is in, is.
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
    Some(merge(&members, &before, &after))
}

/// Writes the object `after`, and where it is the same as `before` with the bytes of `members`.
fn merge(members: &Members<'_>, before: &Map<String, Value>, after: &Map<String, Value>) -> String {
    let written = members.0.iter().map(|(name, value)| (&**name, value.get()));
    let written: HashMap<&str, &str> = written.collect();
    let write = |(name, value): (&String, &Value)| {
        let written = written.get(name.as_str()).copied();
        let value = match (written, before.get(name), value) {
            (Some(written), Some(old), _) if old == value => written.to_owned(),
            (Some(written), Some(Value::Object(old)), Value::Object(new)) => {
                let members = Members::parse(written).expect("an object");
                merge(&members, old, new)
            }
            _ => value.to_string(),
        };
        format!("{}:{value}", Value::from(name.as_str()))
    };
    let members: Vec<_> = after.iter().map(write).collect();
    format!("{{{}}}", members.join(","))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A record with numbers that a `Value` does not hold exactly.
    const RECORD: &str = r#"{ "$set": {"a": 340282366920938463463374607431768211455, "b": {"c": 18446744073709551616, "d": 0.10} } }"#;

    fn edited(hook: impl FnOnce(&mut Map<String, Value>)) -> String {
        edit(RECORD, |record| {
            hook(record);
            true
        })
        .unwrap()
    }

    #[test]
    fn what_is_not_touched_keeps_its_bytes_at_every_depth() {
        assert_eq!(edited(|_| {}), RECORD);
        for (edited, expected) in [
            (
                edited(|record| record["$set"]["new"] = json!(1)),
                r#"{"$set":{"a":340282366920938463463374607431768211455,"b":{"c": 18446744073709551616, "d": 0.10},"new":1}}"#,
            ),
            (
                edited(|record| record["$set"]["a"] = json!([])),
                r#"{"$set":{"a":[],"b":{"c": 18446744073709551616, "d": 0.10}}}"#,
            ),
            (
                edited(|record| record["$set"]["b"]["d"] = json!("é")),
                r#"{"$set":{"a":340282366920938463463374607431768211455,"b":{"c":18446744073709551616,"d":"é"}}}"#,
            ),
            (
                edited(|record| record["$set"]["b"] = json!(null)),
                r#"{"$set":{"a":340282366920938463463374607431768211455,"b":null}}"#,
            ),
            (
                edited(|record| {
                    record.insert("$ip".to_owned(), json!("0"));
                }),
                r#"{"$ip":"0","$set":{"a": 340282366920938463463374607431768211455, "b": {"c": 18446744073709551616, "d": 0.10} }}"#,
            ),
            (edited(Map::clear), "{}"),
        ] {
            assert_eq!(edited, expected);
        }
    }

    #[test]
    fn a_hook_that_returns_false_leaves_no_record() {
        assert_eq!(edit("{}", |_| false), None);
    }
}

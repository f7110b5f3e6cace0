//! An update that was written as JSON elsewhere: by a hook, by another program, by another version.

use serde_json::value::RawValue;

use crate::group::{Group, Operation};
use crate::json::escape::write_str;
use crate::json::members::{Members, Text, check_readable};
use crate::json::object::check_name;
use crate::json::{EncodeError, list};
use crate::record::encode::write_update_with;
use crate::record::{Encoded, Rejection};
use crate::util::Buffer;
use crate::util::printable::Name;

/// The keys that Mixpanel's SDKs send beside the operation, by themselves or for a caller.
const EXTRAS: [&str; 7] = [
    "$time",
    "$ip",
    "$ignore_time",
    "$latitude",
    "$longitude",
    "$ignore_alias",
    "$mp_metadata",
];

/// The parts of an update, each as it is written.
pub(super) struct ForeignUpdate<'a> {
    group: Group<'a>,
    extras: Vec<(&'a str, &'a RawValue)>,
    operation: Operation,
    value: &'a RawValue,
}

impl<'a> ForeignUpdate<'a> {
    /// Sorts the members of an update. Returns a message if they are not those of an update.
    pub(super) fn read(members: &'a Members<'_>) -> Result<Self, String> {
        if let Some(name) = members.repeated() {
            return Err(format!("duplicate key {}", Name(name)));
        }
        let (mut key, mut id, mut company) = (None, None, None);
        let (mut extras, mut operation) = (Vec::new(), None);
        for (name, value) in &members.0 {
            match &**name {
                "$group_key" => key = Some(read_text(name, value)?),
                "$group_id" => id = Some(read_text(name, value)?),
                "$company_id" => company = Some(read_text(name, value)?),
                "$token" => return Err("`$token` is added by the client".to_owned()),
                name if EXTRAS.contains(&name) => extras.push((name, *value)),
                name => match (Operation::from_name(name), operation) {
                    (Some(found), None) => operation = Some((found, *value)),
                    (Some(found), Some((other, _))) => {
                        return Err(format!("two operations, {other} and {found}"));
                    }
                    (None, _) => return Err(format!("unknown key {}", Name(name))),
                },
            }
        }
        let missing = |name: &str| format!("`{name}` is missing");
        let mut group = Group::new(
            key.ok_or_else(|| missing("$group_key"))?,
            id.ok_or_else(|| missing("$group_id"))?,
        );
        if let Some(company) = company {
            group = group.in_company(company);
        }
        let (operation, value) = operation.ok_or("missing operation")?;
        Ok(Self {
            group,
            extras,
            operation,
            value,
        })
    }

    /// Appends the members in the order in which ours are written.
    pub(super) fn write(&self, out: &mut Buffer) -> Result<Encoded, Box<Rejection>> {
        let extras = |out: &mut Buffer, mut at: usize| {
            for (name, value) in &self.extras {
                check_readable(value.get()).map_err(|why| EncodeError::new(why).of(name))?;
                at = out.put(at, *b",");
                at = write_str(out, at, name);
                at = out.put(at, *b":");
                at = out.put_slice(at, value.get().as_bytes());
            }
            Ok(at)
        };
        let written = write_update_with(out, &self.group, extras, self.operation, |out, at| {
            check_value(self.operation, self.value)?;
            Ok(out.put_slice(at, self.value.get().as_bytes()))
        });
        written
            .map(|encoded| encoded.expect("the shortest value of an operation has two characters"))
    }
}

fn read_text(name: &str, value: &RawValue) -> Result<String, String> {
    match serde_json::from_str(value.get()) {
        Ok(Text(text)) => Ok(text.into_owned()),
        Err(_) => Err(format!("`{name}` is not text: {}", excerpt(value.get()))),
    }
}

/// Quotes the beginning of a value, unless it is a list or an object: a token may be in it.
fn excerpt(json: &str) -> String {
    match json.as_bytes().first() {
        Some(b'{') => "an object".to_owned(),
        Some(b'[') => "a list".to_owned(),
        _ => json.chars().take(40).collect(),
    }
}

/// Checks that the operation takes the value.
fn check_value(operation: Operation, value: &RawValue) -> Result<(), EncodeError> {
    let json = value.get();
    match operation {
        Operation::Delete => check_readable(json).map_err(EncodeError::new),
        Operation::Unset => {
            let names: Vec<Text<'_>> = serde_json::from_str(json)
                .map_err(|_| EncodeError::new("`$unset` takes a list of property names"))?;
            if names.is_empty() {
                return Err(EncodeError::new(
                    "`$unset` takes at least one property name",
                ));
            }
            names.iter().try_for_each(|Text(name)| check_name(name))
        }
        _ => {
            let properties = Members::parse(json).map_err(|_| {
                EncodeError::new(format!("`{operation}` takes an object of properties"))
            })?;
            if let Some(name) = properties.repeated() {
                return Err(EncodeError::new("two properties have this name").of(name));
            }
            for (name, value) in &properties.0 {
                check_name(name)?;
                check_readable(value.get())
                    .map_err(EncodeError::new)
                    .and_then(|()| check_property(operation, value.get()))
                    .map_err(|error| error.of(name))?;
            }
            Ok(())
        }
    }
}

fn check_property(operation: Operation, json: &str) -> Result<(), EncodeError> {
    match operation {
        Operation::Union if !list::is_list_of_items(json) => Err(EncodeError::new(
            "`$union` takes a list of at least one text or number",
        )),
        Operation::Remove if json.starts_with(['[', '{']) => Err(EncodeError::new(
            "`$remove` takes one item, not a list or an object",
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use crate::record::EncodedUpdate;

    /// Returns an update that another program wrote, or the error.
    fn read(members: &str) -> String {
        let json = format!(r#"{{"$group_key":"k","$group_id":"1",{members}}}"#);
        match EncodedUpdate::from_json(&json) {
            Ok(update) => update
                .as_json()
                .replace(r#"{"$group_key":"k","$group_id":"1","#, "{"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn each_operation_takes_its_own_values() {
        for members in [
            r#""$set":{"a":[{}]}"#,
            r#""$set_once":{"a":1}"#,
            r#""$union":{"a":[1,"x"]}"#,
            r#""$remove":{"a":1,"b":"x"}"#,
            r#""$unset":["a","b"]"#,
            r#""$delete":null"#,
            r#""$ip":0,"$time":1,"$delete":"""#,
            r#""$mp_metadata":{"$mp_session_id":"7c0d"},"$ignore_alias":true,"$delete":"""#,
        ] {
            assert_eq!(read(members), format!("{{{members}}}"));
        }
        for (members, why) in [
            (
                r#""$union":{"a":1}"#,
                "`$union` takes a list of at least one text or number",
            ),
            (
                r#""$union":{"a":[]}"#,
                "`$union` takes a list of at least one text or number",
            ),
            (
                r#""$remove":{"a":[1]}"#,
                "`$remove` takes one item, not a list or an object",
            ),
            (
                r#""$remove":{"a":{}}"#,
                "`$remove` takes one item, not a list or an object",
            ),
            (
                r#""$unset":{"a":1}"#,
                "`$unset` takes a list of property names",
            ),
            (
                r#""$unset":[]"#,
                "`$unset` takes at least one property name",
            ),
            (r#""$set":[1]"#, "`$set` takes an object of properties"),
            (r#""$set":{"a":1,"a":2}"#, "two properties have this name"),
            (
                r#""$set":{"a":1},"$unset":["b"]"#,
                "two operations, $set and $unset",
            ),
            (
                r#""$token":"t","$delete":"""#,
                "`$token` is added by the client",
            ),
            (
                r#""$group_id":"2","$delete":"""#,
                r#"duplicate key "$group_id""#,
            ),
            (
                r#""$company_id":1,"$delete":"""#,
                "`$company_id` is not text: 1",
            ),
            (r#""a":1,"$delete":"""#, r#"unknown key "a""#),
            (r#""$ip":0"#, "missing operation"),
        ] {
            let error = read(members);
            assert!(error.ends_with(why), "{members}: {error}");
        }
    }
}

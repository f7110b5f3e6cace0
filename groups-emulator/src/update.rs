//! One record of `POST /groups`: whether it is valid, and what it says.
//!
//! Where the documentation is silent, a record is invalid: a stand-in that takes more than Mixpanel
//! does would hide mistakes. So a top-level key that no source names is refused, as is an id that
//! is no text, with `strict` and without; without it the record is dropped without a word, as
//! documented.

use serde_json::{Map, Value};

use crate::batch::{Invalid, invalid};
use crate::profiles::Change;
use crate::rules::check_name;
use mixpanel_groups::Operation;

/// What may stand beside the operation; from `$time` on, what official SDKs let a caller add.
const EXTRAS: [&str; 9] = [
    "$token",
    "$group_key",
    "$group_id",
    "$company_id",
    "$time",
    "$ip",
    "$ignore_time",
    "$latitude",
    "$longitude",
];

/// The group keys of Hierarchical Groups, whose updates need `$company_id`.
const COMPANY: &str = "$company_id";
const USER: &str = "$user_id";

/// What the record says, if it is valid.
pub(crate) fn read(record: Value) -> Result<Change, Invalid> {
    let Value::Object(mut record) = record else {
        return invalid("", "the record is not an object");
    };
    let operation = find_operation(&record)?;
    text(&mut record, "$token")?;
    let key = text(&mut record, "$group_key")?;
    let id = text(&mut record, "$group_id")?;
    check_company(&mut record, &key, &id)?;
    let value = record.remove(operation.name()).unwrap_or_default();
    check_value(operation, &value)?;
    Ok(Change {
        key,
        id,
        operation,
        value,
    })
}

fn find_operation(record: &Map<String, Value>) -> Result<Operation, Invalid> {
    let mut found = None;
    for name in record.keys() {
        match Operation::from_name(name) {
            Some(operation) if found.is_none() => found = Some(operation),
            Some(_) => return invalid(name, "the record has more than one operation"),
            None if EXTRAS.contains(&name.as_str()) => {}
            None => return invalid(name, "no operation on groups and no other known key"),
        }
    }
    found.map_or_else(|| invalid("", "the record has no operation"), Ok)
}

fn text(record: &mut Map<String, Value>, field: &str) -> Result<String, Invalid> {
    match record.remove(field) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text),
        Some(Value::String(_)) => invalid(field, "the text is empty"),
        Some(_) => invalid(field, "not a text"),
        None => invalid(field, "missing"),
    }
}

fn check_company(record: &mut Map<String, Value>, key: &str, id: &str) -> Result<(), Invalid> {
    if ![COMPANY, USER].contains(&key) && !record.contains_key(COMPANY) {
        return Ok(());
    }
    let company = text(record, COMPANY)?;
    if key == COMPANY && company != id {
        return invalid(COMPANY, "a company's $group_id is its $company_id");
    }
    Ok(())
}

fn check_value(operation: Operation, value: &Value) -> Result<(), Invalid> {
    let field = operation.name();
    match (operation, value) {
        (Operation::Delete, _) => Ok(()),
        (Operation::Unset, Value::Array(names)) if !names.is_empty() => {
            names.iter().try_for_each(|name| match name {
                Value::String(name) => named(field, name),
                _ => invalid(field, "a property name is a text"),
            })
        }
        (Operation::Unset, _) => invalid(field, "not a list of at least one property name"),
        (_, Value::Object(properties)) => properties.iter().try_for_each(|(name, value)| {
            named(field, name)?;
            check_property(operation, name, value)
        }),
        _ => invalid(field, "not an object"),
    }
}

fn named(field: &str, name: &str) -> Result<(), Invalid> {
    check_name(name).or_else(|message| invalid(field, message))
}

fn check_property(operation: Operation, name: &str, value: &Value) -> Result<(), Invalid> {
    let message = match operation {
        Operation::Union if !is_items(value) => {
            "not a list of at least one item, each text or number"
        }
        Operation::Remove if value.is_array() || value.is_object() => "not a single value",
        _ => return Ok(()),
    };
    invalid(&format!("{operation}.{name}"), message)
}

fn is_items(value: &Value) -> bool {
    value.as_array().is_some_and(|items| {
        !items.is_empty() && items.iter().all(|i| i.is_string() || i.is_number())
    })
}

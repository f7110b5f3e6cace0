//! One record of `POST /groups`: whether it is valid, and what it changes.

use serde_json::{Map, Value};

use crate::memory::ParsedUpdate;
use crate::records::batch::{InvalidField, invalid};
use crate::records::rules::{
    ADD, COMPANY_KEY, TOP_LEVEL_KEYS, USER_KEY, check_name, truncate_name, truncate_names,
    truncate_texts,
};
use mixpanel_groups::Operation;

/// Returns the update that the record describes, if it is valid. With `truncates`, long names and texts
/// are cut; without, a long name is not valid.
pub(crate) fn read(
    mut record: Map<String, Value>,
    truncates: bool,
) -> Result<ParsedUpdate, InvalidField> {
    let operation = find_operation(&record)?;
    take_text(&mut record, "$token")?;
    let key = take_text(&mut record, "$group_key")?;
    let id = take_text(&mut record, "$group_id")?;
    check_company(&mut record, &key, &id)?;
    let mut value = record.remove(operation.name()).unwrap_or_default();
    if truncates {
        value = truncate(operation, value);
    }
    check_value(operation, &value)?;
    Ok(ParsedUpdate {
        key,
        id,
        operation,
        value,
    })
}

fn find_operation(record: &Map<String, Value>) -> Result<Operation, InvalidField> {
    let mut found = None;
    for name in record.keys() {
        match Operation::from_name(name) {
            Some(operation) if found.is_none() => found = Some(operation),
            Some(_) => return invalid(name, "the record has more than one operation"),
            None if TOP_LEVEL_KEYS.contains(&name.as_str()) => {}
            None if name == ADD => {
                return invalid(name, "documented by name only, so not supported here");
            }
            None => return invalid(name, "not an operation on groups, nor another known key"),
        }
    }
    found.map_or_else(|| invalid("", "the record has no operation"), Ok)
}

fn take_text(record: &mut Map<String, Value>, field: &str) -> Result<String, InvalidField> {
    match record.remove(field) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text),
        Some(Value::String(_)) => invalid(field, "the text is empty"),
        Some(_) => invalid(field, "not a text"),
        None => invalid(field, "missing"),
    }
}

fn check_company(record: &mut Map<String, Value>, key: &str, id: &str) -> Result<(), InvalidField> {
    if ![COMPANY_KEY, USER_KEY].contains(&key) && !record.contains_key(COMPANY_KEY) {
        return Ok(());
    }
    let company = take_text(record, COMPANY_KEY)?;
    if key == COMPANY_KEY && company != id {
        return invalid(COMPANY_KEY, "a company's $group_id must be its $company_id");
    }
    Ok(())
}

fn check_value(operation: Operation, value: &Value) -> Result<(), InvalidField> {
    let field = operation.name();
    match (operation, value) {
        (Operation::Delete, _) => Ok(()),
        (Operation::Unset, Value::Array(names)) if !names.is_empty() => {
            names.iter().try_for_each(|name| match name {
                Value::String(name) => check_name_in(field, name),
                _ => invalid(field, "a property name must be a text"),
            })
        }
        (Operation::Unset, _) => invalid(field, "not a list of at least one property name"),
        (Operation::Union, Value::Object(lists)) if lists.is_empty() => {
            invalid(field, "not an object with at least one list")
        }
        (_, Value::Object(properties)) => properties.iter().try_for_each(|(name, value)| {
            check_name_in(field, name)?;
            check_property(operation, name, value)
        }),
        _ => invalid(field, "not an object"),
    }
}

fn truncate(operation: Operation, value: Value) -> Value {
    match value {
        Value::Object(properties) if operation != Operation::Delete => {
            let properties = truncate_names(properties).map(|(name, mut value)| {
                if operation != Operation::Remove {
                    truncate_texts(&mut value);
                }
                (name, value)
            });
            Value::Object(properties.collect())
        }
        Value::Array(mut names) => {
            for name in &mut names {
                if let Value::String(name) = name {
                    truncate_name(name);
                }
            }
            Value::Array(names)
        }
        other => other,
    }
}

fn check_name_in(field: &str, name: &str) -> Result<(), InvalidField> {
    check_name(name).or_else(|message| invalid(field, message))
}

fn check_property(operation: Operation, name: &str, value: &Value) -> Result<(), InvalidField> {
    let message = match operation {
        Operation::Union if !is_union_list(value) => {
            "not a list of at least one item, each text or number"
        }
        Operation::Remove if value.is_array() || value.is_object() => "not a single value",
        _ => return Ok(()),
    };
    invalid(&format!("{operation}.{name}"), message)
}

fn is_union_list(value: &Value) -> bool {
    value.as_array().is_some_and(|items| {
        !items.is_empty() && items.iter().all(|i| i.is_string() || i.is_number())
    })
}

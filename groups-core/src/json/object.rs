//! Writes the properties of a map or struct whose names are known at run time only.

use std::collections::{BTreeMap, HashSet};

use serde_core::Serialize;
use serde_json::value::RawValue;

use crate::group::{Operation, Property};
use crate::json::key::push_key;
use crate::json::list::push_list;
use crate::json::push_json;
use crate::json::sink::{Parts, Shape};
use crate::json::{EncodeError, Sink, Written, close};
use crate::util::Buffer;

/// The maximum length of a property's name, in characters
/// ([limits](https://docs.mixpanel.com/docs/data-structure/user-profiles)).
pub(crate) const MAX_NAME: usize = 255;

/// Writes a property's value as the operation requires: any JSON, a list of items or a single item.
pub(crate) fn write_value<T: Serialize + ?Sized>(
    out: &mut Buffer,
    operation: Operation,
    value: &T,
) -> Result<Written, EncodeError> {
    match operation {
        Operation::Union => push_list(out, value),
        Operation::Remove => {
            let start = out.len();
            let written = push_json(out, value)?;
            if matches!(out.get(start), None | Some(b'[' | b'{')) {
                return Err(EncodeError::new(
                    "`$remove` takes one item, not a list or an object",
                ));
            }
            Ok(written)
        }
        _ => push_json(out, value),
    }
}

/// The names of an update's or event's properties so far, none of which may be repeated. One that is `null` is not among
/// them.
#[derive(Clone)]
pub(crate) struct Names {
    /// The properties of the struct's own fields.
    fixed: &'static [Property],
    reserved: &'static [Reserved],
    seen: HashSet<String>,
}

impl Names {
    /// Returns the names of the struct's own fields.
    pub(crate) fn new(fixed: &'static [Property]) -> Self {
        Self {
            fixed,
            reserved: &RESERVED,
            seen: HashSet::new(),
        }
    }

    /// Returns an empty set.
    pub(crate) fn without(reserved: &'static [Reserved]) -> Self {
        Self {
            fixed: &[],
            reserved,
            seen: HashSet::new(),
        }
    }

    /// Returns whether a property other than the struct's own fields has that name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.seen.contains(name)
    }

    /// Adds a property's name.
    ///
    /// # Errors
    /// If it is not a valid name, or in use.
    pub(crate) fn claim(&mut self, name: String) -> Result<(), EncodeError> {
        check_length(&name)?;
        check_reserved(&name, self.reserved)?;
        if self.fixed.iter().any(|property| property.name == name) || self.seen.contains(&name) {
            return Err(EncodeError::new("two properties have this name").of(&name));
        }
        self.seen.insert(name);
        Ok(())
    }
}

/// A name that no property can have, and the reason or what to do instead.
pub(crate) type Reserved = (&'static str, &'static str);

pub(crate) const BY_MIXPANEL: &str = "Mixpanel uses it";

/// The names of members beside an update's operation, which no property can have.
const RESERVED: [Reserved; 2] = [("$group_key", BY_MIXPANEL), ("$group_id", BY_MIXPANEL)];

/// Checks the name of a group's property.
pub(crate) fn check_name(name: &str) -> Result<(), EncodeError> {
    check_length(name)?;
    check_reserved(name, &RESERVED)
}

fn check_reserved(name: &str, reserved: &[Reserved]) -> Result<(), EncodeError> {
    let found = reserved.iter().find(|(other, _)| *other == name);
    found.map_or(Ok(()), |(_, why)| {
        let message = format!("a property cannot have this name: {why}");
        Err(EncodeError::new(message).of(name))
    })
}

fn check_length(name: &str) -> Result<(), EncodeError> {
    if name.is_empty() {
        return Err(EncodeError::new("the property's name is empty"));
    }
    if name.chars().count() > MAX_NAME {
        let message = format!("the property's name is longer than {MAX_NAME} characters");
        return Err(EncodeError::new(message).of(name));
    }
    Ok(())
}

/// A sink that writes each entry of a map or struct as `,"name":value`, without the brackets.
pub(crate) struct Object<'a> {
    pub(crate) out: &'a mut Buffer,
    pub(crate) operation: Operation,
    pub(crate) names: &'a mut Names,
}

/// The entries of a map or struct that is being written, or the one entry of an enum's variant with data.
pub(crate) enum Entries<'a> {
    Members(MemberEntries<'a>),
    Variant(VariantEntry<'a>),
}

pub(crate) struct MemberEntries<'a> {
    object: Object<'a>,
    /// The position of the last entry.
    start: usize,
}

/// A variant with data is one property of its name, as `serde_json` has it.
pub(crate) struct VariantEntry<'a> {
    object: Object<'a>,
    name: &'static str,
    /// The brackets of the value.
    brackets: &'static [u8],
    json: Buffer,
}

impl VariantEntry<'_> {
    fn separate(&mut self) {
        if !self.json.is_empty() && !self.json.ends_with(b":") {
            self.json.push(b',');
        }
    }

    fn write<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        push_json(&mut self.json, value)
            .map(drop)
            .map_err(|error| error.of(self.name))
    }

    fn end(self) -> Result<(), EncodeError> {
        let (open, close) = self.brackets.split_at(self.brackets.len() / 2);
        let json = [open, &self.json, close].concat();
        if self.object.operation == Operation::Union && json.starts_with(b"[") {
            let items: Vec<&RawValue> = serde_json::from_slice(&json)?;
            return self.object.write(&BTreeMap::from([(self.name, items)]));
        }
        let json: Box<RawValue> = serde_json::from_slice(&json)?;
        self.object.write(&BTreeMap::from([(self.name, json)]))
    }
}

impl Parts for Entries<'_> {
    type Ok = ();
    type Error = EncodeError;

    fn item<T: Serialize + ?Sized>(&mut self, item: &T) -> Result<(), EncodeError> {
        let Self::Variant(variant) = self else {
            unreachable!("a map or struct has keys")
        };
        variant.separate();
        variant.write(item)
    }

    fn key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), EncodeError> {
        match self {
            Self::Members(members) => members.key(key),
            Self::Variant(variant) => {
                variant.separate();
                push_key(&mut variant.json, key)?;
                variant.json.push(b':');
                Ok(())
            }
        }
    }

    fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        match self {
            Self::Members(members) => members.value(value),
            Self::Variant(variant) => variant.write(value),
        }
    }

    fn end(self) -> Result<(), EncodeError> {
        match self {
            Self::Members(_) => Ok(()),
            Self::Variant(variant) => variant.end(),
        }
    }
}

impl MemberEntries<'_> {
    /// Returns the name of the last entry, which ends there, before its colon.
    fn name(&self, end: usize) -> Result<String, EncodeError> {
        Ok(serde_json::from_slice(
            &self.object.out[self.start + 1..end],
        )?)
    }

    fn key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), EncodeError> {
        let out = &mut *self.object.out;
        self.start = out.len();
        out.push(b',');
        push_key(out, key)?;
        out.push(b':');
        Ok(())
    }

    fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        let key_end = self.object.out.len() - 1;
        match write_value(self.object.out, self.object.operation, value) {
            Ok(Written::Value) => {
                let name = self.name(key_end)?;
                self.object.names.claim(name)
            }
            Ok(Written::Null) => {
                self.object.out.truncate(self.start);
                Ok(())
            }
            Err(error) => Err(error.of(&self.name(key_end)?)),
        }
    }
}

impl<'a> Sink for Object<'a> {
    type Ok = ();
    type Error = EncodeError;
    type Parts = Entries<'a>;

    const REFUSAL: &'static str = "expected a map or a struct of properties";

    fn null(self) -> Result<(), EncodeError> {
        Ok(())
    }

    /// Writes nothing: for `serde_json` it is a property of that name that is `null`, so it is absent.
    fn unit_variant(self, _name: &'static str) -> Result<(), EncodeError> {
        Ok(())
    }

    fn open(self, shape: Shape) -> Result<Entries<'a>, EncodeError> {
        let (name, brackets): (_, &[u8]) = match shape {
            Shape::Map | Shape::Struct => {
                return Ok(Entries::Members(MemberEntries {
                    start: self.out.len(),
                    object: self,
                }));
            }
            Shape::NewtypeVariant(name) => (name, b""),
            Shape::TupleVariant(name) => (name, b"[]"),
            Shape::StructVariant(name) => (name, b"{}"),
            Shape::List | Shape::RawJson => return Err(EncodeError::new(Self::REFUSAL)),
        };
        Ok(Entries::Variant(VariantEntry {
            object: self,
            name,
            brackets,
            json: Buffer::default(),
        }))
    }
}

/// The properties of all flattened fields of an operation, as JSON.
#[derive(Default)]
pub(crate) struct Flattened {
    names: Option<Names>,
    pub(crate) members: BTreeMap<String, Box<RawValue>>,
}

impl Flattened {
    /// Adds those of a field.
    pub(crate) fn add<T: Serialize + ?Sized>(
        &mut self,
        property: &'static Property,
        all: &'static [Property],
        value: &T,
    ) -> Result<(), EncodeError> {
        let mut json = Buffer::default();
        let object = Object {
            out: &mut json,
            operation: property.operation,
            names: self.names.get_or_insert_with(|| Names::new(all)),
        };
        object
            .write(value)
            .map_err(|error| error.of(property.field))?;
        close(&mut json, 0, *b"{}");
        if !json.is_empty() {
            let members: BTreeMap<_, _> = serde_json::from_slice(&json)?;
            self.members.extend(members);
        }
        Ok(())
    }
}

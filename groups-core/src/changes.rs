use std::collections::{BTreeMap, HashSet};

use serde::Serialize;
use serde_json::value::RawValue;

use crate::absent::is_absent;
use crate::encode::{close, write_update};
use crate::json::{EncodeError, Json, Written, write_str};
use crate::list::{ListJson, parse_items};
use crate::object::{Names, Object};
use crate::same::is_same;
use crate::visit::Visitor;
use crate::{Group, MixpanelGroup, Operation, Property, Update};

/// The updates between two versions of a struct: see [`MixpanelGroup::changes_since`].
#[derive(Clone, Debug)]
#[must_use = "updates do nothing until they are sent"]
pub struct Changes(std::vec::IntoIter<Update<'static>>);

impl Changes {
    pub(crate) fn between<T: MixpanelGroup>(new: &T, old: &T) -> Self {
        let group = new.group();
        let updates = if group == old.group() {
            let mut differences = Differences::default();
            match differences.find(new, old) {
                Ok(()) => differences.updates(&group),
                Err(EncodeError { property, message }) => {
                    vec![Update::invalid(&group, Operation::Set, property, message)]
                }
            }
        } else {
            let message = format!("the older version is another group, {}", old.group());
            vec![Update::invalid(&group, Operation::Set, None, message)]
        };
        Self(updates.into_iter())
    }
}

impl Iterator for Changes {
    type Item = Update<'static>;

    fn next(&mut self) -> Option<Update<'static>> {
        self.0.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for Changes {}

/// What each operation is to say, as items that begin with a comma.
#[derive(Default)]
struct Differences {
    set: Vec<u8>,
    set_once: Vec<u8>,
    unset: Vec<u8>,
    union: Vec<u8>,
    /// One update's entries each, since `$remove` takes one item a property.
    removes: Vec<Vec<u8>>,
    /// The older and the newer JSON of what cannot be compared without.
    scratch: Vec<u8>,
}

impl Differences {
    fn find<T: MixpanelGroup>(&mut self, new: &T, old: &T) -> Result<(), EncodeError> {
        [Operation::Set, Operation::SetOnce, Operation::Union]
            .into_iter()
            .try_for_each(|operation| new.visit_properties(old, operation, self))
    }

    fn updates(self, group: &Group<'_>) -> Vec<Update<'static>> {
        let object = |operation| move |items| (operation, items, *b"{}");
        let mut all = vec![object(Operation::Set)(self.set)];
        all.push(object(Operation::SetOnce)(self.set_once));
        all.push((Operation::Unset, self.unset, *b"[]"));
        all.extend(self.removes.into_iter().map(object(Operation::Remove)));
        all.push(object(Operation::Union)(self.union));
        let said = all.into_iter().filter(|(_, items, _)| !items.is_empty());
        said.map(|(operation, items, brackets)| {
            let mut json = Vec::new();
            let written = write_update(&mut json, group, operation, |out| {
                let start = out.len();
                out.extend_from_slice(&items);
                close(out, start, brackets);
                Ok(())
            });
            Update::encoded(json, written)
        })
        .collect()
    }

    /// A list whose items may have come and gone; `key` is `,"name":`.
    fn diff_lists(&mut self, key: &str, new: &str, old: &str) {
        let new: Vec<_> = parse_items(new).collect();
        if new.is_empty() {
            return self.unset_key(key);
        }
        let had: HashSet<_> = parse_items(old).map(|(_, item)| item).collect();
        let came: Vec<_> = new.iter().filter(|(_, item)| !had.contains(item)).collect();
        if !came.is_empty() {
            self.union.extend_from_slice(key.as_bytes());
            let list = self.union.len();
            for (json, _) in came {
                self.union.push(b',');
                self.union.extend_from_slice(json.as_bytes());
            }
            close(&mut self.union, list, *b"[]");
        }
        let has: HashSet<_> = new.iter().map(|(_, item)| item).collect();
        let mut went = HashSet::new();
        for (json, item) in parse_items(old) {
            if !has.contains(&item) && went.insert(item) {
                if self.removes.len() < went.len() {
                    self.removes.push(Vec::new());
                }
                let remove = &mut self.removes[went.len() - 1];
                remove.extend_from_slice(key.as_bytes());
                remove.extend_from_slice(json.as_bytes());
            }
        }
    }

    fn unset_key(&mut self, key: &str) {
        // `,"name":` without its colon.
        self.unset
            .extend_from_slice(&key.as_bytes()[..key.len() - 1]);
    }
}

impl Visitor for Differences {
    fn property<T: Serialize + ?Sized>(
        &mut self,
        property: &'static Property,
        new: &T,
        old: &T,
    ) -> Result<(), EncodeError> {
        let out = if property.operation == Operation::SetOnce {
            if !is_absent(old) {
                return Ok(());
            }
            &mut self.set_once
        } else {
            let same = is_same(new, old, &mut self.scratch);
            if same.map_err(|error| error.of(property.name))? {
                return Ok(());
            }
            &mut self.set
        };
        let start = out.len();
        out.extend_from_slice(property.key.as_bytes());
        let written = new
            .serialize(Json { out })
            .map_err(|error| error.of(property.name))?;
        if written == Written::Null {
            out.truncate(start);
            if !is_absent(old) {
                self.unset_key(property.key);
            }
        }
        Ok(())
    }

    fn list<T: Serialize + ?Sized>(
        &mut self,
        property: &'static Property,
        new: &T,
        old: &T,
    ) -> Result<(), EncodeError> {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        let mut write = |value: &T| {
            let written = value.serialize(ListJson { out: &mut scratch });
            written
                .map(|_| scratch.len())
                .map_err(|error| error.of(property.name))
        };
        let middle = write(old)?;
        write(new)?;
        let (old, new) = scratch.split_at(middle);
        if old != new {
            self.diff_lists(property.key, text(new), text(old));
        }
        self.scratch = scratch;
        Ok(())
    }

    fn flatten<T: Serialize + ?Sized>(
        &mut self,
        property: &'static Property,
        all: &'static [Property],
        new: &T,
        old: &T,
    ) -> Result<(), EncodeError> {
        let operation = property.operation;
        let write = |value: &T| -> Result<_, EncodeError> {
            let mut json = Vec::new();
            let object = Object {
                out: &mut json,
                operation,
                names: &mut Names::new(all),
            };
            value
                .serialize(object)
                .map_err(|error| error.of(property.field))?;
            close(&mut json, 0, *b"{}");
            Ok(json)
        };
        let (new, old) = (write(new)?, write(old)?);
        if new == old {
            return Ok(());
        }
        let (new, old) = (members(&new)?, members(&old)?);
        for (name, value) in &new {
            let before = old.get(name).map_or("", |value| value.get());
            if before == value.get() {
                continue;
            }
            match operation {
                Operation::Union => {
                    self.diff_lists(&key(name), value.get(), before);
                }
                Operation::SetOnce if !before.is_empty() => {}
                Operation::SetOnce => extend(&mut self.set_once, name, value),
                _ => extend(&mut self.set, name, value),
            }
        }
        if operation != Operation::SetOnce {
            let gone = old.keys().filter(|name| !new.contains_key(*name));
            gone.for_each(|name| self.unset_key(&key(name)));
        }
        Ok(())
    }
}

/// JSON of ours, which is text.
fn text(json: &[u8]) -> &str {
    std::str::from_utf8(json).unwrap_or_default()
}

/// The members of a JSON object; none, if there is no object.
fn members(json: &[u8]) -> Result<BTreeMap<String, &RawValue>, EncodeError> {
    match json {
        b"" => Ok(BTreeMap::new()),
        json => Ok(serde_json::from_slice(json)?),
    }
}

/// `,"name":`
fn key(name: &str) -> String {
    let mut key = vec![b','];
    write_str(&mut key, name);
    key.push(b':');
    String::from_utf8_lossy(&key).into_owned()
}

fn extend(out: &mut Vec<u8>, name: &str, value: &RawValue) {
    out.extend_from_slice(key(name).as_bytes());
    out.extend_from_slice(value.get().as_bytes());
}

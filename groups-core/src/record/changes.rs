use std::collections::BTreeSet;
use std::mem;

use serde_core::Serialize;

use crate::group::{Operation, Property};
use crate::json::item::are_equal;
use crate::json::list::push_list;
use crate::json::object::Flattened;
use crate::json::{EncodeError, Written, push_json};
use crate::record::diff::{Differences, key_of, text, updates};
use crate::record::unchanged::is_unchanged;
use crate::record::visit::{Visitor, field_operations};
use crate::record::{MixpanelGroup, Update};
use crate::util::{Buffer, with_scratch};

/// The updates between two versions of a struct, returned by [`MixpanelGroup::changes_since`].
///
/// They borrow nothing. The lifetime is for iterators and lists that have updates of [`Updates`](crate::record::Updates) as well.
#[derive(Clone, Debug)]
#[must_use = "updates do nothing until they are sent"]
pub struct Changes<'a>(std::vec::IntoIter<Update<'a>>);

impl Changes<'static> {
    pub(crate) fn between<T: MixpanelGroup>(new: &T, old: &T) -> Self {
        let (group, before) = (new.group(), old.group());
        // The key is the struct's.
        let is_other_id = group.id() != before.id();
        let updates = if is_other_id || group.company_id() != before.company_id() {
            let message = if is_other_id {
                format!("the older version is another group, {before}")
            } else {
                "the older version is in another company: send `updates()`".to_owned()
            };
            updates(Err((Operation::Set, EncodeError::new(message))), &group)
        } else if is_unchanged(new, old) {
            Vec::new()
        } else {
            updates(differences(new, old), &group)
        };
        Self(updates.into_iter())
    }
}

impl<'a> Iterator for Changes<'a> {
    type Item = Update<'a>;

    fn next(&mut self) -> Option<Update<'a>> {
        self.0.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for Changes<'_> {}

/// Returns what differs between the properties of two versions. An error has the operation of its property.
fn differences<T: MixpanelGroup>(
    new: &T,
    old: &T,
) -> Result<Differences, (Operation, EncodeError)> {
    with_scratch(|scratch| {
        let mut comparison = Comparison {
            differences: Differences::default(),
            new: Flattened::default(),
            old: Flattened::default(),
            were_set_once: BTreeSet::new(),
            scratch,
        };
        for operation in field_operations::<T>() {
            new.visit_properties(old, operation, &mut comparison)
                .map_err(|error| (operation, error))?;
            comparison.compare_flattened(operation);
        }
        Ok(comparison.differences)
    })
}

/// A visitor that compares the properties of two versions.
struct Comparison<'a> {
    differences: Differences,
    /// What is flattened of the operation that is visited.
    new: Flattened,
    old: Flattened,
    /// The flattened names of `$set_once` that are gone. Their values stay in the profile.
    were_set_once: BTreeSet<String>,
    /// A buffer for the JSON of the older value, or of both.
    scratch: &'a mut Buffer,
}

impl Comparison<'_> {
    /// Compares what is flattened, of all fields of an operation: a name may move from one to another.
    fn compare_flattened(&mut self, operation: Operation) {
        let [new, old] = [&mut self.new, &mut self.old].map(|side| mem::take(side).members);
        for (name, value) in &new {
            let before = old.get(name).map_or("", |value| value.get());
            if !before.is_empty() && are_equal(before, value.get()) {
                continue;
            }
            let key = key_of(name);
            match operation {
                // `$union` would leave a value alone that is not a list.
                Operation::Union if self.were_set_once.contains(name) => {
                    self.differences.set_list(&key, value.get());
                }
                Operation::Union => {
                    self.differences
                        .change_list(&key, value.get(), before, before);
                }
                Operation::SetOnce if !before.is_empty() => {}
                Operation::SetOnce => self.differences.set_once(&key, value.get()),
                _ => self.differences.set(&key, value.get()),
            }
        }
        let removed = old.into_keys().filter(|name| !new.contains_key(name));
        if operation == Operation::SetOnce {
            self.were_set_once = removed.collect();
        } else {
            removed.for_each(|name| self.differences.unset(&key_of(&name)));
        }
    }
}

impl Visitor for Comparison<'_> {
    fn property<T: Serialize + ?Sized>(
        &mut self,
        property: &'static Property,
        new: &T,
        old: &T,
    ) -> Result<(), EncodeError> {
        let write = |out: &mut Buffer, value: &T| {
            let written = push_json(out, value);
            written.map_err(|error| error.of(property.name))
        };
        let old_json = &mut *self.scratch;
        old_json.clear();
        let before = write(old_json, old)?;
        let out = match property.operation {
            // What it is now is not sent, but must be one that can be.
            Operation::SetOnce if before == Written::Value => {
                if write(old_json, new)? == Written::Null && property.unset_none {
                    self.differences.unset(property.key);
                }
                return Ok(());
            }
            Operation::SetOnce => &mut self.differences.set_once,
            _ => &mut self.differences.set,
        };
        let start = out.len();
        out.extend_from_slice(property.key.as_bytes());
        let value = out.len();
        let now = write(out, new)?;
        let is_same = now == Written::Null
            || before == Written::Value && are_equal(text(&out[value..]), text(old_json));
        if is_same {
            out.truncate(start);
        }
        if now == Written::Null && before == Written::Value {
            self.differences.unset(property.key);
        }
        Ok(())
    }

    fn list<T: Serialize + ?Sized>(
        &mut self,
        property: &'static Property,
        new: &T,
        old: &T,
    ) -> Result<(), EncodeError> {
        let scratch = &mut *self.scratch;
        scratch.clear();
        let mut write = |value: &T| {
            let written = push_list(scratch, value);
            written
                .map(|_| scratch.len())
                .map_err(|error| error.of(property.name))
        };
        let middle = write(old)?;
        write(new)?;
        let (old, new) = self.scratch.split_at(middle);
        if old != new {
            let old = text(old);
            self.differences
                .change_list(property.key, text(new), old, old);
        }
        Ok(())
    }

    fn flatten<T: Serialize + ?Sized>(
        &mut self,
        property: &'static Property,
        all: &'static [Property],
        new: &T,
        old: &T,
    ) -> Result<(), EncodeError> {
        self.new.add(property, all, new)?;
        self.old.add(property, all, old)
    }
}

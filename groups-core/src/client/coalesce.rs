//! Fewer updates that say the same.
//!
//! Updates of one group are taken in order and put into slots, one for each update that is left.
//! A property's operations stand in slots in their order, and operations on different properties
//! can be exchanged freely; so each new operation goes into the earliest slot of its kind that is
//! behind the property's last one, unless the property's history makes it, or makes part of the
//! history, superfluous. What [`Profile`](crate::Profile) says is the rule: whatever the profile
//! was, it becomes the same. An update opens at most one slot, so there are never more.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde_json::value::RawValue;

use crate::client::records::{Limits, Records};
use crate::group::Operation;
use crate::json::close;
use crate::json::escape::write_str;
use crate::json::item::{Item, parse_items};

/// Replaces the records by equivalent ones, group by group; how many fewer there are. None, if that
/// would make one too large to be sent.
pub(crate) fn coalesce(records: &mut Records, opening: usize, limits: Limits) -> usize {
    let before = records.len();
    coalesce_with_members(records, opening, limits);
    before - records.len()
}

/// The same; returns for each record that is left which ones became part of it.
pub(crate) fn coalesce_with_members(
    records: &mut Records,
    opening: usize,
    limits: Limits,
) -> Vec<Vec<usize>> {
    let mut coalesced = Records::default();
    let mut members = Vec::new();
    let mut segments = Segments::default();
    for index in 0..records.len() {
        segments.add(records, index, opening);
    }
    for segment in segments.all {
        segment.write(records, &mut coalesced, &mut members);
    }
    if coalesced.largest() > limits.most_bytes_a_record() {
        return (0..records.len()).map(|index| vec![index]).collect();
    }
    *records = coalesced;
    members
}

/// The updates of each group, in the order in which the groups came up.
#[derive(Default)]
struct Segments<'a> {
    all: Vec<Segment<'a>>,
    /// Which segment a group's next update goes to, by the bytes that name the group.
    current: HashMap<&'a [u8], usize>,
}

impl<'a> Segments<'a> {
    fn add(&mut self, records: &'a Records, index: usize, opening: usize) {
        let json = records.json(index);
        let Some(update) = Parsed::new(json) else {
            // Not an update of ours: it stays as it is, and nothing moves across it.
            self.current.clear();
            self.all.push(Segment::opaque(index));
            return;
        };
        let head = records.head(index, opening);
        let current = self.current.get(head).copied();
        let same = current.filter(|at| self.all[*at].prefix == update.prefix);
        let at = same.unwrap_or_else(|| {
            self.all.push(Segment {
                prefix: update.prefix,
                ..Segment::default()
            });
            self.all.len() - 1
        });
        self.current.insert(head, at);
        self.all[at].add(index, update);
    }
}

/// One record, taken apart.
struct Parsed<'a> {
    /// All that stands before the operation.
    prefix: &'a [u8],
    operation: Operation,
    /// The properties and, but for `$unset`, what is said of them.
    entries: Vec<(String, &'a str)>,
}

impl<'a> Parsed<'a> {
    fn new(json: &'a [u8]) -> Option<Self> {
        let members: HashMap<&str, &RawValue> = serde_json::from_slice(json).ok()?;
        let mut members = members.into_iter();
        let (operation, value) =
            members.find_map(|(name, value)| Some((Operation::from_name(name)?, value.get())))?;
        let entries = match operation {
            Operation::Delete => Vec::new(),
            Operation::Unset => {
                let names: Vec<String> = serde_json::from_str(value).ok()?;
                names.into_iter().map(|name| (name, "")).collect()
            }
            _ => {
                let members: BTreeMap<String, &RawValue> = serde_json::from_str(value).ok()?;
                members
                    .into_iter()
                    .map(|(name, value)| (name, value.get()))
                    .collect()
            }
        };
        // The operation is the last member: `,"$set":` … `}`.
        let rest = operation.key().len() + value.len() + "}".len();
        let prefix = json.get(..json.len().checked_sub(rest)?)?;
        Some(Self {
            prefix,
            operation,
            entries,
        })
    }
}

/// The updates of one group that may be coalesced with each other.
#[derive(Default)]
struct Segment<'a> {
    prefix: &'a [u8],
    slots: Vec<Slot<'a>>,
    /// In which slots each property is, in order.
    history: HashMap<String, Vec<usize>>,
    /// The first slot is `$delete`: nothing was there before.
    fresh: bool,
    /// The last update that created the group and became superfluous otherwise.
    creator: Option<(Slot<'a>, String)>,
}

/// One update that is left.
struct Slot<'a> {
    /// The records that are part of it, or were superseded by it.
    members: BTreeSet<usize>,
    /// None of a record that is left alone.
    operation: Option<Operation>,
    entries: BTreeMap<String, Cow<'a, str>>,
}

fn creates(operation: Operation) -> bool {
    matches!(
        operation,
        Operation::Set | Operation::SetOnce | Operation::Union
    )
}

impl<'a> Slot<'a> {
    fn new(operation: Option<Operation>, members: BTreeSet<usize>) -> Self {
        Self {
            members,
            operation,
            entries: BTreeMap::new(),
        }
    }

    /// An update of its own with this property alone, of the same records.
    fn with_one(&self, operation: Option<Operation>, name: &str, value: Cow<'a, str>) -> Self {
        let mut slot = Self::new(operation, self.members.clone());
        slot.entries.insert(name.to_owned(), value);
        slot
    }

    fn is_left(&self) -> bool {
        !self.entries.is_empty() || matches!(self.operation, None | Some(Operation::Delete))
    }

    fn write(&self, prefix: &[u8], operation: Operation, out: &mut Vec<u8>) {
        out.extend_from_slice(prefix);
        out.extend_from_slice(operation.key().as_bytes());
        if operation == Operation::Delete {
            out.extend_from_slice(b"\"\"");
        }
        let start = out.len();
        for (name, value) in &self.entries {
            out.push(b',');
            write_str(out, name);
            if operation != Operation::Unset {
                out.push(b':');
                out.extend_from_slice(value.as_bytes());
            }
        }
        let brackets = if operation == Operation::Unset {
            *b"[]"
        } else {
            *b"{}"
        };
        close(out, start, brackets);
        out.push(b'}');
    }
}

impl<'a> Segment<'a> {
    fn opaque(index: usize) -> Self {
        Self {
            slots: vec![Slot::new(None, BTreeSet::from([index]))],
            ..Self::default()
        }
    }

    fn add(&mut self, index: usize, update: Parsed<'a>) {
        if update.operation == Operation::Delete {
            let before = self.slots.iter().flat_map(|slot| &slot.members).copied();
            let members = before.chain([index]).collect();
            *self = Self {
                prefix: self.prefix,
                slots: vec![Slot::new(Some(Operation::Delete), members)],
                fresh: true,
                ..Self::default()
            };
        }
        for (name, value) in update.entries {
            let mut members = self.say(update.operation, &name, Cow::Borrowed(value));
            members.insert(index);
            // Where the property is now. If it is nowhere, the group was deleted: the first slot.
            let at = self.last_slot(&name).unwrap_or_default();
            self.slots[at].members.extend(members);
        }
    }

    /// One operation on one property; returns the records whose part in it this one supersedes.
    #[allow(clippy::match_same_arms)] // Each arm has a reason of its own.
    fn say(&mut self, operation: Operation, name: &str, value: Cow<'a, str>) -> BTreeSet<usize> {
        use Operation::{Remove, Set, SetOnce, Union, Unset};
        let mut superseded = BTreeSet::new();
        let last = self.last(name);
        match (last, operation) {
            // What was there before does not matter.
            (_, Set) => {
                superseded = self.forget(name);
                self.put(0, Set, name, value);
            }
            (_, Unset) if self.fresh => superseded = self.forget(name),
            (Some(Unset), Unset) => {}
            (_, Unset) => {
                superseded = self.forget(name);
                self.put(0, Unset, name, value);
            }
            // The value is known: it becomes another one, or stays.
            (Some(Set), SetOnce) => {}
            (Some(Set), Union) => self.change(name, |list| union(list, &value)),
            (Some(Set), Remove) => self.change(name, |list| without(list, &value)),
            // There is no list.
            (None, Remove) if self.fresh => {}
            (Some(Unset), Remove) => {}
            // There is a value, whatever it is.
            (Some(SetOnce | Union), SetOnce) => {}
            (Some(Remove), SetOnce) if self.has_said(name, &[SetOnce, Union]) => {}
            (Some(Union), Union) => self.change(name, |list| union(list, &value)),
            (Some(Remove), Union) if self.join_earlier(name, &value) => {}
            (Some(Remove), Remove) if self.has_removed(name, &value) => {}
            (_, SetOnce | Union | Remove) => {
                let from = self.last_slot(name).map_or(0, |last| last + 1);
                self.put(from, operation, name, value);
            }
            (_, Operation::Delete) => {}
        }
        superseded
    }

    fn last_slot(&self, name: &str) -> Option<usize> {
        self.history.get(name)?.last().copied()
    }

    /// What was said of the property last.
    fn last(&self, name: &str) -> Option<Operation> {
        self.slots[self.last_slot(name)?].operation
    }

    fn has_said(&self, name: &str, operations: &[Operation]) -> bool {
        let said = self.history.get(name).into_iter().flatten();
        said.filter_map(|at| self.slots[*at].operation)
            .any(|one| operations.contains(&one))
    }

    /// Whether the same item was removed, and nothing was added since.
    fn has_removed(&self, name: &str, item: &str) -> bool {
        let item = Item::parse(item);
        self.removed_since_union(name)
            .any(|(_, removed)| Item::parse(removed) == item)
    }

    /// The slots at the end of the property's history that remove something from it.
    fn removed_since_union<'s>(
        &'s self,
        name: &'s str,
    ) -> impl Iterator<Item = (usize, &'s str)> + 's {
        let slots = self.history.get(name).into_iter().flatten().rev();
        let slots = slots.map(|at| (*at, &self.slots[*at]));
        let removes = slots.take_while(|(_, slot)| slot.operation == Some(Operation::Remove));
        removes.filter_map(move |(at, slot)| Some((at, &**slot.entries.get(name)?)))
    }

    /// Adds items to the `$union` that stands before the last `$remove`s, if none of these removes
    /// one of them.
    fn join_earlier(&mut self, name: &str, items: &str) -> bool {
        let added: HashSet<Item> = parse_items(items).map(|(_, item)| item).collect();
        let mut first = 0;
        for (at, item) in self.removed_since_union(name) {
            if added.contains(&Item::parse(item)) {
                return false;
            }
            first = at;
        }
        let history = self.history.get(name).into_iter().flatten();
        let before = history.take_while(|at| **at < first).last();
        let Some(slot) = before.and_then(|at| self.slots.get_mut(*at)) else {
            return false;
        };
        match slot.entries.get_mut(name) {
            Some(list) if slot.operation == Some(Operation::Union) => {
                *list = union(list, items).into();
                true
            }
            _ => false,
        }
    }

    /// Changes what was said of the property last.
    fn change(&mut self, name: &str, change: impl FnOnce(&str) -> String) {
        let last = self.last_slot(name);
        if let Some(value) = last.and_then(|last| self.slots[last].entries.get_mut(name)) {
            *value = change(value).into();
        }
    }

    /// Takes the property out of every slot; returns the records that are part of these.
    fn forget(&mut self, name: &str) -> BTreeSet<usize> {
        let mut members = BTreeSet::new();
        for at in self.history.remove(name).unwrap_or_default() {
            let slot = &mut self.slots[at];
            members.extend(&slot.members);
            let value = slot.entries.remove(name);
            if let Some(value) = value.filter(|_| slot.operation.is_some_and(creates)) {
                let creator = slot.with_one(slot.operation, name, value);
                self.creator = Some((creator, name.to_owned()));
            }
        }
        members
    }

    /// Puts the property into the first slot of that kind from `from` on, or into a new one.
    fn put(&mut self, from: usize, operation: Operation, name: &str, value: Cow<'a, str>) {
        let mut slots = self.slots.iter().enumerate().skip(from);
        let at = slots
            .find(|(_, slot)| slot.operation == Some(operation))
            .map(|(at, _)| at);
        let at = at.unwrap_or_else(|| {
            self.slots.push(Slot::new(Some(operation), BTreeSet::new()));
            self.slots.len() - 1
        });
        self.slots[at].entries.insert(name.to_owned(), value);
        self.history.entry(name.to_owned()).or_default().push(at);
    }

    /// The updates that are left. If one of them created the group, one still has to.
    fn write(mut self, records: &Records, coalesced: &mut Records, members: &mut Vec<Vec<usize>>) {
        let mut slots = std::mem::take(&mut self.slots);
        slots.retain(Slot::is_left);
        let is_created = slots.iter().any(|slot| slot.operation.is_some_and(creates));
        if let Some((creator, name)) = self.creator.take().filter(|_| !is_created) {
            if self.fresh {
                let unset = creator.with_one(Some(Operation::Unset), &name, Cow::Borrowed(""));
                slots.extend([creator, unset]);
            } else {
                slots.insert(0, creator);
            }
        }
        for slot in slots {
            let first = slot.members.first().copied().unwrap_or_default();
            match slot.operation {
                None => coalesced.copy(records, first),
                Some(operation) => coalesced.copy_with(records, first, Some(operation), |out| {
                    slot.write(self.prefix, operation, out);
                }),
            }
            members.push(slot.members.into_iter().collect());
        }
    }
}

fn is_list(json: &str) -> bool {
    json.starts_with('[')
}

fn join<'j>(items: impl Iterator<Item = &'j str>) -> String {
    let items: Vec<_> = items.collect();
    format!("[{}]", items.join(","))
}

/// What `$union` of a list makes of a value.
pub(crate) fn union(value: &str, items: &str) -> String {
    if !is_list(value) {
        return value.to_owned();
    }
    let mut seen = HashSet::new();
    let all = parse_items(value).chain(parse_items(items));
    join(all.filter_map(|(json, item)| seen.insert(item).then_some(json)))
}

/// What `$remove` of an item makes of a value.
fn without(value: &str, item: &str) -> String {
    if !is_list(value) {
        return value.to_owned();
    }
    let item = Item::parse(item);
    join(parse_items(value).filter_map(|(json, other)| (other != item).then_some(json)))
}

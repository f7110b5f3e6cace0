//! Replaces updates by fewer with the same effect.
//!
//! Updates of one group are taken in order and put into slots, one for each update that is left.
//! A property's operations stand in slots in their order, and operations on different properties
//! can be exchanged freely; so each new operation goes into the earliest slot of its kind that is
//! behind the property's last one, unless the property's history makes it, or makes part of the
//! history, superfluous. [`Profile`](crate::Profile) defines what is the same: whatever the profile
//! was before, it is equal afterwards. An update opens at most one slot, so there are never more.
//!
//! Time and memory grow no faster than the updates: nothing is processed or copied again for each further
//! update, lists are taken apart once (`mutable_list`), and which records a slot stands for is kept by property. The only
//! update of a group is not even parsed.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::value::RawValue;

use crate::client::mutable_list::MutableList;
use crate::client::records::Records;
use crate::group::Operation;
use crate::json::close;
use crate::json::escape::push_str;
use crate::json::item::{Item, parse_items};
use crate::util::Buffer;

/// Replaces the records by fewer equivalent ones, group by group. Returns how many were saved: 0 if one of them would have
/// more than `most` bytes; then they are as they were.
pub(crate) fn coalesce(records: &mut Records, opening: usize, most: usize) -> usize {
    let before = records.len();
    let coalesced = coalesce_with_members(records, opening, most, &HashSet::new(), &|| false);
    debug_assert!(coalesced.is_some(), "it was not cancelled");
    before - records.len()
}

/// The number of records that are parsed between two checks for cancellation.
const LOOK_EVERY: usize = 256;

/// For each record that is left, the positions of those that became part of it.
#[derive(Debug, Default)]
pub(crate) struct Members {
    /// Those of all records, one after the other.
    positions: Vec<usize>,
    /// Where each record's end.
    ends: Vec<usize>,
}

impl Members {
    /// Returns those of records at these positions, of which each stands for itself.
    pub(crate) fn each(positions: impl Iterator<Item = usize>) -> Self {
        let positions: Vec<_> = positions.collect();
        Self {
            ends: (1..=positions.len()).collect(),
            positions,
        }
    }

    fn each_of(records: &Records) -> Self {
        Self::each((0..records.len()).map(|index| records.position(index)))
    }

    fn push(&mut self, positions: impl Iterator<Item = usize>) {
        self.positions.extend(positions);
        self.ends.push(self.positions.len());
    }

    /// Returns those of one record.
    pub(crate) fn of(&self, record: usize) -> &[usize] {
        let start = record.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.positions[start..self.ends[record]]
    }
}

/// Does the same as [`coalesce`], and returns for each record that is left which ones became part of it. The groups `apart`,
/// by the bytes that name them, stay as they are. Returns `None`, with the records as they were, if it is cancelled
/// meanwhile.
pub(crate) fn coalesce_with_members(
    records: &mut Records,
    opening: usize,
    most: usize,
    apart: &HashSet<Vec<u8>>,
    is_cancelled: &dyn Fn() -> bool,
) -> Option<Members> {
    let mut counts = HashMap::with_capacity(records.len());
    for index in 0..records.len() {
        *counts.entry(records.head(index, opening)).or_insert(0) += 1;
    }
    let is_alone = |head: &[u8]| counts[head] == 1 || apart.contains(head);
    if (0..records.len()).all(|index| is_alone(records.head(index, opening))) {
        return Some(Members::each_of(records));
    }
    let mut segments = Segments::default();
    for index in 0..records.len() {
        if index % LOOK_EVERY == 0 && is_cancelled() {
            return None;
        }
        segments.add(records, index, opening, is_alone);
    }
    if is_cancelled() {
        return None;
    }
    let mut coalesced = Records::default();
    let mut members = Members::default();
    for part in segments.all {
        match part {
            Part::Alone(index) => {
                coalesced.copy(records, index);
                members.push(std::iter::once(records.position(index)));
            }
            Part::Segment(segment) => segment.write(records, &mut coalesced, &mut members),
        }
    }
    // Where none is saved, they stay in the caller's order.
    if coalesced.len() == records.len() || coalesced.largest() > most {
        return Some(Members::each_of(records));
    }
    *records = coalesced;
    Some(members)
}

/// The updates of each group, in the order in which the groups came up.
#[derive(Default)]
struct Segments<'a> {
    all: Vec<Part<'a>>,
    /// Which segment a group's next update goes to, by the bytes that name the group.
    current: HashMap<&'a [u8], usize>,
}

enum Part<'a> {
    /// A record that stays as it is.
    Alone(usize),
    Segment(Box<Segment<'a>>),
}

impl<'a> Segments<'a> {
    fn add(
        &mut self,
        records: &'a Records,
        index: usize,
        opening: usize,
        is_alone: impl Fn(&[u8]) -> bool,
    ) {
        let head = records.head(index, opening);
        if is_alone(head) {
            self.all.push(Part::Alone(index));
            return;
        }
        let Some(update) = Parsed::new(records.json(index)) else {
            // Not an update of ours, or one without a property: none of its group moves across it.
            self.current.remove(head);
            self.all.push(Part::Alone(index));
            return;
        };
        let current = self.current.get(head).copied();
        if let Some(Part::Segment(segment)) = current.and_then(|at| self.all.get_mut(at))
            && segment.prefix == update.prefix
        {
            segment.add(index, update);
            return;
        }
        let mut segment = Segment {
            prefix: update.prefix,
            ..Segment::default()
        };
        segment.add(index, update);
        self.current.insert(head, self.all.len());
        self.all.push(Part::Segment(Box::new(segment)));
    }
}

/// A parsed record.
struct Parsed<'a> {
    /// All that stands before the operation.
    prefix: &'a [u8],
    operation: Operation,
    /// The properties and, except for `$unset`, their values.
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
        if entries.is_empty() && operation != Operation::Delete {
            return None;
        }
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
    /// The slots of each operation, in order.
    slots_of: BTreeMap<Operation, Vec<usize>>,
    properties: HashMap<String, History>,
    /// The first slot is `$delete`: nothing was there before.
    fresh: bool,
    /// The last update that created the group and became superfluous otherwise.
    creator: Option<Creator<'a>>,
    /// The properties of all such updates.
    created_by: HashSet<String>,
}

/// One update that is left.
struct Slot<'a> {
    operation: Operation,
    values: BTreeMap<String, MutableList<'a>>,
    /// The records that it stands for, beside those in the histories of its properties.
    members: Vec<usize>,
}

/// The operations on one property so far.
#[derive(Default)]
struct History {
    /// The slots in which it is, in order, and the records that are part of each or were superseded by it.
    steps: Vec<(usize, Vec<usize>)>,
    /// One of the steps is `$set_once` or `$union`.
    has_created: bool,
    /// The items that the steps at the end remove.
    removed: HashSet<Item>,
}

/// A part of an update that creates the group.
struct Creator<'a> {
    operation: Operation,
    name: String,
    value: MutableList<'a>,
}

fn creates(operation: Operation) -> bool {
    matches!(
        operation,
        Operation::Set | Operation::SetOnce | Operation::Union
    )
}

impl Slot<'_> {
    fn new(operation: Operation, members: Vec<usize>) -> Self {
        Self {
            members,
            operation,
            values: BTreeMap::new(),
        }
    }

    fn is_left(&self) -> bool {
        !self.values.is_empty() || self.operation == Operation::Delete
    }

    fn write(&self, prefix: &[u8], out: &mut Buffer) {
        let operation = self.operation;
        out.extend_from_slice(prefix);
        out.extend_from_slice(operation.key().as_bytes());
        if operation == Operation::Delete {
            out.extend_from_slice(b"\"\"");
        }
        let start = out.len();
        for (name, value) in &self.values {
            out.push(b',');
            push_str(out, name);
            if operation != Operation::Unset {
                out.push(b':');
                value.write(out);
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

impl History {
    fn last_step(&self) -> Option<usize> {
        self.steps.len().checked_sub(1)
    }

    /// Returns whether an operation changes nothing after the earlier ones.
    fn is_redundant(&self, last: Option<Operation>, operation: Operation, value: &str) -> bool {
        use Operation::{Remove, Set, SetOnce, Union, Unset};
        match (last, operation) {
            // There is a value, whatever it is; or there is no list, or the item is not in it.
            (Some(Set | SetOnce | Union), SetOnce) | (Some(Unset), Remove) => true,
            (Some(Remove), SetOnce) => self.has_created,
            (Some(Remove), Remove) => self.removed.contains(&Item::parse(value)),
            _ => false,
        }
    }

    fn last_slot(&self) -> Option<usize> {
        self.steps.last().map(|(slot, _)| *slot)
    }

    /// Returns the last step before those at the end that remove something.
    fn before_removed(&self) -> Option<usize> {
        // Each removes one item, no two of them the same.
        let before = self.steps.len().checked_sub(self.removed.len() + 1)?;
        Some(before)
    }
}

impl<'a> Segment<'a> {
    fn add(&mut self, index: usize, update: Parsed<'a>) {
        if update.operation == Operation::Delete {
            let mut members: Vec<usize> = Vec::new();
            for slot in &mut self.slots {
                absorb(&mut members, std::mem::take(&mut slot.members));
            }
            for (_, records) in self
                .properties
                .drain()
                .flat_map(|(_, history)| history.steps)
            {
                absorb(&mut members, records);
            }
            members.push(index);
            *self = Self {
                prefix: self.prefix,
                slots: vec![Slot::new(Operation::Delete, members)],
                fresh: true,
                ..Self::default()
            };
        }
        for (name, value) in update.entries {
            self.add_operation(update.operation, &name, value, index);
        }
    }

    /// Adds one operation of a record on one property.
    fn add_operation(&mut self, operation: Operation, name: &str, value: &'a str, record: usize) {
        use Operation::{Remove, Set, Union, Unset};
        if !self.properties.contains_key(name) {
            self.properties.insert(name.to_owned(), History::default());
        }
        let history = self.properties.get_mut(name).expect("it was inserted");
        let last_slot = history.last_slot();
        let last = last_slot.map(|slot| self.slots[slot].operation);
        // The step that the record becomes part of.
        let step = match (last, operation) {
            // What was there before does not matter.
            (_, Set) => return self.replace(Some(Set), name, value, record),
            (_, Unset) if self.fresh => return self.replace(None, name, value, record),
            (_, Unset) => return self.replace(Some(Unset), name, value, record),
            // The value is known: it becomes another one. Or it is a list of items to add.
            (Some(Set | Union), Union) | (Some(Set), Remove) => {
                let slot = &mut self.slots[last_slot.expect("it has an operation")];
                let earlier = slot.values.get_mut(name).expect("it is there");
                if operation == Union {
                    earlier.add(value);
                } else {
                    earlier.remove(value);
                }
                history.last_step()
            }
            // There is no list.
            (None, Remove) if self.fresh => None,
            // Items can be added before others are removed.
            (Some(Remove), Union) if joins(history, &mut self.slots, name, value) => {
                history.before_removed()
            }
            _ if history.is_redundant(last, operation, value) => history.last_step(),
            _ => {
                let from = last_slot.map_or(0, |slot| slot + 1);
                return self.append(from, operation, name, value, vec![record]);
            }
        };
        match step {
            Some(step) => history.steps[step].1.push(record),
            // The property is nowhere, since the group was deleted: the first slot.
            None => self.slots[0].members.push(record),
        }
    }

    /// Removes the property from every slot, and adds this operation instead, if there is one.
    fn replace(&mut self, operation: Option<Operation>, name: &str, value: &'a str, record: usize) {
        let history = self.properties.insert(name.to_owned(), History::default());
        let mut records = Vec::new();
        for (at, part) in history.unwrap_or_default().steps {
            let slot = &mut self.slots[at];
            let value = slot.values.remove(name).expect("the slot has the property");
            if creates(slot.operation) {
                if !self.created_by.contains(name) {
                    self.created_by.insert(name.to_owned());
                }
                self.creator = Some(Creator {
                    operation: slot.operation,
                    name: name.to_owned(),
                    value,
                });
            }
            absorb(&mut records, part);
        }
        records.push(record);
        match operation {
            Some(operation) => self.append(0, operation, name, value, records),
            None => absorb(&mut self.slots[0].members, records),
        }
    }

    /// Appends the property to the first slot of that operation from `from` on, or into a new one.
    fn append(
        &mut self,
        from: usize,
        operation: Operation,
        name: &str,
        value: &'a str,
        records: Vec<usize>,
    ) {
        let slots = self.slots_of.entry(operation).or_default();
        let next = slots.partition_point(|slot| *slot < from);
        let at = slots.get(next).copied().unwrap_or_else(|| {
            slots.push(self.slots.len());
            self.slots.push(Slot::new(operation, Vec::new()));
            self.slots.len() - 1
        });
        let value_of_slot = MutableList::new(value);
        self.slots[at].values.insert(name.to_owned(), value_of_slot);
        let history = self.properties.entry(name.to_owned()).or_default();
        history.steps.push((at, records));
        if operation == Operation::Remove {
            history.removed.insert(Item::parse(value));
        } else {
            history.removed.clear();
        }
        history.has_created |= matches!(operation, Operation::SetOnce | Operation::Union);
    }

    /// Returns the records that concern the properties of what created the group and became superfluous otherwise. Where what
    /// creates it now is refused, each of them counts again.
    fn creators(&self) -> Vec<usize> {
        let histories = || self.created_by.iter().map(|name| &self.properties[name]);
        let steps = histories().flat_map(|history| &history.steps);
        let mut creators: Vec<usize> = steps.flat_map(|(_, records)| records).copied().collect();
        // Of those without a step, the property was removed after the group was deleted.
        if histories().any(|history| history.steps.is_empty()) {
            creators.extend(&self.slots[0].members);
        }
        creators
    }

    /// Writes the updates that are left. If one of the originals creates the group, so does one of these.
    fn write(mut self, records: &Records, coalesced: &mut Records, members: &mut Members) {
        let creators = self.creators();
        for (slot, part) in self
            .properties
            .drain()
            .flat_map(|(_, history)| history.steps)
        {
            absorb(&mut self.slots[slot].members, part);
        }
        let mut slots = std::mem::take(&mut self.slots);
        slots.retain(Slot::is_left);
        let creating = slots.iter().position(|slot| creates(slot.operation));
        if let Some(creator) = self.creator.take()
            && creating.is_none()
        {
            let slot = |operation, value| Slot {
                operation,
                values: BTreeMap::from([(creator.name.clone(), value)]),
                members: creators.clone(),
            };
            let unset = slot(Operation::Unset, MutableList::new(""));
            let create = slot(creator.operation, creator.value);
            if self.fresh {
                slots.extend([create, unset]);
            } else {
                slots.insert(0, create);
            }
        }
        for (index, mut slot) in slots.into_iter().enumerate() {
            let first = slot.members.iter().min().copied();
            let first = first.expect("some record made it");
            if creating == Some(index) {
                slot.members.extend(&creators);
            }
            slot.members.sort_unstable();
            slot.members.dedup();
            coalesced.copy_with(records, first, Some(slot.operation), |out| {
                slot.write(self.prefix, out);
            });
            members.push(slot.members.iter().map(|index| records.position(*index)));
        }
    }
}

/// Adds items to the `$union` that stands before the `$remove`s at the end, if none of these removes one of them.
fn joins<'a>(history: &History, slots: &mut [Slot<'a>], name: &str, items: &'a str) -> bool {
    let step = history.before_removed().map(|step| history.steps[step].0);
    let union = step.filter(|at| slots[*at].operation == Operation::Union);
    let Some(at) = union else { return false };
    if parse_items(items).any(|(_, item)| history.removed.contains(&item)) {
        return false;
    }
    let list = slots[at].values.get_mut(name);
    list.expect("the slot has the property").add(items);
    true
}

/// Moves the shorter list behind the longer one.
fn absorb(records: &mut Vec<usize>, mut more: Vec<usize>) {
    if more.len() > records.len() {
        std::mem::swap(records, &mut more);
    }
    records.append(&mut more);
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::{Duration, Instant};

    use serde_json::json;

    use super::*;
    use crate::group::Group;
    use crate::record::{EncodedUpdate, Update};

    /// Returns updates of one group, each with so many properties.
    fn of_one_group(kind: &str, updates: usize, properties: usize) -> Records {
        let mut records = Records::default();
        for number in 0..updates {
            let (operation, value) = match kind {
                "$union" => ("$union", format!("[{number}]")),
                "$union and $remove" if number % 2 == 0 => ("$union", format!("[{number}]")),
                "$union and $remove" => ("$remove", (number - 1).to_string()),
                "$set and $delete" if number % 3 == 2 => ("$delete", String::new()),
                "$set and $delete" => ("$set", number.to_string()),
                operation => (operation, number.to_string()),
            };
            let members = (0..properties).map(|property| match operation {
                "$unset" => format!("\"p{property}\""),
                _ => format!("\"p{property}\":{value}"),
            });
            let members = members.collect::<Vec<_>>().join(",");
            let value = match operation {
                "$unset" => format!("[{members}]"),
                "$delete" => "\"\"".to_owned(),
                _ => format!("{{{members}}}"),
            };
            let json = format!(r#"{{"$group_key":"k","$group_id":"1","{operation}":{value}}}"#);
            let update = EncodedUpdate::from_json(&json).unwrap();
            let pushed = records.push(number, b"{", &Update::from(&update));
            pushed.unwrap();
        }
        records
    }

    /// Returns how long it takes to coalesce that many.
    fn time(kind: &str, updates: usize, properties: usize) -> Duration {
        let mut records = of_one_group(kind, updates, properties);
        let start = Instant::now();
        let members =
            coalesce_with_members(&mut records, 1, usize::MAX, &HashSet::new(), &|| false).unwrap();
        let time = start.elapsed();
        let parts = members.positions.len();
        assert!(parts >= updates, "each is part of some");
        assert!(
            parts <= updates * properties + records.len(),
            "{kind}: {parts}"
        );
        time
    }

    fn records(updates: &[Update<'_>]) -> Records {
        let mut records = Records::default();
        for (position, update) in updates.iter().enumerate() {
            let pushed = records.push(position, b"{", update);
            pushed.unwrap();
        }
        records
    }

    /// Returns each update that is left of those of one group, and which ones it stands for.
    fn coalesced(updates: &[Update<'_>]) -> Vec<String> {
        let mut records = records(updates);
        let members =
            coalesce_with_members(&mut records, 1, usize::MAX, &HashSet::new(), &|| false).unwrap();
        let left = (0..records.len()).map(|index| {
            let members = members.of(index);
            let json = String::from_utf8_lossy(records.json(index));
            let json = json.strip_prefix(r#"{"$group_key":"company","$group_id":"acme","#);
            format!("{} {members:?}", json.expect("an update of the group"))
        });
        left.collect()
    }

    #[test]
    fn which_records_an_update_stands_for() {
        let acme = Group::new("company", "acme");
        let set = |value: i32| acme.set(json!({"a": value}));
        let union = |item: i32| acme.union(json!({"a": [item]}));
        let remove = |item: i32| acme.remove("a", item);
        let rows: [(&[Update<'_>], &[&str]); 14] = [
            (&[set(1), set(2)], &[r#""$set":{"a":2}} [0, 1]"#]),
            // There was a list, so there is one: it cannot be set.
            (
                &[union(1), remove(1), acme.set_once(json!({"a": 2}))],
                &[r#""$union":{"a":[1]}} [0]"#, r#""$remove":{"a":1}} [1, 2]"#],
            ),
            // Perhaps there was none.
            (
                &[remove(1), acme.set_once(json!({"a": 2}))],
                &[r#""$remove":{"a":1}} [0]"#, r#""$set_once":{"a":2}} [1]"#],
            ),
            (&[remove(1), remove(1)], &[r#""$remove":{"a":1}} [0, 1]"#]),
            // Items can be added before others are removed.
            (
                &[union(1), remove(1), union(2)],
                &[
                    r#""$union":{"a":[1,2]}} [0, 2]"#,
                    r#""$remove":{"a":1}} [1]"#,
                ],
            ),
            (
                &[remove(1), union(2), remove(3), union(4)],
                &[
                    r#""$remove":{"a":1}} [0]"#,
                    r#""$union":{"a":[2,4]}} [1, 3]"#,
                    r#""$remove":{"a":3}} [2]"#,
                ],
            ),
            (
                &[union(1), remove(1), remove(2), union(3)],
                &[
                    r#""$union":{"a":[1,3]}} [0, 3]"#,
                    r#""$remove":{"a":1}} [1]"#,
                    r#""$remove":{"a":2}} [2]"#,
                ],
            ),
            (
                &[union(1), remove(1), union(1)],
                &[
                    r#""$union":{"a":[1]}} [0]"#,
                    r#""$remove":{"a":1}} [1]"#,
                    r#""$union":{"a":[1]}} [2]"#,
                ],
            ),
            (
                &[
                    acme.set_once(json!({"b": 1})),
                    acme.unset(["b"]),
                    set(1),
                    set(2),
                ],
                &[
                    r#""$unset":["b"]} [0, 1]"#,
                    r#""$set":{"a":2}} [0, 1, 2, 3]"#,
                ],
            ),
            (
                &[
                    acme.set(json!({"a": 1, "b": 1})),
                    acme.unset(["a"]),
                    acme.unset(["a"]),
                ],
                &[
                    r#""$set":{"b":1}} [0, 1, 2]"#,
                    r#""$unset":["a"]} [0, 1, 2]"#,
                ],
            ),
            // What creates the group has the values of both.
            (
                &[union(1), union(2), acme.unset(["a"])],
                &[
                    r#""$union":{"a":[1,2]}} [0, 1, 2]"#,
                    r#""$unset":["a"]} [0, 1, 2]"#,
                ],
            ),
            // Of a group that was deleted, nothing is to be removed.
            (
                &[acme.delete(), remove(1), acme.unset(["b"])],
                &[r#""$delete":""} [0, 1, 2]"#],
            ),
            (
                &[set(1), union(2), acme.delete(), set(3)],
                &[r#""$delete":""} [0, 1, 2]"#, r#""$set":{"a":3}} [3]"#],
            ),
            (
                &[acme.unset(["a"]), remove(1), union(2)],
                &[r#""$unset":["a"]} [0, 1]"#, r#""$union":{"a":[2]}} [2]"#],
            ),
        ];
        for (updates, expected) in rows {
            assert_eq!(coalesced(updates), expected);
        }
    }

    #[test]
    fn what_is_not_an_update_stays_and_nothing_moves_across_it() {
        let acme = Group::new("company", "acme");
        let encoded = EncodedUpdate::new(&acme.delete()).unwrap().unwrap();
        let other = br#""$group_key":"company","$group_id":"acme","$other":1}"#;
        let other = Update::encoded(&other[..], Ok(Some(encoded.encoded())));
        let [one, two] = [1, 2].map(|value| acme.set(json!({"a": value})));
        let updates = [one.clone(), one, other, two.clone(), two];
        assert_eq!(
            coalesced(&updates),
            [
                r#""$set":{"a":1}} [0, 1]"#,
                r#""$other":1} [2]"#,
                r#""$set":{"a":2}} [3, 4]"#,
            ]
        );
    }

    /// Such as from another program. What becomes of it is the server's to say.
    #[test]
    fn an_update_without_a_property_stays_and_has_an_outcome_of_its_own() {
        let acme = Group::new("company", "acme");
        let set = |value: i32| acme.set(json!({"a": value}));
        for operation in ["$set", "$set_once", "$union", "$remove"] {
            let json =
                format!(r#"{{"$group_key":"company","$group_id":"acme","{operation}":{{}}}}"#);
            let empty = Update::from(EncodedUpdate::from_json(&json).unwrap());
            assert_eq!(
                coalesced(&[set(1), set(2), empty, set(3)]),
                [
                    r#""$set":{"a":2}} [0, 1]"#.to_owned(),
                    format!(r#""{operation}":{{}}}} [2]"#),
                    r#""$set":{"a":3}} [3]"#.to_owned(),
                ]
            );
        }
    }

    #[test]
    fn no_record_is_coalesced_into_one_that_is_too_large() {
        let acme = Group::new("company", "acme");
        let updates = [1, 2].map(|item| acme.union(json!({"a": [item]})));
        let mut whole = records(&updates);
        coalesce(&mut whole, 1, usize::MAX);
        let bytes = whole.json(0).len();
        for (bytes, left) in [(bytes, 1), (bytes - 1, 2)] {
            let mut records = records(&updates);
            assert_eq!(coalesce(&mut records, 1, bytes), 2 - left);
            assert_eq!(records.len(), left);
            let mut records = self::records(&updates);
            let members =
                coalesce_with_members(&mut records, 1, bytes, &HashSet::new(), &|| false).unwrap();
            assert_eq!(members.ends.len(), left);
        }
    }

    #[test]
    fn it_is_broken_off_soon_after_it_is_cancelled() {
        let mut records = of_one_group("$set", 100_000, 1);
        let looks = Cell::new(0);
        let is_cancelled = || {
            looks.set(looks.get() + 1);
            looks.get() > 3
        };
        let members =
            coalesce_with_members(&mut records, 1, usize::MAX, &HashSet::new(), &is_cancelled);
        assert_eq!((members.is_none(), looks.get()), (true, 4));
        assert_eq!(records.len(), 100_000, "the records are as they were");
        // It looks often enough for every size.
        looks.set(-1_000);
        assert!(
            coalesce_with_members(&mut records, 1, usize::MAX, &HashSet::new(), &is_cancelled)
                .is_some()
        );
        assert!(looks.get() > -650, "{}", looks.get());
    }

    /// Were the work to grow faster than the updates, this would not end within an hour. With `--nocapture` it prints
    /// what twice as many cost.
    #[test]
    fn a_hundred_thousand_updates_of_one_group() {
        for (updates, properties) in [(100_000, 1), (5_000, 20)] {
            for kind in [
                "$set",
                "$set_once",
                "$union",
                "$remove",
                "$unset",
                "$union and $remove",
                "$set and $delete",
            ] {
                let half = time(kind, updates / 2, properties);
                let whole = time(kind, updates, properties);
                let ratio = whole.as_secs_f64() / half.as_secs_f64();
                println!("{updates} of {properties}, {kind}: {whole:.1?}, of half {ratio:.2}");
            }
        }
    }
}

use std::collections::BTreeSet;

use super::comparison::compare;
use super::fingerprint::Fingerprints;
use super::index::{Entry, Index, WAITING};
use super::journal::Journal;
use super::known::{Known, uncertain};
use super::row::{DELETED, Head, Row, STATE, damaged};
use crate::group::Group;
use crate::record::diff::updates;
use crate::record::error::outcome;
use crate::record::{Error, MixpanelGroup, Report, Update};

/// One [`Snapshot::sync`](crate::Snapshot::sync).
///
/// Before the updates of a group are sent, a row in the journal says what it will be and what else it may be. When the
/// run ends, one row ends it, and groups with updates that were not accepted have rows of their own.
pub(super) struct Run<'r, 's> {
    index: &'r mut Index,
    journal: &'r Journal<'s>,
    fingerprints: Fingerprints,
    /// The kind of the struct's groups.
    kind: u32,
    number: u32,
    /// Nothing is sent in truth, so nothing is kept.
    is_dry: bool,
    has_failed: bool,
    /// Which group's the updates are, by the position of its first one.
    positions: Vec<(usize, u128)>,
    next_position: usize,
    deleted: Vec<u128>,
}

/// What is known of a group from before.
#[derive(Default)]
struct Before {
    /// What it is if what this run has sent of it is accepted.
    known: Option<Known>,
    /// What it may be in any case.
    may_be: Known,
}

impl<'r, 's> Run<'r, 's> {
    pub(super) fn new<T: MixpanelGroup>(
        index: &'r mut Index,
        journal: &'r Journal<'s>,
        is_dry: bool,
    ) -> Self {
        let key = index.state.key;
        let [a, b, c, d, ..] = key.hash(T::GROUP_KEY.as_bytes()).to_le_bytes();
        Self {
            fingerprints: Fingerprints::new(key, T::PROPERTIES),
            kind: u32::from_le_bytes([a, b, c, d]) & !DELETED,
            number: index.state.next_run,
            index,
            journal,
            is_dry,
            has_failed: false,
            positions: Vec::new(),
            next_position: 0,
            deleted: Vec::new(),
        }
    }

    /// Returns whether the store failed, so that nothing more can be sent.
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// Returns the updates of what has changed of a group, after adding it to the journal.
    pub(super) fn updates<T: MixpanelGroup>(&mut self, group: &T) -> Vec<Update<'static>> {
        let target = group.group();
        let name = self.fingerprints.name(target.key(), target.id().as_str());
        let fingerprint = self.fingerprints.of(group, &target);
        if let Some(entry) = self.index.groups.get_mut(&name) {
            entry.seen = self.number;
            let open = &self.index.state.open;
            if fingerprint == Some(entry.head.fingerprint) && !open.contains(&entry.head.run) {
                return Vec::new();
            }
        }
        self.compare(group, &target, name, fingerprint)
            .unwrap_or_else(|Failed| {
                self.has_failed = true;
                Vec::new()
            })
    }

    fn compare<T: MixpanelGroup>(
        &mut self,
        group: &T,
        target: &Group<'_>,
        name: u128,
        fingerprint: Option<u128>,
    ) -> Result<Vec<Update<'static>>, Failed> {
        let found = self.find(name)?;
        let Before { known, may_be } = found.map(|(_, before)| before).unwrap_or_default();
        let company_id = target.company_id().map(ToString::to_string);
        // In another company, nothing was sent of it.
        let known = known.map(|known| {
            if known.company_id == company_id {
                known
            } else {
                uncertain(Some(&known), None)
            }
        });
        let key = self.index.state.key;
        let (after, differences) = compare(group, known.as_ref(), company_id, key);
        let is_valid = differences.is_ok();
        let updates = updates(differences, target);
        // An update that cannot be sent changes nothing.
        if is_valid {
            let is_other = |(name, trace): &(String, _)| after.traces.get(name) != Some(trace);
            let before = Known {
                company_id: after.company_id.clone(),
                traces: may_be.traces.into_iter().filter(is_other).collect(),
            };
            let row = Row {
                name: (target.key().to_owned(), target.id().to_string()),
                after: Some(after),
                before,
            };
            self.add(name, self.number, fingerprint.unwrap_or_default(), &row)?;
        }
        self.count(if is_valid { name } else { STATE }, &updates);
        Ok(updates)
    }

    /// Returns the names of the groups of the group key that have not come up, in the order of their rows.
    pub(super) fn gone(&self) -> Vec<u128> {
        let groups = self.index.groups.values();
        let gone = groups
            .filter(|entry| entry.seen != self.number && entry.head.kind & !DELETED == self.kind);
        let mut gone: Vec<_> = gone.map(|entry| (entry.place, entry.head.name)).collect();
        gone.sort_unstable();
        gone.into_iter().map(|(_, name)| name).collect()
    }

    /// Returns the update that deletes a group, if it is of this group key.
    pub(super) fn delete(&mut self, name: u128, key: &str) -> Option<Update<'static>> {
        let deleted = self.try_delete(name, key);
        deleted.unwrap_or_else(|Failed| {
            self.has_failed = true;
            None
        })
    }

    fn try_delete(&mut self, name: u128, key: &str) -> Result<Option<Update<'static>>, Failed> {
        let found = self.find(name)?;
        let Some((names, before)) = found.filter(|((other, _), _)| other == key) else {
            return Ok(None);
        };
        let mut group = Group::new(&*names.0, &*names.1);
        if let Some(company_id) = before.may_be.company_id.as_deref() {
            group = group.in_company(company_id);
        }
        let update = group.delete();
        let row = Row {
            name: names,
            after: None,
            before: before.may_be,
        };
        self.add(name, self.number, 0, &row)?;
        self.deleted.push(name);
        self.count(name, std::slice::from_ref(&update));
        Ok(Some(update))
    }

    /// Returns the group's name and what is known of it.
    #[allow(clippy::type_complexity)]
    fn find(&mut self, name: u128) -> Result<Option<(super::known::GroupName, Before)>, Failed> {
        let place = |run: &Self| run.index.groups.get(&name).map(|entry| entry.place);
        if place(self) == Some(WAITING) {
            if !self.journal.write() {
                return Err(Failed);
            }
            self.place();
        }
        let Some(place) = place(self) else {
            return Ok(None);
        };
        let row = self.journal.read(place).ok_or(Failed)?;
        let Some((head, row)) = Row::decode(&row) else {
            let error = damaged("the snapshot", "the row of a group is wrong");
            self.journal.fail(error);
            return Err(Failed);
        };
        // The head in memory counts: after damage, it is another.
        let run = self
            .index
            .groups
            .get(&name)
            .map_or(head.run, |entry| entry.head.run);
        let is_open = run == self.number || self.index.state.open.contains(&run);
        let may_be = if is_open {
            uncertain(Some(&row.before), row.after.as_ref())
        } else {
            row.after.clone().unwrap_or_default()
        };
        let known = if run == self.number || !is_open {
            row.after
        } else {
            Some(may_be.clone())
        };
        Ok(Some((row.name, Before { known, may_be })))
    }

    fn add(&mut self, name: u128, run: u32, fingerprint: u128, row: &Row) -> Result<(), Failed> {
        if self.is_dry {
            return Ok(());
        }
        let deleted = if row.after.is_none() { DELETED } else { 0 };
        let head = Head {
            name,
            fingerprint,
            run,
            kind: self.kind | deleted,
        };
        let entry = Entry {
            head,
            place: WAITING,
            seen: self.number,
        };
        self.index.groups.insert(name, entry);
        self.index.rows += 1;
        if self.journal.add(name, row.encode(&head)) {
            Ok(())
        } else {
            Err(Failed)
        }
    }

    /// Counts the updates of a group, whose positions are those in the delivery.
    fn count(&mut self, name: u128, updates: &[Update<'_>]) {
        if !updates.is_empty() {
            self.positions.push((self.next_position, name));
            self.next_position += updates.len();
        }
    }

    /// Notes where the rows are that were written.
    fn place(&mut self) {
        for (name, place) in self.journal.take_placed() {
            if name == STATE {
                self.index.state_place = place;
            } else if let Some(entry) = self.index.groups.get_mut(&name) {
                // Of two rows of a group, the second one may still be waiting: it is written before it is read.
                entry.place = place;
            }
        }
    }

    /// Ends the run. Groups with updates that were not accepted may be as they were or as they were to be.
    pub(super) fn end(mut self, result: &Result<Report, Error>) {
        // Also where nothing was written: what came up in this run has not come up in the next one.
        self.index.state.next_run = self.number + 1;
        if self.has_failed || !self.journal.has_begun() {
            return;
        }
        let (report, undelivered) = outcome(result);
        let rejected = report.into_iter().flat_map(|report| &report.rejected);
        let rejected = rejected.map(|rejection| rejection.position);
        let undelivered = undelivered.positions().map(|(position, _)| position);
        let names: BTreeSet<u128> = rejected
            .chain(undelivered)
            .filter_map(|position| {
                let after = self
                    .positions
                    .partition_point(|(first, _)| *first <= position);
                let (_, name) = self.positions[..after].last()?;
                Some(*name)
            })
            .filter(|name| *name != STATE)
            .collect();
        for name in names {
            if self.set_uncertain(name).is_err() {
                return;
            }
        }
        for name in std::mem::take(&mut self.deleted) {
            let is_deleted = |entry: &Entry| entry.head.is_deleted();
            if self.index.groups.get(&name).is_some_and(is_deleted) {
                self.index.groups.remove(&name);
            }
        }
        self.index.rows += 2;
        let state = self.index.state.encode();
        if self.journal.add(STATE, state) && self.journal.write() {
            self.place();
        }
    }

    fn set_uncertain(&mut self, name: u128) -> Result<(), Failed> {
        let Some((names, before)) = self.find(name)? else {
            return Ok(());
        };
        let row = Row {
            name: names,
            after: Some(before.may_be),
            before: Known::default(),
        };
        // No run has the number 0: what the row says is certain, and it says that much is not known.
        self.add(name, 0, 0, &row)
    }
}

/// The store failed; the journal has the error.
struct Failed;

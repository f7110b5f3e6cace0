use std::collections::BTreeSet;

use super::comparison::compare;
use super::fingerprint::Fingerprints;
use super::index::{Index, KIND};
use super::journal::Journal;
use super::known::{GroupName, Known, uncertain};
use super::row::{DELETED, Head, Row, damaged};
use crate::group::Group;
use crate::record::diff::updates;
use crate::record::error::outcome;
use crate::record::{Error, MixpanelGroup, Report, Update};

/// One [`Snapshot::sync`](crate::Snapshot::sync).
///
/// Before the updates of a group are sent, a row in the journal says what it will be and what else it may be. When the
/// run ends, a last row ends it, and groups with updates that were not accepted have rows of their own.
pub(super) struct Run<'r, 's> {
    index: &'r mut Index,
    journal: &'r Journal<'s>,
    /// What error messages call the snapshot.
    snapshot: &'r str,
    fingerprints: Fingerprints,
    /// The kind of the struct's groups.
    kind: u32,
    number: u32,
    /// Whether nothing is really sent, so that nothing is kept.
    is_dry: bool,
    /// Which group's the updates are, by the position of its first one; `None` if they cannot be sent.
    positions: Vec<(usize, Option<u32>)>,
    next_position: usize,
}

/// What is known of a group from before.
#[derive(Default)]
struct Before {
    name: GroupName,
    /// What it is if what this run has sent of it is accepted.
    known: Option<Known>,
    /// What it may be in any case.
    may_be: Known,
}

/// The store failed, so that nothing more can be sent; the journal has the error.
pub(super) struct Failed;

impl<'r, 's> Run<'r, 's> {
    pub(super) fn new<T: MixpanelGroup>(
        index: &'r mut Index,
        journal: &'r Journal<'s>,
        snapshot: &'r str,
        is_dry: bool,
    ) -> Self {
        index.begin();
        let key = index.state.key;
        let [a, b, c, d, ..] = key.hash(T::GROUP_KEY.as_bytes()).to_le_bytes();
        Self {
            fingerprints: Fingerprints::new(key, T::GROUP_KEY, T::PROPERTIES),
            kind: u32::from_le_bytes([a, b, c, d]) & KIND,
            number: index.state.next_run,
            index,
            journal,
            snapshot,
            is_dry,
            positions: Vec::new(),
            next_position: 0,
        }
    }

    /// Returns the updates of what has changed of a group, after adding it to the journal.
    pub(super) fn updates<T: MixpanelGroup>(
        &mut self,
        group: &T,
    ) -> Result<Vec<Update<'static>>, Failed> {
        let target = group.group();
        let fingerprint = self.fingerprints.of(group, &target);
        if fingerprint.is_some_and(|fingerprint| self.index.is_next(fingerprint)) {
            return Ok(Vec::new());
        }
        let name = self.fingerprints.name(target.key(), target.id().as_str());
        let slot = self.index.find(name);
        let is_unchanged = slot.is_some_and(|slot| {
            let entry = self.index.get(slot);
            fingerprint == Some(entry.fingerprint) && self.index.is_certain(entry)
        });
        if is_unchanged {
            return Ok(Vec::new());
        }
        self.changes(group, &target, (name, slot), fingerprint)
    }

    fn changes<T: MixpanelGroup>(
        &mut self,
        group: &T,
        target: &Group<'_>,
        (name, slot): (u128, Option<u32>),
        fingerprint: Option<u128>,
    ) -> Result<Vec<Update<'static>>, Failed> {
        let before = slot.map(|slot| self.before(slot)).transpose()?;
        let Before { known, may_be, .. } = before.unwrap_or_default();
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
        // An update that cannot be sent changes nothing, and a group that cannot be named need not be deleted.
        let is_valid = differences.is_ok() && !target.delete().is_invalid();
        let updates = updates(differences, target);
        if !is_valid {
            self.count(None, &updates);
            return Ok(updates);
        }
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
        let head = Head {
            name,
            fingerprint: fingerprint.unwrap_or_default(),
            run: self.number,
            kind: self.kind,
            slot: slot.unwrap_or_else(|| self.index.new_slot()),
        };
        self.add(&head, &row)?;
        self.count(Some(head.slot), &updates);
        Ok(updates)
    }

    /// Returns the slots of the groups of the group key that have not come up.
    pub(super) fn gone(&self) -> Vec<u32> {
        self.index.gone(self.kind)
    }

    /// Returns the update that deletes a group, if it is of this group key.
    pub(super) fn delete(&mut self, slot: u32, key: &str) -> Result<Vec<Update<'static>>, Failed> {
        let Before { name, may_be, .. } = self.before(slot)?;
        if name.0 != key {
            return Ok(Vec::new());
        }
        let mut group = Group::new(&*name.0, &*name.1);
        if let Some(company_id) = may_be.company_id.as_deref() {
            group = group.in_company(company_id);
        }
        let update = group.delete();
        let head = Head {
            name: self.index.get(slot).name,
            fingerprint: 0,
            run: self.number,
            kind: self.kind | DELETED,
            slot,
        };
        let row = Row {
            name: name.clone(),
            after: None,
            before: may_be.clone(),
        };
        self.add(&head, &row)?;
        self.count(Some(slot), std::slice::from_ref(&update));
        Ok(vec![update.into_owned()])
    }

    /// Returns what is known of a group from before.
    fn before(&mut self, slot: u32) -> Result<Before, Failed> {
        let entry = *self.index.get(slot);
        let is_ours = entry.run == self.number;
        // A thread that sends may write the rows at any moment: after the waiting ones, all that were written are placed,
        // also where the group has a place, which may be that of an earlier row.
        let waiting = is_ours.then(|| self.journal.waiting(slot)).flatten();
        let row = if let Some(row) = waiting {
            row
        } else {
            self.place();
            let place = self.index.get(slot).place;
            self.journal.read(place).ok_or(Failed)?
        };
        // A name that is not that of the hash would be another group's, which is deleted as one that is gone.
        let mut is_of = |(key, id): &GroupName| self.fingerprints.name(key, id) == entry.name;
        let row = Row::decode(&row).filter(|(_, row)| is_of(&row.name));
        let Some((_, row)) = row else {
            let error = damaged(self.snapshot, "the row of a group is invalid");
            self.journal.fail(error);
            return Err(Failed);
        };
        let is_certain = !is_ours && self.index.is_certain(&entry);
        let may_be = if is_certain {
            row.after.clone().unwrap_or_default()
        } else {
            uncertain(Some(&row.before), row.after.as_ref())
        };
        let known = if is_ours || is_certain {
            row.after
        } else {
            Some(may_be.clone())
        };
        Ok(Before {
            name: row.name,
            known,
            may_be,
        })
    }

    fn add(&mut self, head: &Head, row: &Row) -> Result<(), Failed> {
        if self.is_dry {
            return Ok(());
        }
        self.index.set(head);
        self.index.rows += 1;
        if self.journal.add(Some(head.slot), row.encode(head)) {
            Ok(())
        } else {
            Err(Failed)
        }
    }

    /// Counts the updates of a group, whose positions are those in the delivery.
    fn count(&mut self, slot: Option<u32>, updates: &[Update<'_>]) {
        if !updates.is_empty() {
            self.positions.push((self.next_position, slot));
            self.next_position += updates.len();
        }
    }

    /// Notes where the rows are that were written.
    fn place(&mut self) {
        for (slot, place) in self.journal.take_placed() {
            match slot {
                Some(slot) => self.index.set_place(slot, place),
                None => self.index.state_place = place,
            }
        }
    }

    /// Ends the run. Groups with updates that were not accepted may be as they were or as they were to be.
    pub(super) fn end(mut self, result: &Result<Report, Error>) {
        self.index.state.next_run = self.number + 1;
        if !self.journal.needs_end() {
            return;
        }
        let (report, undelivered) = outcome(result);
        if let Some(project) = &mut self.index.state.project {
            project.has_accepted |= report.is_some_and(|report| report.accepted > 0);
        }
        let rejected = report.into_iter().flat_map(|report| &report.rejected);
        let rejected = rejected.map(|rejection| rejection.position);
        let undelivered = undelivered.positions().map(|(position, _)| position);
        let slots: BTreeSet<u32> = rejected
            .chain(undelivered)
            .filter_map(|position| {
                let after = self
                    .positions
                    .partition_point(|(first, _)| *first <= position);
                self.positions[..after].last()?.1
            })
            .collect();
        for slot in slots {
            if self.set_uncertain(slot).is_err() {
                return;
            }
        }
        self.index.rows += 2;
        let state = self.index.state.encode();
        if self.journal.add(None, state) && self.journal.write() {
            self.place();
        }
    }

    fn set_uncertain(&mut self, slot: u32) -> Result<(), Failed> {
        let Before { name, may_be, .. } = self.before(slot)?;
        // No run has the number 0: it is certain that this much is not known.
        let head = Head {
            name: self.index.get(slot).name,
            fingerprint: 0,
            run: 0,
            kind: self.kind,
            slot,
        };
        let row = Row {
            name,
            after: Some(may_be),
            before: Known::default(),
        };
        self.add(&head, &row)
    }
}

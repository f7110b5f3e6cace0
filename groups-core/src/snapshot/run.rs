use std::collections::{HashMap, HashSet};

use super::comparison::compare;
use super::file::Note;
use super::known::{GroupName, Known, uncertain};
use crate::group::Group;
use crate::record::diff::updates;
use crate::record::error::outcome;
use crate::record::{Error, MixpanelGroup, Report, Update};
use crate::util::siphash::HashKey;

/// One [`Snapshot::sync`](crate::Snapshot::sync).
pub(super) struct Run<'s> {
    before: &'s HashMap<GroupName, Known>,
    key: HashKey,
    note: Note,
    /// Why the note cannot be written: nothing more is sent.
    failed: Option<Error>,
    seen: HashSet<GroupName>,
    pending: HashMap<GroupName, Pending>,
    /// Which group's the updates are, by the position of its first one.
    positions: Vec<(usize, GroupName)>,
    next_position: usize,
}

/// A group that something is sent of.
#[derive(Default)]
struct Pending {
    /// What is known of it (nothing, if it is deleted), should its updates be accepted.
    after: Option<Known>,
    /// What it may be otherwise, when it has come up several times.
    between: Option<Known>,
}

impl<'s> Run<'s> {
    pub(super) fn new(before: &'s HashMap<GroupName, Known>, key: HashKey, note: Note) -> Self {
        Self {
            before,
            key,
            note,
            failed: None,
            seen: HashSet::new(),
            pending: HashMap::new(),
            positions: Vec::new(),
            next_position: 0,
        }
    }

    pub(super) fn is_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// What has changed of a group, once the note has it.
    pub(super) fn updates<T: MixpanelGroup>(&mut self, group: &T) -> Vec<Update<'static>> {
        let target = group.group();
        let name = (target.key().to_owned(), target.id().to_string());
        self.seen.insert(name.clone());
        let before = match self.pending.get(&name) {
            Some(pending) => pending.after.as_ref(),
            None => self.before.get(&name),
        };
        let company_id = target.company_id().map(ToString::to_string);
        // Nothing was said of it in another company: all is said again.
        let moved = before
            .filter(|before| before.company_id != company_id)
            .map(|before| uncertain(Some(before), None));
        let before = moved.as_ref().or(before);
        let (known, differences) = compare(group, before, company_id, self.key);
        let updates = updates(differences, &target);
        if before != Some(&known) {
            if let Err(error) = self.note.add(&name, &known) {
                self.failed = Some(error);
                return Vec::new();
            }
            let earlier = self.pending.remove(&name);
            let between = earlier.map(|earlier| {
                let between = earlier.between.as_ref().or(self.before.get(&name));
                uncertain(between, earlier.after.as_ref())
            });
            let after = Some(known);
            let pending = Pending { after, between };
            self.pending.insert(name.clone(), pending);
        }
        self.note(name, &updates);
        updates
    }

    /// The groups of the group key that have not come up.
    pub(super) fn gone(&self, key: &str) -> Vec<GroupName> {
        let of_key = self.before.keys().filter(|(other, _)| other == key);
        let mut gone: Vec<_> = of_key
            .filter(|name| !self.seen.contains(*name))
            .cloned()
            .collect();
        gone.sort();
        gone
    }

    pub(super) fn delete(&mut self, name: GroupName) -> Vec<Update<'static>> {
        let mut group = Group::new(&*name.0, &*name.1);
        let known = self.before.get(&name);
        if let Some(company_id) = known.and_then(|known| known.company_id.as_deref()) {
            group = group.in_company(company_id);
        }
        let updates = vec![group.delete()];
        self.pending.insert(name.clone(), Pending::default());
        self.note(name, &updates);
        updates
    }

    fn note(&mut self, name: GroupName, updates: &[Update<'_>]) {
        if !updates.is_empty() {
            self.positions.push((self.next_position, name));
            self.next_position += updates.len();
        }
    }

    /// What is known now of the groups that something was sent of, and why the run ended early.
    pub(super) fn changed(
        mut self,
        result: &Result<Report, Error>,
    ) -> (HashMap<GroupName, Option<Known>>, Option<Error>) {
        let (report, undelivered) = outcome(result);
        let rejected = report.into_iter().flat_map(|report| &report.rejected);
        let rejected = rejected.map(|rejection| rejection.position);
        let undelivered = undelivered.positions();
        for position in rejected.chain(undelivered.map(|(position, _)| position)) {
            let after = self
                .positions
                .partition_point(|(first, _)| *first <= position);
            if let Some((_, name)) = self.positions[..after].last() {
                if let Some(pending) = self.pending.get_mut(name) {
                    let between = pending.between.as_ref().or(self.before.get(name));
                    pending.after = Some(uncertain(between, pending.after.as_ref()));
                }
            }
        }
        let pending = self.pending.into_iter();
        let changed = pending.map(|(name, pending)| (name, pending.after));
        (changed.collect(), self.failed)
    }
}

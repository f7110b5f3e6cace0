use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::row::{DELETED, Head, STATE, State, damaged};
use super::store::SnapshotStore;
use crate::record::Error;
use crate::util::siphash::HashKey;

/// What is in memory of a snapshot: some 50 bytes for each group, however many properties it has.
///
/// Data mostly comes in the order in which it came before. So the next group is looked for behind the last one, and
/// only if it is not there by its name.
pub(super) struct Index {
    /// The groups, by their slots: the order in which their first rows were appended.
    entries: Vec<Entry>,
    /// The slot of each group by its name, once it is needed.
    slots: Option<HashMap<u128, u32, BuildHasherDefault<NameHasher>>>,
    /// Where the next group may be: behind the last one, and behind the last one that was found by its name.
    next: [usize; 2],
    pub(super) state: State,
    pub(super) state_place: u64,
    /// The number of rows in the store, those that were replaced included.
    pub(super) rows: usize,
}

/// What is in memory of a group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) name: u128,
    pub(super) fingerprint: u128,
    /// Where its row is, or [`WAITING`].
    pub(super) place: u64,
    pub(super) run: u32,
    /// As in the row, and [`SEEN`].
    kind: u32,
}

/// The place of a row that is not written yet.
pub(super) const WAITING: u64 = u64::MAX;
/// The bit of groups that have come up in this run.
const SEEN: u32 = 2;
/// The bits of the hash of the group key.
pub(super) const KIND: u32 = !(DELETED | SEEN);
/// How many groups may be left out before the next one is looked for by its name.
const AHEAD: usize = 8;

impl Entry {
    fn new(head: &Head, place: u64) -> Self {
        Self {
            name: head.name,
            fingerprint: head.fingerprint,
            place,
            run: head.run,
            kind: head.kind,
        }
    }

    pub(super) fn is_deleted(&self) -> bool {
        self.kind & DELETED != 0
    }
}

impl Index {
    pub(super) fn load(store: &mut dyn SnapshotStore, what: &str) -> Result<Self, Error> {
        let mut state = None;
        let mut index = Self {
            entries: Vec::new(),
            slots: None,
            next: [0; 2],
            state: State {
                key: HashKey::random(),
                next_run: 1,
                open: Vec::new(),
            },
            state_place: 0,
            rows: 0,
        };
        let is_whole = store.load(&mut |place, row| {
            index.rows += 1;
            match Head::parse(row) {
                Some(head) if head.name != STATE => index.put(&head, place),
                _ => {
                    let read = State::decode(row).map_err(|why| damaged(what, &why))?;
                    (state, index.state_place) = (Some(read), place);
                }
            }
            Ok(())
        })?;
        match state {
            Some(state) => index.state = state,
            None if index.rows == 0 => {}
            None => return Err(damaged(what, "its state is missing")),
        }
        if !index.state.open.is_empty() {
            log::warn!("a run with {what} was killed: what it had begun is sent again");
            index.close_runs(is_whole);
        }
        Ok(index)
    }

    /// Forgets open runs that no group is of. Where later rows may be missing, every group may be in another state.
    fn close_runs(&mut self, is_whole: bool) {
        let open = &mut self.state.open;
        if is_whole {
            let mut runs: Vec<u32> = self.entries.iter().map(|entry| entry.run).collect();
            runs.sort_unstable();
            open.retain(|run| runs.binary_search(run).is_ok());
        } else if let [first, ..] = open[..] {
            self.entries.iter_mut().for_each(|entry| entry.run = first);
        }
    }

    /// Sets what is known of a group, in its slot if it has one.
    fn put(&mut self, head: &Head, place: u64) {
        let entry = Entry::new(head, place);
        match self.entries.get_mut(head.slot as usize) {
            // After `retain`, rows have the slots of before, which other groups have now.
            Some(old) if old.name == head.name => *old = entry,
            _ => {
                if let Some(slots) = &mut self.slots {
                    slots.insert(head.name, slot(self.entries.len()));
                }
                self.entries.push(entry);
            }
        }
    }

    /// Sets what this run makes of a group. Its row is not written yet.
    pub(super) fn set(&mut self, head: &Head) {
        let kind = head.kind | SEEN;
        self.put(&Head { kind, ..*head }, WAITING);
    }

    /// Returns the slot of a new group.
    pub(super) fn new_slot(&self) -> u32 {
        slot(self.entries.len())
    }

    pub(super) fn get(&self, slot: u32) -> &Entry {
        &self.entries[slot as usize]
    }

    pub(super) fn set_place(&mut self, slot: u32, place: u64) {
        self.entries[slot as usize].place = place;
    }

    /// Forgets what came up in an earlier run.
    pub(super) fn begin(&mut self) {
        self.next = [0; 2];
        self.entries
            .iter_mut()
            .for_each(|entry| entry.kind &= !SEEN);
    }

    /// Returns whether a group with this fingerprint is next.
    #[inline]
    pub(super) fn is_next(&mut self, fingerprint: u128) -> bool {
        for other in [false, true] {
            let at = self.next[usize::from(other)];
            let open = &self.state.open;
            if let Some(entry) = self.entries.get_mut(at)
                && entry.fingerprint == fingerprint
                && !open.contains(&entry.run)
            {
                entry.kind |= SEEN;
                if other {
                    self.next.swap(0, 1);
                }
                self.next[0] = at + 1;
                return true;
            }
        }
        false
    }

    /// Finds a group that has come up by its name.
    pub(super) fn find(&mut self, name: u128) -> Option<u32> {
        let ahead = self.entries.iter().enumerate().skip(self.next[0]);
        let ahead = ahead.take(AHEAD).find(|(_, entry)| entry.name == name);
        let found = if let Some((at, _)) = ahead {
            self.next[0] = at + 1;
            slot(at)
        } else {
            let entries = &self.entries;
            let slots = self.slots.get_or_insert_with(|| {
                let names = entries.iter().map(|entry| entry.name);
                names.zip(0..).collect()
            });
            let found = *slots.get(&name)?;
            self.next[1] = found as usize + 1;
            found
        };
        self.entries[found as usize].kind |= SEEN;
        Some(found)
    }

    /// Returns whether the row of a group says what is certain.
    pub(super) fn is_certain(&self, entry: &Entry) -> bool {
        !self.state.open.contains(&entry.run)
    }

    /// Returns the number of groups.
    pub(super) fn len(&self) -> usize {
        self.live().count()
    }

    /// Returns the slots of the groups, except for those that are certainly deleted.
    fn live(&self) -> impl Iterator<Item = (u32, &Entry)> {
        let entries = (0..).zip(&self.entries);
        entries.filter(|(_, entry)| !entry.is_deleted() || !self.is_certain(entry))
    }

    /// Returns the slots of the groups of a kind that have not come up.
    pub(super) fn gone(&self, kind: u32) -> Vec<u32> {
        let gone = self
            .live()
            .filter(|(_, entry)| entry.kind & (KIND | SEEN) == kind);
        gone.map(|(slot, _)| slot).collect()
    }

    /// Returns the places of all rows that matter, the state last.
    pub(super) fn places(&self) -> Vec<u64> {
        let places = self.live().map(|(_, entry)| entry.place);
        places.chain([self.state_place]).collect()
    }
}

/// Converts an index to a slot. There are fewer than 2^32 groups: they would be 200 GB of memory.
fn slot(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// Names are hashes already.
#[derive(Default)]
pub(super) struct NameHasher(u64);

impl Hasher for NameHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    #[allow(clippy::cast_possible_truncation)] // Half of the bits are as random as all.
    fn write_u128(&mut self, name: u128) {
        self.0 = name as u64;
    }
}

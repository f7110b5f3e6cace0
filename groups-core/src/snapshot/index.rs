use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::row::{Head, STATE, State, damaged};
use super::store::SnapshotStore;
use crate::record::Error;
use crate::util::siphash::HashKey;

/// What is in memory of a snapshot: some 70 bytes for each group, however many properties it has.
pub(super) struct Index {
    /// The groups by the hash of their names.
    pub(super) groups: HashMap<u128, Entry, BuildHasherDefault<NameHasher>>,
    pub(super) state: State,
    pub(super) state_place: u64,
    /// How many rows the store has, those that were replaced included.
    pub(super) rows: usize,
}

/// What is in memory of a group.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub(super) head: Head,
    /// Where its row is, or [`WAITING`].
    pub(super) place: u64,
    /// The last run in which it came up.
    pub(super) seen: u32,
}

/// The place of a row that is not written yet.
pub(super) const WAITING: u64 = u64::MAX;

impl Index {
    pub(super) fn load(store: &mut dyn SnapshotStore, what: &str) -> Result<Self, Error> {
        let mut state = None;
        let mut has_deleted = false;
        let mut index = Self {
            groups: HashMap::default(),
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
            let head = Head::parse(row);
            if head.is_some_and(|head| head.name != STATE) {
                let head = head.unwrap_or(Head::NONE);
                has_deleted |= head.is_deleted();
                let seen = 0;
                index.groups.insert(head.name, Entry { head, place, seen });
            } else {
                let read = State::decode(row).map_err(|why| damaged(what, &why))?;
                (state, index.state_place) = (Some(read), place);
            }
            Ok(())
        })?;
        match state {
            Some(state) => index.state = state,
            None if index.rows == 0 => {}
            None => return Err(damaged(what, "it does not end as it should")),
        }
        index.forget(is_whole, has_deleted);
        if !index.state.open.is_empty() {
            log::warn!("a run with {what} was killed: what it had begun is sent again");
        }
        Ok(index)
    }

    /// Forgets deleted groups, and runs that nothing is open of.
    fn forget(&mut self, is_whole: bool, has_deleted: bool) {
        let open = &mut self.state.open;
        if has_deleted {
            self.groups
                .retain(|_, entry| !entry.head.is_deleted() || open.contains(&entry.head.run));
        }
        if let Some(first) = open.first().copied().filter(|_| !is_whole) {
            // Later rows may be missing, so all may be otherwise.
            for entry in self.groups.values_mut() {
                entry.head.run = first;
            }
        }
        if !open.is_empty() {
            let groups = self.groups.values();
            let mut of_groups: Vec<u32> = groups.map(|entry| entry.head.run).collect();
            of_groups.sort_unstable();
            open.retain(|run| of_groups.binary_search(run).is_ok());
        }
    }

    /// Returns the places of all rows that matter, in ascending order.
    pub(super) fn places(&self) -> Vec<u64> {
        let groups = self.groups.values().map(|entry| entry.place);
        let mut places: Vec<u64> = groups.chain([self.state_place]).collect();
        places.sort_unstable();
        places
    }
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

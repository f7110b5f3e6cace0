use std::collections::HashMap;

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
    slots: Option<HashMap<u128, u32>>,
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
        let mut index = Self::new(0);
        let is_whole = store.load(&mut |place, row| {
            index.rows += 1;
            match Head::parse(row) {
                Some(head) if head.name != STATE => index.put(&head, place),
                _ => {
                    let read = State::decode(row).map_err(|why| damaged(what, &why))?;
                    // With another key, all began anew.
                    if state
                        .as_ref()
                        .is_some_and(|before: &State| before.key != read.key)
                    {
                        (index.entries, index.slots) = (Vec::new(), None);
                    }
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
        let last = index.state.next_run.wrapping_sub(1);
        let was_killed = index.state.open.contains(&last);
        if !index.state.open.is_empty() {
            index.close_runs(is_whole);
        }
        if was_killed && !index.state.open.is_empty() {
            log::warn!(
                "a run with {what} was killed, or could not write its end: what it had begun is sent again"
            );
        }
        Ok(index)
    }

    /// Returns an index without groups, of a store with so many rows. Its first row, which is its state, makes these outdated.
    pub(super) fn new(rows: usize) -> Self {
        Self {
            entries: Vec::new(),
            slots: None,
            next: [0; 2],
            state: State {
                key: HashKey::random(),
                project: None,
                next_run: 1,
                open: Vec::new(),
            },
            state_place: WAITING,
            rows,
        }
    }

    /// Forgets open runs that no group is of. Where later rows may be missing, every group may be in another state: the runs of
    /// all groups are open again, and stay so in the next state that is written.
    fn close_runs(&mut self, is_whole: bool) {
        // The rows of no run, 0, say what is not known already.
        let runs = self.entries.iter().map(|entry| entry.run);
        let mut runs: Vec<u32> = runs.filter(|run| *run != 0).collect();
        runs.sort_unstable();
        runs.dedup();
        if is_whole {
            runs.retain(|run| self.state.open.contains(run));
        }
        self.state.open = runs;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::EachRow;
    use crate::snapshot::known::Known;
    use crate::snapshot::row::Row;
    use crate::util::sync::run_test;

    fn index(open: &[u32]) -> Index {
        Index {
            entries: Vec::new(),
            slots: None,
            next: [0; 2],
            state: State {
                key: HashKey::from_bytes([7; 16]),
                project: None,
                next_run: 9,
                open: open.to_vec(),
            },
            state_place: 1_000,
            rows: 0,
        }
    }

    const COMPANY: u32 = 8;
    const TEAM: u32 = 16;

    /// Returns the row of the group of that number, which is also its slot.
    fn head(number: u32) -> Head {
        Head {
            name: 100 + u128::from(number),
            fingerprint: 200 + u128::from(number),
            run: 1,
            kind: COMPANY,
            slot: number,
        }
    }

    fn deleted(number: u32, run: u32) -> Head {
        Head {
            kind: COMPANY | DELETED,
            run,
            ..head(number)
        }
    }

    fn filled(heads: &[Head]) -> Index {
        let mut index = index(&[5]);
        for head in heads {
            index.put(head, u64::from(head.slot));
        }
        index.begin();
        index
    }

    #[test]
    fn the_next_group_is_behind_the_last_one_or_behind_the_last_one_found_by_its_name() {
        let mut index = filled(&(0..40).map(head).collect::<Vec<_>>());
        let is_next = |index: &mut Index, number| index.is_next(head(number).fingerprint);
        assert!(is_next(&mut index, 0) && is_next(&mut index, 1));
        assert!(!is_next(&mut index, 3));
        assert!(is_next(&mut index, 2));
        assert_eq!(index.find(head(5).name), Some(5));
        assert!(is_next(&mut index, 6));
        // Far ahead; the groups that were next stay so.
        assert_eq!(index.find(head(30).name), Some(30));
        assert!(is_next(&mut index, 31) && is_next(&mut index, 32));
        assert!(is_next(&mut index, 7) && is_next(&mut index, 8) && is_next(&mut index, 33));
        assert_eq!(index.find(head(99).name), None);
        // One that is new has a slot at once.
        assert_eq!(index.new_slot(), 40);
        index.set(&head(40));
        assert_eq!(index.find(head(40).name), Some(40));
        assert_eq!(index.get(40).place, WAITING);
        index.begin();
        assert!(is_next(&mut index, 0));
    }

    #[test]
    fn a_group_of_an_open_run_is_never_unchanged() {
        let mut index = filled(&[Head { run: 5, ..head(0) }, head(1)]);
        assert!(!index.is_next(head(0).fingerprint));
        assert!(!index.is_certain(index.get(0)) && index.is_certain(index.get(1)));
    }

    #[test]
    fn groups_that_have_not_come_up_are_gone() {
        let team = Head {
            kind: TEAM,
            ..head(5)
        };
        let all = [
            head(0),
            head(1),
            head(2),
            deleted(3, 1),
            deleted(4, 5),
            team,
        ];
        let mut index = filled(&all);
        // Whether 4 is deleted is not certain: it is deleted again.
        assert_eq!(index.len(), 5);
        assert_eq!(index.places(), [0, 1, 2, 4, 5, 1_000]);
        assert!(index.get(3).is_deleted() && !index.get(0).is_deleted());
        assert_eq!(index.gone(TEAM), [5]);
        assert_eq!(index.gone(COMPANY), [0, 1, 2, 4]);
        assert!(index.is_next(head(0).fingerprint));
        assert_eq!(index.gone(COMPANY), [1, 2, 4]);
        assert_eq!(index.find(head(2).name), Some(2));
        assert_eq!(index.gone(COMPANY), [1, 4]);
        index.set(&head(1));
        assert_eq!(index.gone(COMPANY), [4]);
        assert_eq!(index.gone(TEAM), [5], "of its own kind");
        index.begin();
        assert_eq!(index.gone(COMPANY), [0, 1, 2, 4], "in the next run");
    }

    #[test]
    fn a_later_row_replaces_that_of_the_same_group_alone() {
        let mut index = filled(&[head(0), head(1)]);
        index.put(&head(1), 7);
        assert_eq!((index.len(), index.get(1).place), (2, 7));
        index.set_place(1, 8);
        assert_eq!(index.get(1).place, 8);
        // After `retain`, a row has a slot that another group has now.
        index.put(&Head { slot: 0, ..head(2) }, 9);
        assert_eq!(
            (index.len(), index.get(0).place, index.get(2).place),
            (3, 0, 9)
        );
        assert_eq!(index.get(0).name, head(0).name);
    }

    #[test]
    fn a_run_without_groups_is_forgotten_and_where_rows_may_be_missing_no_group_is_certain() {
        let of = |run, number| Head {
            run,
            ..head(number)
        };
        let heads = [of(1, 0), of(5, 1), of(1, 2), of(0, 3)];
        for (is_whole, open, certain) in [(true, vec![5], 3), (false, vec![1, 5], 1)] {
            let mut index = filled(&heads);
            index.state.open = vec![4, 5, 6];
            index.close_runs(is_whole);
            assert_eq!(index.state.open, open);
            let entries = index.entries.iter();
            let found = entries.filter(|entry| index.is_certain(entry)).count();
            assert_eq!(found, certain);
        }
    }

    struct Rows(Vec<Vec<u8>>, bool);

    impl SnapshotStore for Rows {
        fn load(&mut self, each: &mut EachRow<'_>) -> Result<bool, Error> {
            for (place, row) in (10..).zip(&self.0) {
                each(place, row)?;
            }
            Ok(self.1)
        }

        fn read(&mut self, _: u64) -> Result<Vec<u8>, Error> {
            unreachable!("only the heads of rows are read")
        }

        fn append(&mut self, _: &[Vec<u8>]) -> Result<Vec<u64>, Error> {
            unreachable!("nothing is written")
        }

        fn retain(&mut self, _: &[u64]) -> Result<(), Error> {
            unreachable!("nothing is written")
        }
    }

    #[test]
    fn rows_are_a_snapshot_if_one_of_them_is_its_state() {
        run_test(|| {
            let state = |open: &[u32]| index(open).state.encode();
            let row = |number, run| {
                let row = Row {
                    after: Some(Known::default()),
                    ..Row::default()
                };
                row.encode(&Head {
                    run,
                    ..head(number)
                })
            };
            let load = |rows: &[Vec<u8>], is_whole| {
                Index::load(&mut Rows(rows.to_vec(), is_whole), "it")
                    .map_err(|error| error.to_string())
            };
            let empty = load(&[], true).ok().unwrap();
            assert_eq!((empty.len(), empty.rows, empty.state.next_run), (0, 0, 1));

            let index = load(&[state(&[]), row(0, 1), row(1, 1), state(&[5])], true);
            let index = index.ok().unwrap();
            assert_eq!((index.len(), index.rows, index.state_place), (2, 4, 13));
            assert_eq!((index.get(1).place, index.state.next_run), (12, 9));
            assert!(index.state.open.is_empty(), "no group is of the run");

            for (is_whole, certain) in [(true, [true, false]), (false, [false, false])] {
                let index = load(&[row(0, 1), row(1, 5), state(&[5])], is_whole);
                let index = index.ok().unwrap();
                let found = [0, 1].map(|slot| index.is_certain(index.get(slot)));
                assert_eq!(found, certain);
            }

            for (rows, why) in [
                (vec![row(0, 1)], "its state is missing"),
                (vec![state(&[])[..30].to_vec()], "its state is invalid"),
            ] {
                let error = load(&rows, true).err().unwrap();
                assert!(error.contains(why), "{error}");
            }
        });
    }
}

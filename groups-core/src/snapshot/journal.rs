use std::sync::PoisonError;

use super::row::State;
use super::store::SnapshotStore;
use crate::record::Error;
use crate::util::sync::{Mutex, MutexGuard};

/// How many bytes of rows wait before they are written in any case.
const MAX_WAITING: usize = 256 << 10;

/// The rows that a run adds to a store. They wait until a request depends on them, so that there is one write for all
/// groups of a request.
///
/// The run adds rows on the caller's thread. The threads that send write them, before each request.
pub(super) struct Journal<'s>(Mutex<Rows<'s>>);

struct Rows<'s> {
    store: &'s mut dyn SnapshotStore,
    /// The row before all others, until it is added.
    begin: Option<State>,
    waiting: Vec<Vec<u8>>,
    /// The slot of each waiting row's group; `None` of a state.
    slots: Vec<Option<u32>>,
    bytes: usize,
    placed: Vec<(Option<u32>, u64)>,
    /// Why nothing more can be written.
    failed: Option<Error>,
}

impl<'s> Journal<'s> {
    /// Returns a journal that begins with this state once there is anything to write.
    pub(super) fn new(store: &'s mut dyn SnapshotStore, begin: State) -> Self {
        Self(Mutex::new(Rows {
            store,
            begin: Some(begin),
            waiting: Vec::new(),
            slots: Vec::new(),
            bytes: 0,
            placed: Vec::new(),
            failed: None,
        }))
    }

    fn rows(&self) -> MutexGuard<'_, Rows<'s>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a row, and returns whether the run can continue.
    pub(super) fn add(&self, slot: Option<u32>, row: Vec<u8>) -> bool {
        let mut rows = self.rows();
        if rows.failed.is_none() {
            if let Some(begin) = rows.begin.take() {
                rows.push(None, begin.encode());
            }
            rows.push(slot, row);
        }
        rows.bytes < MAX_WAITING && rows.failed.is_none() || rows.write()
    }

    /// Writes the waiting rows, and returns whether the run can continue.
    pub(super) fn write(&self) -> bool {
        self.rows().write()
    }

    /// Reads a row; `None` if that failed.
    pub(super) fn read(&self, place: u64) -> Option<Vec<u8>> {
        let mut rows = self.rows();
        let row = rows.store.read(place);
        row.map_err(|error| rows.fail(error)).ok()
    }

    /// Returns the last row of a group, if that waits. To write it for that would take a write for each group that comes twice.
    pub(super) fn waiting(&self, slot: u32) -> Option<Vec<u8>> {
        let rows = self.rows();
        let last = rows.slots.iter().rposition(|of| *of == Some(slot))?;
        Some(rows.waiting[last].clone())
    }

    /// Keeps an error, which ends the run.
    pub(super) fn fail(&self, error: Error) {
        self.rows().fail(error);
    }

    /// Takes the slots and places of what was written.
    pub(super) fn take_placed(&self) -> Vec<(Option<u32>, u64)> {
        std::mem::take(&mut self.rows().placed)
    }

    /// Returns whether anything was added, and nothing failed.
    pub(super) fn needs_end(&self) -> bool {
        let rows = self.rows();
        rows.begin.is_none() && rows.failed.is_none()
    }

    /// Returns why the run could not continue.
    pub(super) fn into_failed(self) -> Option<Error> {
        let rows = self.0.into_inner();
        rows.unwrap_or_else(PoisonError::into_inner).failed
    }
}

impl Rows<'_> {
    fn push(&mut self, slot: Option<u32>, row: Vec<u8>) {
        self.bytes += row.len();
        self.waiting.push(row);
        self.slots.push(slot);
    }

    fn write(&mut self) -> bool {
        if self.failed.is_none() && !self.waiting.is_empty() {
            match self.store.append(&self.waiting) {
                Ok(places) => {
                    self.placed.extend(self.slots.drain(..).zip(places));
                    self.waiting.clear();
                    self.bytes = 0;
                }
                Err(error) => self.fail(error),
            }
        }
        self.failed.is_none()
    }

    fn fail(&mut self, error: Error) {
        self.failed.get_or_insert(error);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex as StdMutex};

    use super::*;
    use crate::record::ErrorKind;
    use crate::snapshot::EachRow;
    use crate::util::siphash::HashKey;
    use crate::util::sync::run_test;

    /// Notes how many rows each write has, and fails from one on.
    #[derive(Clone, Default)]
    struct Store {
        writes: Arc<StdMutex<Vec<usize>>>,
        fails: bool,
    }

    impl Store {
        fn writes(&self) -> Vec<usize> {
            self.writes.lock().unwrap().clone()
        }
    }

    impl SnapshotStore for Store {
        fn load(&mut self, _: &mut EachRow<'_>) -> Result<bool, Error> {
            Ok(true)
        }

        fn read(&mut self, place: u64) -> Result<Vec<u8>, Error> {
            match place {
                0 => Ok(b"row".to_vec()),
                _ => Err(Error::new(ErrorKind::Io, "cannot read")),
            }
        }

        fn append(&mut self, rows: &[Vec<u8>]) -> Result<Vec<u64>, Error> {
            let mut writes = self.writes.lock().unwrap();
            let first = writes.iter().sum::<usize>() as u64;
            writes.push(rows.len());
            if self.fails {
                return Err(Error::new(ErrorKind::Io, "cannot write"));
            }
            Ok((first..).take(rows.len()).collect())
        }

        fn retain(&mut self, _: &[u64]) -> Result<(), Error> {
            Ok(())
        }
    }

    fn state() -> State {
        State {
            key: HashKey::from_bytes([7; 16]),
            project: None,
            next_run: 2,
            open: vec![1],
        }
    }

    #[test]
    fn rows_wait_for_a_request_or_until_they_are_many() {
        run_test(|| {
            let store = Store::default();
            let mut same = store.clone();
            let journal = Journal::new(&mut same, state());
            assert!(journal.write() && !journal.needs_end());
            assert_eq!(store.writes(), [0; 0], "there is nothing to write");
            assert!(journal.add(Some(7), vec![1]) && journal.needs_end());
            assert!(journal.add(None, vec![2]));
            assert_eq!(store.writes(), [0; 0]);
            assert!(journal.write());
            assert_eq!(store.writes(), [3], "the state first");
            assert_eq!(journal.take_placed(), [(None, 0), (Some(7), 1), (None, 2)]);
            assert!(journal.write() && journal.take_placed().is_empty());
            assert_eq!(store.writes(), [3]);
            let many = MAX_WAITING / 1024;
            for _ in 1..many {
                assert!(journal.add(Some(7), vec![0; 1024]));
            }
            assert_eq!(store.writes(), [3]);
            assert!(journal.add(Some(7), vec![0; 1024]));
            assert_eq!(store.writes(), [3, many]);
            assert!(journal.add(Some(7), vec![0; 1024]));
            assert_eq!(store.writes(), [3, many], "it begins anew");
            assert!(journal.add(Some(7), vec![8]));
            assert_eq!(journal.waiting(7), Some(vec![8]), "the last one");
            assert_eq!(journal.waiting(8), None);
            assert_eq!(journal.read(0).as_deref(), Some(&b"row"[..]));
            assert!(journal.into_failed().is_none());
        });
    }

    #[test]
    fn nothing_is_written_after_a_failure() {
        run_test(|| {
            let store = Store {
                fails: true,
                ..Store::default()
            };
            let mut same = store.clone();
            let journal = Journal::new(&mut same, state());
            assert!(journal.add(Some(7), vec![1]));
            assert!(!journal.write());
            assert!(!journal.add(Some(7), vec![1]) && !journal.write());
            assert!(!journal.needs_end());
            assert_eq!(store.writes(), [2]);
            journal.fail(Error::new(ErrorKind::Io, "a later one"));
            let failed = journal.into_failed().map(|error| error.to_string());
            assert_eq!(failed.as_deref(), Some("cannot write"));

            let mut same = Store::default();
            let journal = Journal::new(&mut same, state());
            journal.fail(Error::new(ErrorKind::Damaged, "a row is wrong"));
            assert!(!journal.write() && journal.into_failed().is_some());

            let journal = Journal::new(&mut same, state());
            assert_eq!(journal.read(1), None);
            assert!(!journal.add(Some(7), vec![1]));
            let failed = journal.into_failed().map(|error| error.to_string());
            assert_eq!(failed.as_deref(), Some("cannot read"));
        });
    }
}

use crate::record::Error;

/// The function that [`SnapshotStore::load`] calls for each row, with the row's place.
pub type EachRow<'a> = dyn FnMut(u64, &[u8]) -> Result<(), Error> + 'a;

/// A place where a [`Snapshot`](crate::Snapshot) is kept: a log of rows, which are bytes that only the snapshot reads.
///
/// [`Snapshot::open`](crate::Snapshot::open) keeps it in a file. Implement this for a database, for instance where a
/// container has no volume, and pass it to [`Snapshot::open_in`](crate::Snapshot::open_in). A table with an ascending
/// number and a column of bytes is enough; `SqliteSnapshot` of the crate `mixpanel-groups-sqlite` is an example.
///
/// A row is some 100 to 300 bytes for each group, and more where a group has long lists. The snapshot calls `append`
/// before a request that depends on rows that wait, once 256 KiB of rows wait, and at the end of a run; not at all in a
/// run in which nothing changed.
///
/// # Two runs at once
/// A store refuses the second of two runs: `load` fails while another run is open, or `append` fails if another run
/// has appended since `load`. The snapshot sends nothing that depends on rows that were not appended.
pub trait SnapshotStore: Send {
    /// Passes every row to `each`, in the order in which they were appended, with its place: a number that
    /// [`read`](Self::read) finds it by. A new store has no rows.
    ///
    /// Returns whether it is certain that no row is missing. If not, all groups are sent again; a store that appends
    /// all rows of a call or none of them returns `true`.
    ///
    /// # Errors
    /// If the rows cannot be read, or another run uses the store. An error of `each` is passed on.
    fn load(&mut self, each: &mut EachRow<'_>) -> Result<bool, Error>;

    /// Returns the row at a place that `load` or `append` has given.
    ///
    /// # Errors
    /// If it cannot be read.
    fn read(&mut self, place: u64) -> Result<Vec<u8>, Error>;

    /// Appends rows, and returns the place of each. When it returns, they survive a crash of the process and a power
    /// failure.
    ///
    /// # Errors
    /// If they cannot be written. Then some of them may have been, but no row without those before it.
    fn append(&mut self, rows: &[Vec<u8>]) -> Result<Vec<u64>, Error>;

    /// Keeps only the rows at these places, in this order: as if all rows were removed, and these appended again. Their
    /// places may change: the snapshot calls `load` before it uses the store again.
    ///
    /// It frees space, and may be left undone: rows that stay do no harm.
    ///
    /// # Errors
    /// If the rows cannot be written. Then all of them are as they were.
    fn retain(&mut self, places: &[u64]) -> Result<(), Error>;
}

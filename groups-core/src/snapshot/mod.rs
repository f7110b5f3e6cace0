//! A record of what Mixpanel has of each group, which outlives the process: [`Snapshot`].
//!
//! A snapshot is kept in a file, or in any other [`SnapshotStore`].

// A `Snapshot` has a store, of which `SnapshotStore` is the trait and `file_store` the one in a file, and an `index` of
// it in memory. A `run` compares the `fingerprint` of each struct with that in the index. If it is another, the
// `comparison` with the group's `row` in the store finds what differs. The `journal` writes new rows before the requests
// that depend on them: it is behind a lock, since the threads of the delivery use it. All else is on the caller's thread.

mod comparison;
mod file_store;
mod fingerprint;
mod frames;
mod index;
mod journal;
mod known;
mod lock;
mod row;
mod run;
mod snapshot;
mod store;

pub use self::snapshot::Snapshot;
pub use self::store::{EachRow, SnapshotStore};

#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

// Threads: the crate starts none. Whichever thread calls `append` first while nobody writes becomes the
// leader and writes for all threads that wait (`group_commit`); the other methods lock the same
// `Engine` and do their work in the calling thread.
//
// Ownership: `SqliteOutbox` owns the `GroupCommit`, which owns the `Engine`, which owns two
// connections. One is to the database. The other is to the empty file beside it whose name ends with
// `-relay`: an open transaction there is this process's lease on what it has taken, and it ends with
// the process.

mod durability;
mod engine;
mod group_commit;
mod lease;
mod outbox;
mod snapshot;

pub use self::durability::Durability;
pub use self::outbox::SqliteOutbox;
pub use self::snapshot::SqliteSnapshot;

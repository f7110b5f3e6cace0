#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

// Threads: the crate starts none. Whichever thread calls `append` first while nobody writes becomes the
// leader and writes for all threads that wait (`group_commit`); the other methods do their work in the
// calling thread.
//
// Ownership: `SqliteOutbox` owns three connections, each with a lock, so that none waits for what another
// does: one appends (`appender`), one takes and settles (`relay`), one reads the depth. What they share is
// the `OutboxFile`: the path and whether it still names the open file, how long to wait for other
// connections, and up to where rows are taken. Beside the file is another that keeps room on the disk
// (`reserve`).

mod appender;
mod damage;
mod durability;
mod failure;
mod file;
mod group_commit;
mod identity;
mod lease;
mod lock;
mod opened;
mod outbox;
mod relay;
mod reserve;
mod schema;
mod snapshot;

pub use self::durability::Durability;
pub use self::outbox::SqliteOutbox;
pub use self::snapshot::SqliteSnapshot;

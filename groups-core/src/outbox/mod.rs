//! Queues of updates and events: the trait [`Outbox`] for every engine, and [`MemoryOutbox`].
//!
//! Publishers append from any thread; one worker thread of a process
//! ([`BufferedClient`](crate::BufferedClient)) takes, sends and settles. The engines on disk are crates
//! of their own, `mixpanel-groups-sqlite` and `mixpanel-groups-postgres`.

mod held_until;
mod memory;
mod outbox;
mod record;

pub use self::held_until::HeldUntil;
pub use self::memory::MemoryOutbox;
pub use self::outbox::{Capacity, Depth, Outbox, OutboxEntry, UnreadableEntry};
pub use self::record::OutboxRecord;
pub(crate) use self::record::total_bytes;

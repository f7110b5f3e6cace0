//! What Mixpanel has of each group, kept in a file between runs: [`Snapshot`].
//!
//! A [`run`] walks the structs beside what is [`known`] of their groups and sends what differs
//! ([`comparison`]); [`file`] reads and writes the known. All on the caller's thread.

mod comparison;
mod file;
mod known;
mod run;
mod snapshot;

pub use self::snapshot::Snapshot;

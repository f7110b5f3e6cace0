#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod engine;
mod group_commit;
mod outbox;

pub use self::engine::Durability;
pub use self::outbox::SqliteOutbox;

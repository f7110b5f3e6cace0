#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod connection;
mod listener;
mod names;
mod outbox;
mod publish;
mod relay;
mod settings;
mod slot;
mod statements;
mod writer;

pub use self::outbox::{PostgresOutbox, PostgresOutboxBuilder};

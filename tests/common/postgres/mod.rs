//! A PostgreSQL server, and an outbox of its own for each test.

mod harness;
pub mod server;

pub use harness::*;

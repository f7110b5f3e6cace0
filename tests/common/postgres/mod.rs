//! A PostgreSQL server, and an outbox of its own for each test.

mod harness;
mod proxy;
pub mod server;

pub use harness::*;
pub use proxy::Proxy;

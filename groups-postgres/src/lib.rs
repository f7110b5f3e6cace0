#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

// Threads: `publish_in` works in the calling thread, on the application's connection. Everything else is a job on one
// background thread, the `Runtime`, which starts when it is needed and ends after the outbox is dropped. Callers wait for
// their job with a deadline; then the job is dropped, wherever it is, and the server is requested to break off.
//
// Ownership: the clones of a `PostgresOutbox` share the `Writer` (the connection that appends and drops). Each has a `Relay` of
// its own (the connection that takes, holds and settles, with what it has taken), once a client needs it, so clients on clones
// wait for each other's leases as processes do. Both have a mutex, so publishers do not wait for the sender. The depth waits for
// neither: it is measured over the relay's connection if that is idle, or else over one that updates and events share.
//
// Each statement is a transaction of its own, so no `Connection` keeps anything in its session but `LISTEN`.

mod builder;
mod connection;
mod connector;
mod depth;
#[cfg(feature = "diesel")]
mod diesel;
mod names;
mod outbox;
mod portion;
mod publish;
mod relay;
mod runtime;
mod writer;

pub use self::builder::PostgresOutboxBuilder;
pub use self::outbox::PostgresOutbox;
#[cfg(feature = "diesel")]
#[cfg_attr(docsrs, doc(cfg(feature = "diesel")))]
pub use self::publish::Diesel;
pub use self::publish::{Postgres, PublishIn};

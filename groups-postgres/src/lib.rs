#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

// Threads: `publish_in` and the methods of `Outbox` work in the calling thread. One background thread,
// the `Listener`, starts when a buffered client registers its hooks; it wakes the sender when updates
// arrive and stops it when the relay loses its lease. It ends within half a second after the outbox is
// dropped.
//
// Ownership: `PostgresOutbox` owns the `Writer` (the connection of `append`, `migrate` and the counts),
// the `Relay` (what this process has taken, and the connection whose advisory locks are its lease), and
// the `Listener` (a connection of its own). `Writer` and `Relay` have a mutex each, so publishers do
// not wait for the sender. The listener thread holds a weak reference to the relay, and locks it only
// if nobody else does.
//
// Every connection is a `ReconnectingClient`: it is opened when it is needed, and again after it broke.

mod builder;
mod connection;
mod listener;
mod outbox;
mod publish;
mod relay;
mod sql;
mod writer;

pub use self::builder::PostgresOutboxBuilder;
pub use self::outbox::PostgresOutbox;

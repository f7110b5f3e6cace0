//! Sending in the background: [`BufferedClient`], its settings and its counts.
//!
//! Threads of the application publish: each encodes its updates and events and appends them to an
//! [`Outbox`](crate::Outbox). One thread of the client sends the updates, and another the events. An outbox that does
//! not keep deadlines by itself has a thread more for each of the two.

// Threads: publishers are the application's own (`publisher`); each kind of record has a queue of its own (`queues`).
// A queue has one worker for a client and all its clones: it takes entries, sends them with the client, and settles
// them (`worker`); nothing else takes or settles before the worker has ended or its time is over. A worker is not
// joined: a shutdown waits for its end until a deadline, and a worker that is stuck in a connection attempt or an outbox
// is left behind. The thread of an outbox without deadlines runs the calls of publishers (`guarded`).
//
// A delivery takes a `portion` of what waits, sends it as a `taken_batch`, and knows the `fate` of each entry then. What was
// blocked or refused is among the `suspects` of the next one.
//
// Ownership: the phase of the queue, the request to the worker and the counts are one state with one lock (`state`),
// which publishers take only when a batch is full or when they wait for room.

mod client;
mod fate;
mod guarded;
mod kind;
mod portion;
mod publisher;
mod queues;
mod settings;
#[cfg(test)]
#[cfg(simulation)]
mod simulation;
mod state;
mod stats;
mod suspects;
mod taken_batch;
mod worker;

pub use self::client::{BufferedClient, BufferedClientBuilder};
pub use self::settings::{DeliveryEvent, OverflowPolicy};
pub use self::stats::{FlushOutcome, Stats};

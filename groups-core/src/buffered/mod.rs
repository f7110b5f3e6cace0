//! The background client: [`BufferedClient`].
//!
//! Two kinds of threads share an [`Outbox`](crate::Outbox). Publishers are the application's own: each
//! encodes its updates and events and appends them (`publisher`), each kind to a queue of its own (`queues`). A queue
//! has one worker, a thread for a client and all its
//! clones: it takes entries, sends them with the client, and settles them (`worker`); nothing else takes or
//! settles before the worker has ended or its time is over. The phase of the queue, the request to the
//! worker and the counts are one state with one lock (`state`), which publishers take only when a batch is
//! full or when they wait for room. A worker is not joined: a shutdown waits for its end until a deadline,
//! and a worker that is stuck in a connection attempt or an outbox is left behind. An outbox that does not keep
//! deadlines by itself has a further thread for each queue, on which the publishers' calls run (`guarded`).

mod client;
mod guarded;
mod kind;
mod publisher;
mod queues;
mod settings;
#[cfg(test)]
#[cfg(simulation)]
mod simulation;
mod state;
mod stats;
mod worker;

pub use self::client::{BufferedClient, BufferedClientBuilder};
pub use self::settings::{DeliveryEvent, OverflowPolicy};
pub use self::stats::{FlushOutcome, Stats};

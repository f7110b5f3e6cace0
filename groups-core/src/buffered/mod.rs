//! Sending in the background: [`BufferedClient`].
//!
//! Two kinds of threads share an [`Outbox`](crate::Outbox). Publishers are the application's own: each
//! encodes its updates and appends them (`publisher`). The worker is one thread for a client and all its
//! clones: it takes entries, sends them with the client, and settles them (`worker`); nothing else takes or
//! settles before the worker has ended or its time is over. The phase of the client, the request to the
//! worker and the counts are one state with one lock (`state`), which publishers take only when a batch is
//! full or when they wait for room. The worker is not joined: a shutdown waits for its end until a deadline,
//! and a worker that is stuck in a connection attempt or an outbox is left behind. An outbox that does not keep
//! deadlines by itself has a third thread, on which the publishers' calls run (`guarded`).

mod client;
mod guarded;
mod publisher;
mod settings;
mod state;
mod stats;
mod worker;

pub use self::client::{BufferedClient, BufferedClientBuilder};
pub use self::settings::{DeliveryEvent, OverflowPolicy};
pub use self::stats::{FlushOutcome, Stats};

//! Sending in the background: [`BufferedClient`].
//!
//! Two kinds of threads meet at an [`Outbox`](crate::Outbox). Publishers are the application's own: each
//! encodes its updates and appends them (`publisher`). The worker is one thread for each client: it takes
//! entries, sends them with the client, and settles them (`worker`); it alone takes and settles. Requests to
//! send or flush, shutdown and what is counted pass through one state with one lock (`state`), which
//! publishers take only when a batch is full. The worker is not joined: a shutdown waits for its end until a
//! deadline, and a worker that is stuck in an outbox is left behind.

mod client;
mod publisher;
mod settings;
mod state;
mod stats;
mod worker;

pub use self::client::{BufferedClient, BufferedClientBuilder};
pub use self::settings::{DeliveryEvent, OverflowPolicy};
pub use self::stats::{FlushOutcome, Stats};

//! Sending over HTTP: [`Client`], its settings, and the options of one send.
//!
//! A send turns an iterator of updates or events into a [`Report`](crate::Report). The caller's thread reads and encodes
//! them, and each connection has a thread that sends, unless the caller's would only wait for it. No thread outlives the
//! call, except one that looks up a name and hangs, until the system gives up.

// A `Client` holds settings and idle connections. `SendOptions` runs one send: the caller's thread reads the records
// and encodes each into the batch of its lane (`lanes`, `records`); each lane has one connection (`transport`), over which
// a scoped thread, or the caller's where that has nothing else to do, posts its batches in order (`delivery`, `sender`),
// interprets the responses (`response`) and retries what failed (`retry`). A group's records always take the same lane,
// which keeps their order without a lock of its own.

#[cfg(all(test, not(simulation)))]
mod any_faults;
#[cfg(any(test, fuzzing))]
pub mod any_response;
#[cfg(test)]
mod any_updates;
pub(crate) mod batch;
mod builder;
pub(crate) mod canceller;
mod client;
pub(crate) mod coalesce;
mod compression;
#[cfg(feature = "serde")]
mod config;
mod connector;
mod credentials;
pub(crate) mod delivery;
mod early_response;
pub(crate) mod endpoint;
mod lanes;
pub(crate) mod mutable_list;
mod one_write;
mod options;
mod proxy;
pub(crate) mod records;
mod region;
mod response;
pub(crate) mod retry;
mod secrets;
mod sender;
mod socks;
mod tcp;
#[cfg(feature = "tls")]
mod tls;
pub(crate) mod transport;
mod transport_error;

pub use self::batch::Batch;
pub use self::builder::ClientBuilder;
pub use self::client::Client;
pub use self::compression::Compression;
pub use self::options::{Progress, SendOptions};
pub use self::region::Region;
pub use self::retry::RetryPolicy;

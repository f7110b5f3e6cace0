//! Sending in the background.

mod client;
mod settings;
mod shared;
mod stats;
mod worker;

pub use self::client::{BufferedClient, BufferedClientBuilder};
pub use self::settings::{DeliveryEvent, OverflowPolicy};
pub use self::stats::{FlushOutcome, Stats};

//! Sending in the background.

mod delivery;
mod events;
mod faulty_outbox;
#[cfg(unix)]
mod forks;
mod guarded_outbox;
mod logger;
mod model;
mod overflow;
mod rejected;
mod settings;
mod shutdown;

use std::time::Duration;

use mixpanel_groups::buffered::BufferedClientBuilder;
use mixpanel_groups::{BufferedClient, Client, Group, RetryPolicy, Update};
use mixpanel_groups_emulator::Emulator;
use serde_json::json;

fn client(emulator: &Emulator) -> Client {
    let retry = RetryPolicy::default()
        .attempts(2)
        .base_delay(Duration::from_millis(1));
    Client::builder("T")
        .endpoint(emulator.endpoint())
        .retry(retry)
        .build()
        .unwrap()
}

fn buffered(emulator: &Emulator) -> BufferedClientBuilder {
    client(emulator)
        .buffered()
        .flush_interval(Duration::from_millis(5))
}

fn set(id: usize, number: usize) -> Update<'static> {
    Group::new("company", id).set(json!({"number": number}))
}

fn fill(buffered: &BufferedClient, updates: usize) {
    (0..updates).for_each(|id| buffered.publish(set(id, id)).unwrap());
}

//! Viewers and clients at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mixpanel_groups_emulator::Emulator;
use serde_json::{Value, json};

use crate::wire::{Sender, update};

/// As often as the page does.
const POLL_EVERY: Duration = Duration::from_millis(500);

/// The slowest of the clients' requests, while so many viewers poll a large group and search.
fn slowest_post(emulator: &Emulator, viewers: usize) -> Duration {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..viewers {
            scope.spawn(|| {
                let config = ureq::Agent::config_builder().proxy(None).build();
                let agent = ureq::Agent::from(config);
                while !is_over.load(Ordering::Relaxed) {
                    for path in [
                        "groups?search=nothing",
                        "group?key=company&id=large",
                        "requests",
                    ] {
                        let url = format!("{}/emulator/{path}", emulator.endpoint());
                        let view = agent.get(url).call().unwrap().body_mut().read_to_vec();
                        assert!(view.unwrap().starts_with(b"{"));
                    }
                    thread::sleep(POLL_EVERY);
                }
            });
        }
        let clients: Vec<_> = (0..4)
            .map(|client| {
                scope.spawn(move || {
                    let sender = Sender::new(emulator);
                    let times = (0..200).map(|n| {
                        let id = format!("{client}-{n}");
                        let body = json!([update(&id, "$set", json!({"n": n}))]);
                        let started = Instant::now();
                        assert_eq!(sender.send("", &body).body, "1");
                        started.elapsed()
                    });
                    times.max().unwrap()
                })
            })
            .collect();
        let times = clients.into_iter().map(|client| client.join().unwrap());
        let slowest = times.max().unwrap();
        is_over.store(true, Ordering::Relaxed);
        slowest
    })
}

/// Prints how much slower the slowest request is with viewers. The bound is generous, as a test machine
/// may be busy with anything; under the lock, rendering this history alone took seconds.
#[test]
fn viewers_do_not_slow_clients_down() {
    let emulator = Emulator::builder()
        .truncate_like_mixpanel(false)
        .start()
        .unwrap();
    let sender = Sender::new(&emulator);
    for n in 0..16 {
        let text = n.to_string() + &"x".repeat(900_000);
        sender.send("", &update("large", "$set", json!({"text": text})));
    }
    for part in 0..5 {
        let groups = (0..1_000).map(|n| update(&format!("{part}/{n}"), "$set", json!({"n": n})));
        sender.send("", &groups.collect::<Value>());
    }
    let without = slowest_post(&emulator, 0);
    let with = slowest_post(&emulator, 8);
    let ratio = with.as_secs_f64() / without.as_secs_f64();
    println!("slowest POST: {without:?} without viewers, {with:?} with 8: {ratio:.2} times");
    assert!(with < Duration::from_secs(5), "{with:?}");
}

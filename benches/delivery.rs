//! Delivering to a server that takes 50 ms for a response: what more connections gain, and how much
//! memory a million updates take.
//!
//! ```sh
//! cargo bench --bench delivery
//! ```
//!
//! Server and client are processes of their own, this same program with another `ROLE`, so that
//! neither the time nor the memory of one counts for the other. Memory is read from `/proc`, on
//! Linux only.

mod processes;

use std::time::{Duration, Instant};

use mixpanel_groups::{Client, Group, Update};
use serde::Serialize;

use processes::{Result, memory, role, serve, start_server};

const RESPONSE_TIME: Duration = Duration::from_millis(50);

fn main() -> Result<()> {
    match std::env::var("ROLE").as_deref() {
        Ok("server") => serve(RESPONSE_TIME),
        Ok("million") => million(),
        // A test run of all targets is none of a benchmark.
        _ if !std::env::args().any(|argument| argument == "--bench") => Ok(()),
        _ => compare(),
    }
}

fn compare() -> Result<()> {
    let (mut server, endpoint) = start_server()?;
    // Made before: how fast the caller makes them is not the question.
    let updates: Vec<_> = updates(160_000).collect();
    let one = fastest_of_three(&endpoint, 1, &updates)?;
    let eight = fastest_of_three(&endpoint, 8, &updates)?;
    println!("160,000 updates over 1 connection:  {one:.2?}");
    println!("160,000 updates over 8 connections: {eight:.2?}");
    let ratio = one.as_secs_f64() / eight.as_secs_f64();
    println!(
        "ratio: {ratio:.2} (wanted: 7 or more; 80 requests one after the other, and 11 where a lane has one more, are 7.27)"
    );

    let mut child = role("million").env("ENDPOINT", &endpoint).spawn()?;
    let is_good = child.wait()?.success();
    server.kill()?;
    server.wait()?;
    if is_good {
        Ok(())
    } else {
        Err("a million updates: failed".into())
    }
}

fn fastest_of_three(
    endpoint: &str,
    connections: usize,
    updates: &[Update<'_>],
) -> Result<Duration> {
    let mut fastest = Duration::MAX;
    for _ in 0..3 {
        fastest = fastest.min(send(endpoint, connections, updates)?);
    }
    Ok(fastest)
}

fn million() -> Result<()> {
    // The peak never falls, so the small numbers come first.
    for number in [1_000, 100_000, 1_000_000] {
        let took = send(&std::env::var("ENDPOINT")?, 8, updates(number))?;
        println!("{number} updates over 8 connections: {took:.1?}");
        if let Ok(peak) = memory("VmHWM:") {
            println!("peak memory: {} MB (wanted: under 20)", peak / 1024);
        }
    }
    Ok(())
}

#[derive(Serialize)]
struct Company {
    name: String,
    plan: &'static str,
    seats: usize,
    mrr: f64,
    active: bool,
}

fn updates(count: usize) -> impl Iterator<Item = Update<'static>> {
    (0..count).map(|number| {
        Group::new("company", number).set(Company {
            name: format!("Company Number {number} Inc."),
            plan: if number % 3 == 0 {
                "enterprise"
            } else {
                "free"
            },
            seats: number % 900,
            mrr: number as f64 * 1.25,
            active: number % 2 == 0,
        })
    })
}

fn send<'u, I>(endpoint: &str, connections: usize, updates: I) -> Result<Duration>
where
    I: IntoIterator,
    I::Item: Into<Update<'u>>,
{
    let client = Client::builder("PROJECT_TOKEN")
        .endpoint(endpoint)
        .connections(connections)
        .build()?;
    let started = Instant::now();
    let report = client.send(updates)?;
    let took = started.elapsed();
    assert_eq!(report.accepted, report.sent);
    Ok(took)
}

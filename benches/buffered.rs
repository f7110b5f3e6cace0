//! What publishing costs the thread that publishes: latency and throughput of the buffered client.
//!
//! ```sh
//! cargo bench --bench buffered
//! ```
//!
//! Nothing is sent (`Client::disabled`), so that this machine's cores are not a server's too; the
//! background thread takes, coalesces, encodes and settles as it does otherwise.

use std::thread;
use std::time::{Duration, Instant};

use mixpanel_groups::buffered::OverflowPolicy;
use mixpanel_groups::client::Batch;
use mixpanel_groups::{BufferedClient, Client, MixpanelGroup};
use mixpanel_groups_emulator::{Emulator, Fault};

const UPDATES: usize = 1_000_000;
const THREADS: usize = 8;

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Company {
    #[mixpanel(group_id)]
    id: usize,
    name: &'static str,
    plan: &'static str,
    industry: Option<&'static str>,
    founding_year: u16,
    seats: usize,
    mrr: f64,
    active: bool,
}

fn company(id: usize) -> Company {
    Company {
        id,
        name: "Acme Corporation",
        plan: "enterprise",
        industry: Some("Technology"),
        founding_year: 1999,
        seats: id % 100,
        mrr: 1234.5,
        active: true,
    }
}

fn start() -> BufferedClient {
    let buffered = Client::disabled().buffered().coalesce(false);
    let buffered = buffered.capacity(UPDATES, 1 << 30);
    buffered
        .overflow(OverflowPolicy::Block(Duration::from_secs(60)))
        .start()
        .unwrap()
}

fn main() {
    let encoding = encode();
    println!("encoding alone          {encoding:>8.0} ns an update");

    let buffered = start();
    let mut times: Vec<_> = (0..UPDATES)
        .map(|id| {
            let start = Instant::now();
            buffered.publish(company(id).set()).unwrap();
            start.elapsed()
        })
        .collect();
    let total: Duration = times.iter().sum();
    times.sort_unstable();
    let drained = buffered.shutdown(Duration::from_secs(60));
    assert_eq!(drained.stats.accepted, UPDATES);
    let mean = nanoseconds(total) / UPDATES as f64;
    let [median, p99] = [50, 99].map(|percent| nanoseconds(times[UPDATES / 100 * percent]));
    println!("publish, one thread     {median:>8.0} ns median, {p99:.0} ns p99, {mean:.0} ns mean");
    // Without the clock, which takes as long as a third of it.
    let buffered = start();
    let thousands = (0..UPDATES / 1_000).map(|thousand| {
        let companies: Vec<_> = (0..1_000)
            .map(|id| company(1_000 * thousand + id))
            .collect();
        let start = Instant::now();
        for company in &companies {
            buffered.publish(company.set()).unwrap();
        }
        start.elapsed()
    });
    let mut times: Vec<_> = thousands.collect();
    drop(buffered);
    times.sort_unstable();
    let median = nanoseconds(times[times.len() / 2]) / 1_000.0;
    println!(
        "publish, by the thousand{median:>8.0} ns median, {:.2} of encoding",
        median / encoding
    );

    let buffered = start();
    let begin = Instant::now();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let buffered = &buffered;
            scope.spawn(move || {
                for id in (thread..UPDATES).step_by(THREADS) {
                    buffered.publish(company(id).set()).unwrap();
                }
            });
        }
    });
    let published = begin.elapsed();
    let drained = buffered.shutdown(Duration::from_secs(60));
    assert_eq!(drained.stats.accepted, UPDATES);
    println!(
        "publish, {THREADS} threads      {:>8.0} updates a second, delivered at {:.0} a second",
        UPDATES as f64 / published.as_secs_f64(),
        UPDATES as f64 / begin.elapsed().as_secs_f64(),
    );
    shutdown();
}

/// How long a shutdown takes that may take a second, when the server never responds.
fn shutdown() {
    let emulator = Emulator::start().unwrap();
    emulator.fail_always(Fault::Delay(Duration::from_secs(3600)));
    let client = Client::builder("TOKEN")
        .endpoint(emulator.endpoint())
        .build()
        .unwrap();
    let buffered = client.buffered().start().unwrap();
    (0..1_000).for_each(|id| buffered.publish(company(id).set()).unwrap());
    let begin = Instant::now();
    let drained = buffered.shutdown(Duration::from_secs(1));
    let took = begin.elapsed();
    println!(
        "shutdown(1 s), no responses {took:>6.2?}, {} of 1,000 handed back",
        drained.undelivered.len()
    );
}

/// The time of encoding one update into a batch.
fn encode() -> f64 {
    let companies: Vec<_> = (0..1_000).map(company).collect();
    let mut batch = Batch::new("TOKEN");
    let times = (0..200).map(|_| {
        batch.clear();
        let start = Instant::now();
        for company in &companies {
            batch.push(company.set()).unwrap();
        }
        start.elapsed()
    });
    nanoseconds(times.min().unwrap_or_default()) / companies.len() as f64
}

fn nanoseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e9
}

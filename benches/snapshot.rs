//! Two nights with a snapshot, each a process of its own as a job is: 100,000 companies of which 1 % changed, and
//! 50,000 of which none did but which hold two hash maps each, rebuilt with other hash seeds.
//!
//! ```sh
//! cargo bench --bench snapshot
//! ```
//!
//! Night 1 begins with an empty snapshot, and nights 3 and 4 are as night 2. "of walk" is opening and syncing together, as
//! a multiple of walking over the properties and hashing them once. Each figure is the least of several rounds in one
//! process (`REPEAT`, 9), which alternate with the walk, so that the load of the machine does the same to both.
//!
//! The server is a process of its own too, so that neither its time nor its memory counts. Memory is read from
//! `/proc`, on Linux only: the peak beside the data that the job holds itself.

mod processes;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher as _};
use std::time::{Duration, Instant};

use mixpanel_groups::client::Batch;
use mixpanel_groups::{Client, MixpanelGroup, Report, Snapshot};

use processes::{Result, memory, role, serve, start_server};

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Company {
    #[mixpanel(group_id)]
    id: u64,
    name: String,
    plan: String,
    industry: Option<String>,
    seats: u32,
    mrr: f64,
    active: bool,
    #[mixpanel(union)]
    integrations: Vec<String>,
}

fn companies(night: u32) -> Vec<Company> {
    let company = |id: u64| Company {
        id,
        name: format!("Company Number {id} Inc."),
        plan: if id % 3 == 0 { "enterprise" } else { "free" }.to_owned(),
        industry: (id % 4 != 0).then(|| "Technology".to_owned()),
        seats: 5 + (id % 1000) as u32 + if id % 100 == 0 { night } else { 0 },
        mrr: 12.5,
        active: id % 2 == 0,
        integrations: vec!["salesforce".to_owned(), "hubspot".to_owned()],
    };
    (0..100_000).map(company).collect()
}

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct WithMaps {
    #[mixpanel(group_id)]
    id: u64,
    name: String,
    seats_by_team: HashMap<String, u32>,
    limits: HashMap<String, u32>,
}

fn with_maps(_night: u32) -> Vec<WithMaps> {
    let map = |id: u64| {
        (0..6)
            .map(|n| (format!("name {n}"), (id % 7) as u32 + n))
            .collect()
    };
    let company = |id| WithMaps {
        id,
        name: format!("Company Number {id} Inc."),
        seats_by_team: map(id),
        limits: map(id + 1),
    };
    (0..50_000).map(company).collect()
}

fn main() -> Result<()> {
    match std::env::var("ROLE").as_deref() {
        Ok("server") => serve(Duration::ZERO),
        Ok("companies") => night(companies),
        Ok("maps") => night(with_maps),
        // A test run of all targets is none of a benchmark.
        _ if !std::env::args().any(|argument| argument == "--bench") => Ok(()),
        _ => nights(),
    }
}

fn nights() -> Result<()> {
    let (mut server, endpoint) = start_server()?;
    for (data, title) in [
        ("companies", "100,000 companies, 1 % changed"),
        ("maps", "50,000 companies with two hash maps, none changed"),
    ] {
        println!(
            "\n{title}\n{:<8} {:>8} {:>8} {:>8} {:>8} {:>9} {:>11} {:>11} {:>9}",
            "",
            "walk ms",
            "open ms",
            "sync ms",
            "of walk",
            "updates",
            "sent bytes",
            "file bytes",
            "peak MB"
        );
        let folder = std::env::temp_dir().join(format!("bench.{}.{data}", std::process::id()));
        std::fs::create_dir(&folder)?;
        for night in ["1", "2", "3", "4"] {
            let status = role(data)
                .env("ENDPOINT", &endpoint)
                .env("SNAPSHOT", folder.join("companies.snapshot"))
                .env("NIGHT", night)
                .status()?;
            assert!(status.success());
        }
        std::fs::remove_dir_all(folder)?;
    }
    server.kill()?;
    server.wait()?;
    Ok(())
}

/// The job of one night, `REPEAT` times from the same file, each time beside a walk. The shortest times count, since other
/// processes can only lengthen them.
fn night<T: MixpanelGroup + Sync>(data: fn(u32) -> Vec<T>) -> Result<()> {
    let night = std::env::var("NIGHT")?;
    // Night 3 is as night 2.
    let data = data(night.parse::<u32>()?.min(2));
    let client = Client::builder("PROJECT_TOKEN")
        .endpoint(std::env::var("ENDPOINT")?)
        .build()?;
    let path = std::env::var("SNAPSHOT")?;
    let repeat = std::env::var("REPEAT").map_or(Ok(9), |times| times.parse::<usize>())?;
    let saved = std::fs::read(&path).unwrap_or_default();
    let [mut walked, mut opened, mut synced, mut all] = [Duration::MAX; 4];
    let (mut peak, mut report) = (0, Report::default());
    for round in 0..repeat {
        walked = walked.min(walk(&data));
        std::fs::write(&path, &saved)?;
        if round == 0 {
            std::fs::write("/proc/self/clear_refs", "5")?; // Forgets the peak so far.
        }
        let before = memory("VmRSS:")?;
        let start = Instant::now();
        let mut snapshot = Snapshot::open(&path)?;
        let open = start.elapsed();
        report = snapshot.sync(&client, &data)?;
        let both = start.elapsed();
        opened = opened.min(open);
        synced = synced.min(both - open);
        all = all.min(both);
        if round == 0 {
            peak = memory("VmHWM:")?.saturating_sub(before);
        }
    }
    println!(
        "night {night}: {:>8.1} {:>8.1} {:>8.1} {:>8.2} {:>9} {:>11} {:>11} {:>9.1}",
        walked.as_secs_f64() * 1e3,
        opened.as_secs_f64() * 1e3,
        synced.as_secs_f64() * 1e3,
        all.as_secs_f64() / walked.as_secs_f64(),
        report.accepted,
        report.bytes,
        std::fs::metadata(&path)?.len(),
        peak as f64 / 1024.0,
    );
    Ok(())
}

/// Walks over all properties and hashes their JSON: what finding any change takes at least.
fn walk<T: MixpanelGroup + Sync>(data: &[T]) -> Duration {
    let start = Instant::now();
    let mut batch = Batch::new("T");
    let mut hash = DefaultHasher::new();
    for group in data {
        batch.clear();
        for update in group.updates() {
            batch.push(update).expect("it fits");
        }
        hash.write(batch.body());
    }
    std::hint::black_box(hash.finish());
    start.elapsed()
}

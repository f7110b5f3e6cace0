//! 100,000 companies of which 1 % changed: what a snapshot and `changes_since` send, beside sending
//! everything again.
//!
//! ```sh
//! cargo bench --bench minimal
//! ```

use std::time::{Duration, Instant};

use mixpanel_groups::client::Batch;
use mixpanel_groups::{Client, MixpanelGroup, Report, Snapshot};
use mixpanel_groups_emulator::Emulator;

const COMPANIES: usize = 100_000;

#[derive(Clone, MixpanelGroup)]
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

fn company(id: u64) -> Company {
    Company {
        id,
        name: format!("Company Number {id} Inc."),
        plan: if id % 3 == 0 { "enterprise" } else { "free" }.to_owned(),
        industry: (id % 4 != 0).then(|| "Technology".to_owned()),
        seats: 5 + u32::try_from(id % 1000).unwrap_or_default(),
        mrr: 12.5,
        active: id % 2 == 0,
        integrations: vec!["salesforce".to_owned(), "hubspot".to_owned()],
    }
}

fn main() {
    let emulator = Emulator::start().unwrap();
    let client = Client::builder("TOKEN")
        .endpoint(emulator.endpoint())
        .build()
        .unwrap();
    let old: Vec<_> = (0..COMPANIES as u64).map(company).collect();
    let mut new = old.clone();
    for company in new.iter_mut().step_by(100) {
        company.seats += 1;
    }
    let file = std::env::temp_dir().join(format!("minimal.{}.snapshot", std::process::id()));
    let mut snapshot = Snapshot::open(&file).unwrap();
    let first = timed(|| snapshot.sync(&client, &old).unwrap());

    println!("{:<28} {:>9} {:>12} {:>9}", "", "updates", "bytes", "ms");
    let all = timed(|| {
        client
            .send(new.iter().flat_map(MixpanelGroup::updates))
            .unwrap()
    });
    row("everything again", &all);
    let changes = || {
        old.iter()
            .zip(&new)
            .flat_map(|(old, new)| new.changes_since(old))
    };
    row("changes_since", &timed(|| client.send(changes()).unwrap()));
    row("snapshot, first night", &first);
    row(
        "snapshot, second night",
        &timed(|| snapshot.sync(&client, &new).unwrap()),
    );
    std::fs::remove_file(&file).unwrap();

    // Without a network: what finding out costs.
    let mut batch = Batch::new("TOKEN");
    let mut encode = |company: &Company| {
        batch.clear();
        batch.push(company.set()).unwrap();
        batch.push(company.union()).unwrap();
    };
    let encoding = best_of(|| old.iter().for_each(&mut encode));
    let nothing = best_of(|| {
        assert_eq!(
            old.iter()
                .zip(&old)
                .flat_map(|(a, b)| a.changes_since(b))
                .count(),
            0
        );
    });
    println!(
        "\nchanges_since with nothing changed: {:.2} of the time of encoding once",
        nothing.as_secs_f64() / encoding.as_secs_f64()
    );
}

fn timed(send: impl FnOnce() -> Report) -> (Report, Duration) {
    let start = Instant::now();
    let report = send();
    (report, start.elapsed())
}

fn best_of(mut run: impl FnMut()) -> Duration {
    let times = (0..10).map(|_| {
        let start = Instant::now();
        run();
        start.elapsed()
    });
    times.min().unwrap_or_default()
}

fn row(what: &str, (report, time): &(Report, Duration)) {
    println!(
        "{what:<28} {:>9} {:>12} {:>9}",
        report.accepted,
        report.bytes,
        time.as_millis()
    );
}

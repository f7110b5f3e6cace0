//! A nightly job that sends only what has changed since the last run.
//!
//! ```sh
//! cargo run --example nightly_sync
//! ```
//!
//! The first night sends the whole Fortune 1000 list to a stand-in for Mixpanel; for the second one
//! some rows are changed, one company is gone and one is new; for the third one nothing changes. You see
//! what each night found, its report and the first few of the updates: 1,940, then 8, then none.

use std::error::Error;

use mixpanel_groups::{Client, MixpanelGroup, Snapshot};
use mixpanel_groups_emulator::Emulator;
use serde::Deserialize;

#[derive(Clone, Deserialize, MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Company {
    #[mixpanel(group_id)]
    id: String,
    #[mixpanel(rename = "$name")]
    name: String,
    rank: u32,
    revenue_musd: f64,
    profit_musd: Option<f64>,
    employees: Option<u32>,
    sector: String,
    city: String,
    #[serde(rename = "ticker", deserialize_with = "tickers")]
    #[mixpanel(union)]
    tickers: Vec<String>,
}

/// A company may be listed under several symbols; the file has one, or none.
fn tickers<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.into_iter().collect())
}

fn main() -> Result<(), Box<dyn Error>> {
    let emulator = Emulator::start()?;
    let client = Client::builder("PROJECT_TOKEN")
        .endpoint(emulator.endpoint())
        .build()?;
    // Beside the snapshot is its lock file.
    let folder = std::env::temp_dir().join(format!("nightly_sync.{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let file = folder.join("companies.snapshot");

    let mut companies = read()?;
    night("First night", &emulator, &client, &file, &companies)?;
    change(&mut companies);
    night("Second night", &emulator, &client, &file, &companies)?;
    night("Third night", &emulator, &client, &file, &companies)?;
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

/// What the job does each night.
fn night(
    title: &str,
    emulator: &Emulator,
    client: &Client,
    file: &std::path::Path,
    companies: &[Company],
) -> Result<(), Box<dyn Error>> {
    let requests_before = emulator.requests().len();
    let mut snapshot = Snapshot::open(file)?.delete_gone(true);
    println!(
        "{title}: {} companies, {} known from before",
        companies.len(),
        snapshot.len()
    );
    let report = snapshot.sync(client, companies)?;
    println!("  {report}");
    for request in &emulator.requests()[requests_before..] {
        let updates: Vec<&serde_json::value::RawValue> = serde_json::from_str(&request.body)?;
        updates
            .iter()
            .take(8)
            .for_each(|update| println!("  {update}"));
        if updates.len() > 8 {
            println!("  … and {} more", updates.len() - 8);
        }
    }
    println!("  Mixpanel has {} profiles", emulator.profiles().len());
    Ok(())
}

/// What a day brings.
fn change(companies: &mut Vec<Company>) {
    companies[0].employees = Some(2_310_000);
    companies[1].revenue_musd += 1_000.5;
    companies[1].rank = 1;
    companies[2].profit_musd = None;
    companies[3].tickers = vec!["CVS".into(), "CVS.N".into()];
    companies[4].tickers.clear();
    let gone = companies.remove(993);
    companies.push(Company {
        id: "newcomer".into(),
        name: "Newcomer Inc.".into(),
        ..gone
    });
}

fn read() -> Result<Vec<Company>, csv::Error> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/examples/data/fortune1000_2022.csv"
    );
    csv::Reader::from_path(path)?.deserialize().collect()
}

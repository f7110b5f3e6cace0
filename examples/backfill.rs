//! Real companies from a CSV file, sent in batches with a progress bar.
//!
//! ```sh
//! cargo run --release --example backfill -- examples/data/fortune1000_2022.csv
//! cargo run --release --example backfill -- examples/data/fortune1000_2022.csv --faults
//! ```
//!
//! Sends to a stand-in for Mixpanel on a loopback port, which misbehaves with `--faults`, or with
//! `MIXPANEL_TOKEN` set to that project. In a terminal you see a bar that moves as updates are
//! accepted, with retries and back-off if there are any, and then how many companies there were and
//! the report: `sent 994, accepted 994, rejected 0; …`. A row that is malformed is reported with its
//! line number, and the rest is sent; the program then fails.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use mixpanel_groups::client::Progress;
use mixpanel_groups::{Client, MixpanelGroup};
use mixpanel_groups_emulator::{Emulator, Fault};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// A row of the file, and the profile of a company.
#[derive(Deserialize, MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Company {
    #[mixpanel(group_id)]
    id: String,
    #[mixpanel(rename = "$name")]
    name: String,
    rank: u32,
    previous_rank: Option<u32>,
    /// In millions of US dollars, as all amounts.
    revenue_musd: f64,
    profit_musd: Option<f64>,
    employees: Option<u32>,
    sector: String,
    city: String,
    state: String,
    ticker: Option<String>,
    #[serde(deserialize_with = "unless_dash")]
    market_cap_musd: Option<f64>,
    website: Option<String>,
    #[serde(deserialize_with = "yes_or_no")]
    newcomer: bool,
    #[serde(deserialize_with = "yes_or_no")]
    profitable: bool,
}

/// The file has a dash for the market value of a company that is not listed.
fn unless_dash<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "" | "-" => Ok(None),
        number => number.parse().map(Some).map_err(D::Error::custom),
    }
}

fn yes_or_no<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "yes" => Ok(true),
        "no" => Ok(false),
        other => Err(D::Error::custom(format!("{other:?} is neither yes nor no"))),
    }
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let (path, faults) = match &arguments[..] {
        [path] => (path, false),
        [path, faults] if faults == "--faults" => (path, true),
        _ => {
            eprintln!("usage: cargo run --release --example backfill -- FILE.csv [--faults]");
            return Ok(ExitCode::FAILURE);
        }
    };
    let (companies, malformed) = read(path)?;
    // Kept alive while the client sends to it.
    let emulator;
    let client = if std::env::var_os("MIXPANEL_TOKEN").is_some() {
        Client::from_env()?
    } else {
        emulator = Emulator::start()?;
        if faults {
            misbehave(&emulator);
        }
        Client::builder("PROJECT_TOKEN")
            .endpoint(emulator.endpoint())
            .max_batch(100)
            .build()?
    };

    let bar = ProgressBar::new(companies.len() as u64).with_style(ProgressStyle::with_template(
        "{bar:40} {pos}/{len} accepted, {elapsed} {msg}",
    )?);
    let report = client
        .with_options()
        .on_progress(|progress| show(&bar, progress))
        .send(companies.iter().map(MixpanelGroup::set));
    bar.finish();
    let report = match report {
        Ok(report) => report,
        Err(error) => {
            // What came back is in the error: a job that is run again sends it again, and all else too.
            eprintln!("{error:#}");
            return Ok(ExitCode::FAILURE);
        }
    };

    println!(
        "{path}: {} companies, {malformed} malformed rows",
        companies.len()
    );
    println!("{report}");
    for rejection in &report.rejected {
        println!("rejected: {rejection}");
    }
    let is_good = malformed == 0 && report.rejected.is_empty();
    Ok(if is_good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Returns the companies and the number of malformed rows.
fn read(path: &str) -> Result<(Vec<Company>, usize), Box<dyn Error>> {
    let unreadable = |error| format!("{path}: {error}");
    let mut reader = csv::Reader::from_path(path).map_err(unreadable)?;
    reader.headers().map_err(unreadable)?; // or else a file that cannot be read has no rows
    let (mut companies, mut malformed) = (Vec::new(), 0);
    for row in reader.deserialize() {
        match row {
            Ok(company) => companies.push(company),
            Err(error) if error.is_io_error() => return Err(unreadable(error).into()),
            Err(error) => {
                eprintln!("{path}: {error}"); // names the line
                malformed += 1;
            }
        }
    }
    Ok((companies, malformed))
}

/// Slow responses, a rate limit, lost responses and an overloaded server.
fn misbehave(emulator: &Emulator) {
    let slow = Fault::Delay(Duration::from_millis(300));
    let rate_limit = Fault::RetryAfter {
        status: 429,
        after: "4".to_owned(),
    };
    let faults = [
        slow.clone(),
        slow.clone(),
        rate_limit,
        slow.clone(),
        Fault::CloseAfter,
        slow.clone(),
        Fault::CloseMidResponse,
        slow.clone(),
        Fault::Html,
        slow,
    ];
    faults
        .into_iter()
        .for_each(|fault| emulator.fail_next(fault));
}

fn show(bar: &ProgressBar, progress: &Progress) {
    bar.set_position(progress.accepted as u64);
    let mut message = String::new();
    if progress.retries > 0 {
        message = format!("retries {} ", progress.retries);
    }
    if let Some(wait) = progress.backing_off {
        message += &format!("backing off {:.1} s", wait.as_secs_f64());
    }
    bar.set_message(message);
}

//! What this library takes of the time of hand-written serde code, measured side by side in one run:
//! each figure is the best of many, and only ratios are compared.
//!
//! ```sh
//! cargo bench --bench ratios
//! ```

use std::collections::HashMap;
use std::hint::black_box;
use std::time::Duration;

use mixpanel_groups::client::Batch;
use mixpanel_groups::{Client, Compression, MixpanelGroup};
use serde::Serialize;

mod company;
mod cpu;
mod processes;

use cpu::Time;

use company::{Address, address, company, encode, encode_by_hand};

const BATCH: usize = 2_000;

/// Every value goes through a `Serialize` of the user's.
#[derive(Clone, MixpanelGroup, Serialize)]
#[mixpanel(group_key = "company")]
struct Own {
    #[mixpanel(group_id)]
    #[serde(skip)]
    id: String,
    name: Name,
    plan: Plan,
    #[serde(skip_serializing_if = "Option::is_none")]
    contact: Option<Contact>,
    seats: Seats,
    revenue: Money,
    addresses: Vec<Address>,
}

#[derive(Clone, Serialize)]
struct Name(String);

#[derive(Clone, Serialize)]
#[serde(rename_all = "lowercase")]
enum Plan {
    Free,
    Enterprise { seats: u32 },
}

#[derive(Clone, Serialize)]
struct Contact {
    name: String,
    phone: Option<String>,
}

#[derive(Clone, Serialize)]
struct Seats {
    bought: u32,
    used: u32,
}

#[derive(Clone, Serialize)]
struct Money {
    amount: f64,
    currency: &'static str,
}

fn own(number: usize) -> Own {
    let seats = number as u32;
    Own {
        id: format!("company_{number}"),
        name: Name(format!("Company Number {number} Inc.")),
        plan: if number % 3 == 0 {
            Plan::Enterprise { seats }
        } else {
            Plan::Free
        },
        contact: (number % 4 != 0).then(|| Contact {
            name: "Jane Doe".to_owned(),
            phone: None,
        }),
        seats: Seats {
            bought: seats,
            used: seats / 2,
        },
        revenue: Money {
            amount: number as f64 * 1.25,
            currency: "USD",
        },
        addresses: vec![address(number)],
    }
}

fn main() -> processes::Result<()> {
    if std::env::var("ROLE").is_ok() {
        return processes::serve(Duration::ZERO);
    }
    measure("on all cores")?;
    cpu::pin()?;
    measure("on one core, with the server")
}

fn measure(where_: &str) -> processes::Result<()> {
    println!("\n{where_}: ns an update, by the clock and of the process's CPU time");
    println!(
        "{:<52} {:>7} {:>7} {:>6} {:>9} {:>7} {:>6} {:>7}",
        "", "ours", "other", "ratio", "CPU: ours", "other", "ratio", "target"
    );
    encoding();
    changes();
    publishing();
    let (mut server, endpoint) = processes::start_server()?;
    end_to_end(&endpoint);
    small(&endpoint);
    lanes(&endpoint);
    flatness(&endpoint);
    server.kill()?;
    server.wait()?;
    Ok(())
}

fn encoding() {
    let companies: Vec<_> = (0..BATCH).map(company).collect();
    let mut batch = Batch::new("PROJECT_TOKEN");
    let mut body = Vec::new();
    let times = best_of([&mut || encode(&mut batch, &companies), &mut || {
        encode_by_hand(&mut body, &companies, |company| &company.id)
    }]);
    row("encoding, ns an update", times, BATCH, 0.3);

    let companies: Vec<_> = (0..BATCH).map(own).collect();
    let mut batch = Batch::new("PROJECT_TOKEN");
    let times = best_of([&mut || encode(&mut batch, &companies), &mut || {
        encode_by_hand(&mut body, &companies, |company| &company.id)
    }]);
    row(
        "encoding values of the user's own types, ns an update",
        times,
        BATCH,
        0.9,
    );
}

/// What a company has in maps, whose order differs from one to the next.
#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Counted {
    #[mixpanel(group_id)]
    id: usize,
    logins: HashMap<String, u32>,
    limits: HashMap<String, f64>,
}

fn counted(id: usize) -> Counted {
    let names = || (0..8).map(|name| format!("name {name}"));
    Counted {
        id,
        logins: names().zip(id as u32..).collect(),
        limits: names().map(|name| (name, id as f64 * 0.25)).collect(),
    }
}

fn changes() {
    let companies: Vec<_> = (0..BATCH).map(company).collect();
    let same = companies.clone();
    let mut batch = Batch::new("PROJECT_TOKEN");
    let times = best_of([
        &mut || {
            let pairs = companies.iter().zip(&same);
            assert_eq!(
                pairs.flat_map(|(new, old)| new.changes_since(old)).count(),
                0
            );
        },
        &mut || encode(&mut batch, &companies),
    ]);
    row(
        "changes_since of nothing changed, beside encoding",
        times,
        BATCH,
        0.9,
    );

    let [companies, same] = [(); 2].map(|()| (0..200).map(counted).collect::<Vec<_>>());
    let times = best_of([
        &mut || {
            let pairs = companies.iter().zip(&same);
            assert_eq!(
                pairs.flat_map(|(new, old)| new.changes_since(old)).count(),
                0
            );
        },
        &mut || encode(&mut batch, &companies),
    ]);
    row("the same, hash maps in another order", times, 200, 1.5);
}

fn publishing() {
    let companies: Vec<_> = (0..BATCH).map(company).collect();
    let mut batch = Batch::new("PROJECT_TOKEN");
    let buffered = Client::disabled().buffered().coalesce(false);
    let buffered = buffered
        .capacity(usize::MAX, usize::MAX)
        .flush_interval(Duration::from_secs(3_600))
        .start()
        .unwrap();
    let times = best(
        [
            &mut || {
                for company in &companies {
                    buffered.publish(company.set()).unwrap();
                }
            },
            &mut || encode(&mut batch, &companies),
        ],
        100,
    );
    let all = best(
        [
            &mut || {
                let all = companies.iter().map(MixpanelGroup::set);
                buffered.publish_all(all).unwrap();
            },
            &mut || encode(&mut batch, &companies),
        ],
        100,
    );
    drop(buffered);
    row("publish_all of 2,000, beside encoding", all, BATCH, 1.5);
    row("publish in memory, beside encoding", times, BATCH, 1.5);
    let disabled = Client::disabled();
    let times = best_of([
        &mut || {
            drop(
                disabled
                    .send(companies.iter().map(MixpanelGroup::set))
                    .unwrap(),
            )
        },
        &mut || encode(&mut batch, &companies),
    ]);
    row(
        "`send` of a disabled client, beside encoding",
        times,
        BATCH,
        1.3,
    );
}

/// 10 requests of 2,000 updates over one connection to a server that only counts bytes.
fn end_to_end(endpoint: &str) {
    const REQUESTS: usize = 10;
    let companies: Vec<_> = (0..BATCH).map(company).collect();
    let all = || (0..REQUESTS).flat_map(|_| companies.iter().map(MixpanelGroup::set));
    let client = |compression| {
        let builder = Client::builder("PROJECT_TOKEN").endpoint(endpoint);
        builder.compression(compression).build().unwrap()
    };
    let plain = client(Compression::None);
    let gzip = client(Compression::gzip(1));
    let agent = ureq::Agent::new_with_defaults();
    let url = format!("{endpoint}/groups?ip=0&strict=1&verbose=1");
    let mut body = Vec::new();
    let mut packed = Vec::new();
    let mut packed_bytes = 0;
    let mut by_hand = |compressed: bool| {
        for _ in 0..REQUESTS {
            encode_by_hand(&mut body, &companies, |company| &company.id);
            let mut request = agent.post(&url).content_type("application/json");
            let mut send = &body;
            if compressed {
                pack(&body, &mut packed);
                packed_bytes = packed.len();
                request = request.header("Content-Encoding", "gzip");
                send = &packed;
            }
            let mut response = request.send(&send[..]).unwrap();
            assert_eq!(response.body_mut().read_to_string().unwrap(), "1");
        }
    };
    let updates = REQUESTS * BATCH;
    let mut sent = 0;
    let mut send = |client: &Client| {
        let report = client.send(all()).unwrap();
        assert_eq!(report.accepted, updates);
        sent = report.bytes;
    };
    let by_hand = std::cell::RefCell::new(&mut by_hand);
    let times = best_of_few([&mut || send(&plain), &mut || (by_hand.borrow_mut())(false)]);
    row(
        "`send`, one connection, beside hand-written",
        times,
        updates,
        0.5,
    );
    let times = best_of_few([&mut || send(&gzip), &mut || (by_hand.borrow_mut())(true)]);
    row(
        "`send`, gzip level 1, beside hand-written",
        times,
        updates,
        0.85,
    );
    let ratio = sent as f64 / (packed_bytes * REQUESTS) as f64;
    println!("its bytes, beside flate2's default backend: {ratio:.2}");
}

/// Compresses as flate2's default backend does at level 1.
fn pack(body: &[u8], packed: &mut Vec<u8>) {
    let mut sum = crc32fast::Hasher::new();
    sum.update(body);
    *packed = miniz_oxide::deflate::compress_to_vec(body, 1);
    packed.extend([0; 14]); // the head, the sum and the length
    black_box(sum.finalize());
}

/// One update at a time over a kept connection.
fn small(endpoint: &str) {
    const TIMES: usize = 200;
    let company = company(1);
    let client = Client::builder("PROJECT_TOKEN").endpoint(endpoint);
    let client = client.build().unwrap();
    let mut batch = Batch::new("PROJECT_TOKEN");
    batch.push(company.set()).unwrap();
    let agent = ureq::Agent::new_with_defaults();
    let url = format!("{endpoint}/groups?ip=0&strict=1&verbose=1");
    let times = best_of_few([
        &mut || {
            for _ in 0..TIMES {
                assert_eq!(client.send(company.set()).unwrap().accepted, 1);
            }
        },
        &mut || {
            for _ in 0..TIMES {
                let request = agent.post(&url).content_type("application/json");
                let mut response = request.send(batch.body()).unwrap();
                assert_eq!(response.body_mut().read_to_string().unwrap(), "1");
            }
        },
    ]);
    row(
        "`send` of one update, beside ureq's POST",
        times,
        TIMES,
        1.1,
    );
}

/// Eight connections, beside one.
fn lanes(endpoint: &str) {
    let companies: Vec<_> = (0..80_000).map(company).collect();
    let send = |connections: usize| {
        let client = Client::builder("PROJECT_TOKEN").endpoint(endpoint);
        let client = client.connections(connections).build().unwrap();
        move |companies: &[company::Company]| {
            let report = client.send(companies.iter().map(MixpanelGroup::set));
            assert_eq!(report.unwrap().accepted, companies.len());
        }
    };
    let (one, eight) = (send(1), send(8));
    let times = best_of_few([&mut || eight(&companies), &mut || one(&companies)]);
    row(
        "`send` over eight connections, beside one",
        times,
        companies.len(),
        1.15,
    );
}

/// The cost of one update among a thousand, among ten thousand and among a million.
fn flatness(endpoint: &str) {
    let companies: Vec<_> = (0..1_000).map(company).collect();
    let client = Client::builder("PROJECT_TOKEN").endpoint(endpoint);
    let client = client.build().unwrap();
    let send = |times: usize| {
        let updates = (0..times).flat_map(|_| companies.iter().map(MixpanelGroup::set));
        assert_eq!(client.send(updates).unwrap().accepted, times * 1_000);
    };
    let [one, ten] = best_of_few([&mut || send(1), &mut || send(10)]);
    let [million] = best([&mut || send(1_000)], 3);
    row(
        "one of a million, beside one of a thousand",
        [million / 1_000, one],
        1_000,
        1.15,
    );
    row(
        "one of a million, beside one of ten thousand",
        [million / 100, ten],
        10_000,
        1.15,
    );
}

/// The least time of each, taken in turns.
fn best_of<const N: usize>(runs: [&mut dyn FnMut(); N]) -> [Time; N] {
    best(runs, 300)
}

fn best_of_few<const N: usize>(runs: [&mut dyn FnMut(); N]) -> [Time; N] {
    best(runs, 30)
}

fn best<const N: usize>(mut runs: [&mut dyn FnMut(); N], rounds: usize) -> [Time; N] {
    let mut best = [Time::MAX; N];
    for _ in 0..rounds {
        for (run, best) in runs.iter_mut().zip(&mut best) {
            *best = best.min(Time::of(run));
        }
    }
    best
}

fn row(what: &str, times: [Time; 2], updates: usize, target: f64) {
    let ns = |time: Duration| time.as_secs_f64() * 1e9 / updates as f64;
    let [wall, other] = times.map(|time| ns(time.wall));
    let [cpu, other_cpu] = times.map(|time| ns(time.cpu));
    println!(
        "{what:<52} {wall:>7.0} {other:>7.0} {:>6.2} {cpu:>9.0} {other_cpu:>7.0} {:>6.2} {target:>7.2}",
        wall / other,
        cpu / other_cpu,
    );
}

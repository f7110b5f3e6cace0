//! What this library takes of the time of hand-written serde code, measured side by side in one run:
//! each figure is the best of many, and only ratios are compared.
//!
//! ```sh
//! cargo bench --bench ratios
//! ```

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use mixpanel_groups::client::Batch;
use mixpanel_groups::{Client, Compression, MixpanelGroup};
use serde::Serialize;

mod company;

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

fn main() {
    println!(
        "{:<58} {:>9} {:>9} {:>6} {:>7}",
        "", "ours", "baseline", "ratio", "target"
    );
    encoding();
    changes();
    publishing();
    end_to_end();
    flatness();
}

fn encoding() {
    let companies: Vec<_> = (0..BATCH).map(company).collect();
    let mut batch = Batch::new("PROJECT_TOKEN");
    let mut body = Vec::new();
    let [ours, theirs] = best_of([&mut || encode(&mut batch, &companies), &mut || {
        encode_by_hand(&mut body, &companies, |company| &company.id)
    }]);
    row("encoding, ns an update", ours, theirs, BATCH, 0.45);

    let companies: Vec<_> = (0..BATCH).map(own).collect();
    let mut batch = Batch::new("PROJECT_TOKEN");
    let [ours, theirs] = best_of([&mut || encode(&mut batch, &companies), &mut || {
        encode_by_hand(&mut body, &companies, |company| &company.id)
    }]);
    row(
        "encoding values of the user's own types, ns an update",
        ours,
        theirs,
        BATCH,
        0.9,
    );
}

fn changes() {
    let companies: Vec<_> = (0..BATCH).map(company).collect();
    let same = companies.clone();
    let mut batch = Batch::new("PROJECT_TOKEN");
    let [ours, theirs] = best_of([
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
        ours,
        theirs,
        BATCH,
        1.0,
    );
}

fn publishing() {
    let companies: Vec<_> = (0..BATCH).map(company).collect();
    let mut batch = Batch::new("PROJECT_TOKEN");
    let buffered = Client::disabled().buffered().coalesce(false);
    let buffered = buffered.capacity(usize::MAX, usize::MAX).start().unwrap();
    let publish = || {
        for company in &companies {
            buffered.publish(company.set()).unwrap();
        }
    };
    let [ours, theirs] = best_of([&mut || publish(), &mut || encode(&mut batch, &companies)]);
    row(
        "publishing to the queue in memory, beside encoding",
        ours,
        theirs,
        BATCH,
        1.5,
    );
}

/// 100 requests of 2,000 updates over one connection to a server that only counts bytes.
fn end_to_end() {
    const REQUESTS: usize = 100;
    let companies: Vec<_> = (0..BATCH).map(company).collect();
    let all = || (0..REQUESTS).flat_map(|_| companies.iter().map(MixpanelGroup::set));
    let endpoint = sink();
    let client = |compression| {
        let builder = Client::builder("PROJECT_TOKEN").endpoint(&endpoint);
        builder.compression(compression).build().unwrap()
    };
    let plain = client(Compression::None);
    let gzip = client(Compression::gzip(1));
    let agent = ureq::Agent::new_with_defaults();
    let url = format!("{endpoint}/groups?ip=0&strict=1&verbose=1");
    let mut body = Vec::new();
    let mut packed = Vec::new();
    let mut by_hand = |compressed: bool| {
        for _ in 0..REQUESTS {
            encode_by_hand(&mut body, &companies, |company| &company.id);
            let mut request = agent.post(&url).content_type("application/json");
            let mut send = &body;
            if compressed {
                packed.clear();
                let level = flate2::Compression::fast();
                let mut encoder = flate2::write::GzEncoder::new(&mut packed, level);
                encoder.write_all(&body).unwrap();
                encoder.finish().unwrap();
                request = request.header("Content-Encoding", "gzip");
                send = &packed;
            }
            let mut response = request.send(&send[..]).unwrap();
            assert_eq!(response.body_mut().read_to_string().unwrap(), "1");
        }
    };
    let updates = REQUESTS * BATCH;
    let by_hand = std::cell::RefCell::new(&mut by_hand);
    let [ours, theirs] = best_of_few([
        &mut || assert_eq!(plain.send(all()).unwrap().accepted, updates),
        &mut || (by_hand.borrow_mut())(false),
    ]);
    row(
        "end to end, one connection, ns an update",
        ours,
        theirs,
        updates,
        0.6,
    );
    let [ours, theirs] = best_of_few([
        &mut || assert_eq!(gzip.send(all()).unwrap().accepted, updates),
        &mut || (by_hand.borrow_mut())(true),
    ]);
    row(
        "end to end, gzip level 1, ns an update",
        ours,
        theirs,
        updates,
        0.9,
    );
}

/// The cost of one update among a thousand, among ten thousand and among a million.
fn flatness() {
    let companies: Vec<_> = (0..1_000).map(company).collect();
    let client = Client::builder("PROJECT_TOKEN")
        .endpoint(sink())
        .build()
        .unwrap();
    let send = |times: usize| {
        let updates = (0..times).flat_map(|_| companies.iter().map(MixpanelGroup::set));
        assert_eq!(client.send(updates).unwrap().accepted, times * 1_000);
    };
    let [one, ten] = best_of([&mut || send(1), &mut || send(10)]);
    let [million] = best_of_few([&mut || send(1_000)]);
    for (what, part) in [
        (
            "a million updates, beside 1,000 times a thousand",
            one * 1_000,
        ),
        (
            "a million updates, beside 100 times ten thousand",
            ten * 100,
        ),
    ] {
        row(what, million, part, 1_000_000, 1.1);
    }
}

/// A server that responds `1` to whatever comes.
fn sink() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || drop(swallow(stream)));
        }
    });
    format!("http://{address}")
}

fn swallow(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 1 << 18];
    let mut filled = 0;
    loop {
        let head = loop {
            if let Some(end) = buffer[..filled].windows(4).position(|w| w == b"\r\n\r\n") {
                break end + 4;
            }
            match stream.read(&mut buffer[filled..])? {
                0 => return Ok(()),
                read => filled += read,
            }
        };
        let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
        let length = text
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let mut left: usize = length
            .and_then(|length| length.trim().parse().ok())
            .unwrap_or(0);
        left -= (filled - head).min(left);
        filled = 0;
        while left > 0 {
            match stream.read(&mut buffer)? {
                0 => return Ok(()),
                read => left -= read.min(left),
            }
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1")?;
    }
}

/// The best time of each, taken in turns.
fn best_of<const N: usize>(runs: [&mut dyn FnMut(); N]) -> [Duration; N] {
    best(runs, 300)
}

fn best_of_few<const N: usize>(runs: [&mut dyn FnMut(); N]) -> [Duration; N] {
    best(runs, 12)
}

fn best<const N: usize>(mut runs: [&mut dyn FnMut(); N], rounds: usize) -> [Duration; N] {
    let mut best = [Duration::MAX; N];
    for _ in 0..rounds {
        for (run, best) in runs.iter_mut().zip(&mut best) {
            let start = Instant::now();
            run();
            *best = start.elapsed().min(*best);
        }
    }
    best
}

fn row(what: &str, ours: Duration, baseline: Duration, updates: usize, target: f64) {
    let [ours, baseline] = [ours, baseline].map(|time| time.as_secs_f64() * 1e9 / updates as f64);
    println!(
        "{what:<58} {ours:>9.0} {baseline:>9.0} {:>6.2} {target:>7.2}",
        ours / baseline
    );
}

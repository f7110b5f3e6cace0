//! A soak: `just soak MINUTES SEED ENGINE`. Publishers and three relays are processes over one outbox, killed, paused and
//! started again; the server fails, and a database crashes. At the end nothing that was acknowledged is lost, each
//! group's updates arrived in order, and its last value is the last one. It uses the public interface alone.
//!
//! The gate runs a few seconds of it with SQLite. `ENGINE` is `sqlite` or `postgres`.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{env, io, thread};

use common::{Chance, again, say};
use mixpanel_groups::buffered::BufferedClientBuilder;
use mixpanel_groups::outbox::Capacity;
use mixpanel_groups::{Client, EncodedUpdate, Group, Outbox};
use mixpanel_groups_emulator::{Emulator, Fault};
use mixpanel_groups_postgres::PostgresOutbox;
use mixpanel_groups_sqlite::{Durability, SqliteOutbox};
use postgres::{Config, NoTls};
use serde_json::{Value, json};

const PUBLISHERS: usize = 2;
const RELAYS: usize = 3;
/// The groups of each publisher.
const GROUPS: usize = 24;

// How a process is told what to do.
const ROLE: &str = "SOAK_ROLE";
const ENGINE: &str = "SOAK_ENGINE";
const ENDPOINT: &str = "SOAK_ENDPOINT";

/// Where the outbox is, as text for other processes.
#[derive(Clone)]
enum Engine {
    Sqlite(String),
    /// The connection string and the schema.
    Postgres(String, String),
}

impl Engine {
    fn read(text: &str) -> Self {
        match text.split_once('|') {
            Some((config, schema)) => Self::Postgres(config.to_owned(), schema.to_owned()),
            None => Self::Sqlite(text.to_owned()),
        }
    }

    fn write(&self) -> String {
        match self {
            Self::Sqlite(path) => path.clone(),
            Self::Postgres(config, schema) => format!("{config}|{schema}"),
        }
    }

    fn sqlite(path: &str) -> SqliteOutbox {
        // Nobody cuts the power here.
        SqliteOutbox::open_with(path, Durability::Normal).unwrap()
    }

    fn postgres(config: &str, schema: &str) -> PostgresOutbox {
        let config: Config = config.parse().unwrap();
        let outbox = PostgresOutbox::builder(config, NoTls).schema(schema);
        outbox.build().unwrap()
    }

    fn open(&self) -> Box<dyn Outbox> {
        match self {
            Self::Sqlite(path) => Box::new(Self::sqlite(path)),
            Self::Postgres(config, schema) => Box::new(Self::postgres(config, schema)),
        }
    }

    fn with(&self, builder: BufferedClientBuilder) -> BufferedClientBuilder {
        match self {
            Self::Sqlite(path) => builder.outbox(Self::sqlite(path)),
            Self::Postgres(config, schema) => builder.outbox(Self::postgres(config, schema)),
        }
    }

    /// Lets the database crash, if it is a process of its own. Returns whether it did.
    fn crash(&self) -> bool {
        let Self::Postgres(config, _) = self else {
            return false;
        };
        let Ok(mut client) = postgres::Client::connect(config, NoTls) else {
            return false;
        };
        // Where one process of the server is killed, it ends all others and recovers.
        let sql = "SELECT pid FROM pg_stat_activity
                   WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() LIMIT 1";
        let Ok(Some(row)) = client.query_opt(sql, &[]) else {
            return false;
        };
        signal("-KILL", &row.get::<_, i32>(0).to_string())
    }
}

fn signal(signal: &str, process: &str) -> bool {
    let kill = Command::new("kill").args([signal, process]).status();
    kill.is_ok_and(|status| status.success())
}

fn relay(engine: &Engine) {
    let client = Client::builder("TOKEN")
        .endpoint(env::var(ENDPOINT).unwrap())
        .timeout(Duration::from_secs(1))
        .build()
        .unwrap();
    // Each number is to arrive.
    let buffered = client.buffered().coalesce(false);
    let buffered = buffered.flush_interval(Duration::from_millis(20));
    let _buffered = engine.with(buffered).start().unwrap();
    wait_for_the_end();
}

/// Waits until this process is killed, or its parent has ended.
fn wait_for_the_end() {
    drop(io::stdin().read(&mut [0]));
}

/// Publishes number after number for each group, from those on that the parent names.
fn publisher(engine: &Engine, number: usize) {
    let outbox = engine.open();
    let mut line = String::new();
    io::stdin().read_line(&mut line).unwrap();
    let mut next: Vec<u64> = serde_json::from_str(&line).unwrap();
    thread::spawn(|| {
        wait_for_the_end();
        std::process::exit(0);
    });
    for group in (0..GROUPS).cycle() {
        let id = format!("{number}-{group}");
        let update = Group::new("company", id).set(json!({"number": next[group]}));
        let update = EncodedUpdate::new(&update).unwrap().unwrap();
        // Before and after: the parent knows what may be there and what must.
        say("try", format!("{group} {}", next[group]));
        let no_limit = Capacity::new(usize::MAX, usize::MAX);
        if let Ok(true) = outbox.append(&[update], no_limit) {
            say("done", format!("{group} {}", next[group]));
        }
        next[group] += 1;
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
#[ignore = "run by other tests"]
fn soak_process() {
    let Ok(role) = env::var(ROLE) else { return };
    let engine = Engine::read(&env::var(ENGINE).unwrap());
    match role.strip_prefix("publisher ") {
        Some(number) => publisher(&engine, number.parse().unwrap()),
        None => relay(&engine),
    }
}

fn start(role: &str, engine: &Engine, emulator: &Emulator) -> Child {
    again(soak_process)
        .envs([(ROLE, role), (ENGINE, &engine.write())])
        .env(ENDPOINT, emulator.endpoint())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What is known of a group.
#[derive(Clone, Copy, Default)]
struct Known {
    /// The last number of which the outbox said that it is there, and the last that may be.
    acknowledged: u64,
    tried: u64,
}

type Said = Arc<Mutex<BTreeMap<String, (Known, Vec<u64>)>>>;

/// Starts a publisher, and a thread that notes what it says.
fn start_publisher(
    number: usize,
    engine: &Engine,
    emulator: &Emulator,
    said: &Said,
) -> (Child, JoinHandle<()>) {
    let mut child = start(&format!("publisher {number}"), engine, emulator);
    let of = move |group: &str| format!("{number}-{group}");
    let next: Vec<u64> = {
        let said = said.lock().unwrap();
        let tried = |group: usize| {
            said.get(&of(&group.to_string()))
                .map_or(0, |(known, _)| known.tried)
        };
        (0..GROUPS).map(|group| tried(group) + 1).collect()
    };
    let line = serde_json::to_string(&next).unwrap() + "\n";
    child
        .stdin
        .as_mut()
        .unwrap()
        .write_all(line.as_bytes())
        .unwrap();
    let lines = common::said(&mut child);
    let said = Arc::clone(said);
    let reader = thread::spawn(move || {
        for (word, rest) in lines {
            let Some((group, update)) = rest.split_once(' ') else {
                continue; // It was killed in the middle of the line.
            };
            let update: u64 = update.parse().unwrap();
            let mut said = said.lock().unwrap();
            let (known, acknowledged) = said.entry(of(group)).or_default();
            if word == "try" {
                known.tried = update;
            } else {
                known.acknowledged = update;
                acknowledged.push(update);
            }
        }
    });
    (child, reader)
}

fn stop(child: &mut Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// What the server has applied: of each group its numbers, in the order of their first arrival.
#[derive(Default)]
struct Arrived {
    groups: BTreeMap<String, Vec<u64>>,
    requests: usize,
    repeated: usize,
}

impl Arrived {
    /// Reads the requests since the last call, before the emulator forgets them.
    fn read(&mut self, emulator: &Emulator) {
        for request in emulator.requests() {
            if request.number < self.requests {
                continue;
            }
            assert_eq!(
                request.number, self.requests,
                "the emulator forgot one unread"
            );
            self.requests += 1;
            let records: Vec<Value> = serde_json::from_str(&request.body).unwrap_or_default();
            if request.accepted != records.len() {
                continue; // Nothing of it was applied.
            }
            for record in records {
                let group = record["$group_id"].as_str().unwrap().to_owned();
                let number = record["$set"]["number"].as_u64().unwrap();
                let numbers = self.groups.entry(group).or_default();
                match numbers.binary_search(&number) {
                    Ok(_) => self.repeated += 1,
                    Err(at) if at == numbers.len() => numbers.push(number),
                    Err(_) => panic!(
                        "{number} arrived for the first time after {:?}",
                        numbers.last()
                    ),
                }
            }
        }
    }
}

/// A fault that ends.
fn fault(chance: &mut Chance) -> Fault {
    match chance.below(6) {
        0 => Fault::Status(500),
        1 => Fault::RetryAfter {
            status: 429,
            after: "1".to_owned(),
        },
        2 => Fault::CloseBefore,
        3 => Fault::CloseAfter,
        4 => Fault::Html,
        _ => Fault::Delay(chance.millis(900)),
    }
}

#[derive(Debug, Default)]
#[allow(dead_code)] // It is printed.
struct Counts {
    acknowledged: usize,
    arrived: usize,
    repeated: usize,
    requests: usize,
    relays_killed: usize,
    relays_paused: usize,
    publishers_killed: usize,
    faults: usize,
    database_crashes: usize,
}

fn soak(engine: &Engine, time: Duration, seed: u64) -> Counts {
    let mut chance = Chance::new(seed);
    let emulator = Emulator::start().unwrap();
    let said = Said::default();
    let mut counts = Counts::default();
    let mut publishers: Vec<_> = (0..PUBLISHERS)
        .map(|number| start_publisher(number, engine, &emulator, &said))
        .collect();
    let mut relays: Vec<_> = (0..RELAYS)
        .map(|_| start("relay", engine, &emulator))
        .collect();
    let is_over = AtomicBool::new(false);
    let mut arrived = Arrived::default();
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                arrived.read(&emulator);
                thread::sleep(Duration::from_millis(10));
            }
        });
        let started = Instant::now();
        while started.elapsed() < time && !reader.is_finished() {
            thread::sleep(chance.millis(400));
            let relay = chance.below(RELAYS);
            match chance.below(12) {
                0..3 => {
                    stop(&mut relays[relay]);
                    relays[relay] = start("relay", engine, &emulator);
                    counts.relays_killed += 1;
                }
                3..5 => {
                    let process = relays[relay].id().to_string();
                    signal("-STOP", &process);
                    // The others are killed meanwhile, so that a paused one has a successor.
                    thread::sleep(chance.millis(3_000));
                    signal("-CONT", &process);
                    counts.relays_paused += 1;
                }
                5 => {
                    let number = chance.below(PUBLISHERS);
                    let (mut child, reader) = publishers.remove(number);
                    stop(&mut child);
                    reader.join().unwrap();
                    publishers.insert(number, start_publisher(number, engine, &emulator, &said));
                    counts.publishers_killed += 1;
                }
                6 => counts.database_crashes += usize::from(engine.crash()),
                _ => {
                    emulator.fail_next(fault(&mut chance));
                    counts.faults += 1;
                }
            }
        }
        // Publishing ends; one relay of this process sends what is left.
        for (mut child, reader) in publishers.drain(..) {
            stop(&mut child);
            reader.join().unwrap();
        }
        relays.iter_mut().for_each(stop);
        emulator.recover();
        let client = Client::builder("TOKEN").endpoint(emulator.endpoint());
        let last = client.build().unwrap().buffered().coalesce(false);
        let last = engine.with(last).start().unwrap();
        let outcome = last.shutdown(Duration::from_secs(120));
        is_over.store(true, Ordering::Relaxed);
        reader.join().unwrap();
        assert!(outcome.is_complete(), "{outcome:?}");
    });
    arrived.read(&emulator);
    counts.requests = arrived.requests;
    counts.repeated = arrived.repeated;
    let nothing = Vec::new();
    for (group, (known, acknowledged)) in &*said.lock().unwrap() {
        let numbers = arrived.groups.get(group).unwrap_or(&nothing);
        counts.acknowledged += acknowledged.len();
        counts.arrived += numbers.len();
        let lost: Vec<_> = acknowledged
            .iter()
            .filter(|number| numbers.binary_search(number).is_err())
            .collect();
        assert!(lost.is_empty(), "{group}: {lost:?} were lost");
        let profile = emulator.profile("company", group);
        let value = profile
            .as_ref()
            .and_then(|profile| profile.get("number")?.as_u64());
        assert_eq!(
            value,
            numbers.last().copied(),
            "{group}: an older value is the last one"
        );
        assert!(value.unwrap_or_default() >= known.acknowledged, "{group}");
    }
    assert!(counts.acknowledged > 0, "nothing was published");
    counts
}

fn sqlite(folder: &Path) -> Engine {
    let path = folder.join("outbox.db");
    drop(SqliteOutbox::open(&path).unwrap());
    Engine::Sqlite(path.to_str().unwrap().to_owned())
}

#[test]
fn a_short_soak_of_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let counts = soak(&sqlite(folder.path()), Duration::from_secs(5), 1);
    println!("{counts:#?}");
}

/// `just soak MINUTES SEED ENGINE`.
#[test]
#[ignore = "takes minutes: `just soak`"]
fn a_long_soak() {
    let variable = |name: &str, default: &str| env::var(name).unwrap_or(default.to_owned());
    let minutes: f64 = variable("MINUTES", "5").parse().unwrap();
    let seed = variable("SEED", "1").parse().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let engine = match &*variable("ENGINE", "sqlite") {
        "sqlite" => sqlite(folder.path()),
        "postgres" => {
            let Some(config) = common::postgres::server::connection_string() else {
                return;
            };
            let schema = format!("soak_{}", std::process::id());
            let mut client = postgres::Client::connect(&config, NoTls).unwrap();
            client
                .batch_execute(&format!("CREATE SCHEMA {schema}"))
                .unwrap();
            Engine::postgres(&config, &schema).migrate().unwrap();
            Engine::Postgres(config, schema)
        }
        engine => panic!("ENGINE {engine:?}: expected sqlite or postgres"),
    };
    let counts = soak(&engine, Duration::from_secs_f64(minutes * 60.0), seed);
    println!("{counts:#?}");
}

//! Relays that are killed, connections that are cut, a server that fails, transactions that roll
//! back: whatever was committed arrives, updates in order and events once, and nothing else.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use std::{env, io, thread};

use mixpanel_groups::{Client, Event, Group, Outbox, RetryPolicy};
use mixpanel_groups_emulator::{Emulator, Fault};
use postgres::{Config, NoTls};
use serde_json::{Value, json};

use common::postgres::{Harness, outbox};
use common::{Chance, again, eventually};

const GROUPS: usize = 20;
const PUBLISHERS: usize = 4;
const RELAYS: usize = 3;
const ROUNDS: usize = 60;
/// After so many rounds all must have arrived.
const ROUNDS_A_CHECK: usize = 10;

/// How the relay's process is told what to do.
const CONFIG: &str = "CRASH_TEST_CONFIG";
const SCHEMA: &str = "CRASH_TEST_SCHEMA";
const ENDPOINT: &str = "CRASH_TEST_ENDPOINT";
const FOLD: &str = "CRASH_TEST_FOLD";

/// No test: what the crash test runs in processes of their own.
#[test]
#[ignore = "run by other tests"]
fn relay_process() {
    let variable = |name| env::var(name).expect("set by the crash test");
    let mut config: Config = variable(CONFIG).parse().unwrap();
    config.application_name(&variable(SCHEMA));
    let client = Client::builder("TOKEN")
        .endpoint(variable(ENDPOINT))
        .retry(RetryPolicy::default())
        // As long as that, another relay sends nothing after one that was killed.
        .timeout(Duration::from_secs(1))
        .build()
        .unwrap();
    let relay = client
        .buffered()
        .flush_interval(Duration::from_millis(100))
        .coalesce(variable(FOLD) == "true")
        .outbox(outbox(&config, &variable(SCHEMA)))
        .start()
        .unwrap();
    // Until it is killed, or the test ends.
    drop(io::stdin().read(&mut [0]));
    drop(relay.shutdown(Duration::ZERO));
}

/// What all share. The connections of the relays and the publishers are called after the schema.
struct Scene {
    harness: Harness,
    connection_string: String,
    emulator: Emulator,
    publishing: AtomicBool,
    failing: AtomicBool,
    over: AtomicBool,
    next_number: AtomicU64,
    /// Publishers at work.
    busy: AtomicU64,
}

fn start_relay(
    harness: &Harness,
    connection_string: &str,
    emulator: &Emulator,
    coalesce: bool,
) -> Child {
    again(relay_process)
        .env(CONFIG, connection_string)
        .env(SCHEMA, &harness.schema)
        .env(ENDPOINT, emulator.endpoint())
        .env(FOLD, coalesce.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// A relay that waits to repeat a request and is paused sends nothing when it goes on: another one has taken over.
#[test]
fn a_relay_that_was_paused_overwrites_nothing() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let connection_string = common::postgres::server::connection_string().unwrap();
    let [refuses, accepts] = [(); 2].map(|()| Emulator::start().unwrap());
    refuses.fail_always(Fault::Status(503));
    let publish = |seats: u64| {
        let update = common::postgres::seats("acme", seats);
        harness
            .outbox
            .publish_in(&mut harness.client(), update)
            .unwrap();
    };
    publish(1);
    let mut paused = start_relay(&harness, &connection_string, &refuses, true);
    eventually("sent", || !refuses.requests().is_empty());
    let signal = |signal: &str| {
        let id = paused.id().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &id])
                .status()
                .unwrap()
                .success()
        );
    };
    signal("-STOP");
    publish(2);
    let mut other = start_relay(&harness, &connection_string, &accepts, true);
    let is_empty = || harness.outbox.depth().unwrap().updates == 0;
    eventually("sent by the other", is_empty);
    // What the first one had taken was not settled, so the other sent it, too.
    assert_eq!(
        accepts.profile("company", "acme").unwrap(),
        json!({"seats": 2})
    );
    drop(other.stdin.take());
    other.wait().unwrap();
    refuses.recover();
    let before = refuses.requests().len();
    signal("-CONT");
    // It lives, and sends what comes now, and that alone.
    publish(3);
    eventually("sent by the first", is_empty);
    assert_eq!(
        refuses.profile("company", "acme").unwrap(),
        json!({"seats": 3})
    );
    assert_eq!(refuses.requests().len(), before + 1);
    drop(paused.stdin.take());
    paused.wait().unwrap();
}

impl Scene {
    fn start_relay(&self, index: usize) -> Child {
        start_relay(
            &self.harness,
            &self.connection_string,
            &self.emulator,
            index > 0,
        )
    }

    /// Changes rows and publishes that, until the end; a failed transaction is one that did not
    /// happen, or, if its connection was cut, one that the history tells of.
    fn publish(&self, mut chance: Chance) {
        let mut client = None;
        while !self.over.load(Ordering::Relaxed) {
            self.busy.fetch_add(1, Ordering::SeqCst);
            if self.publishing.load(Ordering::SeqCst) {
                let connected = client.take().or_else(|| {
                    let mut config = self.harness.config.clone();
                    let config = config.application_name(&self.harness.schema);
                    config.connect(NoTls).ok()
                });
                client = connected.and_then(|mut client| {
                    self.transact(&mut client, &mut chance).ok()?;
                    Some(client)
                });
            }
            self.busy.fetch_sub(1, Ordering::SeqCst);
            thread::sleep(chance.millis(4));
        }
    }

    fn transact(
        &self,
        client: &mut postgres::Client,
        chance: &mut Chance,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let first = chance.below(GROUPS);
        let (mut updates, mut events) = (Vec::new(), Vec::new());
        let mut transaction = client.transaction()?;
        for group in first..GROUPS.min(first + 1 + chance.below(3)) {
            let id = format!("group_{group:02}");
            let number = self.next_number.fetch_add(1, Ordering::Relaxed);
            let as_text = number.to_string();
            let schema = &self.harness.schema;
            let version = transaction.query_one(
                &format!(
                    "UPDATE {schema}.company SET version = version + 1 WHERE id = $1 \
                     RETURNING version"
                ),
                &[&id],
            )?;
            let version: i64 = version.get(0);
            transaction.execute(
                &format!("INSERT INTO {schema}.history VALUES ($1, $2, $3)"),
                &[&id, &version, &as_text],
            )?;
            let group = Group::new("company", id);
            let event = Event::new("Changed").distinct_id("user").group(&group);
            events.push(event.insert_id(format!("change-{as_text}")));
            updates.push(group.set(json!({"last": as_text})));
            updates.push(group.union(json!({"all": [as_text]})));
        }
        if chance.below(2) == 0 {
            let outbox = &self.harness.outbox;
            outbox.publish_all_in(&mut transaction, &updates)?;
        } else {
            for update in &updates {
                self.harness.outbox.publish_in(&mut transaction, update)?;
            }
        }
        self.harness
            .outbox
            .publish_all_in(&mut transaction, &events)?;
        thread::sleep(chance.millis(3));
        if chance.below(4) == 0 {
            transaction.rollback()?;
        } else {
            transaction.commit()?;
        }
        Ok(())
    }

    /// Lets requests go wrong in every way, some of them.
    fn fail(&self, mut chance: Chance) {
        while !self.over.load(Ordering::Relaxed) {
            thread::sleep(chance.millis(200));
            if !self.failing.load(Ordering::Relaxed) {
                continue;
            }
            let after = |status| Fault::RetryAfter {
                status,
                after: "0".to_owned(),
            };
            self.emulator.fail_next(match chance.below(7) {
                0 => Fault::Status(503),
                1 => after(429),
                2 => Fault::Html,
                3 => Fault::CloseBefore,
                4 => Fault::CloseAfter,
                5 => Fault::CloseMidResponse,
                _ => Fault::Delay(chance.millis(400)),
            });
        }
    }

    /// Waits until all that was committed has been sent, and compares the profiles with the rows.
    fn check(&self) {
        self.publishing.store(false, Ordering::SeqCst);
        eventually("pauses", || self.busy.load(Ordering::SeqCst) == 0);
        self.failing.store(false, Ordering::Relaxed);
        self.emulator.recover();
        let events = self.harness.outbox.events().unwrap();
        eventually("empty", || {
            let updates = self.harness.outbox.depth().unwrap().updates;
            updates + events.depth().unwrap().updates == 0
        });
        let sql = "SELECT id, number FROM history ORDER BY id, version";
        let mut expected: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for row in self.harness.client().query(sql, &[]).unwrap() {
            expected.entry(row.get(0)).or_default().push(row.get(1));
        }
        let mut committed: Vec<&String> = expected.values().flatten().collect();
        committed.sort();
        let events = self.emulator.events();
        let mut arrived: Vec<_> = events
            .iter()
            .map(|event| event["properties"]["$insert_id"].as_str().unwrap())
            .map(|id| id.strip_prefix("change-").unwrap())
            .collect();
        arrived.sort_unstable();
        assert_eq!(arrived, committed, "each event once");
        let profiles = self.emulator.profiles().into_iter();
        let profiles: BTreeMap<_, _> = profiles
            .map(|((_, id), profile)| (id, serde_json::to_value(profile).unwrap()))
            .collect();
        let expected: BTreeMap<_, Value> = expected
            .into_iter()
            .map(|(id, all)| (id, json!({"last": all.last(), "all": all})))
            .collect();
        assert_eq!(profiles, expected);
        self.failing.store(true, Ordering::Relaxed);
        self.publishing.store(true, Ordering::SeqCst);
    }

    /// Ends a session of a relay or a publisher, as an administrator can.
    fn cut_a_connection(&self) {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                   WHERE application_name = $1 ORDER BY random() LIMIT 1";
        let mut client = self.harness.client();
        client.execute(sql, &[&self.harness.schema]).unwrap();
    }
}

/// Ends the threads also when the test fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn all_that_is_committed_arrives_in_order_and_nothing_else() {
    let Some(harness) = Harness::new() else {
        return;
    };
    harness
        .client()
        .batch_execute(&format!(
            "CREATE TABLE company (id text PRIMARY KEY, version bigint NOT NULL);
             CREATE TABLE history (id text, version bigint, number text);
             INSERT INTO company
                 SELECT format('group_%s', lpad(n::text, 2, '0')), 0
                 FROM generate_series(0, {GROUPS} - 1) AS n"
        ))
        .unwrap();
    let scene = Scene {
        connection_string: common::postgres::server::connection_string().unwrap(),
        harness,
        emulator: Emulator::start().unwrap(),
        publishing: AtomicBool::new(true),
        failing: AtomicBool::new(true),
        over: AtomicBool::new(false),
        next_number: AtomicU64::new(0),
        busy: AtomicU64::new(0),
    };
    let mut chance = Chance::new(0);
    let mut relays: Vec<_> = (0..RELAYS).map(|index| scene.start_relay(index)).collect();
    thread::scope(|scope| {
        let scene = &scene;
        let _end = End(&scene.over);
        for seed in 1..=PUBLISHERS {
            scope.spawn(move || scene.publish(Chance::new(seed.try_into().unwrap())));
        }
        scope.spawn(move || scene.fail(Chance::new(100)));
        for round in 1..=ROUNDS {
            thread::sleep(chance.millis(400));
            if chance.below(2) == 0 {
                let index = chance.below(RELAYS);
                relays[index].kill().unwrap();
                relays[index].wait().unwrap();
                relays[index] = scene.start_relay(index);
            } else {
                scene.cut_a_connection();
            }
            if round % ROUNDS_A_CHECK == 0 {
                scene.check();
            }
        }
    });
    // What a killed relay had taken is left alone until its lease ends; a relay that ends meanwhile does not wait for it.
    eventually("sent", || scene.harness.count("mixpanel_outbox") == 0);
    for mut relay in relays {
        drop(relay.stdin.take());
        relay.wait().unwrap();
    }
    let history = scene.harness.count("history");
    assert!(history > 500, "only {history} were committed");
    let numbers = scene.next_number.load(Ordering::Relaxed);
    assert!(i64::try_from(numbers).unwrap() > history, "no rollbacks");
    assert_eq!(scene.harness.count("mixpanel_outbox"), 0);
    assert_eq!(scene.harness.count("mixpanel_outbox_rejected"), 0);
}

//! The outbox in PostgreSQL: publishing inside transactions, from many threads and at the bound, relaying with one relay
//! and three that stand by, and how long an update takes from its commit to its acceptance.
//!
//! ```sh
//! cargo bench --bench postgres
//! ```
//!
//! Uses the server that `MIXPANEL_TEST_POSTGRES` names, or starts one in a temporary folder. Relays
//! send nothing (`Client::disabled`), so that this machine's cores are not a server's too.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::postgres::{self as harness, Harness, seats};
use mixpanel_groups::outbox::Capacity;
use mixpanel_groups::{BufferedClient, Client, Outbox as _};
use mixpanel_groups_emulator::Emulator;
use mixpanel_groups_postgres::PostgresOutbox;

const GROUPS: usize = 1_000;

fn main() {
    let Some(harness) = Harness::new() else {
        return;
    };
    publish(&harness);
    for relays in [1, 4] {
        relay(&harness, relays);
    }
    lag(&harness);
    append(&harness);
    bound(&harness);
}

/// One update an append, from threads that share transactions.
fn append(harness: &Harness) {
    const EACH: usize = 300;
    for threads in [1, 8] {
        let outbox = harness.another();
        let start = Instant::now();
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    for number in 0..EACH {
                        let update = [harness::encoded(&update(number))];
                        outbox.append(&update, harness::NO_LIMIT).unwrap();
                    }
                });
            }
        });
        let rate = (EACH * threads) as f64 / start.elapsed().as_secs_f64();
        println!("append, {threads} threads              {rate:>8.0} updates a second");
    }
    harness::drain(&harness.outbox);
}

/// Published one by one, dropping the oldest at the bound or not, with that much waiting.
fn bound(harness: &Harness) {
    const UPDATES: usize = 2_000;
    for waiting in [0, 100_000, 1_000_000] {
        let sql = format!(
            "TRUNCATE mixpanel_outbox; INSERT INTO mixpanel_outbox (body)
             SELECT json_build_object('$group_key', 'company', '$group_id', n::text, '$set', '{{\"seats\": 1}}'::json)
             FROM generate_series(1, {waiting}) AS n"
        );
        harness.client().batch_execute(&sql).unwrap();
        let outbox = harness.another();
        let capacity = Capacity::new(if waiting == 0 { 1_000_000 } else { waiting }, usize::MAX);
        let start = Instant::now();
        for number in 0..UPDATES {
            let update = [harness::encoded(&update(number))];
            while !outbox.append(&update, capacity).unwrap() {
                outbox.drop_oldest(1, update[0].len(), capacity).unwrap();
            }
        }
        let rate = UPDATES as f64 / start.elapsed().as_secs_f64();
        println!("append, {waiting:>7} waiting        {rate:>8.0} updates a second");
    }
}

fn update(number: usize) -> mixpanel_groups::Update<'static> {
    seats(&format!("group_{}", number % GROUPS), number as u64)
}

fn publish(harness: &Harness) {
    let mut client = harness.client();
    for (batch, updates) in [(1, 3_000), (100, 50_000), (1_000, 100_000)] {
        let start = Instant::now();
        for first in (0..updates).step_by(batch) {
            let mut transaction = client.transaction().unwrap();
            let some = (first..first + batch).map(update);
            harness
                .outbox
                .publish_all_in(&mut transaction, some)
                .unwrap();
            transaction.commit().unwrap();
        }
        let rate = updates as f64 / start.elapsed().as_secs_f64();
        println!("publish, {batch:>5} a transaction   {rate:>8.0} updates a second");
    }
    harness::drain(&harness.outbox);
}

fn fill(harness: &Harness, updates: usize) {
    let mut client = harness.client();
    for first in (0..updates).step_by(1_000) {
        let some = (first..first + 1_000).map(update);
        harness.outbox.publish_all_in(&mut client, some).unwrap();
    }
}

fn start(outbox: PostgresOutbox, client: &Client) -> BufferedClient {
    let buffered = client.buffered().outbox(outbox).coalesce(false);
    buffered
        .flush_interval(Duration::from_millis(20))
        .start()
        .unwrap()
}

fn relay(harness: &Harness, relays: usize) {
    const UPDATES: usize = 100_000;
    fill(harness, UPDATES);
    let begin = Instant::now();
    let relays: Vec<_> = (0..relays)
        .map(|_| start(harness.another(), &Client::disabled()))
        .collect();
    while harness.outbox.depth().unwrap().updates > 0 {
        thread::sleep(Duration::from_millis(5));
    }
    let rate = UPDATES as f64 / begin.elapsed().as_secs_f64();
    println!(
        "relay, {} relays                {rate:>8.0} updates a second",
        relays.len()
    );
    for relay in relays {
        drop(relay.shutdown(Duration::from_secs(5)));
    }
}

/// 1,000 updates a second for five seconds, each of a group of its own, over HTTP to an emulator.
fn lag(harness: &Harness) {
    const UPDATES: usize = 5_000;
    let emulator = Emulator::start().unwrap();
    let client = Client::builder("TOKEN")
        .endpoint(emulator.endpoint())
        .build()
        .unwrap();
    let relay = start(harness.another(), &client);
    let committed = Arc::new(Mutex::new(Vec::new()));
    let mut lags = Vec::new();
    thread::scope(|scope| {
        let its_committed = Arc::clone(&committed);
        scope.spawn(move || {
            let mut client = harness.client();
            let begin = Instant::now();
            for number in (0..UPDATES).step_by(10) {
                let due = Duration::from_millis(number as u64);
                thread::sleep(due.saturating_sub(begin.elapsed()));
                let some = (number..number + 10).map(|n| seats(&format!("lag_{n}"), n as u64));
                harness.outbox.publish_all_in(&mut client, some).unwrap();
                its_committed.lock().unwrap().push((number, Instant::now()));
            }
        });
        let mut waiting: Vec<(usize, Instant)> = Vec::new();
        while lags.len() < UPDATES / 10 {
            waiting.append(&mut committed.lock().unwrap());
            waiting.retain(|(number, since)| {
                let has_arrived = emulator
                    .profile("company", &format!("lag_{number}"))
                    .is_some();
                if has_arrived {
                    lags.push(since.elapsed());
                }
                !has_arrived
            });
            thread::sleep(Duration::from_millis(1));
        }
    });
    lags.sort_unstable();
    let (median, p99) = (lags[lags.len() / 2], lags[lags.len() * 99 / 100]);
    println!("lag at 1,000 a second          {median:>8.1?} median, {p99:.1?} p99");
    drop(relay.shutdown(Duration::from_secs(5)));
}

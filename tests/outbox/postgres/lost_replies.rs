//! Statements whose replies are lost, and statements that the server executes late: the relay does not believe that it holds
//! what the database has given to another.

use std::process::Command;
use std::thread;
use std::time::Duration;

use mixpanel_groups::Outbox;
use mixpanel_groups_postgres::PostgresOutbox;
use postgres::NoTls;

use common::eventually;
use common::postgres::server::is_ours;
use common::postgres::{Harness, NO_LIMIT, Proxy, ids, outbox, read, stored};

const REQUEST: Duration = Duration::from_secs(30);

/// Nothing, if the server is not one of this machine.
fn local_server() -> Option<Harness> {
    Harness::new().filter(|_| is_ours("what becomes of replies that are lost"))
}

fn append(harness: &Harness, number: u64) {
    let update = [stored("acme", number)];
    assert!(harness.outbox.append(&update, NO_LIMIT).unwrap());
}

fn numbers(outbox: &PostgresOutbox) -> Vec<u64> {
    let taken = outbox.take(10).unwrap();
    read(&taken).into_iter().map(|(_, number)| number).collect()
}

/// An outbox with the updates 1 and 2, a relay behind a proxy that has taken and holds them, and another relay.
fn start(harness: &Harness) -> (Proxy, PostgresOutbox, PostgresOutbox, Vec<i64>) {
    append(harness, 1);
    append(harness, 2);
    let proxy = Proxy::start(&harness.config, Duration::ZERO);
    let one = outbox(&proxy.config(&harness.config), &harness.schema);
    let taken = ids(&one.take(10).unwrap());
    assert!(one.hold(REQUEST).unwrap());
    (proxy, one, harness.another(), taken)
}

#[test]
fn a_relay_does_not_send_after_its_last_settle_whose_reply_is_lost() {
    let Some(harness) = local_server() else {
        return;
    };
    let (proxy, one, other, taken) = start(&harness);
    proxy.lose_a_reply();
    assert!(one.settle(&taken, &[]).is_err());
    append(&harness, 3);
    eventually("takes what the first one has released", || {
        numbers(&other) == [3]
    });
    assert!(other.hold(REQUEST).unwrap());
    assert!(!one.hold(REQUEST).unwrap());
    assert_eq!(numbers(&one), [0; 0]);
    assert!(!one.hold(REQUEST).unwrap());
}

#[test]
fn a_relay_goes_on_after_a_settle_of_some_whose_reply_is_lost() {
    let Some(harness) = local_server() else {
        return;
    };
    let (proxy, one, other, taken) = start(&harness);
    proxy.lose_a_reply();
    assert!(one.settle(&taken[..1], &[]).is_err());
    eventually("goes on", || numbers(&one) == [2]);
    assert_eq!(numbers(&other), [0; 0]);
    assert!(one.hold(REQUEST).unwrap());
    one.settle(&taken[1..], &[]).unwrap();
    append(&harness, 3);
    assert_eq!(numbers(&other), [3]);
}

#[test]
fn a_relay_takes_and_holds_again_after_a_reply_that_is_lost() {
    let Some(harness) = local_server() else {
        return;
    };
    let (proxy, one, other, _) = start(&harness);
    one.release().unwrap();
    proxy.lose_a_reply();
    assert!(one.take(10).is_err());
    assert_eq!(numbers(&one), [1, 2]);
    proxy.lose_a_reply();
    assert!(one.hold(REQUEST).is_err());
    assert!(one.hold(REQUEST).unwrap());
    assert_eq!(numbers(&other), [0; 0]);
    proxy.lose_a_reply();
    assert!(one.release().is_err());
    eventually("is released", || numbers(&other) == [1, 2]);
    assert_eq!(numbers(&one), [0; 0]);
    assert!(!one.hold(REQUEST).unwrap());
}

/// A relay that waits for a second at most, and whose connection has the name of the schema.
fn impatient(harness: &Harness) -> PostgresOutbox {
    let mut config = harness.config.clone();
    config.application_name(&harness.schema);
    PostgresOutbox::builder(config, NoTls)
        .schema(&harness.schema)
        .timeout(Duration::from_secs(1))
        .build()
        .unwrap()
}

/// The server's process of such a relay's connection.
struct Backend(String);

impl Backend {
    fn of(harness: &Harness) -> Self {
        let sql = "SELECT pid::text FROM pg_stat_activity WHERE application_name = $1";
        let row = harness.client().query_one(sql, &[&harness.schema]);
        Self(row.unwrap().get(0))
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.0]).status();
        assert!(status.unwrap().success());
    }

    fn stop(&self) {
        self.signal("-STOP");
    }

    /// Lets it execute what it got, and waits until it has.
    fn go_on(&self, harness: &Harness) {
        self.signal("-CONT");
        let mut client = harness.client();
        eventually("has executed it", || {
            let sql = "SELECT FROM pg_stat_activity WHERE pid::text = $1";
            client.query(sql, &[&self.0]).unwrap().is_empty()
        });
    }
}

/// The relay has what it holds for longer than any lease that it has not asked for.
fn keeps_its_lease(harness: &Harness, one: &PostgresOutbox) {
    let other = harness.another();
    for _ in 0..15 {
        assert_eq!(numbers(&other), [0; 0]);
        thread::sleep(Duration::from_millis(100));
    }
    assert!(one.hold(REQUEST).unwrap());
}

/// A statement that the relay gave up neither ends nor shortens the lease that it has taken since.
#[test]
fn a_statement_that_is_executed_late_does_not_end_a_later_lease() {
    let Some(harness) = local_server() else {
        return;
    };
    for late in ["settle", "release", "take"] {
        append(&harness, 1);
        let one = impatient(&harness);
        let taken = ids(&one.take(10).unwrap());
        assert!(one.hold(REQUEST).unwrap());
        if late == "take" {
            one.release().unwrap();
        }
        let backend = Backend::of(&harness);
        backend.stop();
        let given_up = match late {
            "settle" => one.settle(&taken, &[]),
            "release" => one.release(),
            _ => one.take(10).map(drop),
        };
        assert!(given_up.is_err());
        eventually("takes again", || {
            one.take(10).is_ok_and(|taken| taken.len() == 1)
        });
        assert!(one.hold(REQUEST).unwrap());
        backend.go_on(&harness);
        append(&harness, 2);
        keeps_its_lease(&harness, &one);
        assert_eq!(numbers(&one), [1, 2], "{late}");
        one.settle(&ids(&one.take(10).unwrap()), &[]).unwrap();
        drop(one);
        let mut client = harness.client();
        let sql = "SELECT FROM pg_stat_activity WHERE application_name = $1";
        eventually("has ended", || {
            client.query(sql, &[&harness.schema]).unwrap().is_empty()
        });
    }
}

/// Nor does one that holds for a shorter time.
#[test]
fn a_hold_that_is_executed_late_does_not_shorten_the_lease() {
    let Some(harness) = local_server() else {
        return;
    };
    append(&harness, 1);
    let one = impatient(&harness);
    assert_eq!(numbers(&one), [1]);
    let backend = Backend::of(&harness);
    backend.stop();
    assert!(one.hold(Duration::from_secs(1)).is_err());
    eventually("holds", || one.hold(REQUEST).is_ok_and(|is_held| is_held));
    backend.go_on(&harness);
    keeps_its_lease(&harness, &one);
}

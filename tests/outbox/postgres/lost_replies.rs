//! Statements whose replies are lost, and statements that the server executes late: the relay does not believe that it holds
//! what the database has given to another.

use std::process::Command;
use std::time::Duration;

use mixpanel_groups::Outbox;
use mixpanel_groups_postgres::PostgresOutbox;
use postgres::NoTls;

use common::eventually;
use common::postgres::{Harness, NO_LIMIT, Proxy, ids, outbox, read, stored};

const REQUEST: Duration = Duration::from_secs(30);

/// Nothing, if the server is not one of this machine.
fn local_server() -> Option<Harness> {
    let is_elsewhere = std::env::var_os(common::postgres::server::VARIABLE).is_some();
    Harness::new().filter(|_| !is_elsewhere)
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

/// A statement that the relay gave up does not end the lease that it has taken since.
#[test]
fn a_statement_that_is_executed_late_does_not_end_a_later_lease() {
    let Some(harness) = local_server() else {
        return;
    };
    let mut client = harness.client();
    for is_settle in [true, false] {
        append(&harness, 1);
        let mut config = harness.config.clone();
        config.application_name(&harness.schema);
        let one = PostgresOutbox::builder(config, NoTls)
            .schema(&harness.schema)
            .timeout(Duration::from_secs(1))
            .build()
            .unwrap();
        let taken = ids(&one.take(10).unwrap());
        assert!(one.hold(REQUEST).unwrap());
        let sql = "SELECT pid FROM pg_stat_activity WHERE application_name = $1";
        let pid: i32 = client.query_one(sql, &[&harness.schema]).unwrap().get(0);
        let signal = |signal: &str| {
            let pid = pid.to_string();
            let status = Command::new("kill").args([signal, &pid]).status();
            assert!(status.unwrap().success());
        };
        signal("-STOP");
        let given_up = if is_settle {
            one.settle(&taken, &[])
        } else {
            one.release()
        };
        assert!(given_up.is_err());
        eventually("takes again", || {
            one.take(10).is_ok_and(|taken| taken.len() == 1)
        });
        assert!(one.hold(REQUEST).unwrap());
        signal("-CONT");
        eventually("has executed it", || {
            let sql = "SELECT FROM pg_stat_activity WHERE pid = $1";
            client.query(sql, &[&pid]).unwrap().is_empty()
        });
        append(&harness, 2);
        assert_eq!(numbers(&harness.another()), [0; 0]);
        assert!(one.hold(REQUEST).unwrap());
        assert_eq!(numbers(&one), [1, 2]);
        one.settle(&ids(&one.take(10).unwrap()), &[]).unwrap();
        drop(one);
        let sql = "SELECT FROM pg_stat_activity WHERE application_name = $1";
        eventually("has ended", || {
            client.query(sql, &[&harness.schema]).unwrap().is_empty()
        });
    }
}

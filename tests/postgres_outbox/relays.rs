//! Who sends what: shares, locks, lost connections, news.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mixpanel_groups::{Client, Group, Outbox, RetryPolicy};
use mixpanel_groups_emulator::{Emulator, Fault};
use mixpanel_groups_postgres::PostgresOutbox;
use serde_json::json;

use crate::harness::{Harness, NO_LIMIT, drain, eventually, ids, outbox, read, seats, stored};

/// Ends the sessions that hold partitions, as an administrator can; how many those were.
fn cut_relays(harness: &Harness) -> i64 {
    let sql = "SELECT count(pg_terminate_backend(pid)) FROM (
                   SELECT DISTINCT pid FROM mixpanel_outbox_partitions WHERE pid IS NOT NULL
               ) AS relays";
    harness.client().query_one(sql, &[]).unwrap().get(0)
}

fn publish(harness: &Harness, groups: u64) {
    let updates: Vec<_> = (0..groups)
        .map(|number| stored(&format!("group_{number}"), number))
        .collect();
    assert!(harness.outbox.append(&updates, NO_LIMIT).unwrap());
}

#[test]
fn a_group_is_with_one_relay_at_a_time() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let (one, other) = (harness.another(), harness.another());
    harness
        .outbox
        .append(&[stored("acme", 1)], NO_LIMIT)
        .unwrap();
    let taken = one.take(10).unwrap();
    harness
        .outbox
        .append(&[stored("acme", 2)], NO_LIMIT)
        .unwrap();
    assert!(other.take(10).unwrap().is_empty());
    one.settle(&ids(&taken), &[]).unwrap();
    assert!(other.take(10).unwrap().is_empty());
    one.release().unwrap();
    let next = other.take(10).unwrap();
    assert_eq!(read(&next), [("acme".to_owned(), 2)]);
}

#[test]
fn relays_share_the_partitions() {
    let Some(harness) = Harness::new() else {
        return;
    };
    publish(&harness, 2000);
    let relays = [harness.another(), harness.another(), harness.another()];
    // Once, to be counted.
    for relay in &relays {
        relay.take(1).unwrap();
        relay.release().unwrap();
    }
    std::thread::sleep(Duration::from_millis(1100)); // until they count again
    let mut seen = BTreeSet::new();
    for relay in &relays {
        let taken = relay.take(10_000).unwrap();
        assert!((300..=900).contains(&taken.len()), "{}", taken.len());
        for id in ids(&taken) {
            assert!(seen.insert(id), "{id} is with two");
        }
    }
    assert!(seen.len() > 1900, "{}", seen.len());
}

/// Two relays, and one update that waits for them.
fn two_relays_and_an_update(
    harness: &Harness,
    grace: Duration,
) -> (PostgresOutbox, PostgresOutbox) {
    let update = [stored("acme", 1)];
    harness.outbox.append(&update, NO_LIMIT).unwrap();
    (harness.with_grace(grace), harness.with_grace(grace))
}

#[test]
fn what_a_lost_relay_had_is_left_alone_for_the_grace() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let grace = Duration::from_millis(700);
    let (one, other) = two_relays_and_an_update(&harness, grace);
    let taken = one.take(10).unwrap();
    assert_eq!(taken.len(), 1);
    let cut = Instant::now();
    assert_eq!(cut_relays(&harness), 1);
    eventually("taken over", || !other.take(10).unwrap().is_empty());
    assert!(cut.elapsed() >= grace, "{:?}", cut.elapsed());
    // What the first knows by now is settled all the same, and not sent again after that.
    one.settle(&ids(&taken), &[]).unwrap();
    assert!(one.take(10).unwrap().is_empty());
    other.release().unwrap();
    assert!(drain(&other).is_empty());
}

#[test]
fn a_successor_takes_nothing_before_the_last_request_of_a_lost_relay_can_have_ended() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let grace = Duration::from_millis(1);
    let (one, other) = two_relays_and_an_update(&harness, grace);
    assert_eq!(one.take(10).unwrap().len(), 1);
    let request = Duration::from_millis(1_500);
    assert!(one.hold(request).unwrap());
    let held = Instant::now();
    assert_eq!(cut_relays(&harness), 1);
    eventually("taken over", || !other.take(10).unwrap().is_empty());
    assert!(held.elapsed() >= request, "{:?}", held.elapsed());
    // The first one starts no request from now on.
    assert!(!one.hold(Duration::from_millis(1)).unwrap_or(false));
}

#[test]
fn what_was_given_back_after_its_requests_ended_waits_for_the_grace_alone() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let grace = Duration::from_millis(1);
    let (one, other) = two_relays_and_an_update(&harness, grace);
    assert_eq!(one.take(10).unwrap().len(), 1);
    assert!(one.hold(Duration::from_secs(3_600)).unwrap());
    one.release().unwrap();
    eventually("taken over", || !other.take(10).unwrap().is_empty());
}

/// Gave it back without knowing what became of it: others wait, itself it knows.
#[test]
fn what_was_given_back_unsettled_is_left_alone_by_others() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let grace = Duration::from_millis(700);
    let (one, other) = two_relays_and_an_update(&harness, grace);
    for _ in 0..3 {
        assert_eq!(one.take(10).unwrap().len(), 1);
        one.release().unwrap();
    }
    let start = Instant::now();
    eventually("taken over", || !other.take(10).unwrap().is_empty());
    assert!(start.elapsed() >= grace, "{:?}", start.elapsed());
}

#[test]
fn what_was_settled_can_be_taken_over_at_once() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let hour = Duration::from_secs(3600);
    let (one, other) = (harness.with_grace(hour), harness.with_grace(hour));
    publish(&harness, 100);
    let taken = one.take(1000).unwrap();
    assert_eq!(taken.len(), 100);
    one.settle(&ids(&taken), &[]).unwrap();
    assert_eq!(cut_relays(&harness), 1);
    publish(&harness, 100);
    let mut sent = 0;
    eventually("taken over", || {
        sent += drain(&other).len();
        sent == 100
    });
}

#[test]
fn the_relay_is_told_of_commits_and_of_a_lost_connection() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let mut config = harness.config.clone();
    config.application_name(&harness.schema);
    let relay = outbox(&config, &harness.schema, Duration::ZERO);
    let count = || Arc::new(AtomicUsize::new(0));
    let (news, losses) = (count(), count());
    let (its_news, its_losses) = (Arc::clone(&news), Arc::clone(&losses));
    relay.on_append(Arc::new(move || {
        its_news.fetch_add(1, Ordering::Relaxed);
    }));
    relay.on_loss(Arc::new(move || {
        its_losses.fetch_add(1, Ordering::Relaxed);
    }));
    eventually("listens", || news.load(Ordering::Relaxed) > 0);
    let before = news.load(Ordering::Relaxed);
    let mut client = harness.client();
    let mut transaction = client.transaction().unwrap();
    let outbox = &harness.outbox;
    outbox
        .publish_in(&mut transaction, seats("acme", 1))
        .unwrap();
    transaction.rollback().unwrap();
    outbox.publish_in(&mut client, seats("acme", 2)).unwrap();
    eventually("told", || news.load(Ordering::Relaxed) > before);
    assert_eq!(relay.take(10).unwrap().len(), 1);
    assert_eq!(losses.load(Ordering::Relaxed), 0);
    assert_eq!(cut_relays(&harness), 1);
    eventually("lost", || losses.load(Ordering::Relaxed) == 1);
    assert_eq!(relay.take(10).unwrap().len(), 1);

    // The connection that listens is opened again, too.
    let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
               WHERE application_name = $1";
    let cut: i64 = client.query_one(sql, &[&harness.schema]).unwrap().get(0);
    assert_eq!(cut, 2);
    let before = news.load(Ordering::Relaxed);
    eventually("listens again", || news.load(Ordering::Relaxed) > before);
    let before = news.load(Ordering::Relaxed);
    outbox.publish_in(&mut client, seats("acme", 3)).unwrap();
    eventually("told again", || news.load(Ordering::Relaxed) > before);
    // It ends with the outbox.
    drop(relay);
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1";
    eventually("ends", || {
        let left: i64 = client.query_one(sql, &[&harness.schema]).unwrap().get(0);
        left == 0
    });
}

fn client(emulator: &Emulator, retry: RetryPolicy) -> Client {
    Client::builder("TOKEN")
        .endpoint(emulator.endpoint())
        .retry(retry)
        .build()
        .unwrap()
}

fn relay(emulator: &Emulator, outbox: PostgresOutbox) -> mixpanel_groups::BufferedClient {
    client(emulator, RetryPolicy::default())
        .buffered()
        .flush_interval(Duration::from_millis(200))
        .outbox(outbox)
        .start()
        .unwrap()
}

/// A relay whose connection is cut while it tries and tries again stops; the next one goes on, and
/// nothing of the first comes later.
#[test]
fn a_relay_that_lost_its_connection_stops_sending() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let (cut_off, working) = (Emulator::start().unwrap(), Emulator::start().unwrap());
    cut_off.fail_always(Fault::Status(503));
    harness
        .outbox
        .append(&[stored("acme", 1)], NO_LIMIT)
        .unwrap();
    // Woken once when it begins to listen; then it does not compete with the other.
    let one = client(&cut_off, RetryPolicy::default())
        .buffered()
        .flush_interval(Duration::from_secs(3600))
        .outbox(harness.with_grace(Duration::from_secs(2)))
        .start()
        .unwrap();
    eventually("sent", || !cut_off.requests().is_empty());
    let cut = Instant::now();
    assert_eq!(cut_relays(&harness), 1);
    let other = relay(&working, harness.with_grace(Duration::from_secs(2)));
    eventually("sent by one of them", || {
        working.profile("company", "acme").is_some() || cut.elapsed() > Duration::from_secs(30)
    });
    let stops = one.shutdown(Duration::from_secs(5));
    assert_eq!(stops.stats.accepted, 0);
    let drained = other.shutdown(Duration::from_secs(30));
    assert!(drained.is_complete(), "{drained:?}");
    assert_eq!(
        working.profile("company", "acme").unwrap(),
        json!({"seats": 1})
    );
}

#[test]
fn what_a_client_publishes_arrives_in_order() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let emulator = Emulator::start().unwrap();
    let relays = [(); 2].map(|()| relay(&emulator, harness.another()));
    for number in 0..300 {
        let group = Group::new("company", format!("group_{}", number % 7));
        let update = group.union(json!({"all": [number]}));
        relays[number % 2].publish(update).unwrap();
    }
    eventually("empty", || harness.outbox.depth().unwrap().updates == 0);
    for relay in relays {
        assert!(relay.shutdown(Duration::from_secs(30)).is_complete());
    }
    for group in 0..7 {
        let profile = emulator.profile("company", &format!("group_{group}"));
        let all: Vec<_> = (0..300).filter(|number| number % 7 == group).collect();
        assert_eq!(profile.unwrap(), json!({"all": all}));
    }
}

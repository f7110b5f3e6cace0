//! A database that is silent: every call ends all the same, and once the database responds, all continues.

use std::net::TcpListener;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use mixpanel_groups::buffered::OverflowPolicy;
use mixpanel_groups::{BufferedClient, Client, ErrorKind, Group, Outbox};
use mixpanel_groups_emulator::Emulator;
use mixpanel_groups_postgres::PostgresOutbox;
use postgres::{Config, NoTls};

use common::postgres::{Harness, NO_LIMIT, drain, stored};
use common::{eventually, is_own_process};

use crate::warnings::Warnings;

/// Far more than all timeouts of the tests together, and far less than forever.
const SOON: Duration = Duration::from_secs(20);

fn impatient(config: &Config, schema: &str) -> PostgresOutbox {
    let mut config = config.clone();
    config.application_name(schema);
    PostgresOutbox::builder(config, NoTls)
        .schema(schema)
        .timeout(Duration::from_secs(1))
        .build()
        .unwrap()
}

/// Calls everything, and asserts that each call ends.
fn every_call_ends(outbox: &PostgresOutbox, buffered: &BufferedClient) {
    let ends = |what: &str, call: &dyn Fn()| {
        let start = Instant::now();
        call();
        assert!(start.elapsed() < SOON, "{what}: {:?}", start.elapsed());
    };
    let update = [stored("acme", 1)];
    ends("append", &|| {
        let error = outbox.append(&update, NO_LIMIT).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
    });
    ends("take", &|| drop(outbox.take(1).unwrap_err()));
    ends("depth", &|| drop(outbox.depth().unwrap_err()));
    ends("drop_oldest", &|| {
        drop(outbox.drop_oldest(1, 1, NO_LIMIT).unwrap_err())
    });
    ends("publish", &|| {
        let error = buffered.publish(Group::new("company", "acme").delete());
        let error = error.unwrap_err();
        assert_eq!(
            (error.kind(), error.undelivered().len()),
            (ErrorKind::Timeout, 1)
        );
    });
    ends("publish, at once", &|| {
        // They wait for each other, but not one after the other.
        thread::scope(|scope| {
            for _ in 0..50 {
                scope.spawn(|| outbox.append(&update, NO_LIMIT).unwrap_err());
            }
        });
    });
    ends("stats", &|| assert_eq!(buffered.stats().queued, None));
    ends("flush", &|| {
        let flushed = buffered.flush(Duration::from_secs(1));
        assert!(!flushed.is_complete());
    });
    ends("shutdown", &|| {
        let shut_down = buffered.shutdown(Duration::from_secs(1));
        assert!(!shut_down.is_complete());
    });
}

fn start(outbox: &PostgresOutbox) -> BufferedClient {
    let client = Client::builder("TOKEN").endpoint("http://127.0.0.1:9");
    let buffered = client.build().unwrap().buffered();
    buffered
        .flush_interval(Duration::from_secs(3_600))
        .overflow(OverflowPolicy::Reject)
        .outbox(outbox.clone())
        .start()
        .unwrap()
}

/// A server that accepts connections and says nothing, and how to reach it.
fn silent() -> (TcpListener, Config) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut config = Config::new();
    config.host("127.0.0.1").port(port).user("u");
    (listener, config)
}

#[test]
fn a_server_that_accepts_and_says_nothing() {
    let (_silent, config) = silent();
    let outbox = impatient(&config, "public");
    every_call_ends(&outbox, &start(&outbox));
    let start = Instant::now();
    drop(outbox);
    assert!(start.elapsed() < SOON);
}

#[test]
fn a_timeout_below_a_millisecond_is_not_zero() {
    const TIMEOUT: Duration = Duration::from_micros(500);
    let (_silent, config) = silent();
    let builder = PostgresOutbox::builder(config.clone(), NoTls);
    let built = builder.timeout(TIMEOUT).build().unwrap();
    let set = PostgresOutbox::new(config, NoTls).unwrap();
    assert!(set.set_timeout(TIMEOUT));
    for outbox in [built, set] {
        let error = outbox.take(1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(error.to_string().contains("within 500µs"), "{error}");
    }
}

/// The connect timeout ends before that of the call.
#[test]
fn a_server_that_is_too_slow_to_connect_to() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = Config::new();
    config
        .host("127.0.0.1")
        .port(silent.local_addr().unwrap().port())
        .user("u")
        .connect_timeout(Duration::from_millis(100));
    let builder = PostgresOutbox::builder(config, NoTls).timeout(SOON);
    let error = builder.build().unwrap().take(1).unwrap_err();
    assert!(error.is_timeout(), "{error:#}");
    assert!(error.to_string().contains("connect"), "{error}");
}

#[test]
fn a_table_that_is_locked() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let outbox = impatient(&harness.config, &harness.schema);
    outbox.append(&[stored("acme", 0)], NO_LIMIT).unwrap();
    let buffered = start(&outbox);
    let mut administrator = harness.client();
    let mut transaction = administrator.transaction().unwrap();
    transaction
        .batch_execute(
            // In the order of the relay, which may be taking.
            "LOCK TABLE mixpanel_outbox_lease, mixpanel_outbox, mixpanel_outbox_count IN ACCESS EXCLUSIVE MODE",
        )
        .unwrap();
    every_call_ends(&outbox, &buffered);
    // None of them waits on in the server.
    let mut observer = harness.client();
    let waiting = "SELECT count(*) FROM pg_stat_activity
                   WHERE application_name = $1 AND wait_event_type = 'Lock'";
    eventually("cancelled", || {
        let row = observer.query_one(waiting, &[&harness.schema]).unwrap();
        row.get::<_, i64>(0) == 0
    });
    transaction.rollback().unwrap();
    keeps_working(&outbox);
}

/// A shutdown asks for it at its end, where there may be no time or no right to connect once more.
#[test]
fn the_depth_needs_no_other_connection_while_the_relay_is_idle() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let outbox = harness.another();
    assert!(outbox.append(&[stored("acme", 0)], NO_LIMIT).unwrap());
    assert_eq!(outbox.take(1).unwrap().len(), 1);
    outbox.release().unwrap();
    let mut observer = harness.client();
    let mut connections = || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1";
        let row = observer.query_one(sql, &[&harness.schema]).unwrap();
        row.get::<_, i64>(0)
    };
    let before = connections();
    assert_eq!(outbox.depth().unwrap().updates, 1);
    assert_eq!(connections(), before);
}

#[test]
fn a_backend_that_is_stopped() {
    let Some(harness) = Harness::new() else {
        return;
    };
    if !common::postgres::server::is_ours("a backend that is stopped") {
        return;
    }
    let outbox = impatient(&harness.config, &harness.schema);
    outbox.append(&[stored("acme", 0)], NO_LIMIT).unwrap();
    let buffered = start(&outbox);
    // The last of it is the hold before the first request, and for events the correction of their counts.
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1 AND state = 'idle'
               AND query ~ 'WITH held|advisory.*''event'''";
    eventually("has taken, after it has begun to listen", || {
        let row = harness.client().query_one(sql, &[&harness.schema]);
        row.unwrap().get::<_, i64>(0) == 2
    });
    outbox.take(1).unwrap();
    let sql = "SELECT pid::text FROM pg_stat_activity WHERE application_name = $1";
    let rows = harness.client().query(sql, &[&harness.schema]).unwrap();
    let pids: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(
        pids.len(),
        4,
        "one to publish, two to relay updates and events, and that of this clone"
    );
    let signal = |signal: &str| {
        let status = Command::new("kill").arg(signal).args(&pids).status();
        assert!(status.unwrap().success());
    };
    signal("-STOP");
    // A new connection is opened after the one that failed, and is not stopped.
    for call in [
        &(|| drop(outbox.append(&[stored("acme", 1)], NO_LIMIT).unwrap_err())) as &dyn Fn(),
        &|| drop(outbox.hold(Duration::from_secs(3_600)).unwrap_err()),
    ] {
        let start = Instant::now();
        call();
        assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    }
    eventually("reconnected", || {
        outbox.append(&[stored("acme", 1)], NO_LIMIT).is_ok()
    });
    assert!(!buffered.shutdown(Duration::from_secs(1)).is_complete());
    signal("-CONT");
    keeps_working(&outbox);
}

/// Everything works, with what was published while it did not, or without.
fn keeps_working(outbox: &PostgresOutbox) {
    eventually("responds", || {
        outbox.append(&[stored("acme", 2)], NO_LIMIT).is_ok()
    });
    // One whose `append` failed may have been committed at any time, also late, or not.
    let mut sent = drain(outbox);
    sent.retain(|(_, number)| *number != 1);
    assert_eq!(sent, [("acme".to_owned(), 0), ("acme".to_owned(), 2)]);
}

/// What counts may fail, and publishing does not, nor is each transaction a line of the log.
#[test]
fn a_count_that_fails_does_not_fail_the_publish() {
    // In a process of its own, which has one logger.
    if !is_own_process(a_count_that_fails_does_not_fail_the_publish, &[]) {
        return;
    }
    let warnings = Warnings::keep();
    let Some(harness) = Harness::new() else {
        return;
    };
    let mut role = harness.config.clone();
    role.user(&harness.schema);
    let schema = &harness.schema;
    let mut client = harness.client();
    client
        .batch_execute(&format!(
            "CREATE ROLE {schema} LOGIN; GRANT USAGE ON SCHEMA {schema} TO {schema};
             GRANT EXECUTE ON FUNCTION mixpanel_outbox_publish(text[], boolean) TO {schema}"
        ))
        .unwrap();
    // This role may not count.
    let outbox = impatient(&role, schema);
    drop(outbox.depth().unwrap_err());
    let capacity = mixpanel_groups::outbox::Capacity::new(1, 10_000);
    let start = Instant::now();
    let numbers = 1..=10;
    for number in numbers.clone() {
        assert!(outbox.append(&[stored("acme", number)], capacity).unwrap());
    }
    let minutes = usize::try_from(start.elapsed().as_secs() / 60).unwrap();
    let lines = warnings.lines();
    let of_capacity = |line: &&String| line.contains("without checking the capacity");
    let logged = lines.iter().filter(of_capacity).count();
    assert!((1..=1 + minutes).contains(&logged), "{lines:?}");
    let published = numbers.map(|number| ("acme".to_owned(), number));
    assert_eq!(drain(&harness.outbox), published.collect::<Vec<_>>());
    drop(outbox);
    client
        .batch_execute(&format!("DROP OWNED BY {schema}; DROP ROLE {schema}"))
        .unwrap();
}

/// What counts may take longer than a call has, and is not tried before each one.
#[test]
fn a_count_that_is_slow_does_not_fail_the_publish() {
    const CALLS: i64 = 100;
    let Some(harness) = Harness::new() else {
        return;
    };
    let schema = &harness.schema;
    let slow = format!(
        "CREATE SEQUENCE counted;
         CREATE FUNCTION slowly() RETURNS boolean LANGUAGE plpgsql AS
             'BEGIN PERFORM nextval(''{schema}.counted''), pg_sleep(3600); RETURN true; END';
         ALTER TABLE mixpanel_outbox_count RENAME TO counts;
         INSERT INTO counts (kind, updates, bytes) VALUES ('update', 0, 0);
         CREATE VIEW mixpanel_outbox_count AS
             SELECT kind, updates, bytes FROM counts WHERE slowly()"
    );
    harness.client().batch_execute(&slow).unwrap();
    let outbox = harness.another();
    // Less than a measurement may take.
    assert!(outbox.set_timeout(Duration::from_millis(400)));
    let capacity = mixpanel_groups::outbox::Capacity::new(1_000_000, usize::MAX);
    for number in 0..CALLS {
        let update = [stored("acme", number.unsigned_abs())];
        eventually("published", || {
            outbox
                .append(&update, capacity)
                .is_ok_and(|is_appended| is_appended)
        });
    }
    let sql = "SELECT last_value FROM counted";
    let counted: i64 = harness.client().query_one(sql, &[]).unwrap().get(0);
    assert!(counted < CALLS, "{counted}");
}

/// A failing database does not keep a client from being dropped.
#[test]
fn a_drop_ends() {
    let (_silent, config) = silent();
    let emulator = Emulator::start().unwrap();
    let client = Client::builder("TOKEN").endpoint(emulator.endpoint());
    let buffered = client.build().unwrap().buffered();
    let buffered = buffered
        .drop_timeout(Duration::from_millis(100))
        .outbox(impatient(&config, "public"))
        .start()
        .unwrap();
    let start = Instant::now();
    drop(buffered);
    assert!(start.elapsed() < SOON);
}

/// Nothing is said about a lease where no database could give one.
#[test]
fn a_database_that_was_never_reached_has_no_lease() {
    // In a process of its own, which has one logger.
    if !is_own_process(a_database_that_was_never_reached_has_no_lease, &[]) {
        return;
    }
    let warnings = Warnings::keep();
    let (silent, config) = silent();
    drop(impatient(&config, "public").take(1).unwrap_err());
    drop(silent);
    drop(impatient(&config, "public").take(1).unwrap_err());
    assert_eq!(warnings.lines(), [""; 0]);
}

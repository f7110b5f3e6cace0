//! Inside tokio and outside: from any thread, every call works, and nothing panics in a drop.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use mixpanel_groups::{Client, ErrorKind, Group, Outbox};
use mixpanel_groups_emulator::Emulator;
use mixpanel_groups_postgres::PostgresOutbox;
use postgres::{Config, NoTls};
use serde_json::json;
use tokio::runtime::{Builder, Runtime};

use common::is_own_process;
use common::postgres::{Harness, NO_LIMIT, drain, ids, seats, stored};

fn runtimes() -> [Runtime; 2] {
    let mut one_thread = Builder::new_current_thread();
    let mut many = Builder::new_multi_thread();
    [
        one_thread.build().unwrap(),
        many.worker_threads(2).build().unwrap(),
    ]
}

#[test]
fn every_call_works_within_a_runtime() {
    for runtime in runtimes() {
        let Some(harness) = Harness::new() else {
            return;
        };
        let emulator = Emulator::start().unwrap();
        runtime.block_on(async {
            let outbox = harness.another();
            outbox.migrate().unwrap();
            assert!(outbox.append(&[stored("acme", 1)], NO_LIMIT).unwrap());
            let taken = outbox.take(10).unwrap();
            assert!(outbox.hold(Duration::from_secs(1)).unwrap());
            outbox.settle(&ids(&taken), &[]).unwrap();
            outbox.release().unwrap();
            assert_eq!(outbox.drop_oldest(1, 1, NO_LIMIT).unwrap(), 0);
            assert_eq!(outbox.depth().unwrap().updates, 0);
            drop(outbox);

            let client = Client::builder("TOKEN").endpoint(emulator.endpoint());
            let buffered = client.build().unwrap().buffered();
            let buffered = buffered.outbox(harness.another()).start().unwrap();
            let acme = Group::new("company", "acme");
            buffered.publish(acme.set(json!({"seats": 2}))).unwrap();
            assert!(buffered.flush(Duration::from_secs(30)).is_complete());
            assert_eq!(buffered.stats().queued, Some(0));
            buffered.publish(acme.set(json!({"seats": 3}))).unwrap();
            assert!(buffered.shutdown(Duration::from_secs(30)).is_complete());
            let buffered = client_of(&emulator)
                .outbox(harness.another())
                .start()
                .unwrap();
            buffered.publish(acme.set(json!({"seats": 4}))).unwrap();
            drop(buffered);
        });
        let profile = emulator.profile("company", "acme").unwrap();
        assert_eq!(profile, json!({"seats": 4}));
    }
}

fn client_of(emulator: &Emulator) -> mixpanel_groups::buffered::BufferedClientBuilder {
    let client = Client::builder("TOKEN").endpoint(emulator.endpoint());
    client.build().unwrap().buffered()
}

#[test]
fn publishing_is_awaited_in_any_runtime_and_shares_transactions() {
    const TASKS: u64 = 200;
    for runtime in runtimes() {
        let Some(harness) = Harness::new() else {
            return;
        };
        let outbox = harness.another();
        runtime.block_on(async {
            let tasks: Vec<_> = (0..TASKS)
                .map(|number| {
                    let outbox = outbox.clone();
                    tokio::spawn(async move {
                        let update = seats(&format!("group_{number}"), number);
                        outbox.publish_async([update]).await
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap().unwrap();
            }
            // What is not sent is nobody's transaction.
            outbox
                .publish_async([Group::new("company", "acme").set(json!({}))])
                .await
                .unwrap();
            let invalid = outbox.publish_async([seats("acme", 1), seats("", 1)]).await;
            let kind = invalid.unwrap_err().kind();
            assert_eq!(kind, mixpanel_groups::ErrorKind::InvalidUpdate);
        });
        let sql = "SELECT count(DISTINCT xmin::text) FROM mixpanel_outbox";
        let transactions: i64 = harness.client().query_one(sql, &[]).unwrap().get(0);
        assert!(transactions < 100, "{transactions}");
        assert_eq!(drain(&outbox).len(), 200);
    }
}

/// Threads that publish one by one are committed in groups.
#[test]
fn threads_share_transactions() {
    const THREADS: u64 = 8;
    const EACH: u64 = 50;
    let Some(harness) = Harness::new() else {
        return;
    };
    let outbox = harness.another();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let outbox = &outbox;
            scope.spawn(move || {
                for number in 0..EACH {
                    let update = [stored(&format!("group_{thread}"), number)];
                    assert!(outbox.append(&update, NO_LIMIT).unwrap());
                }
            });
        }
    });
    let sql = "SELECT count(DISTINCT xmin::text) FROM mixpanel_outbox";
    let transactions: i64 = harness.client().query_one(sql, &[]).unwrap().get(0);
    assert!(transactions < 300, "{transactions}");
    assert_eq!(drain(&outbox).len(), 400);
}

/// The runtime may be one that is being shut down, and the drop may be that of a panic.
#[test]
fn a_drop_panics_nowhere() {
    let Some(harness) = Harness::new() else {
        return;
    };
    for runtime in runtimes() {
        let outbox = harness.another();
        outbox.append(&[stored("acme", 1)], NO_LIMIT).unwrap();
        assert_eq!(outbox.take(1).unwrap().len(), 1);
        runtime.spawn(async move {
            let _outbox = outbox;
            std::future::pending::<()>().await;
        });
        drop(runtime);
        let outbox = harness.another();
        assert!(!outbox.take(1).unwrap().is_empty(), "released by the drop");
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _outbox = outbox;
            panic!("meant");
        }));
        assert!(panicked.is_err());
    }
}

/// As at the limit of a process's threads.
#[test]
fn a_thread_that_cannot_be_started_is_an_error() {
    // With one thread for tests, which is the main thread.
    let no_stack = (1_u64 << 60).to_string();
    if is_own_process(
        a_thread_that_cannot_be_started_is_an_error,
        &[("RUST_MIN_STACK", &no_stack)],
    ) {
        let mut runtime = Builder::new_current_thread();
        runtime.build().unwrap().block_on(async {
            let outbox = PostgresOutbox::new(Config::new(), NoTls).unwrap();
            let error = outbox.depth().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Io);
            assert!(error.to_string().contains("thread"), "{error}");
        });
    }
}

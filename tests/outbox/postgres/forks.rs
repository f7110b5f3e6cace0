//! Processes that fork. Each test has a process of its own, since a fork also keeps the connections of other tests open.

use std::future::Future as _;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use mixpanel_groups::{Error, ErrorKind, Outbox};

use common::postgres::server::{VARIABLE, connection_string};
use common::postgres::{Harness, NO_LIMIT, drain, ids, seats, stored};
use common::{LONG, eventually, in_child, is_own_process};

/// An outbox in a process of its own, where a server runs.
fn start<F: Fn()>(test: F) -> Option<Harness> {
    let server = connection_string()?;
    is_own_process(test, &[(VARIABLE, &server)])
        .then(Harness::new)
        .flatten()
}

/// A holder's name is that of one process, also if the outbox was built before there were two.
#[test]
fn a_child_takes_nothing_that_its_parent_has_taken() {
    let Some(harness) = start(a_child_takes_nothing_that_its_parent_has_taken) else {
        return;
    };
    let update = [stored("acme", 1)];
    assert!(harness.outbox.append(&update, NO_LIMIT).unwrap());
    let outbox = harness.another();
    in_child(
        || {
            let held = "mixpanel_outbox_lease WHERE until > now() + interval '30 minutes'";
            eventually("held", || harness.count(held) == 1);
            for _ in 0..3 {
                let taken = outbox.take(1).unwrap_or_default();
                assert!(taken.is_empty(), "{taken:?}");
            }
        },
        || {
            assert_eq!(outbox.take(1).unwrap().len(), 1);
            assert!(outbox.hold(Duration::from_secs(3_600)).unwrap());
        },
    );
    assert!(outbox.hold(LONG).unwrap());
}

/// The thread of the connections is the parent's.
#[test]
fn in_a_child_each_call_of_the_parents_outbox_is_an_error() {
    let Some(harness) = start(in_a_child_each_call_of_the_parents_outbox_is_an_error) else {
        return;
    };
    let outbox = harness.another();
    let update = [stored("acme", 1)];
    assert!(outbox.append(&update, NO_LIMIT).unwrap());
    let taken = outbox.take(1).unwrap();
    let child = || {
        let mut publish = Box::pin(outbox.publish_async([seats("acme", 2)]));
        let published = match publish
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(published) => published,
            Poll::Pending => panic!("it waits for the thread"),
        };
        drop(publish);
        let events = outbox.events().unwrap();
        let calls: [Result<(), Error>; 9] = [
            published,
            outbox.append(&update, NO_LIMIT).map(drop),
            outbox.take(1).map(drop),
            outbox.settle(&ids(&taken), &[]),
            outbox.hold(LONG).map(drop),
            outbox.depth().map(drop),
            outbox.drop_oldest(1, 1, NO_LIMIT).map(drop),
            outbox.migrate(),
            events.take(1).map(drop),
        ];
        for error in calls.map(Result::unwrap_err) {
            assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
            assert!(error.to_string().contains("after the fork"), "{error}");
        }
        // This needs a connection of the application alone.
        let mut application = harness.client();
        outbox
            .publish_in(&mut application, seats("acme", 3))
            .unwrap();
    };
    in_child(child, || ());
    outbox.settle(&ids(&taken), &[]).unwrap();
    assert_eq!(drain(&outbox), [("acme".to_owned(), 3)]);
}

/// A connection that is dropped wakes the thread, which has locks for that.
#[test]
fn a_child_ends_whatever_its_parent_was_doing() {
    const CHILDREN: usize = 1_000;
    let Some(harness) = start(a_child_ends_whatever_its_parent_was_doing) else {
        return;
    };
    let outbox = harness.another();
    let update = [stored("acme", 1)];
    assert!(outbox.append(&update, NO_LIMIT).unwrap());
    assert_eq!(outbox.take(1).unwrap().len(), 1);
    // Nothing else has this handle. The events have the same thread, which is busy.
    let events = outbox.events().unwrap();
    let mut outbox = Some(outbox);
    for _ in 0..4 {
        let events = Arc::clone(&events);
        // Until the end of this process.
        thread::spawn(move || {
            while events.release().is_ok() {
                thread::yield_now();
            }
        });
    }
    for _ in 0..CHILDREN {
        in_child(|| drop(outbox.take()), || ());
    }
    assert!(outbox.unwrap().hold(LONG).unwrap());
}

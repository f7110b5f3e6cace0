//! Settings and hooks: values that make no sense, and hooks that change, withhold, panic and call the client.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use common::LONG;
use mixpanel_groups::{BufferedClient, Client, ErrorKind, Group};
use mixpanel_groups_emulator::{Emulator, Fault};
use serde_json::{Value, json};

use common::faulty::Faulty;

use super::buffered;

#[test]
fn background_settings_that_make_no_sense_are_errors() {
    let builder = || Client::disabled().buffered();
    let rows = [
        (
            builder().flush_interval(Duration::ZERO),
            "invalid flush_interval: it is zero",
        ),
        (
            builder().capacity(0, 1),
            "invalid capacity of 0 updates and 1 bytes: neither can be zero",
        ),
        (
            builder().capacity(1, 0),
            "invalid capacity of 1 updates and 0 bytes: neither can be zero",
        ),
    ];
    for (builder, expected) in rows {
        let error = builder.start().err().unwrap();
        assert_eq!(
            (error.kind(), &*error.to_string()),
            (ErrorKind::Config, expected)
        );
    }
}

#[test]
fn hooks_may_change_and_withhold_and_panic() {
    let emulator = Emulator::start().unwrap();
    let buffered = buffered(&emulator)
        .before_send(|update| {
            assert!(update["$group_id"] != "panic");
            if let Some(Value::Object(properties)) = update.get_mut("$set") {
                properties.remove("email");
            }
            update["$group_id"] != "secret"
        })
        .on_error(|_| panic!("a hook may panic"));
    let buffered = buffered.start().unwrap();
    let update = |id: &'static str| {
        Group::new("company", id).set(json!({"plan": "free", "email": "someone@example.com"}))
    };
    let bad = Group::new("$company_id", "bad")
        .in_company("other")
        .delete();
    buffered
        .publish_all([update("acme"), update("secret"), update("panic"), bad])
        .unwrap();
    buffered.publish(update("globex")).unwrap();
    let outcome = buffered.shutdown(LONG);
    assert!(outcome.is_complete());
    assert_eq!((outcome.stats.withheld, outcome.stats.rejected), (2, 1));
    assert_eq!(
        emulator.profile("company", "acme").unwrap(),
        json!({"plan": "free"})
    );
    assert_eq!(
        emulator.profile("company", "globex").unwrap(),
        json!({"plan": "free"})
    );
    assert_eq!(emulator.profiles().len(), 2);
}

#[test]
fn a_callback_may_call_what_fails() {
    let emulator = Emulator::start().unwrap();
    let outbox = Faulty::durable();
    outbox.faults.fail(&["depth"]);
    let slot: Arc<Mutex<Option<BufferedClient>>> = Arc::default();
    let (its_slot, calls) = (Arc::clone(&slot), Arc::new(AtomicUsize::new(0)));
    let its_calls = Arc::clone(&calls);
    let caller = thread::current().id();
    let buffered = buffered(&emulator).outbox(outbox).on_error(move |_| {
        thread_local!(static IS_CALLED: Cell<bool> = const { Cell::new(false) });
        assert!(
            !IS_CALLED.replace(true),
            "it is not called by what it calls"
        );
        // The worker may call it too, for the flush of this callback.
        if thread::current().id() == caller {
            its_calls.fetch_add(1, Ordering::SeqCst);
        }
        let buffered = its_slot.lock().unwrap().clone();
        if let Some(buffered) = buffered {
            assert_eq!(buffered.stats().queued, None);
            let _ = buffered.flush(Duration::ZERO);
        }
        IS_CALLED.set(false);
    });
    let buffered = buffered.start().unwrap();
    *slot.lock().unwrap() = Some(buffered.clone());
    assert_eq!(buffered.stats().queued, None);
    // A flush that it calls makes the worker look too, and report the same.
    assert!(calls.load(Ordering::SeqCst) >= 1);
    slot.lock().unwrap().take();
}

#[test]
fn events_are_one_line_of_text() {
    let emulator = Emulator::start().unwrap();
    (0..2).for_each(|_| emulator.fail_next(Fault::Status(503)));
    let lines = Arc::new(Mutex::new(Vec::new()));
    let its_lines = Arc::clone(&lines);
    let buffered = buffered(&emulator)
        .on_error(move |event| its_lines.lock().unwrap().push(event.to_string()));
    let buffered = buffered.start().unwrap();
    let bad = Group::new("$company_id", "bad")
        .in_company("other")
        .set(json!({"a": 1}));
    buffered.publish(bad).unwrap();
    assert!(buffered.shutdown(LONG).is_complete());
    let lines = lines.lock().unwrap();
    let failed = "updates keep waiting: ";
    assert!(
        lines[0].starts_with(failed) && lines[0].contains("503"),
        "{lines:?}"
    );
    assert_eq!(
        lines.last().unwrap(),
        "rejected $set of $company_id \"bad\": \"$company_id\": a company's $group_id must be its $company_id"
    );
}

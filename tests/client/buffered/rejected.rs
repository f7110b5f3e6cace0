//! Updates that cannot be sent: publishing refuses them or they are rejected and reported, and the others go on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{LONG, eventually};
use mixpanel_groups::buffered::{DeliveryEvent, OverflowPolicy};
use mixpanel_groups::outbox::Capacity;
use mixpanel_groups::{Client, EncodedUpdate, ErrorKind, Group, MemoryOutbox, Outbox};
use mixpanel_groups_emulator::{Emulator, Fault};
use serde_json::{Value, json};

use super::{buffered, client, fill, set};

#[test]
fn an_update_that_a_firewall_dislikes_is_set_aside_and_the_others_go_on() {
    let emulator = Emulator::start().unwrap();
    for _ in 0..1_000 {
        emulator.fail_next(Fault::Firewall("<script>".to_owned()));
    }
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&told);
    let buffered = buffered(&emulator)
        .on_error(move |event| {
            if let DeliveryEvent::Rejected(json, rejection) = event {
                let rejected = (json.to_string(), rejection.to_string());
                tell.lock().unwrap().push(rejected);
            }
        })
        .start()
        .unwrap();
    fill(&buffered, 20);
    let acme = Group::new("company", "acme");
    buffered
        .publish(acme.set(json!({"name": "<script>"})))
        .unwrap();
    // The later update of the same group waits for it, and is sent then.
    buffered.publish(acme.unset(["plan"])).unwrap();
    let outcome = buffered.shutdown(Duration::from_secs(60));
    assert!(outcome.is_complete(), "{outcome:?}");
    assert_eq!((outcome.stats.accepted, outcome.stats.rejected), (21, 1));
    let told = told.lock().unwrap();
    let [(json, rejection)] = &told[..] else {
        panic!("{told:?}")
    };
    assert!(json.contains("<script>"), "{json}");
    assert!(
        rejection.contains("acme") && rejection.contains("others are accepted"),
        "{rejection}"
    );
    assert_eq!(emulator.profiles().len(), 20);
}

/// They are coalesced into one at first, of which it is not known which is the reason. Then it is known, once others are
/// accepted after it: without any, everything may be blocked.
#[test]
fn of_two_updates_that_were_coalesced_a_firewall_dislikes_one() {
    let emulator = Emulator::start().unwrap();
    emulator.fail_always(Fault::Firewall("<script>".to_owned()));
    let buffered = buffered(&emulator).start().unwrap();
    let acme = Group::new("company", "acme");
    let updates = [
        acme.set(json!({"name": "<script>"})),
        acme.set(json!({"seats": 1})),
    ];
    fill(&buffered, 20);
    buffered.publish_all(updates).unwrap();
    eventually("alone", || buffered.stats().accepted == 20);
    eventually("rejected", || {
        buffered.publish(set(1, 1)).unwrap();
        let outcome = buffered.flush(Duration::from_millis(100));
        outcome.stats.rejected == 1
    });
    assert!(buffered.shutdown(LONG).is_complete());
    let expected = json!({"seats": 1});
    assert_eq!(emulator.profile("company", "acme").unwrap(), expected);
}

#[test]
fn rejected_updates_are_reported_and_the_rest_is_sent() {
    let emulator = Emulator::start().unwrap();
    let notified = Arc::new(Mutex::new(Vec::new()));
    let its_notified = Arc::clone(&notified);
    let buffered = buffered(&emulator).on_error(move |event| {
        if let DeliveryEvent::Rejected(_, rejection) = event {
            let group = rejection.group().unwrap();
            its_notified
                .lock()
                .unwrap()
                .push((group.id().to_string(), rejection.message.clone()));
        }
    });
    let buffered = buffered.flush_interval(LONG).start().unwrap();
    // Valid as far as the client can check, but not for Mixpanel.
    let bad = Group::new("$company_id", "bad")
        .in_company("other")
        .set(json!({"a": 1}));
    buffered.publish_all([set(1, 1), bad, set(2, 2)]).unwrap();
    let outcome = buffered.shutdown(LONG);
    assert!(outcome.is_complete());
    assert_eq!((outcome.stats.accepted, outcome.stats.rejected), (2, 1));
    let notified = notified.lock().unwrap();
    assert_eq!(
        *notified,
        [(
            "bad".to_owned(),
            "a company's $group_id must be its $company_id".to_owned()
        )]
    );
}

#[test]
fn an_update_that_cannot_be_sent_is_an_error_at_once() {
    let emulator = Emulator::start().unwrap();
    let buffered = buffered(&emulator).start().unwrap();
    let error = buffered
        .publish(Group::new("company", "").delete())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidUpdate);
    buffered
        .publish(Group::new("company", "acme").set(json!({})))
        .unwrap();
    let large = Group::new("company", "acme").set(json!({"text": "x".repeat(1_000_000)}));
    let error = buffered.publish(large).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidUpdate);
    assert!(error.to_string().contains("acme"), "{error}");
    assert_eq!(buffered.stats().queued, Some(0), "nothing to do");
}

#[test]
fn many_at_once_with_some_that_do_nothing_or_are_wrong() {
    let emulator = Emulator::start().unwrap();
    let buffered = buffered(&emulator).start().unwrap();
    let nothing = (0..5_000).map(|id| Group::new("company", id).set(json!({})));
    buffered.publish_all(nothing.chain([set(1, 1)])).unwrap();
    assert_eq!(buffered.flush(LONG).stats.accepted, 1);

    let wrong = Group::new("company", "").delete();
    let error = buffered
        .publish_all([set(2, 2), wrong, set(3, 3)])
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidUpdate);
    assert_eq!(error.undelivered().len(), 2, "those are right");
    buffered.publish_all(error.undelivered()).unwrap();
    assert_eq!(buffered.shutdown(LONG).stats.accepted, 3);
}

/// The first one is the error; the others would be named nowhere.
#[test]
fn all_that_cannot_be_sent_is_named() {
    let emulator = Emulator::start().unwrap();
    let wrong = |id| Group::new("", id).delete();
    let full = buffered(&emulator).capacity(1, usize::MAX);
    let full = full.overflow(OverflowPolicy::Reject).start().unwrap();
    let error = full
        .publish_all([set(1, 1), set(2, 2), wrong("a"), wrong("b"), set(3, 3)])
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.undelivered().len()),
        (ErrorKind::Full, 2)
    );
    let text = error.to_string();
    assert!(text.contains("\"a\"") && text.contains("\"b\""), "{text}");

    let buffered = buffered(&emulator).start().unwrap();
    let many = (0..30).map(|id| Group::new("", id).delete());
    let error = buffered.publish_all(many.chain([set(4, 4)])).unwrap_err();
    assert_eq!(
        (error.kind(), error.undelivered().len()),
        (ErrorKind::InvalidUpdate, 1)
    );
    let text = error.to_string();
    assert!(
        text.contains("\"20\"") && !text.contains("\"21\""),
        "{text}"
    );
    assert!(
        text.contains("9 more cannot be sent: the log names them"),
        "{text}"
    );
}

#[test]
fn an_update_that_is_too_large_does_not_wait() {
    let emulator = Emulator::start().unwrap();
    let large = Group::new("company", "acme").set(json!({"text": "x".repeat(1_000_000)}));
    let buffered = buffered(&emulator).start().unwrap();
    let error = buffered.publish(&large).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidUpdate);
    let text = error.to_string();
    assert!(
        text.contains("company \"acme\"") && text.contains("the limit is 1000000"),
        "{text}"
    );
    let grown = |update: &mut serde_json::Map<String, Value>| {
        update["$set"] = json!({"text": "x".repeat(1_000_000)});
        true
    };
    let growing = client(&emulator)
        .buffered()
        .before_send(grown)
        .start()
        .unwrap();
    assert_eq!(
        growing.publish(set(1, 1)).unwrap_err().kind(),
        ErrorKind::InvalidUpdate
    );
    for buffered in [buffered, growing] {
        assert_eq!(buffered.shutdown(LONG).stats.accepted, 0);
    }
}

#[test]
fn what_is_too_large_for_mixpanel_is_rejected_and_reported() {
    let emulator = Emulator::start().unwrap();
    let text = "x".repeat(1_000_000);
    let row = json!({"$group_key": "company", "$group_id": "acme", "$set": {"text": text}});
    let outbox = MemoryOutbox::new();
    let large = EncodedUpdate::from_json(&format!(" {row}")).unwrap();
    assert_eq!(large.group().id().to_string(), "acme");
    let unlimited = Capacity::new(usize::MAX, usize::MAX);
    assert!(outbox.append(&[large], unlimited).unwrap());
    let notified = Arc::new(AtomicUsize::new(0));
    let its_notified = Arc::clone(&notified);
    let buffered = buffered(&emulator).outbox(outbox).on_error(move |event| {
        if matches!(event, DeliveryEvent::Rejected(..)) {
            its_notified.fetch_add(1, Ordering::SeqCst);
        }
    });
    let outcome = buffered.start().unwrap().shutdown(LONG);
    assert_eq!((outcome.stats.accepted, outcome.stats.rejected), (0, 1));
    assert_eq!(notified.load(Ordering::SeqCst), 1);
}

/// What is too large for one update with its token is not merged, and is refused when it is published.
#[test]
fn the_limit_of_an_update_counts_what_the_client_adds() {
    let emulator = Emulator::start().unwrap();
    let client = Client::builder("TOKEN")
        .endpoint(emulator.endpoint())
        .max_body(1_000)
        .build()
        .unwrap();
    let buffered = client.buffered().flush_interval(LONG).start().unwrap();
    let acme = Group::new("company", "acme");
    let of_length = |length: usize| acme.set(BTreeMap::from([("p", vec!["x".repeat(length)])]));
    let longest = (1..1_000)
        .rev()
        .find(|length| client.send(of_length(*length)).unwrap().accepted == 1);
    let longest = longest.unwrap();
    buffered.publish(of_length(longest)).unwrap();
    let error = buffered.publish(of_length(longest + 1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidUpdate);
    assert!(error.to_string().contains("the limit is 998"), "{error}");
    let all = buffered.publish_all([of_length(longest + 1), of_length(1)]);
    assert_eq!(all.unwrap_err().kind(), ErrorKind::InvalidUpdate);
    assert!(buffered.flush(LONG).is_complete());

    // Two that are one update without the token, and not always with it.
    for total in longest - 60..longest {
        for (name, length) in [("a", total / 2), ("b", total - total / 2)] {
            let part = BTreeMap::from([(name, vec!["x".repeat(length)])]);
            buffered.publish(acme.set(part)).unwrap();
        }
        assert!(buffered.flush(LONG).is_complete());
    }
    let stats = buffered.shutdown(LONG).stats;
    assert_eq!((stats.rejected, stats.accepted), (0, 121));
}

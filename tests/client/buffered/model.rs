//! Whatever is published and whatever fails: each update ends in one place, and profiles are what they should be.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::eventually;
use mixpanel_groups::buffered::DeliveryEvent;
use mixpanel_groups::{Client, Group, Profile, RetryPolicy};
use mixpanel_groups_emulator::{Emulator, Fault};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::client;

#[derive(Clone, Debug)]
enum Step {
    Publish(u8, u8),
    Fail(Fault),
    Flush,
    Recover,
}

fn step() -> impl Strategy<Value = Step> {
    let fault = prop_oneof![
        Just(Fault::Status(500)),
        Just(Fault::CloseBefore),
        Just(Fault::CloseAfter),
        Just(Fault::Html),
        Just(Fault::Reject(vec![0])),
        Just(Fault::TooLarge(1)),
    ];
    prop_oneof![
        6 => (0..4_u8, any::<u8>()).prop_map(|(id, item)| Step::Publish(id, item)),
        2 => fault.prop_map(Step::Fail),
        1 => Just(Step::Flush),
        1 => Just(Step::Recover),
    ]
}

/// Waits until the emulator has applied what a shutdown has broken off, or never will: such a request
/// may still be on its way, and nobody can call it back.
fn wait_for_broken_off_requests(emulator: &Emulator) {
    // Connections are accepted in order, so all of them were once this one is.
    let last = client(emulator).send(Group::new("last", 1).delete());
    assert_eq!(last.unwrap().accepted, 1);
    eventually("closed", || emulator.open_connections() == 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn accepted_rejected_or_still_queued(
        steps in prop::collection::vec(step(), 0..40),
        coalesce in any::<bool>(),
        rejecting in any::<bool>(),
        timeout in 0..20_u64,
    ) {
        let emulator = Emulator::start().unwrap();
        let retry = RetryPolicy::default().attempts(2).base_delay(Duration::from_micros(100));
        let client = Client::builder("T").endpoint(emulator.endpoint()).retry(retry).max_batch(4);
        let buffered = client.build().unwrap().buffered();
        let rejected = Arc::new(Mutex::new(Vec::new()));
        let its_rejected = Arc::clone(&rejected);
        let buffered = buffered
            .flush_interval(Duration::from_millis(1))
            .coalesce(coalesce)
            .on_error(move |event| {
                if let DeliveryEvent::Rejected(json, _) = event {
                    its_rejected.lock().unwrap().push((*json).to_owned());
                }
            })
            .start()
            .unwrap();
        let mut published = Vec::new();
        for step in steps {
            match step {
                Step::Publish(id, item) => {
                    let group = Group::new("company", id);
                    let update = group.set(json!({"last": published.len(), "item": item}));
                    published.push((id, update.to_json().unwrap().unwrap()));
                    buffered.publish(update).unwrap();
                }
                // What was applied before its response was lost cannot be refused after that.
                Step::Fail(Fault::CloseAfter) if rejecting => {}
                Step::Fail(Fault::Reject(_)) if !rejecting => {}
                Step::Fail(fault) => emulator.fail_next(fault),
                Step::Flush => drop(buffered.flush(Duration::from_millis(2))),
                Step::Recover => emulator.recover(),
            }
        }
        let outcome = buffered.shutdown(Duration::from_millis(timeout));
        // With the connections that it keeps.
        drop(buffered);
        let rejected = rejected.lock().unwrap();
        let undelivered: Vec<_> =
            outcome.undelivered.iter().map(|update| update.as_json().to_owned()).collect();

        // Each in one place, and those that come back in order.
        let stats = &outcome.stats;
        prop_assert_eq!(stats.accepted + rejected.len() + undelivered.len(), published.len());
        let gone = |json: &String| undelivered.contains(json);
        let expected: Vec<_> =
            published.iter().map(|(_, json)| json).filter(|json| gone(json)).cloned().collect();
        prop_assert_eq!(&undelivered, &expected);

        // Sent after all, they make the profiles what they should be.
        emulator.recover();
        let mut profiles = BTreeMap::<u8, Profile>::new();
        for (id, json) in published.iter().filter(|(_, json)| !rejected.contains(json)) {
            let update: Value = serde_json::from_str(json).unwrap();
            let update = Group::new("company", *id).set(&update["$set"]);
            profiles.entry(*id).or_default().apply(&update).unwrap();
        }
        let profile = |id: &u8| emulator.profile("company", &id.to_string());
        wait_for_broken_off_requests(&emulator);
        self::client(&emulator).send(&outcome.undelivered).unwrap().into_result().unwrap();
        for (id, expected) in profiles {
            prop_assert_eq!(profile(&id), Some(expected), "company {}", id);
        }
    }
}

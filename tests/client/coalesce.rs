//! Coalescing: what waits together is sent as fewer updates. `client/any_updates.rs` of the core has what they make of a
//! profile.

use std::collections::BTreeMap;

use mixpanel_groups::{Client, EncodedUpdate, Group, Profile, Update};
use mixpanel_groups_emulator::{Emulator, Fault};
use proptest::prelude::*;
use serde_json::json;

#[test]
fn sending_coalesces_what_waits_together() {
    let emulator = Emulator::start().unwrap();
    let client = Client::builder("T")
        .endpoint(emulator.endpoint())
        .max_batch(10)
        .build()
        .unwrap();
    let group = |number: i32| Group::new("company", number % 4);
    let updates = (0..1_000).map(|number| group(number).set(json!({"number": number})));
    let report = client.with_options().coalesce().send(updates).unwrap();
    assert_eq!(report.sent + report.coalesced, 1_000);
    assert_eq!((report.accepted, report.sent), (4, 4), "{report}");
    for number in 996..1_000 {
        let profile = emulator
            .profile("company", &(number % 4).to_string())
            .unwrap();
        assert_eq!(profile, json!({"number": number}));
    }
}

#[test]
fn coalescing_makes_no_update_that_is_too_large() {
    let emulator = Emulator::start().unwrap();
    let client = Client::builder("T")
        .endpoint(emulator.endpoint())
        .build()
        .unwrap();
    let acme = Group::new("company", "acme");
    let updates = ["x", "y"].map(|item| acme.union(json!({"list": [item.repeat(600_000)]})));
    let report = client.with_options().coalesce().send(updates).unwrap();
    assert_eq!((report.accepted, report.coalesced), (2, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Whatever is left after coalescing, and wherever in the batch a merged update stands.
    #[test]
    fn requests_keep_their_limits(
        max_batch in 1..5_usize,
        max_body in 1_000..4_000_usize,
        connections in 1..3_usize,
        updates in prop::collection::vec((0..4_u8, 0..3_u8, 0..17_usize), 1..30),
    ) {
        let emulator = Emulator::start().unwrap();
        let client = Client::builder("T")
            .endpoint(emulator.endpoint())
            .max_batch(max_batch)
            .max_body(max_body)
            .connections(connections)
            .build()
            .unwrap();
        let mut profiles = BTreeMap::<String, Profile>::new();
        let all: Vec<_> = (0..).zip(&updates).map(|(number, (group, property, length))| {
            let value = vec![format!("{number:0>47}"); *length];
            let update = Group::new("company", *group).set(json!({property.to_string(): value}));
            profiles.entry(group.to_string()).or_default().apply(&update).unwrap();
            update
        }).collect();
        let report = client.with_options().coalesce().send(all).unwrap();
        prop_assert_eq!(report.sent + report.coalesced, updates.len());
        prop_assert_eq!(report.accepted, report.sent);
        for request in emulator.requests() {
            prop_assert!(request.body.len() <= max_body, "{} bytes of {max_body}", request.body.len());
            let records: Vec<serde_json::Value> = serde_json::from_str(&request.body).unwrap();
            prop_assert!((1..=max_batch).contains(&records.len()));
        }
        for (id, profile) in profiles {
            prop_assert_eq!(emulator.profile("company", &id), Some(profile));
        }
    }
}

/// Where coalescing saves none, it moves parts from one update to another all the same. Sent again, what comes back has the
/// same effect.
#[test]
fn what_comes_back_keeps_the_order_of_its_group() {
    let emulator = Emulator::start().unwrap();
    let client = Client::builder("T").endpoint(emulator.endpoint());
    let client = client.build().unwrap();
    let acme = Group::new("company", "acme");
    let remove = r#"{"$group_key":"company","$group_id":"acme","$remove":{"b":1,"e":3}}"#;
    let remove = EncodedUpdate::from_json(remove).unwrap();
    let updates = [
        acme.union(json!({"a": [1]})),
        acme.remove("e", 1),
        acme.union(json!({"b": [1], "e": [2]})),
        acme.set(json!({"a": 9})),
        Update::from(&remove),
    ];
    emulator.fail_next(Fault::Status(401));
    let error = client.with_options().coalesce().send(updates).unwrap_err();
    assert!(client.send(error.undelivered()).unwrap().is_all_accepted());
    let profile = emulator.profile("company", "acme").unwrap();
    assert_eq!(profile, json!({"a": 9, "b": [], "e": [2]}));
}

//! Folding: what waits together is sent as fewer updates. `client/any_updates.rs` of the core has what they make of a profile.

use mixpanel_groups::{Client, Group};
use mixpanel_groups_emulator::Emulator;
use serde_json::json;

#[test]
fn sending_folds_what_waits_together() {
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
fn folding_makes_no_update_that_is_too_large() {
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

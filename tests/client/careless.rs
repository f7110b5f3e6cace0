//! A `Serialize` that ignores an error and goes on: what it passes is not JSON, or not all that it stands for. Such a
//! record is rejected. It does not reach the server, which could not read the request, nor is a part lost silently.

use std::collections::BTreeMap;

use common::LONG;
use common::careless::{Careless, Second, Shape};
use mixpanel_groups::{Client, EncodedUpdate, Event, Group, Update};
use mixpanel_groups_emulator::Emulator;
use serde_json::json;

const REASON: &str = "its `Serialize` goes on after an error";

fn careless() -> impl Iterator<Item = Careless> {
    let failures = |shape| Second::FAILURES.map(|second| Careless(shape, second));
    Shape::ALL.into_iter().flat_map(failures)
}

fn within<T>(value: T) -> BTreeMap<&'static str, T> {
    BTreeMap::from([("odd", value)])
}

#[test]
fn a_value_that_goes_on_after_an_error_is_refused_by_name() {
    let acme = Group::new("company", "acme");
    let event = || Event::new("Purchase").distinct_id("u");
    for value in careless() {
        for json in [
            acme.set(within(value)).to_json(),
            acme.set(within([value])).to_json(),
            acme.set_once(within(Some(value))).to_json(),
            event().property("odd", value).to_json().map(Some),
            event().properties(within(value)).to_json().map(Some),
        ] {
            let error = json.expect_err(&format!("{value:?}"));
            let is_named = error.to_string().contains(&format!("\"odd\": {REASON}"));
            assert!(is_named, "{value:?}: {error}");
        }
        // A list of `$union` is one of `$union` alone, and only some shapes are lists.
        for json in [
            acme.union(within(value)).to_json(),
            acme.remove("odd", value).to_json(),
        ] {
            let error = json.expect_err(&format!("{value:?}")).to_string();
            assert!(error.contains("\"odd\": "), "{value:?}: {error}");
        }
    }
}

#[test]
fn properties_that_go_on_after_an_error_are_refused() {
    let acme = Group::new("company", "acme");
    for value in careless() {
        for json in [
            acme.set(value).to_json(),
            acme.set_once(value).to_json(),
            acme.union(value).to_json(),
            Event::new("Purchase")
                .distinct_id("u")
                .properties(value)
                .to_json()
                .map(Some),
        ] {
            assert!(json.is_err(), "{value:?}: {json:?}");
        }
    }
}

#[test]
fn nothing_of_them_is_sent_and_what_comes_with_them_is() {
    let emulator = Emulator::start().unwrap();
    let client = Client::builder("T").endpoint(emulator.endpoint());
    let client = client.build().unwrap();
    let buffered = client.buffered().before_send(|_| true).start().unwrap();
    let acme = Group::new("company", "acme");
    let fine = || acme.set(json!({"fine": true}));
    for value in careless() {
        let odd = || acme.set(within(value));
        let report = client.send([fine(), odd(), fine()]).unwrap();
        assert_eq!(
            (report.accepted, report.rejected.len()),
            (2, 1),
            "{value:?}"
        );
        assert_eq!(report.rejected[0].field.as_deref(), Some("odd"));
        assert_eq!(
            EncodedUpdate::new(&odd()).unwrap_err().to_string(),
            buffered.publish(odd()).unwrap_err().to_string()
        );
    }
    buffered.publish(fine()).unwrap();
    assert_eq!(buffered.shutdown(LONG).stats.accepted, 1);
}

#[test]
fn a_value_of_these_shapes_is_fine_without_an_error() {
    let acme = Group::new("company", "acme");
    for shape in Shape::ALL {
        let value = Careless(shape, Second::Fine);
        let written = |update: Update<'_>| update.to_json().unwrap().unwrap();
        let expected =
            json!({"$group_key": "company", "$group_id": "acme", "$set": {"odd": value}});
        let found: serde_json::Value =
            serde_json::from_str(&written(acme.set(within(value)))).unwrap();
        assert_eq!(found, expected);
    }
}

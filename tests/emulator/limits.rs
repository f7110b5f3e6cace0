//! The documented limits, each from both sides.

use mixpanel_groups_emulator::Emulator;
use serde_json::{Value, json};

use crate::bodies::gzip;
use crate::wire::{JSON, Response, Sender, update};

const MIB: usize = 1024 * 1024;

/// An update of this many bytes.
fn update_of(id: &str, bytes: usize) -> Value {
    let empty = update(id, "$set", json!({"text": ""}));
    let text = "x".repeat(bytes - empty.to_string().len());
    update(id, "$set", json!({"text": text}))
}

/// A list of updates, each within its limit, of this many bytes.
fn body_of(bytes: usize) -> Vec<u8> {
    let half = (bytes - 3) / 2;
    let body = json!([update_of("a", half), update_of("b", bytes - 3 - half)]);
    let body = body.to_string().into_bytes();
    assert_eq!(body.len(), bytes);
    body
}

fn assert_too_large(response: &Response) {
    assert_eq!(response.status, 413);
    assert_eq!(response.json()["code"], 413);
    assert_eq!(response.json()["status"], "Request Entity Too Large");
}

#[test]
fn updates_in_a_request() {
    let emulator = Emulator::start().unwrap();
    let sender = Sender::new(&emulator);
    let updates = |n: usize| -> Value {
        let updates = (0..n).map(|i| update(&i.to_string(), "$set", json!({"i": i})));
        updates.collect()
    };
    assert_too_large(&sender.send("", &updates(2_001)));
    assert!(emulator.profiles().is_empty());

    let response = sender.send("strict=1", &updates(2_000));
    assert_eq!(response.json()["num_good_events"], 2_000);
    assert_eq!(emulator.profiles().len(), 2_000);
}

#[test]
fn bytes_of_a_request() {
    let emulator = Emulator::start().unwrap();
    let sender = Sender::new(&emulator);
    let post = |body: &[u8]| sender.post("/groups", &JSON, body).unwrap();
    let zipped = |body: &[u8]| {
        let headers = [JSON[0], ("content-encoding", "gzip")];
        sender.post("/groups", &headers, &gzip(body)).unwrap()
    };
    for response in [post(&body_of(2 * MIB + 1)), zipped(&body_of(2 * MIB + 1))] {
        assert_too_large(&response);
        let message = "request exceeds max limit of 2097152 bytes";
        assert_eq!(response.json()["error"], message);
    }
    assert_too_large(&post(&vec![b' '; 4 * MIB]));
    assert_too_large(&zipped(&vec![b' '; 4 * MIB]));
    assert!(emulator.profiles().is_empty());

    assert_eq!(post(&body_of(2 * MIB)).body, "1");
    assert_eq!(zipped(&body_of(2 * MIB)).body, "1");
    assert_eq!(emulator.profiles().len(), 2);
}

#[test]
fn bytes_of_a_request_as_the_builder_says() {
    let emulator = Emulator::builder().max_body(1_000).start().unwrap();
    let sender = Sender::new(&emulator);
    let post = |body: &[u8]| sender.post("/groups", &JSON, body).unwrap();
    assert_too_large(&post(&body_of(1_001)));
    assert_eq!(post(&body_of(1_000)).body, "1");
}

#[test]
fn bytes_of_an_update() {
    let emulator = Emulator::start().unwrap();
    let sender = Sender::new(&emulator);
    let body = json!([update_of("small", 500), update_of("large", MIB + 1)]);
    let response = sender.send("strict=1", &body).json();
    assert_eq!(response["num_records_imported"], 1);
    assert_eq!(response["failed_records"].as_array().unwrap().len(), 1);
    assert_eq!(response["failed_records"][0]["index"], 1);
    assert!(emulator.profile("company", "large").is_none());
    assert!(emulator.profile("company", "small").is_some());

    assert_eq!(sender.send("", &update_of("large", MIB)).body, "1");
    assert!(emulator.profile("company", "large").is_some());
}

#[test]
fn characters_of_a_property_name() {
    let builder = Emulator::builder().truncate_like_mixpanel(false);
    let emulator = builder.start().unwrap();
    let sender = Sender::new(&emulator);
    let updates = |name: &str| {
        [
            update("acme", "$set", json!({name: 1})),
            update("acme", "$set_once", json!({name: 1})),
            update("acme", "$union", json!({name: [1]})),
            update("acme", "$remove", json!({name: 1})),
            update("acme", "$unset", json!([name])),
        ]
    };
    for update in updates(&"é".repeat(255)) {
        assert_eq!(sender.send("", &update).body, "1");
    }
    for update in updates(&"é".repeat(256)) {
        assert_eq!(sender.send("", &update).body, "0");
    }
}

#[test]
fn long_names_and_texts_are_truncated_as_mixpanel_does() {
    let emulator = Emulator::start().unwrap();
    let sender = Sender::new(&emulator);
    let text = format!("{}é", "x".repeat(254));
    let set = update(
        "acme",
        "$set",
        json!({"é".repeat(300): 1, "text": text, "deep": [{"text": text}], "short": "x".repeat(255)}),
    );
    let union = update(
        "acme",
        "$union",
        json!({"list": [text, text.replace('é', "è")]}),
    );
    let response = sender.send("strict=1", &json!([set, union]));
    assert_eq!(response.status, 200, "{response:?}");
    let cut = "x".repeat(254);
    let profile = emulator.profile("company", "acme").unwrap();
    let expected = json!({
        "é".repeat(255): 1, "text": cut, "deep": [{"text": cut}], "short": "x".repeat(255),
        "list": [cut],
    });
    assert_eq!(profile, expected);
    // By its full text, an item is not found.
    sender.send("", &update("acme", "$remove", json!({"list": text})));
    let profile = emulator.profile("company", "acme").unwrap();
    assert_eq!(profile.get("list"), Some(&json!([cut])));
    sender.send("", &update("acme", "$unset", json!(["é".repeat(300)])));
    let profile = emulator.profile("company", "acme").unwrap();
    assert_eq!(profile.get(&"é".repeat(255)), None);

    let whole = Emulator::builder()
        .truncate_like_mixpanel(false)
        .start()
        .unwrap();
    Sender::new(&whole).send("", &update("acme", "$set", json!({"text": text})));
    assert_eq!(
        whole.profile("company", "acme").unwrap(),
        json!({"text": text})
    );
}

#[test]
fn requests_that_are_kept() {
    let emulator = Emulator::start().unwrap();
    let sender = Sender::new(&emulator);
    for i in 0..1_010 {
        let response = sender.post(&format!("/groups?i={i}"), &JSON, b"[]");
        response.unwrap();
    }
    let requests = emulator.requests();
    assert_eq!(requests.len(), 1_000);
    assert_eq!(requests[0].query, "i=10");

    for _ in 0..9 {
        sender.post("/groups", &JSON, &vec![b' '; 2 * MIB]).unwrap();
    }
    assert_eq!(
        emulator.requests().len(),
        7,
        "headers and reasons count too"
    );
}

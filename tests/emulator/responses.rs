//! Each documented form of response.

use mixpanel_groups_emulator::Emulator;
use serde_json::{Value, json};

use crate::wire::{JSON, Response, Sender, update};

fn good(id: &str) -> Value {
    update(id, "$set", json!({"plan": "enterprise"}))
}

/// `$group_id` is always text.
fn bad() -> Value {
    json!({"$token": "TOKEN", "$group_key": "company", "$group_id": 12345, "$set": {}})
}

fn send(query: &str, body: &Value) -> Response {
    let emulator = Emulator::start().unwrap();
    Sender::new(&emulator).send(query, body)
}

fn assert_bare(response: &Response, body: &str) {
    assert_eq!(response.status, 200);
    assert_eq!(response.body, body);
    assert_eq!(response.content_type, "text/plain");
}

#[test]
fn bare_one_where_any_record_is_valid() {
    assert_bare(&send("", &json!([good("acme")])), "1");
    assert_bare(&send("", &json!([bad(), good("acme")])), "1");
    assert_bare(
        &send("ip=0&strict=0&verbose=0", &json!([good("acme")])),
        "1",
    );
    assert_bare(&send("verbose=yes", &json!([good("acme")])), "1");
}

#[test]
fn bare_zero_where_no_record_is_valid() {
    for body in [json!([bad()]), json!([]), json!(5), json!([[], "text"])] {
        assert_bare(&send("", &body), "0");
    }
}

#[test]
fn verbose() {
    let response = send("verbose=1", &json!([bad(), good("acme")]));
    assert_eq!(response.status, 200);
    assert_eq!(response.json(), json!({"status": 1, "error": null}));

    let response = send("verbose=1", &json!([bad()]));
    assert_eq!(response.status, 200);
    assert_eq!(response.json()["status"], 0);
    let error = response.json()["error"].as_str().unwrap().to_owned();
    assert!(error.starts_with("record 0: $group_id: "), "{error}");
}

#[test]
fn strict_success() {
    for query in ["strict=1", "ip=0&strict=1&verbose=1"] {
        let response = send(query, &json!([good("acme"), good("globex")]));
        assert_eq!(response.status, 200);
        let expected = json!({"code": 200, "status": "OK", "num_good_events": 2});
        assert_eq!(response.json(), expected);
    }
}

#[test]
fn strict_failure_names_the_records_and_applies_the_others() {
    let emulator = Emulator::start().unwrap();
    let body = json!([good("acme"), bad(), good("globex"), {"$token": "TOKEN"}]);
    let response = Sender::new(&emulator).send("strict=1", &body);
    assert_eq!(response.status, 400);
    let json = response.json();
    assert_eq!(json["code"], 400);
    assert_eq!(json["status"], "Bad Request");
    assert_eq!(json["num_records_imported"], 2);
    assert!(json["error"].is_string());
    let failed = json["failed_records"].as_array().unwrap();
    assert_eq!(failed.len(), 2);
    assert_eq!(failed[0]["index"], 1);
    assert_eq!(failed[0]["field"], "$group_id");
    assert_eq!(failed[0]["message"], "not a text");
    assert_eq!(failed[1]["index"], 3);

    let groups: Vec<_> = emulator.profiles().into_keys().collect();
    let company = |id: &str| ("company".to_owned(), id.to_owned());
    assert_eq!(groups, [company("acme"), company("globex")]);
}

#[test]
fn strict_without_any_record() {
    let response = send("strict=1", &json!([]));
    assert_eq!(response.status, 400);
    assert_eq!(response.json()["failed_records"], json!([]));
}

#[test]
fn a_body_that_is_not_json() {
    let emulator = Emulator::start().unwrap();
    let sender = Sender::new(&emulator);
    for body in ["", "{", "[1,]", "data", "\u{0}"] {
        let response = sender.post("/groups", &JSON, body.as_bytes()).unwrap();
        assert_eq!(response.status, 400, "{body:?}");
        let json = response.json();
        assert_eq!(json["code"], 400);
        assert_eq!(json["status"], "Bad Request");
        assert!(json["error"].is_string());
    }
    assert!(emulator.profiles().is_empty());
}

/// As mixpanel-js and RudderStack send it.
#[test]
fn a_path_with_a_slash_at_its_end() {
    let emulator = Emulator::start().unwrap();
    let body = json!([good("acme")]).to_string();
    let response = Sender::new(&emulator).post("/groups/", &JSON, body.as_bytes());
    assert_bare(&response.unwrap(), "1");
    assert_eq!(emulator.profiles().len(), 1);
}

#[test]
fn other_paths() {
    let emulator = Emulator::start().unwrap();
    for path in ["/", "/engage", "/groups/acme"] {
        let response = Sender::new(&emulator).post(path, &JSON, b"[]").unwrap();
        assert_eq!(response.status, 404);
        assert_eq!(response.json()["code"], 404);
    }
}

#[test]
fn a_token_that_the_project_does_not_have() {
    let emulator = Emulator::builder().token("TOKEN").start().unwrap();
    let sender = Sender::new(&emulator);
    let mut other = good("acme");
    other["$token"] = json!("OTHER");
    let mut none = good("acme");
    none.as_object_mut().unwrap().remove("$token");
    for wrong in [other, none] {
        let response = sender.send("strict=1", &json!([good("acme"), wrong]));
        assert_eq!(response.status, 401);
        assert_eq!(response.json()["status"], "error");
        assert!(response.json()["error"].is_string());
        assert!(!response.body.contains("OTHER"));
    }
    assert!(emulator.profiles().is_empty());

    assert_eq!(sender.send("", &json!([good("acme")])).body, "1");
    assert!(emulator.profile("company", "acme").is_some());
}

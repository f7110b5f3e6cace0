//! Each documented form of answer.

use mixpanel_groups::Emulator;
use serde_json::{Value, json};

use crate::wire::{Answer, Sender, update};

fn answer(query: &str, body: &Value) -> (Answer, Emulator) {
    let emulator = Emulator::start().unwrap();
    let answer = Sender::new(&emulator).send(query, body);
    (answer, emulator)
}

fn good() -> Value {
    update("acme", "$set", json!({"plan": "enterprise"}))
}

fn bad() -> Value {
    json!({"$token": "TOKEN", "$group_key": "company", "$group_id": 12345, "$set": {}})
}

#[test]
fn bare() {
    let (answer, emulator) = answer("", &json!([good()]));
    assert_eq!((answer.status, answer.body.as_str()), (200, "1"));
    assert_eq!(answer.content_type, "text/plain");
    assert_eq!(
        emulator.profile("company", "acme").unwrap(),
        json!({"plan": "enterprise"})
    );
}

//! Each form in which updates may come.

use std::io::Write;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};
use flate2::{Compression, write::GzEncoder};
use mixpanel_groups_emulator::{Emulator, Fault};
use serde_json::json;

use crate::wire::{JSON, Response, Sender, update};

type Headers<'a> = &'a [(&'a str, &'a str)];

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const GZIP: (&str, &str) = ("content-encoding", "gzip");
/// What base64 of it has all of: padding, `+` and `/`.
const NAME: &str = "a>>?~??ÿÿ";

fn updates() -> String {
    json!([update("acme", "$set", json!({"name": NAME}))]).to_string()
}

fn form(data: &str) -> String {
    data.bytes().fold("data=".to_owned(), |form, byte| {
        format!("{form}%{byte:02X}")
    })
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn send(headers: Headers<'_>, body: &[u8]) -> (Response, Emulator) {
    let emulator = Emulator::start().unwrap();
    let response = Sender::new(&emulator).post("/groups", headers, body);
    (response.unwrap(), emulator)
}

fn assert_taken(headers: Headers<'_>, body: &[u8]) {
    let (response, emulator) = send(headers, body);
    assert_eq!(response.body, "1", "{headers:?} {response:?}");
    let profile = emulator.profile("company", "acme").unwrap();
    assert_eq!(profile, json!({"name": NAME}));
}

#[test]
fn json_list_and_single_object() {
    let list = updates();
    assert_taken(&JSON, list.as_bytes());
    assert_taken(
        &[("content-type", "application/json; charset=utf-8")],
        list.as_bytes(),
    );
    assert_taken(&JSON, &list.as_bytes()[1..list.len() - 1]);
    assert_taken(&JSON, format!(" \r\n\t{list}\n").as_bytes());
}

#[test]
fn form_with_json() {
    let list = updates();
    assert_taken(&[FORM], form(&list).as_bytes());
    assert_taken(&[FORM], form(&format!("\n  {list}")).as_bytes());
    assert_taken(&[FORM], form(&list[1..list.len() - 1]).as_bytes());
    let charset = (
        "content-type",
        "Application/X-WWW-Form-Urlencoded;charset=UTF-8",
    );
    assert_taken(&[charset], form(&list).as_bytes());
    assert_taken(&[FORM], format!("ip=0&{}&x=%FF", form(&list)).as_bytes());
}

#[test]
fn form_with_base64() {
    let base64 = BASE64_STANDARD.encode(updates());
    assert!(base64.contains('+') && base64.ends_with('='), "{base64}");
    assert_taken(&[FORM], form(&base64).as_bytes());
    // As some official SDKs send it: the `+` not escaped.
    assert_taken(&[FORM], format!("data={base64}").as_bytes());
    let no_padding = BASE64_STANDARD_NO_PAD.encode(updates());
    assert_taken(&[FORM], form(&no_padding).as_bytes());
}

#[test]
fn gzip_of_json_and_of_a_form() {
    assert_taken(&[JSON[0], GZIP], &gzip(updates().as_bytes()));
    assert_taken(&[FORM, GZIP], &gzip(form(&updates()).as_bytes()));
}

#[test]
fn parameters_in_the_form() {
    let body = format!("{}&verbose=1", form(&updates()));
    let (response, _) = send(&[FORM], body.as_bytes());
    assert_eq!(response.json(), json!({"status": 1, "error": null}));
}

#[test]
fn what_cannot_be_decoded() {
    let gzipped = gzip(updates().as_bytes());
    let cases: [(Headers<'_>, &[u8]); 7] = [
        (&[FORM], b"json=[]"),
        (&[FORM], b""),
        (&[FORM], b"data=no*base64"),
        (&[FORM], b"data=bm8ganNvbg"),
        (&[JSON[0], GZIP], b"[]"),
        (&[JSON[0], GZIP], &gzipped[..gzipped.len() / 2]),
        (&[JSON[0], ("content-encoding", "br")], b"[]"),
    ];
    for (headers, body) in cases {
        let (response, emulator) = send(headers, body);
        assert_eq!(response.status, 400, "{body:?}");
        assert_eq!(response.json()["code"], 400);
        assert!(emulator.profiles().is_empty());
    }
}

#[test]
fn an_empty_body_is_named_as_such() {
    for headers in [&JSON[..], &[FORM]] {
        for body in ["", " \n"] {
            let (response, _) = send(headers, body.as_bytes());
            assert_eq!(response.status, 400);
            let error = response.json()["error"].to_string();
            assert!(error.contains("the body is empty"), "{error}");
        }
    }
}

/// Mixpanel's import page: "properties.utm_source is invalid: string should be valid utf8".
#[test]
fn a_text_that_is_not_utf_8_is_refused_in_each_form() {
    let update = json!([update("acme", "$set", json!({"name": "Caf?"}))]).to_string();
    let latin_1 = update.bytes().map(|b| if b == b'?' { 0xE9 } else { b });
    let latin_1: Vec<_> = latin_1.collect();
    let escaped: String = latin_1.iter().map(|byte| format!("%{byte:02X}")).collect();
    let escaped = format!("data={escaped}");
    let base64 = form(&BASE64_STANDARD.encode(&latin_1));
    let bodies: [(Headers<'_>, &[u8]); 4] = [
        (&JSON, &latin_1),
        (&[FORM], escaped.as_bytes()),
        (&[FORM], &[b"data=", &*latin_1].concat()),
        (&[FORM], base64.as_bytes()),
    ];
    for (headers, body) in bodies {
        let (response, emulator) = send(headers, body);
        assert_eq!(response.status, 400, "{headers:?} {response:?}");
        assert!(emulator.profiles().is_empty(), "{headers:?}");
    }
    let emulator = Emulator::start().unwrap();
    let query = format!("/groups?{escaped}");
    let response = Sender::new(&emulator).get(&query);
    assert_eq!(response.status, 400, "{response:?}");
    assert!(emulator.profiles().is_empty());
    // A text may have the character that stands for what is not UTF-8.
    let (response, emulator) = send(&[FORM], form(&update.replace('?', "\u{FFFD}")).as_bytes());
    assert_eq!(response.body, "1");
    let profile = emulator.profile("company", "acme").unwrap();
    assert_eq!(profile, json!({"name": "Caf\u{FFFD}"}));
}

#[test]
fn requests_show_the_json_that_was_sent() {
    let emulator = Emulator::start().unwrap();
    let sender = Sender::new(&emulator);
    let list = updates();
    let bodies: [(Headers<'_>, &[u8]); 4] = [
        (&JSON, list.as_bytes()),
        (&[FORM], &form(&list).into_bytes()),
        (&[FORM], &form(&BASE64_STANDARD.encode(&list)).into_bytes()),
        (&[JSON[0], GZIP, ("x-test", "yes")], &gzip(list.as_bytes())),
    ];
    for (headers, body) in bodies {
        sender
            .post("/groups?ip=0&verbose=1", headers, body)
            .unwrap();
    }
    sender.post("/nowhere", &JSON, b"no json").unwrap();

    let requests = emulator.requests();
    assert_eq!(requests.len(), 5);
    for request in &requests[..4] {
        assert_eq!(
            (request.method.as_str(), request.path.as_str()),
            ("POST", "/groups")
        );
        assert_eq!(request.query, "ip=0&verbose=1");
        assert_eq!(request.body, list);
        assert_eq!(request.status, Some(200));
        assert!(!format!("{request:?}").contains("TOKEN"));
    }
    assert_eq!(requests[3].header("x-test"), Some("yes"));
    assert_eq!(requests[3].header("X-Test"), Some("yes"));
    assert_eq!(requests[3].header("x-none"), None);
    assert_eq!(requests[4].path, "/nowhere");
    assert_eq!(requests[4].body, "no json");
    assert_eq!(requests[4].status, Some(404));
}

#[test]
fn requests_can_be_written_as_json() {
    let emulator = Emulator::start().unwrap();
    emulator.fail_next(Fault::CloseBefore);
    let sender = Sender::new(&emulator);
    drop(sender.post("/groups", &JSON, b"[]"));
    sender
        .post("/groups?ip=0", &JSON, updates().as_bytes())
        .unwrap();
    let requests = serde_json::to_value(emulator.requests()).unwrap();
    assert_eq!(requests[0]["status"], json!(null));
    assert_eq!(requests[1]["body"], updates());
    let headers = requests[1]["headers"].as_array().unwrap();
    assert!(headers.contains(&json!(["content-type", "application/json"])));

    let text = serde_json::to_string(&emulator.requests()[1]).unwrap();
    let beginning = r#"{"number":1,"method":"POST","path":"/groups","query":"ip=0","headers":[["#;
    assert!(text.starts_with(beginning), "{text}");
    assert!(
        text.ends_with(r#","connection":1,"status":200,"accepted":1,"dropped":[],"error":null}"#),
        "{text}"
    );
}

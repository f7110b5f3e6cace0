//! `POST /import`, with clients that are not ours.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use mixpanel_groups_emulator::{Emulator, Fault};
use serde_json::{Value, json};

use crate::bodies::gzip;
use crate::wire::{Response, Sender, raw};

const JSON: (&str, &str) = ("content-type", "application/json");
const NDJSON: (&str, &str) = ("content-type", "application/x-ndjson");
const MIB: usize = 1024 * 1024;

fn event(insert_id: &str) -> Value {
    json!({
        "event": "Purchase",
        "properties": {
            "time": 1_618_716_477,
            "distinct_id": "user123",
            "$insert_id": insert_id,
            "company": "acme",
        },
    })
}

/// An event with this property in place of its own.
fn event_with(property: &str, value: Value) -> Value {
    let mut event = event("id");
    event["properties"][property] = value;
    event
}

fn basic(user: &str, password: &str) -> String {
    format!(
        "Basic {}",
        BASE64_STANDARD.encode(format!("{user}:{password}"))
    )
}

fn import(emulator: &Emulator, query: &str, body: &Value) -> Response {
    let body = body.to_string();
    let authorization = basic("TOKEN", "");
    let headers = [JSON, ("authorization", &authorization)];
    let path = format!("/import?{query}");
    Sender::new(emulator)
        .post(&path, &headers, body.as_bytes())
        .unwrap()
}

/// The field and the message of the one event of a request that is wrong.
fn refused(event: Value) -> (String, String) {
    let emulator = Emulator::start().unwrap();
    let response = import(&emulator, "strict=1", &json!([event]));
    assert_eq!(response.status, 400);
    assert!(emulator.events().is_empty());
    let mut response = response.json();
    let failed = response["failed_records"][0].take();
    let text = |name: &str| failed[name].as_str().unwrap().to_owned();
    (text("field"), text("message"))
}

fn assert_taken(event: Value) {
    let emulator = Emulator::start().unwrap();
    let response = import(&emulator, "strict=1", &json!([event]));
    let expected = json!({"code": 200, "num_records_imported": 1, "status": "OK"});
    assert_eq!(response.json(), expected);
    assert_eq!(emulator.events(), [event]);
}

#[test]
fn each_form_of_body() {
    let events = [event("a"), event("b")];
    let list = json!(events).to_string();
    let lines = format!("{}\n{}\n", events[0], events[1]);
    let form = format!(
        "verbose=1&data={}",
        BASE64_STANDARD.encode(&list).replace('+', "%2B")
    );
    let encoded = ("content-encoding", "gzip");
    let spaced = lines.replace('\n', "\r\n\n");
    let form_type = ("content-type", "application/x-www-form-urlencoded");
    for (headers, body) in [
        (vec![JSON], list.clone().into_bytes()),
        (vec![JSON, encoded], gzip(list.as_bytes())),
        (vec![NDJSON], lines.clone().into_bytes()),
        (vec![NDJSON], spaced.into_bytes()),
        (vec![NDJSON, encoded], gzip(lines.as_bytes())),
        (vec![form_type], form.into_bytes()),
    ] {
        let emulator = Emulator::start().unwrap();
        let authorization = basic("TOKEN", "");
        let headers = [headers, vec![("authorization", &*authorization)]].concat();
        let response = Sender::new(&emulator)
            .post("/import", &headers, &body)
            .unwrap();
        assert_eq!(response.status, 200, "{headers:?} {response:?}");
        assert_eq!(emulator.events(), events, "{headers:?}");
    }
    let emulator = Emulator::start().unwrap();
    let authorization = basic("TOKEN", "");
    for (kind, body) in [
        (JSON, &*lines),
        (NDJSON, "{} x"),
        (NDJSON, "{} {}"),
        (JSON, ""),
    ] {
        let headers = [kind, ("authorization", &*authorization)];
        let response = Sender::new(&emulator)
            .post("/import", &headers, body.as_bytes())
            .unwrap();
        assert_eq!(response.status, 400, "{kind:?} {body}");
    }
}

#[test]
fn responses() {
    let emulator = Emulator::start().unwrap();
    let bad = event_with("time", json!("now"));
    // JSON with and without `strict`.
    let counted = |good: usize| json!({"code": 200, "num_records_imported": good, "status": "OK"});
    let lax = import(&emulator, "", &json!([event("a"), bad]));
    assert_eq!((lax.status, lax.json()), (200, counted(1)));
    let lax = import(&emulator, "strict=0", &json!([bad]));
    assert_eq!((lax.status, lax.json()), (200, counted(0)));
    // The SDK for Python wants 1 as `status`, and the one for Go the count.
    let verbose = |events| import(&emulator, "strict=0&verbose=1", &events).json();
    let expected = json!({"code": 200, "error": null, "num_records_imported": 1, "status": 1});
    assert_eq!(verbose(json!([event("a"), bad])), expected);
    let none = verbose(json!([bad]));
    assert_eq!(
        (&none["status"], &none["num_records_imported"]),
        (&json!(0), &json!(0))
    );
    assert!(none["error"].is_string());

    let strict = import(&emulator, "strict=1", &json!([event("a"), bad, event("b")]));
    assert_eq!(strict.status, 400);
    let expected = json!({
        "code": 400,
        "error": "some data points in the request failed validation",
        "failed_records": [{
            "index": 1,
            "$insert_id": "id",
            "field": "properties.time",
            "message": "'properties.time' is invalid: must be specified as seconds since epoch",
        }],
        "num_records_imported": 2,
        "status": "Bad Request",
    });
    assert_eq!(strict.json(), expected);
    assert_eq!(emulator.events().len(), 2);
    assert_eq!(emulator.events_of("company", "acme").len(), 2);
}

#[test]
fn events_that_are_not_valid() {
    let fields = |field: &str| {
        let mut record = event("id");
        record["properties"].as_object_mut().unwrap().remove(field);
        refused(record).0
    };
    for field in ["time", "distinct_id", "$insert_id"] {
        assert_eq!(fields(field), format!("properties.{field}"));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let ahead = u64::try_from((now + Duration::from_mins(61)).as_millis()).unwrap();
    let deep = json!([{"a": {"b": {"c": {}}}}]);
    let wide: serde_json::Map<_, _> = (0..255).map(|n| (n.to_string(), json!(n))).collect();
    for (property, value) in [
        ("time", json!(31_535_999)),
        ("time", json!(ahead)),
        ("time", json!(ahead / 1000)),
        ("time", json!("1618716477")),
        ("time", json!(1_618_716_477.5)),
        ("distinct_id", json!("anonymous")),
        ("distinct_id", json!(5)),
        ("$insert_id", json!("undefined")),
        ("$insert_id", json!("with space")),
        ("$insert_id", json!("x".repeat(37))),
        ("$insert_id", json!("")),
        ("nested", deep),
        ("wide", json!(wide)),
    ] {
        let (field, message) = refused(event_with(property, value.clone()));
        assert_eq!(field, format!("properties.{property}"), "{value}");
        assert!(
            message.starts_with(&format!("'{field}' is invalid: ")),
            "{message}"
        );
    }
    let mut wide_event = event("id");
    wide_event["properties"]
        .as_object_mut()
        .unwrap()
        .extend(wide);
    assert_eq!(refused(wide_event).0, "properties");
    for (record, field) in [
        (json!("text"), ""),
        (
            json!({"event": "e", "properties": {}, "token": "x"}),
            "token",
        ),
        (json!({"properties": {}}), "event"),
        (json!({"event": "", "properties": {}}), "event"),
        (json!({"event": "e"}), "properties"),
        (json!({"event": "e", "properties": []}), "properties"),
        (event_with("text", json!("x".repeat(MIB))), ""),
        (event_with("", json!(1)), "properties"),
    ] {
        assert_eq!(refused(record).0, field);
    }
    for valid in [
        event_with("time", json!(1_618_716_477_000_u64)),
        event_with("distinct_id", json!("")),
        event_with("company", json!(["acme", "globex"])),
        event_with("nested", json!({"a": {"b": {"c": [1]}}})),
    ] {
        assert_taken(valid);
    }
}

#[test]
fn the_latest_of_the_same_event_is_kept() {
    let emulator = Emulator::start().unwrap();
    let send = |event: &Value| assert_eq!(import(&emulator, "", &json!([event])).status, 200);
    let mut later = event("a");
    later["properties"]["amount"] = json!(5);
    for event in [&event("a"), &event("b"), &later] {
        send(event);
    }
    assert_eq!(emulator.events(), [event("b"), later.clone()]);
    // Any other name, time, user or insert id makes it another event.
    let mut others = [later.clone(), later.clone(), later];
    others[0]["event"] = json!("Other");
    others[1]["properties"]["time"] = json!(1_618_716_478);
    others[2]["properties"]["distinct_id"] = json!("user124");
    others.iter().for_each(send);
    assert_eq!(emulator.events().len(), 5);
    assert_eq!(emulator.events()[2..], others);
}

#[test]
fn an_event_to_ignore_is_accepted_and_dropped() {
    let emulator = Emulator::start().unwrap();
    let events = json!([event_with("$ignore", json!(true)), event("a")]);
    let response = import(&emulator, "strict=1", &events);
    assert_eq!(response.json()["num_records_imported"], 2);
    assert_eq!(emulator.events(), [event("a")]);
    // The client cannot see it, so the request says so.
    let request = &emulator.requests()[0];
    assert_eq!((request.accepted, request.dropped[0].position), (1, 0));
    assert_eq!(request.dropped[0].field, "properties.$ignore");
}

#[test]
fn only_texts_link() {
    let emulator = Emulator::start().unwrap();
    for (id, value) in [
        ("a", json!("7")),
        ("b", json!(["6", "7"])),
        ("c", json!(7)),
        ("d", json!(["77"])),
        ("e", json!({"7": "7"})),
    ] {
        let mut event = event(id);
        event["properties"]["team"] = value;
        import(&emulator, "", &json!([event]));
    }
    let linked = emulator.events_of("team", "7");
    let ids: Vec<_> = linked
        .iter()
        .map(|event| &event["properties"]["$insert_id"])
        .collect();
    assert_eq!(ids, ["a", "b"]);
}

#[test]
fn limits() {
    let emulator = Emulator::start().unwrap();
    let events =
        |count: usize| -> Value { (0..count).map(|id| event(&format!("i{id}"))).collect() };
    assert_eq!(import(&emulator, "strict=1", &events(2_001)).status, 413);
    assert_eq!(import(&emulator, "strict=1", &events(2_000)).status, 200);

    let large: Vec<_> = (0..11)
        .map(|id| {
            let mut event = event(&format!("large{id}"));
            event["properties"]["text"] = "x".repeat(MIB - 1_000).into();
            event
        })
        .collect();
    let response = import(&emulator, "", &json!(large));
    assert_eq!(response.status, 413);
    assert_eq!(
        response.json()["error"],
        "request exceeds max limit of 10485760 bytes"
    );
    assert_eq!(import(&emulator, "", &json!(large[..9])).status, 200);
    assert_eq!(emulator.events().len(), 2_009);
}

#[test]
fn credentials() {
    let post = |emulator: &Emulator, query: &str, authorization: Option<&str>| {
        let body = json!([event("a")]).to_string();
        let authorization = authorization.map(|value| ("authorization", value));
        let headers: Vec<_> = [JSON].into_iter().chain(authorization).collect();
        let path = format!("/import?{query}");
        let response = Sender::new(emulator)
            .post(&path, &headers, body.as_bytes())
            .unwrap();
        if response.status == 401 {
            let documented =
                json!({"code": 401, "error": "Invalid credentials", "status": "Unauthorized"});
            assert_eq!(response.json(), documented);
        }
        response.status
    };
    let anybody = Emulator::start().unwrap();
    let known = Emulator::builder()
        .token("TOKEN")
        .service_account("USER", "SECRET:1", 5)
        .start()
        .unwrap();
    for (query, authorization, of_anybody, of_known) in [
        ("", None, 401, 401),
        ("", Some("Bearer x".to_owned()), 401, 401),
        ("", Some("Basic ???".to_owned()), 401, 401),
        ("", Some(basic("", "")), 401, 401),
        ("", Some(basic("TOKEN", "")), 200, 200),
        ("", Some(basic("OTHER", "")), 200, 401),
        ("project_id=5", Some(basic("USER", "SECRET:1")), 200, 200),
        ("project_id=6", Some(basic("USER", "SECRET:1")), 200, 401),
        ("project_id=5", Some(basic("USER", "SECRET")), 200, 401),
        ("project_id=5", Some(basic("OTHER", "SECRET:1")), 200, 401),
        ("", Some(basic("USER", "SECRET:1")), 401, 401),
        ("project_id=", Some(basic("USER", "SECRET:1")), 401, 401),
        ("project_id=5", Some(basic("", "SECRET:1")), 401, 401),
    ] {
        let authorization = authorization.as_deref();
        let statuses = [&anybody, &known].map(|emulator| post(emulator, query, authorization));
        assert_eq!(
            statuses,
            [of_anybody, of_known],
            "{query} {authorization:?}"
        );
    }
    assert!(!format!("{known:?}").contains("SECRET"));
    let builder = Emulator::builder().service_account("USER", "SECRET", 5);
    assert!(!format!("{builder:?}").contains("SECRET"));
}

#[test]
fn other_methods() {
    let emulator = Emulator::start().unwrap();
    let response = raw(
        &emulator,
        b"GET /import?data=x HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
    );
    assert!(response.starts_with("HTTP/1.1 405 "), "{response}");
    assert!(response.contains("\r\nallow: POST\r\n"), "{response}");
}

#[test]
fn faults_are_for_events_too() {
    let emulator = Emulator::start().unwrap();
    emulator.fail_next(Fault::Status(401));
    emulator.fail_next(Fault::Status(503));
    emulator.fail_next(Fault::TooLarge(1));
    emulator.fail_next(Fault::Reject(vec![0]));
    let events = json!([event("a"), event("b")]);
    let documented = json!({"code": 401, "error": "Invalid credentials", "status": "Unauthorized"});
    assert_eq!(import(&emulator, "strict=1", &events).json(), documented);
    assert_eq!(import(&emulator, "strict=1", &events).status, 503);
    assert_eq!(import(&emulator, "strict=1", &events).status, 413);
    let response = import(&emulator, "strict=1", &events).json();
    assert_eq!(response["failed_records"][0]["$insert_id"], "a");
    assert_eq!(emulator.events(), [event("b")]);
}

/// As of RudderStack, and in Mixpanel's page about `$identify`.
#[test]
fn a_path_with_a_slash_at_its_end() {
    let emulator = Emulator::start().unwrap();
    let authorization = basic("TOKEN", "");
    let headers = [JSON, ("authorization", &authorization)];
    let post = |path: &str, body: &Value| {
        let body = body.to_string();
        Sender::new(&emulator).post(path, &headers, body.as_bytes())
    };
    let response = post("/import/?strict=1", &json!([event("a")])).unwrap();
    let expected = json!({"code": 200, "num_records_imported": 1, "status": "OK"});
    assert_eq!(response.json(), expected);
    let large = |id: u8| event_with("text", json!(id.to_string().repeat(MIB - 1_000)));
    let events: Value = (0..8).map(large).collect();
    assert_eq!(post("/import/", &events).unwrap().status, 200);
    emulator.fail_next(Fault::Status(401));
    let refused = post("/import/", &json!([])).unwrap();
    assert_eq!(refused.json()["error"], "Invalid credentials");
    assert_eq!(post("/import//", &json!([])).unwrap().status, 404);
}

#[test]
fn names_of_properties_are_cut_as_those_of_profiles() {
    let long = "n".repeat(256);
    let emulator = Emulator::start().unwrap();
    import(&emulator, "strict=1", &json!([event_with(&long, json!(1))]));
    assert_eq!(emulator.events()[0]["properties"][&long[..255]], 1);
    let exact = Emulator::builder()
        .truncate_like_mixpanel(false)
        .start()
        .unwrap();
    let response = import(&exact, "strict=1", &json!([event_with(&long, json!(1))]));
    let failed = &response.json()["failed_records"][0];
    assert_eq!(failed["field"], "properties");
    assert!(exact.events().is_empty());
}

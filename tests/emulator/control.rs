//! What the tests of other languages do over HTTP.

use std::time::Duration;

use mixpanel_groups_emulator::{Emulator, Fault};
use serde_json::{Value, json};

use crate::wire::{JSON, Response, Sender, raw, update};

fn command(sender: &Sender, name: &str, body: &Value) -> Response {
    let path = format!("/emulator/{name}");
    // As `curl -d` sends it, whatever the content type says.
    let form = ("content-type", "application/x-www-form-urlencoded");
    let body = body.to_string();
    sender.post(&path, &[form], body.as_bytes()).unwrap()
}

fn set(sender: &Sender, plan: &str) -> Response {
    sender.send("", &update("acme", "$set", json!({"plan": plan})))
}

/// The page's views cut long values, unlike the snapshot.
#[test]
fn the_snapshot_is_whole() {
    let emulator = Emulator::builder()
        .truncate_like_mixpanel(false)
        .start()
        .unwrap();
    let sender = Sender::new(&emulator);
    let get = || sender.get("/emulator/snapshot").json();
    assert_eq!(get(), json!({"groups": {}, "events": []}));

    let long = "x".repeat(300_000);
    let list: Vec<_> = (0..1_000).collect();
    let acme = json!({"text": long, "list": list, "owner": u64::MAX});
    sender.send("", &update("acme", "$set", acme.clone()));
    sender.send("", &update("globex", "$set", json!({"plan": "free"})));
    sender.send("", &update("globex", "$delete", json!("")));
    let properties = json!({
        "time": 1_618_716_477, "distinct_id": "ada", "$insert_id": "i1", "company": "acme",
    });
    let event = json!([{"event": "E", "properties": properties}]).to_string();
    let headers = [JSON[0], ("authorization", "Basic VE9LRU46")];
    let imported = sender.post("/import", &headers, event.as_bytes());
    assert_eq!(imported.unwrap().status, 200);
    let expected = json!({
        "groups": {"company": {"acme": acme}},
        "events": [{"event": "E", "properties": {"distinct_id": "ada", "company": "acme"}}],
    });
    assert_eq!(get(), expected);
    let text = sender.get("/emulator/snapshot").body;
    assert_eq!(text, serde_json::to_string(&emulator.snapshot()).unwrap());
    assert_eq!(emulator.requests().len(), 4, "the snapshot is not one");
}

#[test]
fn each_fault_can_be_injected() {
    let emulator = Emulator::start().unwrap();
    let sender = Sender::new(&emulator);
    for (fault, expected) in [
        (json!({"status": 503}), "Status(503)"),
        (
            json!({"retry_after": {"status": 429, "after": "2"}}),
            r#"RetryAfter { status: 429, after: "2" }"#,
        ),
        (
            json!({"response": {"status": 200, "body": "0"}}),
            r#"Response { status: 200, body: "0" }"#,
        ),
        (json!("html"), "Html"),
        (json!({"firewall": "acme"}), r#"Firewall("acme")"#),
        (json!("close_before"), "CloseBefore"),
        (json!("close_after"), "CloseAfter"),
        (json!("close_mid_response"), "CloseMidResponse"),
        (json!({"apply_late_ms": 1}), "ApplyLate(1ms)"),
    ] {
        let injected = command(&sender, "fail_next", &fault);
        assert_eq!(injected.status, 204, "{fault} {injected:?}");
        let body = json!([update("acme", "$set", json!({"a": 1}))]).to_string();
        drop(sender.post("/groups", &JSON, body.as_bytes()));
        let request = emulator.requests().pop().unwrap();
        let error = request.error.unwrap();
        assert!(error.ends_with(&format!(": {expected}")), "{fault} {error}");
        assert_eq!(set(&sender, "free").body, "1", "one request alone");
    }
    let two = json!([
        update("a", "$set", json!({"a": 1})),
        update("b", "$set", json!({"a": 1}))
    ]);
    command(&sender, "fail_next", &json!({"reject": [1]}));
    let rejected = sender.send("strict=1", &two).json();
    assert_eq!(rejected["failed_records"][0]["index"], 1);
    command(&sender, "fail_next", &json!({"too_large": 1}));
    assert_eq!(sender.send("", &two).status, 413);
    // So long that only the end of the emulator ends it.
    command(&sender, "fail_next", &json!({"delay_ms": u64::MAX}));
    let len = two.to_string().len();
    let head = format!("POST /groups HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len}\r\n\r\n");
    let endpoint = emulator.endpoint();
    let delayed = std::thread::spawn(move || {
        let mut stream = std::net::TcpStream::connect(&endpoint["http://".len()..]).unwrap();
        std::io::Write::write_all(&mut stream, format!("{head}{two}").as_bytes()).unwrap();
        std::io::Read::read(&mut stream, &mut [0]).unwrap_or_default()
    });
    let before = emulator.requests().len();
    let arrived = emulator.wait_for(Duration::from_secs(60), |e| {
        (e.requests().len() > before).then_some(())
    });
    arrived.unwrap();
    drop(emulator);
    assert_eq!(delayed.join().unwrap(), 0, "no reply");
}

#[test]
fn faults_last_until_recover_or_reset() {
    let emulator = Emulator::start().unwrap();
    let sender = Sender::new(&emulator);
    for end in ["recover", "reset"] {
        command(&sender, "fail_always", &json!({"status": 500}));
        command(&sender, "fail_next", &json!({"status": 502}));
        let statuses = [(); 3].map(|()| set(&sender, "free").status);
        assert_eq!(statuses, [502, 500, 500]);
        command(&sender, "fail_next", &json!({"status": 502}));
        assert_eq!(command(&sender, end, &json!(null)).status, 204);
        assert_eq!(set(&sender, "free").status, 200);
    }
}

/// The error lists a form of each, and so does the README.
#[test]
fn the_forms_of_faults_are_documented() {
    let emulator = Emulator::start().unwrap();
    let sender = Sender::new(&emulator);
    let error = command(&sender, "fail_next", &json!("")).json();
    let error = error["error"].as_str().unwrap();
    let forms = error
        .strip_prefix("not a fault that can be carried out: expected one of ")
        .unwrap();
    let readme = include_str!("../../groups-emulator/README.md");
    let forms: Vec<_> = forms.split("; ").collect();
    assert_eq!(forms.len(), 12);
    for form in forms {
        let fault = serde_json::from_str(form).unwrap();
        assert_eq!(command(&sender, "fail_next", &fault).status, 204, "{form}");
        assert!(readme.contains(&format!("`{form}`")), "{form}");
    }
}

#[test]
fn what_is_not_a_fault_is_refused() {
    let emulator = Emulator::start().unwrap();
    let sender = Sender::new(&emulator);
    for body in [
        json!(null),
        json!(503),
        json!("sleep"),
        json!("status"),
        json!({}),
        json!({"status": 70_000}),
        json!({"status": "503"}),
        json!({"status": 503, "delay_ms": 5}),
        json!({"html": 5}),
        json!({"retry_after": {"status": 429}}),
        json!({"retry_after": {"status": 429, "after": "2\n"}}),
        json!({"retry_after": {"status": 429, "after": "\u{0}"}}),
        json!({"retry_after": {"status": 429, "after": "2".repeat(100_000)}}),
        json!({"retry_after": {"status": 199, "after": "2"}}),
        json!({"status": 100}),
        json!({"status": 0}),
        json!({"status": 1_000}),
        json!({"response": {"status": 101, "body": "1"}}),
        json!({"response": {"body": "1"}}),
        json!({"reject": [-1]}),
        json!({"reject": 1}),
        json!([{"status": 503}]),
    ] {
        for name in ["fail_next", "fail_always"] {
            let refused = command(&sender, name, &body);
            assert_eq!(refused.status, 400, "{body} {refused:?}");
            let error = refused.json()["error"].as_str().unwrap().to_owned();
            assert!(error.contains(r#"{"status": 503}"#), "{error}");
        }
    }
    let too_large = vec![b' '; 3 * 1024 * 1024];
    let refused = sender.post("/emulator/fail_next", &[], &too_large);
    assert_eq!(refused.unwrap().status, 413);
    for name in ["reset", "fail_next", "fail_always", "recover"] {
        assert_eq!(sender.get(&format!("/emulator/{name}")).status, 405);
    }
    assert_eq!(command(&sender, "snapshot", &json!(null)).status, 405);
    assert_eq!(set(&sender, "free").body, "1", "no fault is left");
}

/// A test that ignores the status would go on without its fault.
#[test]
fn an_unknown_path_is_not_found() {
    let emulator = Emulator::start().unwrap();
    emulator.fail_next(Fault::Status(500));
    let sender = Sender::new(&emulator);
    for name in ["fail-next", "fail_next/", "apply_late", "", "page/groups"] {
        let missing = command(&sender, name, &json!({"status": 503}));
        assert_eq!(missing.status, 404, "{name}");
        let error = missing.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains("/emulator/fail_next"), "{error}");
        assert_eq!(sender.get(&format!("/emulator/{name}")).status, 404);
    }
    // What is there, but for the page.
    assert_eq!(command(&sender, "groups", &json!(null)).status, 405);
    assert_eq!(emulator.requests().len(), 0);
    assert_eq!(set(&sender, "free").status, 500, "the fault is still there");
}

#[test]
fn head_of_the_snapshot_is_without_its_body() {
    let emulator = Emulator::start().unwrap();
    let head = "HEAD /emulator/snapshot HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let reply = raw(&emulator, head.as_bytes());
    assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
    let len = r#"{"groups":{},"events":[]}"#.len();
    assert!(
        reply.contains(&format!("\r\ncontent-length: {len}\r\n")),
        "{reply}"
    );
    assert!(reply.ends_with("\r\n\r\n"), "{reply}");
}

/// Pages of other sites and ports may send updates at most.
#[test]
fn pages_cannot_control_the_emulator() {
    let emulator = Emulator::start().unwrap();
    for (method, name) in [
        ("GET", "snapshot"),
        ("POST", "fail_next"),
        ("POST", "fail_always"),
        ("POST", "recover"),
    ] {
        for who in [
            "host: localhost:8\r\norigin: http://localhost:3000",
            "host: localhost\r\nsec-fetch-site: cross-site",
            "host: evil.example",
        ] {
            let request = format!(
                "{method} /emulator/{name} HTTP/1.1\r\n{who}\r\nconnection: close\r\n\
                 content-length: 14\r\n\r\n{{\"status\":503}}"
            );
            let reply = raw(&emulator, request.as_bytes());
            assert!(reply.starts_with("HTTP/1.1 403 "), "{who} {reply}");
            let reason = if who.contains("evil") {
                "the host"
            } else {
                "a web page other than the emulator's own must not"
            };
            assert!(reply.contains(reason), "{who} {reply}");
        }
    }
    assert_eq!(set(&Sender::new(&emulator), "free").body, "1");
}

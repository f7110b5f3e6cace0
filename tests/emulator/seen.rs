//! What a test sees of what arrived and of what failed, and how it waits.

use std::io::Write;
use std::thread;
use std::time::Duration;

use mixpanel_groups::{ErrorKind, Operation};
use mixpanel_groups_emulator::{Emulator, Fault};
use serde_json::json;

use crate::wire::{JSON, PATIENCE, Sender, connect, update};

#[test]
fn failed_requests_say_why() {
    let emulator = Emulator::builder()
        .token("TOKEN")
        .max_body(500)
        .start()
        .unwrap();
    let sender = Sender::new(&emulator);
    let mut foreign = update("acme", "$set", json!({"a": 1}));
    foreign["$token"] = json!("OTHER");
    sender.send("", &foreign);
    sender.post("/groups", &JSON, b"{").unwrap();
    sender.post("/engage", &JSON, b"[]").unwrap();
    sender.post("/import", &JSON, b"[]").unwrap();
    sender.post("/groups", &JSON, &[b' '; 501]).unwrap();
    let good = update("acme", "$set", json!({"a": 1}));
    let bad = update("acme", "$unset", json!([]));
    assert_eq!(sender.send("", &json!([good, bad])).body, "1");
    sender.send("", &json!([good]));
    let requests = emulator.requests();
    let seen = requests.iter().map(|request| {
        (
            request.number,
            request.status.unwrap(),
            request.is_failed(),
            request.accepted,
        )
    });
    let expected = [
        (0, 401, true, 0),
        (1, 400, true, 0),
        (2, 404, true, 0),
        (3, 401, true, 0),
        (4, 413, true, 0),
        (5, 200, true, 1),
        (6, 200, false, 1),
    ];
    assert_eq!(seen.collect::<Vec<_>>(), expected);
    let errors = requests
        .iter()
        .map(|request| request.error.as_deref().unwrap_or_default());
    let reasons = [
        "project token",
        "the body is not JSON",
        "/engage",
        "Basic authorization is missing",
        "exceeds max limit",
        "",
        "",
    ];
    for (error, reason) in errors.zip(reasons) {
        assert!(error.contains(reason), "{error} {reason}");
    }
    let dropped = &requests[5].dropped[..];
    assert_eq!(
        (dropped.len(), dropped[0].position, &*dropped[0].field),
        (1, 1, "$unset")
    );
    assert!(
        !format!("{requests:?}").contains("OTHER"),
        "no token is shown"
    );
}

#[test]
fn a_firewall_takes_offense_at_one_text() {
    let emulator = Emulator::start().unwrap();
    emulator.fail_always(Fault::Firewall("DROP TABLE".to_owned()));
    let sender = Sender::new(&emulator);
    let good = update("good", "$set", json!({"a": 1}));
    let response = sender.send(
        "strict=1",
        &json!([good, update("bad", "$set", json!({"a": "DROP TABLE x"}))]),
    );
    assert_eq!(
        (response.status, &*response.content_type),
        (403, "text/html")
    );
    assert!(emulator.profiles().is_empty());
    assert_eq!(sender.send("", &good).body, "1");
    assert_eq!(emulator.profiles().len(), 1);
}

#[test]
fn updates_group_by_group_with_what_they_changed() {
    let emulator = Emulator::start().unwrap();
    let sender = Sender::new(&emulator);
    sender.send(
        "",
        &json!([
            update("b", "$set", json!({"plan": "free", "a": 1})),
            update("a", "$set", json!({"x": 1}))
        ]),
    );
    sender.send(
        "",
        &json!([
            update("b", "$set", json!({"plan": "pro", "a": 1})),
            update("b", "$set_once", json!({"plan": "none"})),
            update("b", "$delete", json!("")),
        ]),
    );
    let updates = emulator.updates();
    let text = serde_json::to_string(&updates).unwrap();
    let expected = concat!(
        r#"[{"key":"company","id":"a","updates":[{"$set":{"x":1}}]},{"key":"company","id":"b","updates":["#,
        r#"{"$set":{"a":1,"plan":"free"}},{"$set":{"a":1,"plan":"pro"}},{"$set_once":{"plan":"none"}},"#,
        r#"{"$delete":""}]}]"#,
    );
    assert_eq!(text, expected);
    let b = &updates[1].updates;
    assert_eq!(b[1].operation, Operation::Set);
    assert_eq!((b[0].request, b[1].request), (Some(0), Some(1)));
    let [change] = &b[1].changes[..] else {
        panic!("{:?}", b[1].changes)
    };
    assert_eq!(
        (&*change.name, &change.before, &change.after),
        ("plan", &Some(json!("free")), &Some(json!("pro")))
    );
    assert!(b[2].changes.is_empty());
    assert_eq!(b[3].changes.len(), 2);
    assert!(b[3].changes.iter().all(|change| change.after.is_none()));
}

#[test]
fn a_property_that_an_update_names_twice_has_changed_once() {
    let emulator = Emulator::start().unwrap();
    let sender = Sender::new(&emulator);
    sender.send("", &update("a", "$set", json!({"x": 1, "y": 2})));
    sender.send("", &update("a", "$unset", json!(["y", "x", "y"])));
    let changes = &emulator.updates()[0].updates[1].changes;
    let names: Vec<_> = changes.iter().map(|change| &*change.name).collect();
    assert_eq!(names, ["x", "y"]);
}

#[test]
fn waiting_ends_when_it_has_arrived() {
    let emulator = Emulator::start().unwrap();
    let sender = Sender::new(&emulator);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| emulator.wait_for(PATIENCE, |e| e.profile("company", "acme")));
        sender.send("", &update("other", "$set", json!({"a": 1})));
        sender.send("", &update("acme", "$set", json!({"a": 1})));
        assert_eq!(waiting.join().unwrap().unwrap(), json!({"a": 1}));
    });
    // What is there already is found at once, also without time.
    emulator
        .wait_for(Duration::ZERO, |e| e.profile("company", "acme"))
        .unwrap();
    emulator
        .wait_for(Duration::MAX, |e| e.requests().pop())
        .unwrap();
    sender.send("", &update("acme", "$unset", json!([])));
    let error = emulator
        .wait_for(Duration::ZERO, |e| e.profile("company", "none"))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let message = error.to_string();
    assert!(
        message.contains("3 requests arrived, 1 of them failed"),
        "{message}"
    );
    assert!(message.contains("$unset: not a list"), "{message}");
}

#[test]
fn reset_forgets_everything_and_numbers_requests_on() {
    let emulator = Emulator::start().unwrap();
    let sender = Sender::new(&emulator);
    sender.send("", &update("acme", "$set", json!({"a": 1})));
    emulator.fail_always(Fault::Html);
    emulator.reset();
    assert!(emulator.profiles().is_empty() && emulator.updates().is_empty());
    assert!(emulator.requests().is_empty() && emulator.events().is_empty());
    assert_eq!(
        sender
            .send("", &update("acme", "$set", json!({"a": 2})))
            .body,
        "1"
    );
    assert_eq!(emulator.requests()[0].number, 1);
}

/// Viewers that never read what they asked for, of more than any socket buffers.
#[test]
fn viewers_that_do_not_read_block_nobody() {
    let emulator = Emulator::start().unwrap();
    let sender = Sender::new(&emulator);
    let names = (0..500).map(|n| format!("{n} {}", "x".repeat(240)));
    let properties: serde_json::Map<_, _> =
        names.map(|name| (name, json!("y".repeat(250)))).collect();
    sender.send("", &update("acme", "$set", json!(properties)));
    let viewers: Vec<_> = (0..8).map(|_| connect(&emulator)).collect();
    for mut viewer in &viewers {
        viewer.set_nonblocking(true).unwrap();
        let request = "GET /emulator/group?key=company&id=acme HTTP/1.1\r\nhost: localhost\r\n\r\n";
        // Pipelined, so that each connection's thread gets stuck while it responds.
        for _ in 0..200 {
            let _ = viewer.write(request.as_bytes());
        }
    }
    for n in 0..50 {
        assert_eq!(
            sender
                .send("", &update("other", "$set", json!({"n": n})))
                .body,
            "1"
        );
    }
    assert_eq!(
        emulator.profile("company", "other").unwrap(),
        json!({"n": 49})
    );
}

/// The log keeps 16 MiB, and one request may be larger.
#[test]
fn the_last_request_is_kept_whatever_its_size() {
    const MIB: usize = 1024 * 1024;
    let emulator = Emulator::builder().max_body(32 * MIB).start().unwrap();
    let sender = Sender::new(&emulator);
    sender.send("", &update("acme", "$set", json!({"a": 1})));
    sender
        .post("/groups", &JSON, &vec![b' '; 17 * MIB])
        .unwrap();
    let kept = || -> Vec<_> { emulator.requests().iter().map(|r| r.number).collect() };
    assert_eq!(kept(), [1]);
    // Smaller ones come back to their share.
    sender.send("", &update("acme", "$set", json!({"a": 2})));
    sender.send("", &update("acme", "$set", json!({"a": 3})));
    assert_eq!(kept(), [2, 3]);
}

/// The error of a request that gets a fault has the whole fault in it.
#[test]
fn the_log_is_bounded_whatever_part_of_a_request_is_long() {
    const MIB: usize = 1024 * 1024;
    let emulator = Emulator::start().unwrap();
    let sender = Sender::new(&emulator);
    let kept = || -> usize {
        let requests = emulator.requests();
        let requests = requests.iter();
        requests
            .map(|r| r.method.len() + r.path.len() + r.error.as_ref().map_or(0, String::len))
            .sum()
    };
    emulator.fail_always(Fault::Response {
        status: 502,
        body: "x".repeat(MIB),
    });
    for _ in 0..40 {
        assert_eq!(sender.send("", &json!([])).status, 502);
    }
    assert!(kept() <= 16 * MIB, "{}", kept());

    emulator.reset();
    let path = format!("/{}", "x".repeat(60_000));
    for _ in 0..300 {
        assert_eq!(sender.get(&path).status, 404);
    }
    assert!(kept() <= 16 * MIB, "{}", kept());
}

/// As of `requests.post(url, json=json.dumps(data))`, which encodes twice.
#[test]
fn requests_without_a_valid_record_have_failed() {
    let emulator = Emulator::builder().token("TOKEN").start().unwrap();
    let sender = Sender::new(&emulator);
    let updates = json!([update("acme", "$set", json!({"a": 1}))]).to_string();
    let authorization = ("authorization", "Basic VE9LRU46");
    for body in [json!(updates), json!([updates]), json!([]), json!(5)] {
        for path in ["/groups", "/import"] {
            for query in ["", "verbose=1", "strict=1", "strict=1&verbose=1"] {
                let path = format!("{path}?{query}");
                let headers = [JSON[0], authorization];
                let body = body.to_string();
                let response = sender.post(&path, &headers, body.as_bytes()).unwrap();
                let request = emulator.requests().pop().unwrap();
                assert!(request.is_failed(), "{path} {body} {response:?}");
                let dropped = request.dropped.first().map(|record| &record.message);
                let why = request.error.as_ref().or(dropped).unwrap();
                assert_eq!(body.contains('"'), why.contains("encoded twice"), "{why}");
            }
        }
    }
    assert!(emulator.profiles().is_empty() && emulator.events().is_empty());
}

#[test]
fn who_sees_an_update_sees_its_request() {
    let emulator = Emulator::start().unwrap();
    let sender = Sender::new(&emulator);
    let event = |id: &str| {
        let properties = json!({"time": 1_618_716_477, "distinct_id": "", "$insert_id": id});
        json!([{"event": "E", "properties": properties}]).to_string()
    };
    for round in 0..300 {
        let id = &format!("i{round}");
        let seen = thread::scope(|scope| {
            scope.spawn(|| {
                if round % 2 == 0 {
                    sender.send("", &update(id, "$set", json!({"a": 1})));
                } else {
                    let headers = [JSON[0], ("authorization", "Basic VE9LRU46")];
                    let sent = sender.post("/import", &headers, event(id).as_bytes());
                    sent.unwrap();
                }
            });
            let arrived =
                |e: &Emulator| e.profile("company", id).is_some() || !e.events().is_empty();
            emulator.wait_for(PATIENCE, |e| arrived(e).then(|| e.requests().len()))
        });
        assert_eq!(seen.unwrap(), 1, "{round}");
        emulator.reset();
    }
}

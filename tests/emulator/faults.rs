//! Each fault, as a client sees it.

use std::io::Write;
use std::net::TcpStream;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use mixpanel_groups_emulator::{Emulator, Fault};
use serde_json::{Value, json};

use crate::wire::{JSON, PATIENCE, Response, Sender, connect, read_response, update};

fn updates(ids: &[&str]) -> Value {
    let updates = ids.iter().map(|id| update(id, "$set", json!({"a": 1})));
    updates.collect()
}

fn emulator(fault: Fault) -> (Emulator, Sender) {
    let emulator = Emulator::start().unwrap();
    emulator.fail_next(fault);
    let sender = Sender::new(&emulator);
    (emulator, sender)
}

fn try_send(sender: &Sender, body: &Value) -> Result<Response, ureq::Error> {
    sender.post("/groups", &JSON, body.to_string().as_bytes())
}

/// The fault was for one request: the next one is as it should be.
fn assert_recovered(sender: &Sender) {
    assert_eq!(sender.send("", &updates(&["next"])).body, "1");
}

#[test]
fn status() {
    let (emulator, sender) = emulator(Fault::Status(503));
    let response = sender.send("strict=1", &updates(&["acme"]));
    assert_eq!(response.status, 503);
    assert_eq!(response.json()["code"], 503);
    assert_eq!(response.json()["status"], "Service Unavailable");
    assert_eq!(response.retry_after, None);
    assert!(emulator.profiles().is_empty());
    assert_eq!(emulator.requests()[0].status, Some(503));
    assert_eq!(emulator.requests()[0].body, updates(&["acme"]).to_string());
    assert_recovered(&sender);
}

#[test]
fn statuses_as_documented() {
    for (status, key) in [(401, "error"), (403, "error")] {
        let (_emulator, sender) = emulator(Fault::Status(status));
        let response = sender.send("", &updates(&["acme"]));
        assert_eq!(response.status, status);
        assert_eq!(response.json()["status"], key);
    }
    let overload =
        "Project exceeded rate limits. Please retry the request with exponential backoff.";
    for (status, error, name) in [
        (429, overload, "Too Many Requests"),
        (
            413,
            "request exceeds max limit of 2097152 bytes",
            "Request Entity Too Large",
        ),
    ] {
        let (_emulator, sender) = emulator(Fault::Status(status));
        let expected = json!({"code": status, "error": error, "status": name});
        assert_eq!(sender.send("", &updates(&["acme"])).json(), expected);
    }
}

#[test]
fn statuses_of_any_number() {
    for (status, seen) in [
        (204, 204),
        (304, 304),
        (0, 500),
        (1000, 500),
        (599, 599),
        (100, 500),
        (199, 500),
    ] {
        let (_emulator, sender) = emulator(Fault::Status(status));
        assert_eq!(sender.send("", &updates(&["acme"])).status, seen);
        assert_recovered(&sender);
    }
}

#[test]
fn retry_after() {
    for after in ["7", "Fri, 31 Dec 2055 23:59:59 GMT", "soon"] {
        let (emulator, sender) = emulator(Fault::RetryAfter {
            status: 429,
            after: after.to_owned(),
        });
        let response = sender.send("", &updates(&["acme"]));
        assert_eq!(response.status, 429);
        assert_eq!(response.retry_after.as_deref(), Some(after));
        assert!(emulator.profiles().is_empty());
        assert_recovered(&sender);
    }
}

/// The rest of the fault is as requested.
#[test]
fn retry_after_that_cannot_be_a_header() {
    for after in ["2\n", "\u{0}", &"2".repeat(100_000)] {
        let (emulator, sender) = emulator(Fault::RetryAfter {
            status: 429,
            after: after.to_owned(),
        });
        let response = sender.send("", &updates(&["acme"]));
        assert_eq!((response.status, response.retry_after), (429, None));
        assert!(emulator.profiles().is_empty());
        assert_recovered(&sender);
    }
}

#[test]
fn any_response() {
    for body in ["", "{\"status\":", "1", "\u{fffd}\u{0}"] {
        let (emulator, sender) = emulator(Fault::Response {
            status: 200,
            body: body.to_owned(),
        });
        let response = sender.send("", &updates(&["acme"]));
        assert_eq!((response.status, response.body.as_str()), (200, body));
        assert!(emulator.profiles().is_empty());
        assert_recovered(&sender);
    }
}

#[test]
fn html() {
    let (emulator, sender) = emulator(Fault::Html);
    let response = sender.send("strict=1&verbose=1", &updates(&["acme"]));
    assert_eq!(response.status, 502);
    assert_eq!(response.content_type, "text/html");
    assert!(response.body.starts_with("<html>"));
    assert!(emulator.profiles().is_empty());
    assert_recovered(&sender);
}

#[test]
fn close_before() {
    let (emulator, sender) = emulator(Fault::CloseBefore);
    assert!(try_send(&sender, &updates(&["acme"])).is_err());
    assert!(emulator.profiles().is_empty());
    assert_eq!(emulator.requests().len(), 1);
    assert_eq!(emulator.requests()[0].status, None);
    assert_recovered(&sender);
}

#[test]
fn close_after() {
    let (emulator, sender) = emulator(Fault::CloseAfter);
    assert!(try_send(&sender, &updates(&["acme"])).is_err());
    assert!(emulator.profile("company", "acme").is_some());
    assert_eq!(emulator.requests()[0].status, None);
    assert_recovered(&sender);
}

#[test]
fn close_mid_response() {
    let (emulator, sender) = emulator(Fault::CloseMidResponse);
    let path = "/groups?strict=1";
    let body = updates(&["acme"]).to_string();
    let response = sender.post(path, &JSON, body.as_bytes());
    let Err(ureq::Error::Io(error)) = response else {
        panic!("{response:?}")
    };
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    assert!(emulator.profile("company", "acme").is_some());
    assert_recovered(&sender);
}

#[test]
fn reject() {
    let (emulator, sender) = emulator(Fault::Reject(vec![0, 2, 9]));
    let response = sender.send("strict=1", &updates(&["a", "b", "c", "d"]));
    assert_eq!(response.status, 400);
    let json = response.json();
    assert_eq!(json["num_records_imported"], 2);
    let failed = json["failed_records"].as_array().unwrap();
    let positions: Vec<_> = failed
        .iter()
        .map(|f| f["index"].as_u64().unwrap())
        .collect();
    assert_eq!(positions, [0, 2]);
    let ids: Vec<_> = emulator.profiles().into_keys().map(|(_, id)| id).collect();
    assert_eq!(ids, ["b", "d"]);
    assert_recovered(&sender);
}

#[test]
fn reject_without_strict() {
    let (emulator, sender) = emulator(Fault::Reject(vec![0]));
    assert_eq!(sender.send("", &updates(&["a"])).body, "0");
    assert!(emulator.profiles().is_empty());
}

#[test]
fn too_large() {
    let emulator = Emulator::start().unwrap();
    emulator.fail_always(Fault::TooLarge(2));
    let sender = Sender::new(&emulator);
    let response = sender.send("strict=1", &updates(&["a", "b", "c"]));
    assert_eq!(response.status, 413);
    assert_eq!(response.json()["status"], "Request Entity Too Large");
    assert!(emulator.profiles().is_empty());
    assert_eq!(sender.send("", &updates(&["a", "b"])).body, "1");
    assert_eq!(emulator.profiles().len(), 2);
}

/// A connection over which these updates were sent, and no response was read.
fn start(emulator: &Emulator, body: &Value) -> TcpStream {
    let mut stream = connect(emulator);
    let body = body.to_string();
    let len = body.len();
    let request =
        format!("POST /groups HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

#[test]
fn delay_is_after_the_request_is_applied_and_delays_no_other() {
    let emulator = Emulator::start().unwrap();
    // Longer than any test may take: the response never comes.
    emulator.fail_next(Fault::Delay(Duration::from_hours(1)));
    let stalled = start(&emulator, &updates(&["slow"]));
    while emulator.profile("company", "slow").is_none() {
        thread::yield_now();
    }
    let sender = Sender::new(&emulator);
    assert_eq!(sender.send("", &updates(&["fast"])).body, "1");
    stalled.set_nonblocking(true).unwrap();
    let nothing_yet = stalled.peek(&mut [0]).unwrap_err();
    assert_eq!(nothing_yet.kind(), std::io::ErrorKind::WouldBlock);

    // A stopping emulator does not wait for it.
    let (dropped, is_dropped) = mpsc::channel();
    thread::spawn(move || {
        drop(emulator);
        dropped.send(())
    });
    is_dropped.recv_timeout(PATIENCE).unwrap();
}

#[test]
fn delay_ends() {
    let emulator = Emulator::start().unwrap();
    emulator.fail_next(Fault::Delay(Duration::from_millis(5)));
    let mut stream = connect(&emulator);
    stream
        .write_all(b"POST /groups HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n[]")
        .unwrap();
    assert!(read_response(&mut stream).ends_with("\r\n\r\n0"));
}

#[test]
fn faults_queue_up_before_lasting_ones() {
    let emulator = Emulator::start().unwrap();
    let sender = Sender::new(&emulator);
    emulator.fail_always(Fault::Status(500));
    emulator.fail_next(Fault::Status(501));
    emulator.fail_next(Fault::Html);
    let status = || sender.send("", &updates(&["a"])).status;
    assert_eq!(
        [status(), status(), status(), status()],
        [501, 502, 500, 500]
    );

    emulator.fail_next(Fault::Status(501));
    emulator.recover();
    assert_eq!(status(), 200);
}

#[test]
fn faults_are_for_a_request_and_not_for_a_connection() {
    let emulator = Emulator::start().unwrap();
    let sender = Sender::new(&emulator);
    assert_recovered(&sender);
    // The pooled connection is closed while it is in use.
    emulator.fail_next(Fault::CloseBefore);
    assert!(try_send(&sender, &updates(&["a"])).is_err());
    assert_recovered(&sender);
}

fn plan(plan: &str) -> Value {
    json!([update("acme", "$set", json!({"plan": plan}))])
}

/// The client gives up on a request and sends it again; the first one comes through after all, and
/// undoes a later one.
#[test]
fn apply_late() {
    let (emulator, sender) = emulator(Fault::ApplyLate(Duration::MAX));
    assert!(try_send(&sender, &plan("free")).is_err());
    assert!(emulator.profiles().is_empty());
    let [request] = &emulator.requests()[..] else {
        panic!("it was received")
    };
    assert_eq!(
        (&request.body, request.status),
        (&plan("free").to_string(), None)
    );

    assert_eq!(sender.send("", &plan("free")).body, "1");
    assert_eq!(sender.send("", &plan("pro")).body, "1");
    assert_eq!(emulator.apply_late(), 1);
    let acme = || emulator.profile("company", "acme").unwrap();
    assert_eq!(acme(), json!({"plan": "free"}));
    assert_eq!(emulator.apply_late(), 0, "once only");
    assert_eq!(emulator.requests().len(), 3, "it is still the same request");
}

#[test]
fn apply_late_in_the_order_of_arrival() {
    let emulator = Emulator::start().unwrap();
    let sender = Sender::new(&emulator);
    emulator.fail_always(Fault::ApplyLate(Duration::MAX));
    for name in ["first", "second", "third"] {
        assert!(try_send(&sender, &plan(name)).is_err());
    }
    emulator.recover();
    assert_eq!(emulator.apply_late(), 3);
    assert_eq!(
        emulator.profile("company", "acme").unwrap(),
        json!({"plan": "third"})
    );
}

#[test]
fn apply_late_by_itself_when_the_time_is_over() {
    let (emulator, sender) = emulator(Fault::ApplyLate(Duration::from_millis(5)));
    assert!(try_send(&sender, &plan("free")).is_err());
    let started = Instant::now();
    while emulator.profile("company", "acme").is_none() {
        assert!(started.elapsed() < PATIENCE, "it is never applied");
        thread::yield_now();
    }
    assert_eq!(emulator.apply_late(), 0);
}

/// Else a thread and a connection would stay until the time is over.
#[test]
fn what_was_put_off_ends_when_it_is_applied_or_forgotten() {
    let emulator = Emulator::start().unwrap();
    let late = Fault::ApplyLate(Duration::from_hours(1));
    let delay = Fault::Delay(Duration::from_hours(1));
    let apply: fn(&Emulator) = |emulator| assert_eq!(emulator.apply_late(), 1);
    for (fault, end) in [
        (late.clone(), apply),
        (late, Emulator::reset),
        (delay, Emulator::reset),
    ] {
        emulator.fail_next(fault.clone());
        let aborted = start(&emulator, &plan("free"));
        let arrived = emulator.wait_for(PATIENCE, |e| e.requests().pop());
        arrived.unwrap();
        drop(aborted);
        end(&emulator);
        let started = Instant::now();
        while emulator.open_connections() > 0 {
            assert!(started.elapsed() < PATIENCE, "{fault:?}");
        }
        emulator.reset();
    }
}

#[test]
fn reset_ends_a_delay_with_the_reply() {
    let (emulator, sender) = emulator(Fault::Delay(Duration::from_hours(1)));
    let mut delayed = start(&emulator, &plan("free"));
    let arrived = emulator.wait_for(PATIENCE, |e| e.profile("company", "acme"));
    arrived.unwrap();
    // Other requests do not end it.
    assert_recovered(&sender);
    delayed.set_nonblocking(true).unwrap();
    assert!(delayed.peek(&mut [0]).is_err());
    delayed.set_nonblocking(false).unwrap();
    emulator.reset();
    assert!(read_response(&mut delayed).ends_with("\r\n\r\n1"));
}

/// What cannot be applied is not applied late either, and a stopping emulator waits for nothing.
#[test]
fn apply_late_of_what_is_not_valid_or_never_due() {
    let (emulator, sender) = emulator(Fault::ApplyLate(Duration::MAX));
    assert!(try_send(&sender, &json!("text")).is_err());
    assert_eq!(emulator.apply_late(), 1);
    assert!(emulator.profiles().is_empty());
    emulator.fail_next(Fault::ApplyLate(Duration::MAX));
    assert!(try_send(&sender, &plan("free")).is_err());
    let (dropped, is_dropped) = mpsc::channel();
    thread::spawn(move || {
        drop(emulator);
        dropped.send(())
    });
    is_dropped.recv_timeout(PATIENCE).unwrap();
}

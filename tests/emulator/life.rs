//! How the emulator starts and stops.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use mixpanel_groups::ErrorKind;
use mixpanel_groups_emulator::Emulator;
use serde_json::json;

use crate::wire::{PATIENCE, Sender, connect, read_response, update};

/// Other tests may get the port that one has just left, but not five times.
fn once_in_five(succeeds: impl Fn() -> bool) -> bool {
    (0..5).any(|_| succeeds())
}

#[test]
fn dropping_closes_the_listener() {
    assert!(once_in_five(|| {
        let emulator = Emulator::start().unwrap();
        let address = emulator.endpoint().replace("http://", "");
        drop(emulator);
        TcpStream::connect(address).is_err()
    }));
}

#[test]
fn dropping_closes_all_connections() {
    let emulator = Emulator::start().unwrap();
    let mut idle = connect(&emulator);
    let mut used = connect(&emulator);
    used.write_all(b"POST /groups HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n[]")
        .unwrap();
    read_response(&mut used);
    let mut half = connect(&emulator);
    half.write_all(b"POST /groups HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n[")
        .unwrap();
    // The response came after the others were accepted.
    Sender::new(&emulator).send("", &json!([]));

    drop(emulator);
    for stream in [&mut idle, &mut used, &mut half] {
        // An end or a reset, but no time-out.
        let end = stream.read(&mut [0]);
        assert!(
            matches!(&end, Ok(0))
                || end.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset)
        );
    }
}

#[test]
fn a_port_of_ones_own() {
    assert!(once_in_five(|| {
        let emulator = Emulator::start().unwrap();
        let endpoint = emulator.endpoint();
        let port = endpoint.rsplit(':').next().unwrap().parse().unwrap();
        let error = Emulator::builder().port(port).start().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        let message = format!("cannot listen on {}: ", endpoint.replace("http://", ""));
        assert!(error.to_string().starts_with(&message), "{error}");
        // One that is used leaves connections behind, which hold the port for a while.
        Sender::new(&emulator).send("", &json!([]));
        drop(emulator);
        let again = Emulator::builder().port(port).start();
        again.is_ok_and(|emulator| emulator.endpoint() == endpoint)
    }));
}

#[test]
fn settings_that_no_request_can_match_are_errors() {
    let account = |user: &str, secret: &str, project: &str| {
        Emulator::builder().service_account(user, secret, project)
    };
    for builder in [
        Emulator::builder().max_body(0),
        Emulator::builder().token(""),
        Emulator::builder().keep(""),
        Emulator::builder().allow_host(""),
        Emulator::builder().allow_host("http://host.docker.internal:8080"),
        account("", "SECRET", "5"),
        account("USER", "", "5"),
        account("USER", "SECRET", ""),
        account("US:ER", "SECRET", "5"),
    ] {
        let debug = format!("{builder:?}");
        let error = builder.start().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{debug}");
        assert!(!format!("{error:?}").contains("SECRET"), "{error:?}");
    }
    Emulator::builder().max_body(1).start().unwrap();
}

#[test]
fn several_in_one_process() {
    let first = Emulator::start().unwrap();
    let second = Emulator::start().unwrap();
    let body = json!([update("acme", "$set", json!({"a": 1}))]);
    Sender::new(&first).send("", &body);
    assert!(first.profile("company", "acme").is_some());
    assert!(second.profile("company", "acme").is_none());
    assert!(second.requests().is_empty());
}

#[test]
fn many_connections_at_once() {
    let emulator = Arc::new(Emulator::start().unwrap());
    let threads: Vec<_> = (0..8)
        .map(|lane| {
            let emulator = Arc::clone(&emulator);
            thread::spawn(move || {
                let sender = Sender::new(&emulator);
                for i in 0..50 {
                    let body = json!([
                        update("shared", "$union", json!({"ids": [lane * 50 + i]})),
                        update(&lane.to_string(), "$set", json!({"last": i})),
                    ]);
                    assert_eq!(sender.send("", &body).body, "1");
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let shared = emulator.profile("company", "shared").unwrap();
    let mut ids: Vec<_> = shared.get("ids").unwrap().as_array().unwrap().clone();
    ids.sort_by_key(serde_json::Value::as_u64);
    assert_eq!(ids, (0..400).map(|i| json!(i)).collect::<Vec<_>>());
    for lane in 0..8 {
        let profile = emulator.profile("company", &lane.to_string()).unwrap();
        assert_eq!(profile, json!({"last": 49}));
    }
}

#[test]
fn debug_shows_no_token() {
    let builder = Emulator::builder().token("SECRET");
    assert!(!format!("{builder:?}").contains("SECRET"));
    let emulator = builder.start().unwrap();
    let debug = format!("{emulator:?}");
    assert!(debug.contains(&emulator.endpoint()) && !debug.contains("SECRET"));
}

/// Each look takes a port of the machine for up to some minutes, and a loop must not take them all.
#[test]
fn a_loop_that_waits_for_connections_to_close_is_slow() {
    let emulator = Emulator::start().unwrap();
    let open = connect(&emulator);
    let started = Instant::now();
    for _ in 0..20 {
        assert_eq!(emulator.open_connections(), 1);
    }
    assert!(started.elapsed() >= Duration::from_millis(200));
    drop(open);
}

/// Also of a connection that is still to be accepted.
#[test]
fn without_open_connections_no_aborted_request_is_under_way() {
    let emulator = Emulator::start().unwrap();
    for round in 0..200 {
        let id = format!("aborted{round}");
        let body = json!([update(&id, "$set", json!({"a": 1}))]).to_string();
        let len = body.len();
        let head = format!("POST /groups HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len}");
        let mut aborted = connect(&emulator);
        let request = format!("{head}\r\n\r\n{body}");
        aborted.write_all(request.as_bytes()).unwrap();
        drop(aborted);
        let started = Instant::now();
        while emulator.open_connections() > 0 {
            assert!(started.elapsed() < PATIENCE);
        }
        assert!(emulator.profile("company", &id).is_some(), "{round}");
    }
    // Looking is not a connection of a client.
    let numbers = emulator.requests().into_iter().map(|r| r.connection);
    assert_eq!(numbers.collect::<Vec<_>>(), (0..200).collect::<Vec<_>>());
}

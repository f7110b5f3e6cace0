//! Processes that publish through a `SqliteOutbox` and are killed at random moments: what
//! `publish` has returned of arrives, each group's updates in order and each event once.

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use common::{again, said, say};
use mixpanel_groups::{Client, Event, Group, RetryPolicy};
use mixpanel_groups_emulator::{Emulator, Fault};
use mixpanel_groups_sqlite::SqliteOutbox;
use serde_json::{Value, json};

const ROUNDS: u64 = 100;
const GROUPS: u64 = 4;
const CHILD: &str = "MIXPANEL_GROUPS_CRASH_CHILD";

fn client(endpoint: &str) -> Client {
    let retry = RetryPolicy::default()
        .attempts(3)
        .base_delay(Duration::from_millis(1));
    Client::builder("T")
        .endpoint(endpoint)
        .retry(retry)
        .max_batch(20)
        // As long as that, another process sends nothing after one that was killed.
        .timeout(Duration::from_millis(300))
        .build()
        .unwrap()
}

/// What a child does until it is killed: publishes, and says what is safe.
#[test]
#[ignore = "run by other tests"]
fn child() {
    let Ok(arguments) = std::env::var(CHILD) else {
        return;
    };
    let arguments: Vec<&str> = arguments.split('|').collect();
    let [endpoint, path, first] = arguments[..] else {
        panic!("{arguments:?}")
    };
    let outbox = SqliteOutbox::open(path).unwrap();
    let buffered = client(endpoint).buffered().outbox(outbox);
    let buffered = buffered
        .flush_interval(Duration::from_millis(1))
        .start()
        .unwrap();
    for number in first.parse::<u64>().unwrap().. {
        let group = Group::new("company", number % GROUPS);
        let update = group.union(json!({"numbers": [number]}));
        let last = group.set(json!({"last": number}));
        buffered.publish_all([update, last]).unwrap();
        let event = Event::new("Happened")
            .distinct_id("user")
            .insert_id(number)
            .group(Group::new("company", number % GROUPS));
        buffered.publish(event).unwrap();
        say("safe", number);
    }
}

/// Starts a child, kills it when it has said so often what is safe, and returns the last number that was.
fn run_and_kill(endpoint: &str, path: &str, first: u64, lines: u64) -> Option<u64> {
    let mut child = again(child)
        .env(CHILD, format!("{endpoint}|{path}|{first}"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut safe = said(&mut child).map(|(_, number)| number.parse().ok());
    let mut last = None;
    for _ in 0..lines {
        last = safe.next().expect("it goes on until it is killed");
    }
    child.kill().unwrap(); // SIGKILL
    child.wait().unwrap();
    safe.last().unwrap_or(last)
}

#[test]
fn what_was_published_arrives_whatever_is_killed() {
    let emulator = Emulator::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox.db");
    let path = path.to_str().unwrap();
    let endpoint = emulator.endpoint();
    // From the number that is behind every number ever tried.
    let (mut next, mut safe, mut random) = (1_000, Vec::new(), 1_u64);
    for _ in 0..ROUNDS {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let fault = [
            Fault::CloseAfter,
            Fault::Status(503),
            Fault::CloseBefore,
            Fault::CloseMidResponse,
            Fault::Delay(Duration::from_millis(20)),
            Fault::Html,
            Fault::TooLarge(3),
        ];
        let at = usize::try_from(random >> 40).unwrap() % fault.len();
        emulator.fail_next(fault[at].clone());
        let lines = (random >> 33) % 16;
        if let Some(last) = run_and_kill(&endpoint, path, next, lines) {
            safe.extend(next..=last);
            // What was begun after that may have been committed or not.
            next = last + 1_000;
        } else {
            next += 1_000;
        }
    }
    assert!(
        safe.len() > 500,
        "only {} were published in all rounds",
        safe.len()
    );

    // The last process is not killed.
    emulator.recover();
    let outbox = SqliteOutbox::open(path).unwrap();
    let buffered = client(&endpoint).buffered().outbox(outbox).start().unwrap();
    let drained = buffered.shutdown(Duration::from_secs(60));
    assert!(drained.is_complete(), "{drained:?}");

    let events = emulator.events();
    let events = events.iter().map(|event| {
        let id = event["properties"]["$insert_id"].as_str().unwrap();
        id.parse::<u64>().unwrap()
    });
    let mut events: Vec<u64> = events.collect();
    events.sort_unstable();
    assert!(events.is_sorted_by(|id, next| id < next), "each once");
    for number in &safe {
        assert!(events.binary_search(number).is_ok(), "lost: {number}");
    }
    for group in 0..GROUPS {
        let profile = emulator.profile("company", &group.to_string()).unwrap();
        let numbers: Vec<u64> = match profile.get("numbers") {
            Some(Value::Array(numbers)) => numbers.iter().filter_map(Value::as_u64).collect(),
            other => panic!("{other:?}"),
        };
        let missing: Vec<_> = safe
            .iter()
            .filter(|number| *number % GROUPS == group && !numbers.contains(number))
            .collect();
        assert!(missing.is_empty(), "lost: {missing:?}");
        assert!(numbers.is_sorted(), "out of order: {numbers:?}");
        assert_eq!(
            profile.get("last").and_then(Value::as_u64),
            numbers.last().copied()
        );
    }
}

/// A way to the emulator on which each request takes that long to arrive, also if its sender is killed meanwhile.
fn long_way(emulator: &Emulator, time: Duration) -> (String, mpsc::Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let server = emulator
        .endpoint()
        .strip_prefix("http://")
        .unwrap()
        .to_owned();
    let (received, is_received) = mpsc::channel();
    thread::spawn(move || {
        for client in listener.incoming() {
            let (server, received, mut client) =
                (server.clone(), received.clone(), client.unwrap());
            thread::spawn(move || {
                let request = read_request(&mut BufReader::new(&client));
                let _ = received.send(());
                thread::sleep(time);
                let mut server = TcpStream::connect(server).unwrap();
                server.write_all(&request).unwrap();
                let mut response = Vec::new();
                server.read_to_end(&mut response).unwrap();
                let _ = client.write_all(&response);
            });
        }
    });
    (endpoint, is_received)
}

/// Reads a request, which is to be the last one of its connection.
fn read_request(from: &mut impl BufRead) -> Vec<u8> {
    let (mut request, mut length) = (Vec::new(), 0);
    loop {
        let mut line = String::new();
        from.read_line(&mut line).unwrap();
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            request.extend_from_slice(b"Connection: close\r\n\r\n");
            break;
        }
        request.extend_from_slice(line.as_bytes());
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body).unwrap();
    request.extend_from_slice(&body);
    request
}

const SENDER: &str = "MIXPANEL_GROUPS_CRASH_SENDER";

/// What a child does until it is killed: sends one update.
#[test]
#[ignore = "run by other tests"]
fn sender() {
    let Ok(arguments) = std::env::var(SENDER) else {
        return;
    };
    let (endpoint, path) = arguments.split_once('|').unwrap();
    let client = Client::builder("T")
        .endpoint(endpoint)
        .timeout(Duration::from_secs(3));
    let outbox = SqliteOutbox::open(path).unwrap();
    let buffered = client.build().unwrap().buffered().outbox(outbox);
    let buffered = buffered
        .flush_interval(Duration::from_millis(1))
        .start()
        .unwrap();
    buffered
        .publish(Group::new("company", "acme").set(json!({"plan": "old"})))
        .unwrap();
    let _ = buffered.flush(Duration::from_secs(60));
}

#[test]
fn an_older_value_does_not_come_last_when_its_sender_is_killed() {
    let emulator = Emulator::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox.db");
    let path = path.to_str().unwrap();
    let (endpoint, is_received) = long_way(&emulator, Duration::from_secs(1));
    let mut child = again(sender)
        .env(SENDER, format!("{endpoint}|{path}"))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    is_received.recv().unwrap();
    child.kill().unwrap(); // SIGKILL, while the request is on its way
    child.wait().unwrap();

    let outbox = SqliteOutbox::open(path).unwrap();
    let buffered = client(&emulator.endpoint())
        .buffered()
        .outbox(outbox)
        .start()
        .unwrap();
    buffered
        .publish(Group::new("company", "acme").set(json!({"plan": "new"})))
        .unwrap();
    assert!(buffered.shutdown(Duration::from_secs(60)).is_complete());
    assert_eq!(
        emulator.profile("company", "acme").unwrap(),
        json!({"plan": "new"})
    );
    let first = &emulator.requests()[0];
    let first = &first.body;
    assert!(
        first.contains("old"),
        "the late request came first: {first}"
    );
}

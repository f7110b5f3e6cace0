//! The client where it will run: tokens with a line break, proxies, certificates.

mod credentials;
mod proxies;
mod socks;
mod tls;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::thread;

use mixpanel_groups::{Client, Error, Group, Report, RetryPolicy};
use mixpanel_groups_emulator::Emulator;
use serde_json::json;

/// Sends one update to an endpoint that only a proxy finds.
fn send_through(proxy: &str) -> Result<Report, Error> {
    let builder = Client::builder("TOKEN")
        .endpoint("http://mixpanel.test")
        .allow_plain_http(true)
        .retry(RetryPolicy::none())
        .proxy(proxy);
    let acme = Group::new("company", "acme");
    builder
        .build()
        .unwrap()
        .send(acme.set(json!({"plan": "free"})))
}

/// Reads a request, and responds `1`.
fn respond(stream: impl Read + Write) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let (mut line, mut len) = (String::new(), 0);
    while line != "\r\n" {
        line.clear();
        stream.read_line(&mut line)?;
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            len = value.trim().parse().map_err(io::Error::other)?;
        }
    }
    stream.read_exact(&mut vec![0; len])?;
    let response = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1\r\n\r\n1";
    stream.get_mut().write_all(response)?;
    stream.get_mut().flush()
}

/// Copies what each side writes to the other, until one of them ends.
fn relay(client: TcpStream, server: TcpStream) {
    let copy = |mut from: TcpStream, mut to: TcpStream| {
        thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
    };
    copy(client.try_clone().unwrap(), server.try_clone().unwrap());
    copy(server, client);
}

/// Runs a test of this file again in a process of its own, with these variables. Returns whether this
/// is that process.
fn is_child(test: &str, variables: &[(&str, &str)]) -> bool {
    const NAME: &str = "NETWORK_TEST_OF_ITS_OWN";
    if std::env::var_os(NAME).is_some() {
        return true;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test])
        .env(NAME, "1")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("1 passed"), "{said}");
    false
}

#[test]
fn no_thread_is_started_for_a_request_over_a_kept_connection() {
    // In a process of its own, where no other test starts threads.
    if !is_child(
        "no_thread_is_started_for_a_request_over_a_kept_connection",
        &[],
    ) {
        return;
    }
    // The standard library numbers the threads of a process.
    let number = || {
        let id = thread::spawn(|| thread::current().id()).join().unwrap();
        let digits: String = format!("{id:?}")
            .chars()
            .filter(char::is_ascii_digit)
            .collect();
        digits.parse::<usize>().unwrap()
    };
    let emulator = Emulator::start().unwrap();
    let client = Client::builder("TOKEN")
        .endpoint(emulator.endpoint())
        .max_batch(1);
    let client = client.build().unwrap();
    let updates = || (0..50).map(|id| Group::new("company", id).delete());
    assert_eq!(client.send(updates()).unwrap().requests, 50);
    let before = number();
    assert_eq!(client.send(updates()).unwrap().requests, 50);
    // The one that sends, and the one that counts.
    assert!(number() - before <= 2, "{} threads", number() - before);
}

//! The client where it will run: tokens with a line break, and proxies.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;

use mixpanel_groups::{Client, ClientBuilder, Error, ErrorKind, Event, Group, RetryPolicy};
use mixpanel_groups_emulator::Emulator;
use serde_json::json;

fn message(builder: ClientBuilder) -> String {
    let error = builder.build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    error.to_string()
}

#[test]
fn white_space_around_a_token_is_not_sent() {
    for token in ["TOKEN\n", "TOKEN\r\n", " TOKEN\t", "\u{a0}TOKEN", "TOKEN"] {
        let emulator = Emulator::builder().token("TOKEN").start().unwrap();
        let builder = Client::builder(token).endpoint(format!(" {}\n", emulator.endpoint()));
        let client = builder.build().unwrap();
        let report = client.send(Group::new("company", "acme").delete()).unwrap();
        assert_eq!(report.accepted, 1);
        let event = Event::new("Purchase").distinct_id("");
        assert_eq!(client.import(event).unwrap().accepted, 1);
        let body: serde_json::Value = serde_json::from_str(&emulator.requests()[0].body).unwrap();
        assert_eq!(body[0]["$token"], "TOKEN");
    }
}

#[test]
fn a_token_with_other_characters_is_an_error_that_does_not_show_it() {
    for (token, found) in [
        ("\"HUNTER2\"", "a double quote"),
        ("'HUNTER2'", "a single quote"),
        ("\u{feff}HUNTER2", "a byte order mark"),
        ("HUNTER2 HUNTER2", "a space"),
        ("HUNTER2\nHUNTER2", "a line break"),
        ("HUNTER2\0", "'\\0'"),
        ("HUNTER2=", "the character '='"),
        ("HUNTER2é", "the character 'é'"),
    ] {
        let expected = format!(
            "invalid project token: it contains {found}; copy it from the project's settings, \
             without quotes"
        );
        assert_eq!(message(Client::builder(token)), expected);
        assert_eq!(message(Client::builder("T").token(token)), expected);
    }
    for token in ["", " ", "\n"] {
        assert_eq!(
            message(Client::builder(token)),
            "the project token is empty"
        );
    }
}

#[test]
fn a_service_account_is_checked_as_the_token_is() {
    let account = |user: &str, secret: &str, project: &str| {
        Client::builder("T").service_account(user, secret, project)
    };
    account(" a.1f.mp-service-account\n", "secret\n", "7\n")
        .build()
        .unwrap();
    for (user, secret, name, found) in [
        ("\"user\"", "HUNTER2", "user name", "a double quote"),
        ("us er", "HUNTER2", "user name", "a space"),
        ("user", "'HUNTER2'", "secret", "a single quote"),
        ("user", "\u{feff}HUNTER2", "secret", "a byte order mark"),
    ] {
        let text = message(account(user, secret, "7"));
        assert!(
            text.starts_with(&format!(
                "invalid service account's {name}: it contains {found};"
            )),
            "{text}"
        );
        assert!(!text.contains("HUNTER2"), "{text}");
    }
    assert!(message(account("user", "secret", "'7'")).starts_with("the project id is not one"));
}

/// Reads one head, up to the empty line.
fn read_head(reader: &mut BufReader<&TcpStream>) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(
            reader.read_line(&mut head).unwrap() > 0,
            "it was closed within {head:?}"
        );
    }
    head
}

/// A proxy that answers `CONNECT` so, and each request that comes through with that.
fn proxy(connect: &'static str, answer: &'static str) -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, heads) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            let mut reader = BufReader::new(&stream);
            let _ = sender.send(read_head(&mut reader));
            (&stream).write_all(connect.as_bytes()).unwrap();
            if !connect.starts_with("HTTP/1.1 200") {
                continue;
            }
            let head = read_head(&mut reader);
            let len = head.to_ascii_lowercase();
            let len = len.split("content-length:").nth(1).unwrap();
            let len = len.lines().next().unwrap().trim().parse().unwrap();
            reader.read_exact(&mut vec![0; len]).unwrap();
            (&stream).write_all(answer.as_bytes()).unwrap();
        }
    });
    (address.to_string(), heads)
}

const OK: &str = "HTTP/1.1 200 OK\r\n\r\n";

fn send_through(proxy: &str) -> Result<mixpanel_groups::Report, Error> {
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

#[test]
fn requests_go_through_the_proxy_which_finds_the_name() {
    let answer = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1\r\n\r\n1";
    let (address, heads) = proxy(OK, answer);
    let report = send_through(&format!("http://user:pass%20word@{address}")).unwrap();
    assert_eq!(report.accepted, 1);
    let head = heads.recv().unwrap();
    assert!(
        head.starts_with("CONNECT mixpanel.test:80 HTTP/1.1\r\n"),
        "{head}"
    );
    assert!(
        head.contains("Proxy-Authorization: Basic dXNlcjpwYXNzIHdvcmQ="),
        "{head}"
    );
}

#[test]
fn errors_name_the_proxy_without_its_password() {
    let page = "HTTP/1.1 403 No\r\nconnection: close\r\ncontent-length: 6\r\n\r\n<html>";
    for (connect, answer, kind, expected) in [
        (
            "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
            "",
            ErrorKind::Network,
            "http://mixpanel.test through the proxy http://PROXY: the proxy does not accept the user name and password",
        ),
        (
            "HTTP/1.1 503 No\r\n\r\n",
            "",
            ErrorKind::Network,
            "http://mixpanel.test through the proxy http://PROXY: the proxy refused the connection",
        ),
        (
            OK,
            page,
            ErrorKind::UnexpectedAnswer,
            "unexpected response through the proxy http://PROXY: status 403, \"<html>\"",
        ),
    ] {
        let (address, _heads) = proxy(connect, answer);
        let error = send_through(&format!("http://user:HUNTER2@{address}")).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        let expected = expected.replace("PROXY", &address) + " (1 undelivered)";
        assert_eq!(error.to_string(), expected);
        assert!(!format!("{error:#} {error:?}").contains("HUNTER2"));
    }
}

#[test]
fn no_thread_is_started_for_a_request_over_a_kept_connection() {
    const NAME: &str = "THREADS_OF_A_SEND";
    let name = "no_thread_is_started_for_a_request_over_a_kept_connection";
    if std::env::var_os(NAME).is_none() {
        // In a process of its own, where no other test starts threads.
        let exe = std::env::current_exe().unwrap();
        let mut child = std::process::Command::new(exe);
        let output = child
            .args(["--exact", name])
            .env(NAME, "1")
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
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

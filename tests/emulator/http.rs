//! HTTP as other clients may speak it.

use std::io::{Read, Write};
use std::net::Shutdown;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use mixpanel_groups_emulator::Emulator;
use serde_json::{Value, json};

use crate::wire::{connect, raw, read_response, update};

fn body(id: &str) -> String {
    json!([update(id, "$set", json!({"plan": "free"}))]).to_string()
}

fn request(head: &str, id: &str) -> String {
    let body = body(id);
    let len = body.len();
    format!("POST /groups HTTP/1.1\r\nhost: localhost\r\n{head}content-length: {len}\r\n\r\n{body}")
}

#[test]
fn keep_alive() {
    let emulator = Emulator::start().unwrap();
    let mut stream = connect(&emulator);
    for id in ["a", "b", "c"] {
        stream.write_all(request("", id).as_bytes()).unwrap();
        let response = read_response(&mut stream);
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
        assert!(response.ends_with("\r\n\r\n1"), "{response}");
        assert!(emulator.profile("company", id).is_some());
    }
}

#[test]
fn several_requests_at_once_on_one_connection() {
    let emulator = Emulator::start().unwrap();
    let requests = request("", "a") + &request("connection: close\r\n", "b");
    let responses = raw(&emulator, requests.as_bytes());
    assert_eq!(
        responses.matches("HTTP/1.1 200 OK").count(),
        2,
        "{responses}"
    );
    assert_eq!(emulator.profiles().len(), 2);
}

#[test]
fn byte_by_byte() {
    let emulator = Emulator::start().unwrap();
    let mut stream = connect(&emulator);
    stream.set_nodelay(true).unwrap();
    for byte in request("", "a").bytes() {
        stream.write_all(&[byte]).unwrap();
    }
    assert!(read_response(&mut stream).ends_with("\r\n\r\n1"));
}

#[test]
fn chunked() {
    let emulator = Emulator::start().unwrap();
    let body = body("a");
    let (start, end) = body.split_at(7);
    let request = format!(
        "POST /groups HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n\
         {:x}\r\n{start}\r\n{:X};note=1\r\n{end}\r\n0\r\nx-trailer: 1\r\n\r\n",
        start.len(),
        end.len(),
    );
    let response = raw(&emulator, request.as_bytes());
    assert!(response.ends_with("\r\n\r\n1"), "{response}");
    assert!(emulator.profile("company", "a").is_some());
}

#[test]
fn expect_100_continue() {
    let emulator = Emulator::start().unwrap();
    let mut stream = connect(&emulator);
    let request = request("expect: 100-continue\r\n", "a");
    let (head, body) = request.split_at(request.find("\r\n\r\n").unwrap() + 4);
    stream.write_all(head.as_bytes()).unwrap();
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(body.as_bytes()).unwrap();
    assert!(read_response(&mut stream).ends_with("\r\n\r\n1"));
}

#[test]
fn http_1_0_closes() {
    let emulator = Emulator::start().unwrap();
    let request = request("", "a").replace("HTTP/1.1", "HTTP/1.0");
    assert!(raw(&emulator, request.as_bytes()).ends_with("\r\n\r\n1"));
    // Also where the client offers to keep it open: the reply does not say that it stays so.
    let request = self::request("connection: keep-alive\r\n", "b").replace("HTTP/1.1", "HTTP/1.0");
    let mut stream = connect(&emulator);
    stream.write_all(request.as_bytes()).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    assert!(reply.ends_with("\r\n\r\n1"), "{reply}");
    assert!(!reply.contains("keep-alive"), "{reply}");
}

#[test]
fn a_post_without_a_body() {
    let emulator = Emulator::start().unwrap();
    let request = b"POST /groups HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    assert!(raw(&emulator, request).starts_with("HTTP/1.1 400 "));
}

/// As the official SDK for Node sends it.
#[test]
fn get_with_the_data_in_the_query() {
    let emulator = Emulator::start().unwrap();
    let get = |query: &str| {
        let request =
            format!("GET /groups?{query} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        raw(&emulator, request.as_bytes())
    };
    const NAME: &str = "~~~>>>???ÿÿÿ";
    let data = BASE64_STANDARD.encode(update("acme", "$set", json!({"name": NAME})).to_string());
    assert!(data.contains('+'), "it is escaped there: {data}");
    let escaped = data.replace('+', "%2B").replace('=', "%3D");
    assert!(get(&format!("ip=0&verbose=0&data={escaped}")).ends_with("\r\n\r\n1"));
    let profile = emulator.profile("company", "acme").unwrap();
    assert_eq!(profile, json!({"name": NAME}));
    assert_eq!(
        emulator.requests()[0].body,
        String::from_utf8(BASE64_STANDARD.decode(data).unwrap()).unwrap()
    );
    let debug = format!("{:?}", emulator.requests());
    assert!(!debug.contains(&escaped), "it has the token: {debug}");
    for query in ["", "ip=0", "data=%2", "data=x"] {
        assert!(get(query).starts_with("HTTP/1.1 400 "), "{query}");
    }
}

#[test]
fn other_methods() {
    let emulator = Emulator::start().unwrap();
    for method in ["PUT", "DELETE", "OPTIONS", "HEAD"] {
        let request = format!(
            "{method} /groups?data=x HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             content-length: 0\r\n\r\n"
        );
        let response = raw(&emulator, request.as_bytes());
        assert!(response.starts_with("HTTP/1.1 405 "), "{response}");
        assert!(response.contains("\r\nallow: GET, POST\r\n"), "{response}");
        assert_eq!(
            response.ends_with("\r\n\r\n"),
            method == "HEAD",
            "{response}"
        );
    }
}

#[test]
fn what_cannot_be_read_gets_the_reason() {
    let emulator = Emulator::start().unwrap();
    let long_address = format!("GET /groups?data={} HTTP/1.1\r\n\r\n", "x".repeat(70_000));
    let endless_head = format!("POST /groups HTTP/1.1\r\nx: {}", "x".repeat(100_000));
    let many_headers = format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(1_000));
    for (bytes, status, reason) in [
        ("\u{16}\u{3}\u{1}TLS hello\r\n\r\n", 400, "use http://"),
        ("no http\r\n\r\n", 400, "this is not HTTP"),
        (&many_headers, 431, "the request has too many headers"),
        (
            &long_address,
            414,
            "the address of the request is longer than 65536 bytes",
        ),
        (
            &endless_head,
            431,
            "the head of the request is larger than 65536 bytes",
        ),
    ] {
        let response = raw(&emulator, bytes.as_bytes());
        let begin = format!("HTTP/1.1 {status} ");
        assert!(response.starts_with(&begin), "{bytes:.20} {response}");
        let body = response.split_once("\r\n\r\n").unwrap().1;
        let body: Value = serde_json::from_str(body).unwrap();
        let error = body["error"].as_str().unwrap();
        assert!(error.contains(reason), "{bytes:.20} {error}");
        let request = emulator.requests().pop().unwrap();
        assert_eq!((&*request.method, request.status), ("", Some(status)));
        assert_eq!(request.error.as_deref(), Some(error));
    }
    assert_eq!(emulator.requests().len(), 5);
}

/// As a port scanner: each would keep a thread.
#[test]
fn a_client_that_is_refused_and_does_not_close_is_not_waited_for() {
    let emulator = Emulator::start().unwrap();
    let mut streams = [(); 20].map(|()| connect(&emulator));
    for stream in &mut streams {
        stream.write_all(b"bad\r\n\r\n").unwrap();
    }
    common::eventually("closed", || emulator.open_connections() == 0);
}

#[test]
fn bodies_that_end_early_or_are_not_chunked_as_they_say() {
    let emulator = Emulator::start().unwrap();
    let bodies = [
        "content-length: 100\r\n\r\n[",
        "transfer-encoding: chunked\r\n\r\nff\r\n[",
        "transfer-encoding: chunked\r\n\r\nzz\r\n[]\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n2\r\n[]]\r\n0\r\n\r\n",
    ];
    for body in bodies {
        let mut stream = connect(&emulator);
        let request = format!("POST /groups HTTP/1.1\r\nhost: localhost\r\n{body}");
        stream.write_all(request.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut response = String::new();
        let _ = stream.read_to_string(&mut response);
        assert_eq!(response, "");
    }
    let requests = emulator.requests();
    assert_eq!(requests.len(), bodies.len());
    for request in requests {
        assert_eq!(request.status, None);
        let error = request.error.unwrap();
        assert!(
            error.starts_with("the body is incomplete or malformed"),
            "{error}"
        );
    }
    assert!(emulator.profiles().is_empty());
}

/// However many reads they take: in one write they come in one or two, and with a pause in two.
#[test]
fn the_longest_head() {
    const MAX: usize = 64 * 1024;
    let emulator = Emulator::start().unwrap();
    for (len, status) in [(MAX / 2, 200), (MAX, 200), (MAX + 1, 431)] {
        let start = "GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nx: ";
        let end = "\r\n\r\n";
        let head = start.to_owned() + &"x".repeat(len - start.len() - end.len()) + end;
        for first in [len, len - 1, 20_000] {
            let mut stream = connect(&emulator);
            stream.write_all(&head.as_bytes()[..first]).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(20));
            stream.write_all(&head.as_bytes()[first..]).unwrap();
            let mut response = Vec::new();
            let _ = stream.read_to_end(&mut response);
            let response = String::from_utf8(response).unwrap();
            let begin = format!("HTTP/1.1 {status} ");
            assert!(response.starts_with(&begin), "{len} {first} {response:.80}");
        }
    }
}

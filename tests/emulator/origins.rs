//! Which web pages may send requests.

use mixpanel_groups::ErrorKind;
use mixpanel_groups_emulator::{Emulator, Fault};
use serde_json::json;

use crate::wire::{raw, update};

/// The reply to updates that come with these lines in the head of their request.
fn post(emulator: &Emulator, head: &str) -> String {
    let body = json!([update("acme", "$set", json!({"a": 1}))]).to_string();
    let len = body.len();
    send(
        emulator,
        &format!("POST /groups HTTP/1.1\r\n{head}content-length: {len}"),
        &body,
    )
}

fn send(emulator: &Emulator, head: &str, body: &str) -> String {
    raw(
        emulator,
        format!("{head}\r\nconnection: close\r\n\r\n{body}").as_bytes(),
    )
}

const LOCAL: &str = "host: localhost\r\n";

#[test]
fn pages_of_this_machine_may_write_and_read_the_reply() {
    let emulator = Emulator::start().unwrap();
    for origin in [
        "http://localhost:3000",
        "http://127.0.0.1",
        "https://[::1]:9",
        "http://localhost",
    ] {
        // A browser calls 127.0.0.1 another site than localhost.
        let head = format!("{LOCAL}origin: {origin}\r\nsec-fetch-site: cross-site\r\n");
        let reply = post(&emulator, &head);
        assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
        assert!(
            reply.contains(&format!("\r\naccess-control-allow-origin: {origin}\r\n")),
            "{reply}"
        );
        assert!(
            reply.contains("\r\naccess-control-allow-credentials: true\r\n"),
            "{reply}"
        );
        assert!(reply.contains("\r\nvary: Origin\r\n"), "{reply}");
    }
    // What goes wrong can be read as well.
    emulator.fail_next(Fault::Status(503));
    let reply = post(
        &emulator,
        &format!("{LOCAL}origin: http://localhost:3000\r\n"),
    );
    assert!(reply.starts_with("HTTP/1.1 503 "), "{reply}");
    assert!(
        reply.contains("\r\naccess-control-allow-origin: "),
        "{reply}"
    );
}

#[test]
fn programs_are_not_concerned() {
    let emulator = Emulator::start().unwrap();
    for head in [
        LOCAL,
        "host: 127.0.0.1:1\r\n",
        "host: [::1]\r\n",
        "host: localhost\r\nsec-fetch-site: none\r\n",
    ] {
        let reply = post(&emulator, head);
        assert!(reply.starts_with("HTTP/1.1 200 "), "{head} {reply}");
        assert!(!reply.contains("access-control"), "{reply}");
    }
}

#[test]
fn pages_of_other_sites_may_not() {
    let emulator = Emulator::start().unwrap();
    emulator.fail_next(Fault::Status(500));
    let heads = [
        "host: localhost\r\norigin: https://evil.example\r\n",
        "host: localhost\r\norigin: http://localhost.evil.example\r\n",
        "host: localhost\r\norigin: http://localhost:80@evil.example\r\n",
        "host: localhost\r\norigin: null\r\n",
        "host: localhost\r\nsec-fetch-site: cross-site\r\n",
        "host: evil.example\r\n",
        "host: evil.example\r\norigin: http://evil.example\r\n",
        "host: 127.0.0.1.evil.example:8080\r\n",
        "host: \r\n",
    ];
    for head in heads {
        let reply = post(&emulator, head);
        assert!(reply.starts_with("HTTP/1.1 403 "), "{head} {reply}");
        assert!(!reply.contains("access-control"), "{reply}");
    }
    // As an `<img>` sends it.
    let image = "GET /groups?data=%7B%7D HTTP/1.1\r\nhost: localhost\r\nsec-fetch-site: cross-site";
    assert!(send(&emulator, image, "").starts_with("HTTP/1.1 403 "));
    let preflight = "OPTIONS /groups HTTP/1.1\r\nhost: localhost\r\norigin: https://evil.example\r\n\
        access-control-request-method: POST";
    assert!(send(&emulator, preflight, "").starts_with("HTTP/1.1 403 "));
    assert!(emulator.profiles().is_empty());
    let requests = emulator.requests();
    assert_eq!(requests.len(), heads.len() + 2);
    assert!(
        requests.iter().all(|request| request.error.is_some()),
        "{requests:?}"
    );
    // They do not use up the fault of a request that is under test.
    assert!(post(&emulator, LOCAL).starts_with("HTTP/1.1 500 "));
}

#[test]
fn an_allowed_origin() {
    let builder = Emulator::builder().allow_origin("https://App.example/");
    let emulator = builder.start().unwrap();
    let allowed =
        "host: localhost\r\norigin: https://app.example\r\nsec-fetch-site: cross-site\r\n";
    let reply = post(&emulator, allowed);
    assert!(
        reply.contains("\r\naccess-control-allow-origin: https://app.example\r\n"),
        "{reply}"
    );
    let other = "host: localhost\r\norigin: https://app.example.evil\r\n";
    assert!(post(&emulator, other).starts_with("HTTP/1.1 403 "));
}

/// Also that of an app that loads its page from a file, and one whose page has no origin.
#[test]
fn each_form_of_an_origin_can_be_allowed() {
    for origin in [
        "file://",
        "null",
        "capacitor://localhost",
        "http://app.example:443",
        "https://app.example:80",
        "http://[fd00::1]:3000",
        "http://my_app",
    ] {
        let emulator = Emulator::builder().allow_origin(origin).start().unwrap();
        let reply = post(&emulator, &format!("{LOCAL}origin: {origin}\r\n"));
        let expected = format!("\r\naccess-control-allow-origin: {origin}\r\n");
        assert!(reply.contains(&expected), "{origin}: {reply}");
    }
}

#[test]
fn what_no_browser_sends_cannot_be_allowed() {
    for origin in [
        "app.example.com",
        "",
        "*",
        "/",
        "://app.example.com",
        "https://app.example.com/path",
        "https://app.example.com//",
        "https://*.example.com",
        "https://user@app.example.com",
        "https://app.example.com https://b.example",
        "https://app.example.com,https://b.example",
        "https://",
        "https://:3000",
        "https://app.example.com:",
        "https://app.example.com:443",
        "HTTP://app.example.com:80",
        "http://app.example.com:http",
        "http://app.example.com:08080",
        "http://app.example.com:80800",
        "http://::1",
        "http://[::1",
        "capacitor://localhost:",
    ] {
        let error = Emulator::builder()
            .allow_origin(origin)
            .start()
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{origin}");
        let shown = format!("invalid origin \"{}", origin.trim_end_matches('/'));
        assert!(error.to_string().starts_with(&shown), "{error}");
    }
    for host in [
        "*",
        "*.example.com",
        "a b",
        "user@mixpanel",
        "münchen",
        "a.example,b.example",
        "::1",
        "mixpanel:http",
        "[mixpanel]",
        ":8080",
    ] {
        let error = Emulator::builder().allow_host(host).start().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{host}");
    }
    let error = Emulator::builder()
        .allow_host("a.b,c.d")
        .start()
        .unwrap_err();
    let shown = error.to_string();
    assert!(shown.starts_with(r#"invalid host "a.b,c.d": "#), "{shown}");
}

#[test]
fn a_preflight_is_no_request_under_test() {
    let emulator = Emulator::start().unwrap();
    emulator.fail_next(Fault::Status(500));
    let head = "OPTIONS /import HTTP/1.1\r\nhost: localhost\r\norigin: http://localhost:3000\r\n\
        access-control-request-method: POST\r\naccess-control-request-headers: authorization";
    let reply = send(&emulator, head, "");
    assert!(reply.starts_with("HTTP/1.1 204 "), "{reply}");
    for line in [
        "access-control-allow-origin: http://localhost:3000",
        "access-control-allow-headers: authorization",
        "access-control-allow-methods: GET, POST",
    ] {
        assert!(
            reply.contains(&format!("\r\n{line}\r\n")),
            "{line}: {reply}"
        );
    }
    assert!(emulator.requests().is_empty());
    assert!(post(&emulator, LOCAL).starts_with("HTTP/1.1 500 "));
}

#[test]
fn the_page_is_for_itself() {
    let emulator = Emulator::start().unwrap();
    post(&emulator, LOCAL);
    for head in [
        "POST /emulator/reset HTTP/1.1\r\nhost: localhost:8\r\norigin: http://localhost:3000",
        "POST /emulator/reset HTTP/1.1\r\nhost: localhost\r\nsec-fetch-site: same-site",
        "GET /emulator/groups HTTP/1.1\r\nhost: localhost\r\nsec-fetch-site: cross-site",
        "GET / HTTP/1.1\r\nhost: localhost\r\nsec-fetch-site: cross-site\r\nsec-fetch-dest: iframe",
    ] {
        assert!(
            send(&emulator, head, "").starts_with("HTTP/1.1 403 "),
            "{head}"
        );
    }
    assert_eq!(emulator.profiles().len(), 1);
    // A link may lead to the page.
    let link = "GET / HTTP/1.1\r\nhost: localhost\r\nsec-fetch-site: cross-site\r\nsec-fetch-dest: document";
    let page = send(&emulator, link, "");
    assert!(page.starts_with("HTTP/1.1 200 "), "{page}");
    assert!(page.contains("\r\nx-frame-options: DENY\r\n"), "{page}");
    let own = "POST /emulator/reset HTTP/1.1\r\nhost: localhost:8\r\norigin: http://localhost:8\r\ncontent-length: 0";
    assert!(send(&emulator, own, "").starts_with("HTTP/1.1 204 "));
    assert!(emulator.profiles().is_empty() && emulator.requests().is_empty());
}

/// As by an Android emulator, whose 10.0.2.2 is the host's 127.0.0.1. A website cannot have an address for its name.
#[test]
fn addresses_and_names_in_any_case() {
    let emulator = Emulator::start().unwrap();
    for host in [
        "10.0.2.2:8080",
        "192.168.1.5",
        "[fd00::1]:80",
        "127.0.0.2",
        "LOCALHOST",
        "LocalHost:8080",
    ] {
        let reply = post(&emulator, &format!("host: {host}\r\n"));
        assert!(reply.starts_with("HTTP/1.1 200 "), "{host} {reply}");
        let page = send(&emulator, &format!("GET / HTTP/1.1\r\nhost: {host}"), "");
        assert!(page.starts_with("HTTP/1.1 200 "), "{host} {page}");
    }
    // To these a browser sends what a site asks it to, without `Sec-Fetch-Site`, and they lead to 127.0.0.1.
    let leading_here = [
        "0.0.0.0:8080",
        "[::]",
        "[::ffff:127.0.0.1]:8080",
        "[::ffff:0:0]",
    ];
    for host in
        leading_here
            .into_iter()
            .chain(["10.0.2.2.evil.example", "10.0.2", "[10.0.2.2]", "fd00::1"])
    {
        let reply = post(&emulator, &format!("host: {host}\r\n"));
        assert!(reply.starts_with("HTTP/1.1 403 "), "{host} {reply}");
    }
    // A page is of this machine by the same names as before, in any case.
    let origin = "host: 10.0.2.2\r\norigin: http://192.168.1.5\r\n";
    assert!(post(&emulator, origin).starts_with("HTTP/1.1 403 "));
    let origin = "host: 10.0.2.2\r\norigin: http://LocalHost:3000\r\n";
    assert!(post(&emulator, origin).starts_with("HTTP/1.1 200 "));
}

/// As by a container of Docker Desktop.
#[test]
fn an_allowed_host() {
    let allowed = Emulator::builder().allow_host("Host.Docker.Internal:8080");
    let emulator = allowed.allow_host("mixpanel").start().unwrap();
    for host in [
        "host.docker.internal",
        "HOST.docker.internal:80",
        "mixpanel:8080",
    ] {
        let reply = post(&emulator, &format!("host: {host}\r\n"));
        assert!(reply.starts_with("HTTP/1.1 200 "), "{host} {reply}");
        let own = format!(
            "POST /emulator/reset HTTP/1.1\r\nhost: {host}\r\norigin: http://{host}\r\ncontent-length: 0"
        );
        assert!(send(&emulator, &own, "").starts_with("HTTP/1.1 204 "));
    }
    for host in ["evil.example", "mixpanel.evil.example", "docker.internal"] {
        let reply = post(&emulator, &format!("host: {host}\r\n"));
        assert!(reply.starts_with("HTTP/1.1 403 "), "{host} {reply}");
    }
    // Pages of that host are of another origin all the same.
    let page = "host: mixpanel:8080\r\norigin: http://mixpanel:3000\r\n";
    assert!(post(&emulator, page).starts_with("HTTP/1.1 403 "));
}

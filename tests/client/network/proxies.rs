//! Proxies of HTTP.

use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use common::{LONG, is_own_process};
use mixpanel_groups::{Client, ClientBuilder, ErrorKind, Group, Region, RetryPolicy};

use super::send_through;

/// Reads one head, up to the empty line.
pub(crate) fn read_head(reader: &mut BufReader<&TcpStream>) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(
            reader.read_line(&mut head).unwrap() > 0,
            "it was closed within {head:?}"
        );
    }
    head
}

/// A proxy that responds so to `CONNECT`, and with the other text to each request that comes through.
fn proxy(connect: &'static str, response: &'static str) -> (String, mpsc::Receiver<String>) {
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
            (&stream).write_all(response.as_bytes()).unwrap();
        }
    });
    (address.to_string(), heads)
}

const OK: &str = "HTTP/1.1 200 OK\r\n\r\n";

#[test]
fn requests_go_through_the_proxy_which_finds_the_name() {
    let response = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1\r\n\r\n1";
    let (address, heads) = proxy(OK, response);
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

/// Returns the first line that the proxy gets for this client's request.
fn destination(builder: ClientBuilder) -> String {
    let (address, heads) = proxy("HTTP/1.1 503 No\r\n\r\n", "");
    let builder = builder.retry(RetryPolicy::none());
    let client = builder.proxy(format!("http://{address}")).build().unwrap();
    let error = client.send(Group::new("company", "acme").delete());
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Network);
    heads.recv().unwrap().lines().next().unwrap().to_owned()
}

#[test]
fn each_region_has_its_host() {
    for (region, name, host) in [
        (Region::Us, "us", "api.mixpanel.com"),
        (Region::Eu, "eu", "api-eu.mixpanel.com"),
        (Region::In, "in", "api-in.mixpanel.com"),
    ] {
        let connect = format!("CONNECT {host}:443 HTTP/1.1");
        assert_eq!(destination(Client::builder("T").region(region)), connect);
        let config = format!("token = 'T'\nregion = '{name}'");
        assert_eq!(destination(toml::from_str(&config).unwrap()), connect);
        let variables = [
            ("MIXPANEL_TOKEN", "T"),
            ("MIXPANEL_REGION", name),
            ("EXPECTED", &connect),
        ];
        if is_own_process(each_region_has_its_host, &variables) {
            let builder = ClientBuilder::from_env().unwrap();
            assert_eq!(destination(builder), env::var("EXPECTED").unwrap());
            return;
        }
    }
    let default = destination(Client::builder("T"));
    assert_eq!(default, "CONNECT api.mixpanel.com:443 HTTP/1.1");
}

#[test]
fn errors_name_the_proxy_without_its_password() {
    let page = "HTTP/1.1 403 No\r\nconnection: close\r\ncontent-length: 6\r\n\r\n<html>";
    for (connect, response, kind, expected) in [
        (
            "HTTP/1.1 401 Unauthorized\r\n\r\n",
            "",
            ErrorKind::Network,
            "http://mixpanel.test through the proxy http://PROXY: the proxy requires a valid user name and password",
        ),
        (
            "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
            "",
            ErrorKind::Network,
            "http://mixpanel.test through the proxy http://PROXY: the proxy requires a valid user name and password",
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
            ErrorKind::UnexpectedResponse,
            "unexpected response through the proxy http://PROXY: status 403, \"<html>\"",
        ),
    ] {
        let (address, _heads) = proxy(connect, response);
        let error = send_through(&format!("http://user:HUNTER2@{address}")).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        let expected = expected.replace("PROXY", &address) + " (1 undelivered)";
        assert_eq!(error.to_string(), expected);
        assert!(!format!("{error:#} {error:?}").contains("HUNTER2"));
    }
}

/// Both are in the message, and either may be the one that is not found.
#[test]
fn an_error_names_the_host_that_is_not_found() {
    for (proxy, host) in [
        ("http://user:HUNTER2@proxy.invalid:1", "proxy.invalid"),
        ("socks5h://proxy.invalid", "proxy.invalid"),
        ("socks5://127.0.0.1:1", "mixpanel.test"),
    ] {
        let error = format!("{:#}", send_through(proxy).unwrap_err());
        let expected = format!("cannot look up {host}: ");
        assert!(error.contains(&expected), "{error}");
        assert!(!error.contains("HUNTER2"), "{error}");
    }
}

/// As of some services, for which the user name is the key.
#[test]
fn a_login_without_a_password_is_not_shown_either() {
    let page = "HTTP/1.1 403 No\r\nconnection: close\r\ncontent-length: 44\r\n\r\n\
                Basic SFVOVEVSMjo= of HUNTER2 is not allowed";
    for login in ["HUNTER2", "HUNTER2:"] {
        let (address, heads) = proxy(OK, page);
        let error = send_through(&format!("http://{login}@{address}")).unwrap_err();
        let head = heads.recv().unwrap();
        assert!(head.contains("Basic SFVOVEVSMjo=\r\n"), "{head}");
        let page = "\"Basic [hidden] of [hidden] is not allowed\"";
        assert!(error.to_string().contains(page), "{error}");
    }
}

/// Each byte comes in time, and the last one never.
#[test]
fn connecting_has_one_deadline_however_it_is_stretched() {
    // A response to `CONNECT`, and a record of a TLS handshake.
    for (scheme, start) in [
        ("http", &b"HTTP/1.1 200 OK\r\nX: "[..]),
        ("https", b"\x16\x03\x03\x40\x00"),
    ] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(start).unwrap();
            let began = Instant::now();
            while began.elapsed() < LONG && stream.write_all(b"a").is_ok() {
                thread::sleep(Duration::from_millis(100));
            }
        });
        let builder = Client::builder("TOKEN")
            .timeout(Duration::from_secs(1))
            .allow_plain_http(true)
            .retry(RetryPolicy::none());
        let builder = match scheme {
            "http" => builder
                .endpoint("http://mixpanel.test")
                .proxy(format!("http://{address}")),
            _ => builder.endpoint(format!("https://{address}")),
        };
        let delete = Group::new("company", "acme").delete();
        let error = builder.build().unwrap().send([delete]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{scheme}: {error:#}");
    }
}

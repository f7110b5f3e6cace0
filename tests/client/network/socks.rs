//! Proxies of SOCKS version 5 ([RFC 1928](https://www.rfc-editor.org/rfc/rfc1928)).

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use common::is_own_process;
use mixpanel_groups::{Client, ErrorKind, Group, RetryPolicy};

use super::{respond, send_through};

/// What a client asks the proxy for, such as `user:password mixpanel.test:80`.
type Asked = mpsc::Receiver<String>;

/// Starts a proxy that wants the user name and password `user:pass word` if a client has any, and
/// responds to every request itself, whatever the client asks for.
fn proxy() -> (SocketAddr, Asked) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, asked) = mpsc::channel();
    thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.unwrap();
            if let Some(text) = greet(&client) {
                let _ = sender.send(text);
                respond(client).unwrap();
            }
        }
    });
    (address, asked)
}

fn bytes<const N: usize>(mut stream: &TcpStream) -> [u8; N] {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

/// A text with its length before it.
fn text(mut stream: &TcpStream) -> String {
    let [len] = bytes(stream);
    let mut text = vec![0; len.into()];
    stream.read_exact(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}

fn greet(mut stream: &TcpStream) -> Option<String> {
    let [5, methods] = bytes(stream) else {
        panic!("not version 5");
    };
    let mut offered = vec![0; methods.into()];
    stream.read_exact(&mut offered).unwrap();
    let mut asked = String::new();
    if offered.contains(&2) {
        stream.write_all(&[5, 2]).unwrap();
        assert_eq!(bytes(stream), [1]);
        asked = format!("{}:{} ", text(stream), text(stream));
        let refused = u8::from(asked != "user:pass word ");
        stream.write_all(&[1, refused]).unwrap();
        if refused != 0 {
            return None;
        }
    } else {
        stream.write_all(&[5, 0]).unwrap();
    }
    let [5, 1, 0, kind] = bytes(stream) else {
        panic!("not a request to connect");
    };
    let host = match kind {
        1 => Ipv4Addr::from(bytes::<4>(stream)).to_string(),
        3 => text(stream),
        _ => Ipv6Addr::from(bytes::<16>(stream)).to_string(),
    };
    let port = u16::from_be_bytes(bytes(stream));
    stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap();
    Some(format!("{asked}{host}:{port}"))
}

#[test]
fn with_h_the_proxy_looks_up_the_name() {
    let (address, asked) = proxy();
    let report = send_through(&format!("socks5h://{address}")).unwrap();
    assert_eq!(report.accepted, 1);
    assert_eq!(asked.recv().unwrap(), "mixpanel.test:80");
}

#[test]
fn without_h_this_machine_looks_up_the_name() {
    let (address, asked) = proxy();
    // A name that this machine does not know never comes to the proxy.
    let error = send_through(&format!("socks5://{address}")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network);
    assert!(asked.try_recv().is_err());

    let client = Client::builder("TOKEN").endpoint("http://localhost:7");
    let client = client.proxy(format!("socks5://{address}")).build().unwrap();
    let report = client.send(Group::new("company", "acme").delete());
    assert_eq!(report.unwrap().accepted, 1);
    let asked = asked.recv().unwrap();
    assert!(["127.0.0.1:7", "::1:7"].contains(&&*asked), "{asked}");
}

#[test]
fn user_name_and_password_are_sent_and_not_shown() {
    let (address, asked) = proxy();
    let report = send_through(&format!("socks5h://user:pass%20word@{address}"));
    assert_eq!(report.unwrap().accepted, 1);
    assert_eq!(asked.recv().unwrap(), "user:pass word mixpanel.test:80");

    let error = send_through(&format!("socks5h://user:HUNTER2@{address}")).unwrap_err();
    let expected = format!(
        "http://mixpanel.test through the proxy socks5h://{address}: the proxy requires a valid \
         user name and password (1 undelivered)"
    );
    assert_eq!(error.to_string(), expected);
    assert_eq!(error.kind(), ErrorKind::Network);
    assert!(!format!("{error:#} {error:?}").contains("HUNTER2"));
}

/// Whether it accepts no method at all, or wants one that it was not offered.
#[test]
fn a_proxy_that_requires_a_login_is_asked_once() {
    for choice in [0xff, 2, 1] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for client in listener.incoming() {
                let mut client = client.unwrap();
                assert_eq!(bytes(&client), [5, 1, 0]);
                client.write_all(&[5, choice]).unwrap();
            }
        });
        let client = Client::builder("TOKEN")
            .endpoint("http://mixpanel.test")
            .allow_plain_http(true)
            .proxy(format!("socks5h://{address}"))
            .retry(
                RetryPolicy::default()
                    .base_delay(Duration::ZERO)
                    .attempts(3),
            )
            .build()
            .unwrap();
        let error = client.send(Group::new("company", "acme").delete());
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Network, "{choice}");
        assert_eq!(error.report().unwrap().requests, 1, "{choice}: {error:#}");
    }
}

#[test]
fn the_environment_names_one() {
    const PROXY: &str = "PROXY_OF_THE_PARENT";
    if std::env::var_os(PROXY).is_some() {
        let client = Client::builder("TOKEN").endpoint("http://mixpanel.test");
        let client = client.allow_plain_http(true).build().unwrap();
        let report = client.send(Group::new("company", "acme").delete());
        assert_eq!(report.unwrap().accepted, 1);
        return;
    }
    let (address, asked) = proxy();
    let url = format!("socks5h://{address}");
    let variables = [
        (PROXY, "1"),
        ("ALL_PROXY", &*url),
        ("all_proxy", ""),
        ("http_proxy", ""),
        ("no_proxy", ""),
        ("NO_PROXY", ""),
    ];
    is_own_process(the_environment_names_one, &variables);
    assert_eq!(asked.recv().unwrap(), "mixpanel.test:80");
}

//! What happens to the connection.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{eventually, is_own_process};
use mixpanel_groups::buffered::OverflowPolicy;
use mixpanel_groups::{ClientBuilder, Error, ErrorKind, Group, RetryPolicy, Update};
use mixpanel_groups_emulator::{Emulator, Fault};
use serde_json::json;

use super::raw::{Raw, cut_off, read_head, read_request, response};
use super::{assert_retried, at_once, builder, quick, undelivered, update, updates};

/// For servers that never respond, so that no slow machine makes a difference.
const TIMEOUT: Duration = Duration::from_millis(300);

/// Sends to a server that never works, twice.
#[track_caller]
fn error_after_two_attempts(endpoint: &str) -> Error {
    error_of(builder(endpoint))
}

#[track_caller]
fn timeout_after_two_attempts(endpoint: &str) {
    let error = error_of(builder(endpoint).timeout(TIMEOUT));
    assert!(error.is_timeout(), "{error}");
}

#[track_caller]
fn error_of(builder: ClientBuilder) -> Error {
    let client = builder.allow_plain_http(true).retry(quick().attempts(2));
    let error = client.build().unwrap().send(updates(3)).unwrap_err();
    assert_eq!(undelivered(&error), [0, 1, 2]);
    let report = error.report().unwrap();
    assert_eq!((report.requests, report.retries), (2, 1), "{error}");
    assert!(error.is_retryable() || error.kind() == ErrorKind::UnexpectedResponse);
    assert!(std::error::Error::source(&error).is_some());
    error
}

#[test]
fn a_host_that_is_not_known_is_retried() {
    let error = error_after_two_attempts("http://nonexistent.invalid");
    assert_eq!(error.kind(), ErrorKind::Network, "{error}");
}

/// Where panics abort, one within the HTTP library ended the whole program.
#[test]
fn a_name_that_no_thread_can_look_up_is_retried() {
    // With one thread for tests, which is the main thread.
    let no_stack = (1_u64 << 60).to_string();
    if is_own_process(
        a_name_that_no_thread_can_look_up_is_retried,
        &[("RUST_MIN_STACK", &no_stack)],
    ) {
        let error = error_after_two_attempts("http://localhost:9");
        assert_eq!(error.kind(), ErrorKind::Network, "{error}");
        let chain = format!("{error:#}");
        let reason = "cannot start the thread that looks up a name: ";
        assert!(chain.contains(reason), "{chain}");
    }
}

#[test]
fn where_no_thread_can_be_started_the_callers_sends() {
    const ENDPOINT: &str = "ENDPOINT_OF_THE_OTHER_PROCESS";
    if let Ok(endpoint) = std::env::var(ENDPOINT) {
        let client = builder(&endpoint).connections(4).max_batch(10);
        let client = client.build().unwrap();
        let looking = client.with_options().on_progress(|_| {});
        let report = looking.send(updates(100)).unwrap();
        assert_eq!((report.accepted, report.retries), (100, 0));
        assert_eq!(client.send(updates(100)).unwrap().accepted, 100);
        return;
    }
    let emulator = Emulator::start().unwrap();
    // With one thread for tests, which is the main thread.
    let no_stack = (1_u64 << 60).to_string();
    let endpoint = emulator.endpoint();
    let variables = [("RUST_MIN_STACK", &*no_stack), (ENDPOINT, &*endpoint)];
    is_own_process(where_no_thread_can_be_started_the_callers_sends, &variables);
    assert_eq!(emulator.profiles().len(), 100);
}

#[test]
fn where_the_callers_thread_sends_a_cancellation_ends_the_pause_before_a_retry() {
    if is_own_process(
        where_the_callers_thread_sends_a_cancellation_ends_the_pause_before_a_retry,
        // The stack of a thread that is started without saying how large.
        &[("RUST_MIN_STACK", &(1_u64 << 60).to_string())],
    ) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let hour = Duration::from_secs(3600);
        let patient = RetryPolicy::default().base_delay(hour).max_delay(hour);
        let client = builder(&endpoint).retry(patient.attempts(2).deadline(hour * 3));
        let client = client.build().unwrap();
        let cancel = AtomicBool::new(false);
        thread::scope(|scope| {
            let own = thread::Builder::new().stack_size(1 << 20);
            let stop = || {
                drop(listener.accept().unwrap());
                thread::sleep(Duration::from_millis(100));
                cancel.store(true, Ordering::Relaxed);
            };
            own.spawn_scoped(scope, stop).unwrap();
            let cancelling = client.with_options().cancel_on(&cancel);
            let error = cancelling.send(updates(3)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
            assert_eq!(undelivered(&error), [0, 1, 2]);
        });
    }
}

#[test]
fn a_refused_connection_is_retried() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    assert_eq!(
        error_after_two_attempts(&endpoint).kind(),
        ErrorKind::Network
    );
}

#[test]
fn a_connection_closed_before_the_request_is_retried() {
    let raw = Raw::start(|stream, _| drop(stream));
    assert_eq!(
        error_after_two_attempts(&raw.endpoint).kind(),
        ErrorKind::Network
    );
    assert_eq!(raw.connections(), 2);
    assert_retried(&[Fault::CloseBefore]);
}

#[test]
fn a_connection_reset_during_the_request_is_retried() {
    let raw = Raw::start(|mut stream, number| {
        if number == 0 {
            // What is not read makes the system reset the connection.
            stream.read_exact(&mut [0; 1000]).unwrap();
        } else {
            read_request(&stream).unwrap();
            stream.write_all(&response(200, "", "1")).unwrap();
        }
    });
    let large = |id: usize| Group::new("company", id).set(json!({"text": "x".repeat(900_000)}));
    let client = builder(&raw.endpoint).build().unwrap();
    let report = client.send((0..2).map(large)).unwrap();
    assert_eq!((report.accepted, report.retries), (2, 1));
}

#[test]
fn a_lost_response_is_retried() {
    assert_retried(&[Fault::CloseAfter]);
    assert_retried(&[Fault::CloseMidResponse, Fault::CloseAfter]);
}

#[test]
fn a_kept_connection_that_the_server_closed_is_retried_at_once() {
    let emulator = Emulator::start().unwrap();
    let client = builder(emulator.endpoint())
        .retry(at_once())
        .build()
        .unwrap();
    client.send(updates(1)).unwrap().into_result().unwrap();
    emulator.fail_next(Fault::CloseBefore);
    let report = client.send(updates(3)).unwrap();
    assert_eq!((report.accepted, report.retries), (3, 1));

    // The next connection is new, and its loss tells more than that it was idle for long.
    emulator.fail_next(Fault::CloseBefore);
    emulator.fail_next(Fault::CloseBefore);
    let error = client.send(updates(3)).unwrap_err();
    assert_eq!(error.report().unwrap().requests, 2);
}

#[test]
fn a_server_that_closes_after_each_response_costs_no_update() {
    let raw = Raw::responding(|_| response(200, "", "1"));
    let client = builder(&raw.endpoint).max_batch(1).build().unwrap();
    assert_eq!(client.send(updates(20)).unwrap().accepted, 20);
}

/// A listener whose queue of connections is full: the system drops what comes then.
#[test]
fn a_timeout_in_connect_is_retried() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, TIMEOUT) {
        waiting.push(stream);
        assert!(waiting.len() < 10_000, "the queue has no end");
    }
    timeout_after_two_attempts(&format!("http://{address}"));
}

#[test]
fn a_timeout_before_the_response_is_retried() {
    let emulator = Emulator::start().unwrap();
    emulator.fail_always(Fault::Delay(Duration::from_secs(600)));
    timeout_after_two_attempts(&emulator.endpoint());
}

#[test]
fn a_timeout_within_the_head_is_retried() {
    let mut open = Vec::new();
    let raw = Raw::start(move |mut stream, _| {
        read_request(&stream).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-le").unwrap();
        open.push(stream);
    });
    timeout_after_two_attempts(&raw.endpoint);
}

#[test]
fn a_head_that_is_too_large_is_named() {
    let long = format!("set-cookie: a={}\r\n", "x".repeat(40_000));
    for headers in [long, "a: b\r\n".repeat(200)] {
        let raw = Raw::responding(move |_| response(403, &headers, "<html>"));
        let error = error_after_two_attempts(&raw.endpoint);
        assert_eq!(error.kind(), ErrorKind::UnexpectedResponse);
        let message = error.to_string();
        assert!(
            message.contains("the head of the response is too large"),
            "{message}"
        );
    }
}

#[test]
fn a_timeout_within_the_body_is_retried() {
    let mut open = Vec::new();
    let raw = Raw::start(move |mut stream, _| {
        read_request(&stream).unwrap();
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{";
        stream.write_all(head).unwrap();
        open.push(stream);
    });
    timeout_after_two_attempts(&raw.endpoint);
}

#[test]
fn what_is_no_http_is_retried() {
    for greeting in [
        "SSH-2.0-OpenSSH_9.6\r\n\r\n",
        "\0\0\0\0",
        "HTTP/1.1 abc\r\n\r\n",
    ] {
        let raw = Raw::responding(move |_| greeting.as_bytes().to_vec());
        let error = error_after_two_attempts(&raw.endpoint);
        let kind = error.kind();
        assert!(
            kind == ErrorKind::UnexpectedResponse || kind == ErrorKind::Network,
            "{error}"
        );
    }
}

#[test]
fn a_tls_failure_stops() {
    let emulator = Emulator::start().unwrap();
    let endpoint = emulator.endpoint().replace("http:", "https:");
    let error = builder(endpoint)
        .build()
        .unwrap()
        .send(updates(3))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
    let expected = "the response is not TLS; is `https` right for this port?";
    assert!(error.to_string().contains(expected), "{error}");
    assert!(!error.is_retryable());
    assert_eq!(error.report().unwrap().requests, 1);
    assert_eq!(undelivered(&error), [0, 1, 2]);
}

/// A message that arrived damaged, or a load balancer that is restarted.
#[test]
fn a_tls_failure_that_passes_is_retried() {
    for (alert, name) in [(20, "BadRecordMac"), (80, "InternalError")] {
        let raw = Raw::start(move |mut stream, _| {
            let mut hello = [0; 5];
            stream.read_exact(&mut hello).unwrap();
            // Fatal.
            let message = [0x15, 3, 3, 0, 2, 2, alert];
            stream.write_all(&message).unwrap();
        });
        let endpoint = raw.endpoint.replace("http:", "https:");
        let error = error_after_two_attempts(&endpoint);
        assert_eq!(error.kind(), ErrorKind::Network, "{error:#}");
        assert!(format!("{error:#}").contains(name), "{error:#}");
    }
}

#[test]
fn a_response_in_chunks_that_is_cut_off_is_retried() {
    for cut in ["", "1", "1\r", "1\r\n", "1\r\n1", "1\r\n1\r", "1\r\n1\r\n"] {
        let raw = Raw::start(move |mut stream, _| {
            read_request(&stream).unwrap();
            let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
            write!(stream, "{head}{cut}").unwrap();
        });
        let error = error_after_two_attempts(&raw.endpoint);
        assert_eq!(error.kind(), ErrorKind::Network, "{cut:?}: {error:#}");
    }
}

/// Servers that are odd, but respond.
#[test]
fn odd_servers_are_understood() {
    type Serve = fn(&mut TcpStream) -> io::Result<()>;
    const RESPONSE: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1\r\n\r\n1";
    let rows: &[(&str, Serve)] = &[
        ("1xx before the response", |stream| {
            read_request(stream)?;
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            stream.write_all(RESPONSE.as_bytes())
        }),
        ("HTTP/1.0 that ends by closing", |stream| {
            read_request(stream)?;
            stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n1")
        }),
        ("no length, ends by closing", |stream| {
            read_request(stream)?;
            stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n1")
        }),
        ("in chunks", |stream| {
            read_request(stream)?;
            stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
            stream.write_all(b"1\r\n1\r\n0\r\n\r\n")
        }),
        ("one byte at a time", |stream| {
            read_request(stream)?;
            stream.set_nodelay(true)?;
            RESPONSE.bytes().try_for_each(|byte| {
                thread::yield_now();
                stream.write_all(&[byte])
            })
        }),
        ("keep-alive that closes under the next request", |stream| {
            read_request(stream)?;
            stream.write_all(&RESPONSE.replace("close", "keep-alive").into_bytes())
        }),
        // Elsewhere the system may forget what it received when the connection is reset.
        #[cfg(target_os = "linux")]
        ("a response before the body was read", |stream| {
            stream.read_exact(&mut [0; 1000])?;
            stream.write_all(RESPONSE.as_bytes())
        }),
    ];
    let large = |id: usize| Group::new("company", id).set(json!({"text": "x".repeat(900_000)}));
    for (name, serve) in rows {
        let raw = Raw::start(|mut stream, _| serve(&mut stream).unwrap());
        let client = builder(&raw.endpoint).build().unwrap();
        for _ in 0..3 {
            let report = client.send((0..2).map(large)).unwrap();
            assert_eq!(report.accepted, 2, "{name}: {report}");
        }
    }
}

/// As a proxy does that has a limit of its own.
#[cfg(target_os = "linux")]
#[test]
fn a_refusal_before_the_body_was_read_is_understood() {
    let raw = Raw::start(|mut stream, _| {
        let head = read_head(&stream).unwrap();
        if head.len > 1_000_000 {
            stream.write_all(&response(413, "", "")).unwrap();
        } else {
            head.read_body(&stream).unwrap();
            stream.write_all(&response(200, "", "1")).unwrap();
        }
    });
    let large = |id: usize| Group::new("company", id).set(json!({"text": "x".repeat(400_000)}));
    let client = builder(&raw.endpoint).build().unwrap();
    let report = client.send((0..4).map(large)).unwrap();
    assert_eq!(
        (report.accepted, report.requests, report.retries),
        (4, 3, 0)
    );
}

/// Accepts requests of less than a megabyte and begins to refuse larger ones, but does not get to the end of that.
fn limited(is_read: bool, is_closed: bool) -> Raw {
    let mut open = Vec::new();
    Raw::start(move |mut stream, _| {
        let head = read_head(&stream).unwrap();
        let is_too_large = head.len > 1_000_000;
        if is_read || !is_too_large {
            head.read_body(&stream).unwrap();
        }
        if is_too_large {
            stream.write_all(&cut_off(413, "")).unwrap();
            open.extend((!is_closed).then_some(stream));
        } else {
            stream.write_all(&response(200, "", "1")).unwrap();
        }
    })
}

fn large_updates() -> impl Iterator<Item = Update<'static>> {
    (0..4).map(|id| Group::new("company", id).set(json!({"text": "x".repeat(400_000)})))
}

#[test]
fn a_refusal_as_too_large_counts_although_its_body_is_cut_off() {
    // What is not read makes the system reset the connection. Elsewhere it may forget what it received then.
    let ways: &[bool] = if cfg!(target_os = "linux") {
        &[true, false]
    } else {
        &[true]
    };
    for is_read in ways {
        let raw = limited(*is_read, true);
        let client = builder(&raw.endpoint).build().unwrap();
        let report = client.send(large_updates()).unwrap();
        let requests = (report.accepted, report.requests, report.retries);
        assert_eq!(requests, (4, 3, 0), "{is_read}");
    }
}

#[test]
fn a_refusal_as_too_large_counts_although_its_body_is_not_in_time() {
    let raw = limited(true, false);
    let client = builder(&raw.endpoint).timeout(Duration::from_secs(1));
    let report = client.build().unwrap().send(large_updates()).unwrap();
    assert_eq!(report.accepted, 4);
    assert!(raw.connections() >= 3, "nothing is sent over the first one");
}

#[test]
fn a_connection_after_a_body_that_was_cut_off_is_not_a_kept_one() {
    let raw = Raw::start(|mut stream, number| {
        if number == 0 {
            read_request(&stream).unwrap();
            stream.write_all(&cut_off(413, "")).unwrap();
        }
    });
    let client = builder(&raw.endpoint).retry(at_once()).build().unwrap();
    assert_eq!(client.send(updates(1)).unwrap().rejected.len(), 1);
    let error = client.send(updates(1)).unwrap_err();
    assert_eq!(error.report().unwrap().requests, 1, "it was not idle");
}

/// Each byte comes in time, and the response does not.
#[test]
fn the_timeout_is_of_the_whole_request() {
    let raw = Raw::start(|mut stream, _| {
        read_request(&stream).unwrap();
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n";
        stream.write_all(head).unwrap();
        // Until the client has closed it.
        while stream.write_all(b" ").is_ok() {
            thread::sleep(TIMEOUT / 10);
        }
    });
    timeout_after_two_attempts(&raw.endpoint);
}

#[test]
fn the_longest_times_do_not_overflow() {
    let emulator = Emulator::start().unwrap();
    let forever = RetryPolicy::default()
        .base_delay(Duration::MAX)
        .max_delay(Duration::MAX)
        .deadline(Duration::MAX);
    let builder = builder(emulator.endpoint())
        .timeout(Duration::MAX)
        .connect_timeout(Duration::MAX)
        .retry(forever);
    let client = builder.build().unwrap();
    let report = client.send(updates(2)).unwrap();
    assert_eq!((report.accepted, report.retries), (2, 0));
    let config =
        "token = 'T'\ntimeout = '500000000000years'\nconnect_timeout = 9223372036854775807";
    let config: ClientBuilder = toml::from_str(config).unwrap();
    let from_file = config.endpoint(emulator.endpoint()).build().unwrap();
    assert_eq!(from_file.send(updates(2)).unwrap().accepted, 2);

    let buffered = client.buffered().outbox_timeout(Duration::MAX);
    let buffered = buffered
        .flush_interval(Duration::MAX)
        .drop_timeout(Duration::MAX)
        .overflow(OverflowPolicy::Block(Duration::MAX))
        .start()
        .unwrap();
    buffered.publish(update(2)).unwrap();
    assert_eq!(buffered.flush(Duration::MAX).waiting, Some(0));
    assert_eq!(buffered.shutdown(Duration::MAX).waiting, Some(0));
    assert_eq!(emulator.profiles().len(), 3);
}

/// Listens at the end of a line over which some 7 KB a second move, in segments of 536 bytes; first it says these replies,
/// one for each read. The thread ends with the test's process.
#[cfg(target_os = "linux")]
fn slow_line(replies: &'static [&'static [u8]]) -> std::net::SocketAddr {
    use nix::sys::socket::{setsockopt, sockopt};
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    setsockopt(&listener, sockopt::TcpMaxSeg, &536).unwrap();
    setsockopt(&listener, sockopt::RcvBuf, &2048).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        for reply in replies {
            assert!(stream.read(&mut [0; 300]).unwrap() > 0);
            stream.write_all(reply).unwrap();
        }
        while stream.read(&mut [0; 2048]).is_ok_and(|read| read > 0) {
            thread::sleep(Duration::from_millis(300));
        }
    });
    address
}

/// The system takes a few bytes of the body every now and then.
#[cfg(target_os = "linux")]
#[test]
fn over_a_line_that_hardly_moves_a_request_ends_in_time() {
    let direct = builder(format!("http://{}", slow_line(&[])));
    let proxy = slow_line(&[&[5, 0], &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]]);
    let through_socks = builder("http://mixpanel.test").allow_plain_http(true);
    let through_socks = through_socks.proxy(format!("socks5h://{proxy}"));
    for builder in [direct, through_socks] {
        let builder = builder.timeout(Duration::from_secs(1));
        let client = builder.retry(RetryPolicy::none()).build().unwrap();
        let started = Instant::now();
        let long = json!({"text": "x".repeat(800)});
        let error = client
            .send((0..1_000).map(|id| Group::new("company", id).set(&long)))
            .unwrap_err();
        let taken = started.elapsed();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        assert_eq!(error.undelivered().len(), 1_000);
        assert!(taken < Duration::from_secs(10), "{taken:?}: {error}");
    }
}

/// Waits until the emulator sees no more open connections than that.
fn wait_for_connections(emulator: &Emulator, most: usize) {
    eventually("closed", || emulator.open_connections() <= most);
}

/// Two processes with one connection would read each other's responses.
#[cfg(unix)]
#[test]
fn a_fork_opens_connections_of_its_own() {
    if !is_own_process(a_fork_opens_connections_of_its_own, &[]) {
        return;
    }
    let emulator = Emulator::start().unwrap();
    let client = builder(emulator.endpoint()).build().unwrap();
    assert_eq!(client.send(update(1)).unwrap().accepted, 1);
    match fork::fork().unwrap() {
        fork::Fork::Child => {
            let is_sent = client
                .send(update(2))
                .is_ok_and(|report| report.accepted == 1);
            std::process::exit(i32::from(!is_sent));
        }
        fork::Fork::Parent(child) => {
            assert_eq!(fork::waitpid(child).unwrap(), 0, "the child's exit status");
        }
    }
    assert_eq!(client.send(update(3)).unwrap().accepted, 1);
    let connections = emulator.requests().into_iter();
    let connections: Vec<_> = connections.map(|request| request.connection).collect();
    assert_eq!(connections[0], connections[2], "the parent's goes on");
    assert_ne!(connections[0], connections[1]);
}

#[test]
fn many_threads_share_a_few_kept_connections() {
    const THREADS: usize = 64;
    const KEPT: usize = 16;
    let emulator = Emulator::start().unwrap();
    let client = builder(emulator.endpoint()).build().unwrap();
    for _ in 0..3 {
        // All at once: each has its connection before it reads the update.
        let together = Barrier::new(THREADS);
        thread::scope(|scope| {
            for id in 0..THREADS {
                let (client, together) = (&client, &together);
                scope.spawn(move || {
                    let updates = std::iter::once_with(|| {
                        together.wait();
                        update(id)
                    });
                    assert_eq!(client.send(updates).unwrap().accepted, 1);
                });
            }
        });
        wait_for_connections(&emulator, KEPT);
    }
    assert_eq!(emulator.profiles().len(), THREADS);
    let requests = emulator.requests();
    let used: HashSet<_> = requests.iter().map(|request| request.connection).collect();
    assert_eq!(
        used.len(),
        THREADS + 2 * (THREADS - KEPT),
        "kept ones are used again"
    );
    drop(client);
    wait_for_connections(&emulator, 0);
}

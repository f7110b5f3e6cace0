//! Several hosts and addresses, of which the first is dead, and a network that is slow to connect.

use std::io::Read as _;
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use mixpanel_groups::{ErrorKind, Outbox};
use mixpanel_groups_postgres::PostgresOutbox;
use postgres::config::TargetSessionAttrs;
use postgres::{Config, NoTls};

use common::postgres::{Harness, NO_LIMIT, Proxy, outbox, stored};
use common::{eventually, say_skipped};

/// A configuration of a host of that port, and the server behind it.
fn behind(port: u16, server: &Config) -> Config {
    let mut config = Config::new();
    config
        .host("127.0.0.1")
        .port(port)
        .host("127.0.0.1")
        .port(server.get_ports()[0])
        .user(server.get_user().unwrap())
        .dbname(server.get_dbname().unwrap());
    config
}

/// All connections of an outbox reach the server: what publishes, what measures, and what relays.
fn all_reach_it(outbox: &PostgresOutbox) {
    eventually("measured", || outbox.depth().is_ok());
    let update = [stored("acme", 1)];
    eventually("published", || {
        outbox
            .append(&update, NO_LIMIT)
            .is_ok_and(|has_room| has_room)
    });
    let mut taken = Vec::new();
    eventually("taken", || match outbox.take(1) {
        Ok(entries) => {
            taken = entries;
            true
        }
        Err(_) => false,
    });
    assert_eq!(taken.len(), 1);
}

/// Only the connect timeout ends this: the packets that would open the connection are dropped.
#[test]
fn behind_a_host_that_drops_packets() {
    let Some(harness) = Harness::new() else {
        return;
    };
    // A listener whose queue is full.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .unwrap();
    let full = {
        let _runtime = runtime.enter();
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        socket.listen(1).unwrap()
    };
    let address = full.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        queued.push(stream);
    }
    let config = behind(address.port(), &harness.config);
    all_reach_it(&outbox(&config, &harness.schema));
}

/// Connected, it says nothing, which `tokio_postgres` would await without end.
#[test]
fn behind_a_host_that_accepts_and_says_nothing() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = behind(silent.local_addr().unwrap().port(), &harness.config);
    config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    all_reach_it(&outbox(&config, &harness.schema));
    // After the first connection it comes last.
    silent.set_nonblocking(true).unwrap();
    assert!(silent.accept().is_ok());
    assert!(silent.accept().is_err());
}

/// Where the name has two addresses, of which the first is silent.
#[test]
fn behind_an_address_that_accepts_and_says_nothing() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let port = harness.config.get_ports()[0];
    let addresses: Vec<_> = ("localhost", port).to_socket_addrs().unwrap().collect();
    if !addresses.first().is_some_and(SocketAddr::is_ipv6) || addresses.len() < 2 {
        return say_skipped("a silent address: localhost is not ::1 and 127.0.0.1");
    }
    let silent = TcpListener::bind(addresses[0]).unwrap();
    let mut config = Config::new();
    config
        .host("localhost")
        .port(port)
        .user(harness.config.get_user().unwrap())
        .dbname(harness.config.get_dbname().unwrap());
    all_reach_it(&outbox(&config, &harness.schema));
    silent.set_nonblocking(true).unwrap();
    assert!(silent.accept().is_ok());
}

#[test]
fn through_a_network_that_connects_more_slowly_than_a_call_may_take() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let proxy = Proxy::start(&harness.config, Duration::from_millis(1_500));
    let outbox = PostgresOutbox::builder(proxy.config(&harness.config), NoTls)
        .schema(&harness.schema)
        .timeout(Duration::from_secs(1))
        .build()
        .unwrap();
    all_reach_it(&outbox);
}

/// An attempt goes on when its call is given up. What it failed for later is not the error of the next call.
#[test]
fn after_an_attempt_that_failed_when_no_call_waited() {
    let Some(harness) = Harness::new() else {
        return;
    };
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = Config::new();
    config
        .host("127.0.0.1")
        .port(silent.local_addr().unwrap().port())
        .user(harness.config.get_user().unwrap())
        .dbname(harness.config.get_dbname().unwrap())
        .connect_timeout(Duration::from_secs(3));
    let outbox = PostgresOutbox::builder(config, NoTls)
        .schema(&harness.schema)
        .timeout(Duration::from_secs(2))
        .build()
        .unwrap();
    let append = || outbox.append(&[stored("acme", 1)], NO_LIMIT);
    assert!(append().unwrap_err().is_timeout());
    // When the attempt fails, it closes its connection.
    let (mut attempt, _) = silent.accept().unwrap();
    attempt.read_to_end(&mut Vec::new()).unwrap();
    let _proxy = Proxy::on(silent, &harness.config, Duration::ZERO, None);
    assert!(append().unwrap());
}

/// Until the next attempt, errors have what the last one failed for as their source.
#[test]
fn an_error_between_two_attempts_names_the_last_failure() {
    let mut config = Config::new();
    config.user("u").host("127.0.0.1").port(1);
    let outbox = PostgresOutbox::new(config, NoTls).unwrap();
    eventually("waits for the next attempt", || {
        let error = outbox.take(1).unwrap_err();
        assert!(format!("{error:#}").contains("refused"), "{error:#}");
        error.to_string().contains("due soon")
    });
}

#[test]
fn hosts_that_do_not_fit_are_an_error() {
    let mut no_host = Config::new();
    no_host.user("u");
    let mut ports = Config::new();
    ports
        .user("u")
        .host("a")
        .host("b")
        .host("c")
        .port(1)
        .port(2);
    let mut addresses = Config::new();
    addresses.user("u").host("a").host("b");
    addresses.hostaddr([127, 0, 0, 1].into());
    for (config, why) in [
        (no_host, "host and hostaddr are missing"),
        (ports, "number of ports"),
        (addresses, "number of hosts"),
    ] {
        let outbox = PostgresOutbox::new(config, NoTls).unwrap();
        let error = outbox.take(1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(format!("{error:#}").contains(why), "{error:#}");
    }
}

//! A standby that is promoted while updates are published and relayed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ChildStdin;
use std::sync::Mutex;
use std::time::Duration;
use std::{env, fs, process, thread};

use mixpanel_groups::{BufferedClient, Client, Group, Outbox as _};
use mixpanel_groups_emulator::Emulator;
use postgres::{Config, NoTls};
use serde_json::json;

use common::eventually;
use common::postgres::server::{
    connection_string_of, create, programs_for, run, serve, unprivileged, wait_for,
};
use common::postgres::{NO_LIMIT, drain, outbox, read, seats, stored};

struct Server {
    data: PathBuf,
    port: u16,
    _stdin: ChildStdin,
}

impl Server {
    fn start(programs: &Path, data: PathBuf) -> Self {
        let (_stdin, port) = serve(programs, &data, "").unwrap();
        let server = Self { data, port, _stdin };
        wait_for(&connection_string_of(port), &server.data).unwrap();
        server
    }

    fn config(&self) -> Config {
        connection_string_of(self.port).parse().unwrap()
    }

    fn control(&self, programs: &Path, arguments: &[&str]) {
        let mut control = unprivileged(&programs.join("pg_ctl"));
        run(control.args(arguments).arg("-D").arg(&self.data)).unwrap();
    }
}

fn folder(name: &str) -> PathBuf {
    env::temp_dir().join(format!("mixpanel-groups-{name}.{}", process::id()))
}

fn primary_and_standby(programs: &Path, name: &str) -> (Server, Server) {
    let data = folder(&format!("{name}-primary"));
    create(programs, &data).unwrap();
    let primary = Server::start(programs, data);
    let data = folder(&format!("{name}-standby"));
    let mut backup = unprivileged(&programs.join("pg_basebackup"));
    backup.args([
        "--write-recovery-conf",
        "--checkpoint=fast",
        "--no-sync",
        "--pgdata",
    ]);
    let source = connection_string_of(primary.port);
    run(backup.arg(&data).args(["--dbname", &source])).unwrap();
    let standby = Server::start(programs, data);
    let mut client = primary.config().connect(NoTls).unwrap();
    eventually("replicates", || {
        let sql = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
        client.query_one(sql, &[]).unwrap().get::<_, i64>(0) == 1
    });
    set(&mut client, "SET synchronous_standby_names = '*'");
    eventually("is synchronous", || {
        let sql = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
        client.query_one(sql, &[]).unwrap().get::<_, i64>(0) == 1
    });
    (primary, standby)
}

/// Changes a setting of the server, also in the connections that are open.
fn set(client: &mut postgres::Client, setting: &str) {
    for sql in [
        &format!("ALTER SYSTEM {setting}"),
        "SELECT pg_reload_conf()",
    ] {
        client.execute(sql, &[]).unwrap();
    }
}

fn relay(emulator: &Emulator, server: &Server) -> BufferedClient {
    let client = Client::builder("TOKEN").endpoint(emulator.endpoint());
    let buffered = client.build().unwrap().buffered();
    let buffered = buffered.flush_interval(Duration::from_millis(20));
    let outbox = outbox(&server.config(), "public");
    buffered.coalesce(false).outbox(outbox).start().unwrap()
}

#[test]
fn a_standby_that_is_promoted_has_all_that_was_acknowledged() {
    const PUBLISHERS: usize = 4;
    const ENOUGH: usize = 400;
    let Some(programs) = programs_for("a standby") else {
        return;
    };
    let (primary, standby) = primary_and_standby(&programs, "promoted");
    outbox(&primary.config(), "public").migrate().unwrap();
    let emulator = Emulator::start().unwrap();
    let first = relay(&emulator, &primary);
    // The numbers of each publisher whose commit was acknowledged.
    let acknowledged: [Mutex<Vec<usize>>; PUBLISHERS] = Default::default();
    let count = || {
        acknowledged
            .iter()
            .map(|numbers| numbers.lock().unwrap().len())
            .sum::<usize>()
    };
    thread::scope(|scope| {
        for (publisher, acknowledged) in acknowledged.iter().enumerate() {
            let primary = &primary;
            scope.spawn(move || {
                let mut config = primary.config();
                config.options("-c synchronous_commit=remote_apply");
                let mut client = config.connect(NoTls).unwrap();
                let outbox = outbox(&config, "public");
                for number in 0.. {
                    let group = Group::new("company", format!("group_{publisher}"));
                    let update = group.union(json!({"all": [number]}));
                    if outbox.publish_in(&mut client, update).is_err() {
                        return;
                    }
                    acknowledged.lock().unwrap().push(number);
                }
            });
        }
        eventually("published", || count() >= ENOUGH);
        primary.control(&programs, &["stop", "--mode=immediate"]);
    });
    drop(first.shutdown(Duration::ZERO));
    standby.control(&programs, &["promote"]);
    let mut client = standby.config().connect(NoTls).unwrap();
    eventually("promoted", || {
        let row = client.query_one("SELECT pg_is_in_recovery()", &[]).unwrap();
        !row.get::<_, bool>(0)
    });
    // No other standby is there to wait for.
    set(&mut client, "RESET synchronous_standby_names");
    // Ids go on above all that waits.
    let highest = "SELECT coalesce(max(id), 0) FROM mixpanel_outbox";
    let before: i64 = client.query_one(highest, &[]).unwrap().get(0);
    let outbox = outbox(&standby.config(), "public");
    outbox.publish_in(&mut client, seats("last", 1)).unwrap();
    let after: i64 = client.query_one(highest, &[]).unwrap().get(0);
    assert!(after > before, "{after} after {before}");
    let second = relay(&emulator, &standby);
    eventually("empty", || {
        outbox.depth().is_ok_and(|depth| depth.updates == 0)
    });
    assert!(second.shutdown(Duration::from_secs(30)).is_complete());

    assert!(emulator.profile("company", "last").is_some());
    let arrived: BTreeMap<usize, Vec<usize>> = (0..PUBLISHERS)
        .map(|publisher| {
            let profile = emulator.profile("company", &format!("group_{publisher}"));
            let profile = serde_json::to_value(profile.unwrap()).unwrap();
            (
                publisher,
                serde_json::from_value(profile["all"].clone()).unwrap(),
            )
        })
        .collect();
    for (publisher, acknowledged) in acknowledged.iter().enumerate() {
        let arrived = &arrived[&publisher];
        assert!(arrived.is_sorted(), "{arrived:?}");
        let acknowledged = acknowledged.lock().unwrap();
        assert!(acknowledged.iter().all(|number| arrived.contains(number)));
        // At most the one whose commit was not acknowledged any more.
        assert!(arrived.len() <= acknowledged.len() + 1);
    }
    let data = primary.data.clone();
    drop((primary, standby));
    eventually("removed", || !fs::exists(&data).unwrap());
}

/// Also where the standby is the first host, and where a connection that is open becomes read-only.
#[test]
fn the_host_that_accepts_writes_is_found() {
    let Some(programs) = programs_for("a standby") else {
        return;
    };
    let (primary, standby) = primary_and_standby(&programs, "hosts");
    let mut applied = primary.config();
    applied.options("-c synchronous_commit=remote_apply");
    outbox(&applied, "public").migrate().unwrap();
    let orders = [
        [&standby, &primary],
        [&primary, &standby],
        [&primary, &standby],
    ];
    let [standby_first, primary_first, only_measures] = orders.map(|servers| {
        let mut config = Config::new();
        config.user("test").dbname("postgres");
        for server in servers {
            config.host("127.0.0.1").port(server.port);
        }
        outbox(&config, "public")
    });
    for outbox in [&standby_first, &primary_first] {
        assert!(outbox.append(&[stored("acme", 1)], NO_LIMIT).unwrap());
        assert_eq!(drain(outbox), [("acme".to_owned(), 1)]);
    }
    assert_eq!(only_measures.depth().unwrap().updates, 0);
    let mut client = primary.config().connect(NoTls).unwrap();
    set(&mut client, "SET default_transaction_read_only = on");
    eventually("read-only", || {
        primary_first
            .append(&[stored("acme", 2)], NO_LIMIT)
            .is_err()
    });
    standby.control(&programs, &["promote"]);
    eventually("published", || {
        primary_first.append(&[stored("acme", 3)], NO_LIMIT).is_ok()
    });
    eventually("taken", || {
        primary_first
            .take(10)
            .is_ok_and(|taken| read(&taken).contains(&("acme".to_owned(), 3)))
    });
    // No statement of its own fails on the old one.
    eventually("measured", || {
        only_measures.depth().is_ok_and(|depth| depth.updates > 0)
    });
}

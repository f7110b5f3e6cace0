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
    connection_string_of, programs, run, serve, unprivileged, wait_for,
};
use common::postgres::{outbox, seats};

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

fn primary_and_standby(programs: &Path) -> (Server, Server) {
    let data = folder("primary");
    let mut initdb = unprivileged(&programs.join("initdb"));
    initdb.args([
        "--auth=trust",
        "--username=test",
        "--encoding=UTF8",
        "--locale=C",
        "--no-sync",
    ]);
    run(initdb.arg("--pgdata").arg(&data)).unwrap();
    let primary = Server::start(programs, data);
    let data = folder("standby");
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
    for sql in [
        "ALTER SYSTEM SET synchronous_standby_names = '*'",
        "SELECT pg_reload_conf()",
    ] {
        client.execute(sql, &[]).unwrap();
    }
    eventually("is synchronous", || {
        let sql = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
        client.query_one(sql, &[]).unwrap().get::<_, i64>(0) == 1
    });
    (primary, standby)
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
    let Some(programs) = programs() else {
        assert!(env::var_os("CI").is_none(), "no PostgreSQL is installed");
        return;
    };
    let (primary, standby) = primary_and_standby(&programs);
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
    for sql in [
        "ALTER SYSTEM RESET synchronous_standby_names",
        "SELECT pg_reload_conf()",
    ] {
        client.execute(sql, &[]).unwrap();
    }
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

//! Through PgBouncer in transaction mode: publishers and relays, with fewer connections to the server than clients.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, fs, thread};

use mixpanel_groups::{Client, Group, Outbox};
use mixpanel_groups_emulator::Emulator;
use postgres::{Config, NoTls};
use serde_json::json;

use common::postgres::server::unprivileged;
use common::postgres::{Harness, outbox, seats};
use common::{eventually, say_missing};

const PROGRAM: &str = "/usr/sbin/pgbouncer";

/// A pooler, which ends with this.
struct Pooler {
    process: Child,
    folder: PathBuf,
    config: Config,
}

impl Pooler {
    /// Nothing, if it is not installed; on CI that is a failure.
    fn start(server: &Config) -> Option<Self> {
        if !fs::exists(PROGRAM).unwrap() {
            say_missing("the tests through PgBouncer: apt-get install pgbouncer");
            return None;
        }
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let folder = env::temp_dir().join(format!("mixpanel-groups-pooler.{port}"));
        fs::create_dir_all(&folder).unwrap();
        let (user, server_port) = (server.get_user().unwrap(), server.get_ports()[0]);
        fs::write(folder.join("users"), format!("\"{user}\" \"\"\n")).unwrap();
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={server_port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = trust\nauth_file = {0}/users\n\
             pool_mode = transaction\ndefault_pool_size = 3\nmax_client_conn = 100\n",
            folder.display()
        );
        fs::write(folder.join("ini"), settings).unwrap();
        let process = unprivileged(PROGRAM.as_ref())
            .arg(folder.join("ini"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut config = Config::new();
        config
            .host("127.0.0.1")
            .port(port)
            .user(user)
            .dbname("postgres");
        eventually("responds", || config.connect(NoTls).is_ok());
        Some(Self {
            process,
            folder,
            config,
        })
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        // `setpriv` has become the pooler, so this is its id.
        let kill = Command::new("kill")
            .arg(self.process.id().to_string())
            .status();
        drop((kill, self.process.wait(), fs::remove_dir_all(&self.folder)));
    }
}

#[test]
fn publishers_and_relays_pass_a_pooler() {
    const PUBLISHERS: u64 = 6;
    const EACH: u64 = 50;
    let Some(harness) = Harness::new() else {
        return;
    };
    if !common::postgres::server::is_ours("PgBouncer") {
        return;
    }
    let Some(pooler) = Pooler::start(&harness.config) else {
        return;
    };
    let emulator = Emulator::start().unwrap();
    let start = || {
        let client = Client::builder("TOKEN").endpoint(emulator.endpoint());
        let outbox = outbox(&pooler.config, &harness.schema);
        outbox.migrate().unwrap();
        let buffered = client.build().unwrap().buffered().outbox(outbox);
        let buffered = buffered.flush_interval(Duration::from_millis(50));
        buffered.start().unwrap()
    };
    let relays = [start(), start(), start()];
    thread::scope(|scope| {
        for publisher in 0..PUBLISHERS {
            let (pooler, harness, relays) = (&pooler, &harness, &relays);
            scope.spawn(move || {
                let mut client = pooler.config.connect(NoTls).unwrap();
                for number in 0..EACH {
                    let group = format!("group_{publisher}");
                    if number % 2 == 0 {
                        let mut transaction = client.transaction().unwrap();
                        let update = seats(&group, number);
                        harness.outbox.publish_in(&mut transaction, update).unwrap();
                        transaction.commit().unwrap();
                    } else {
                        let group = Group::new("company", group);
                        let update = group.union(json!({"all": [number]}));
                        relays[(publisher % 3) as usize].publish(update).unwrap();
                    }
                }
            });
        }
    });
    eventually("empty", || harness.outbox.depth().unwrap().updates == 0);
    for relay in relays {
        assert!(relay.shutdown(Duration::from_secs(30)).is_complete());
    }
    let all: Vec<_> = (0..EACH).filter(|number| number % 2 == 1).collect();
    for publisher in 0..PUBLISHERS {
        let profile = emulator.profile("company", &format!("group_{publisher}"));
        assert_eq!(profile.unwrap(), json!({"seats": EACH - 2, "all": all}));
    }
    // The server's sessions have nothing of it, but that one or the other listens.
    let mut session = pooler.config.connect(NoTls).unwrap();
    let left = "SELECT (SELECT count(*) FROM pg_prepared_statements)
                     + (SELECT count(*) FROM pg_settings WHERE source = 'session'
                        AND name NOT IN ('application_name', 'client_encoding', 'DateStyle', 'TimeZone',
                                         'standard_conforming_strings', 'IntervalStyle'))";
    let left = session.query_typed(left, &[]).unwrap();
    assert_eq!(left[0].get::<_, i64>(0), 0);
    // This counts those of other tests, too, each of which a transaction ends.
    let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
    let mut observer = harness.client();
    eventually("without locks", || {
        observer.query_one(locks, &[]).unwrap().get::<_, i64>(0) == 0
    });
}

//! Processes that are killed (SIGKILL) while a run is under way.

use std::collections::BTreeSet;
use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use common::again;
use mixpanel_groups::{Client, Report, Snapshot};
use mixpanel_groups_emulator::{Emulator, Fault};

use crate::{Company, Folder, client, company, comparable, expected, run};

const CHILD: &str = "MIXPANEL_GROUPS_SNAPSHOT_CHILD";

/// What is killed: a run that adds items and groups.
#[test]
#[ignore = "run by other tests"]
fn child() {
    let Ok(arguments) = std::env::var(CHILD) else {
        return;
    };
    let (endpoint, file) = arguments.split_once('|').unwrap();
    let client = Client::builder("T").endpoint(endpoint).connections(1);
    let client = client.max_batch(3).build().unwrap();
    let changed = |id| Company {
        tags: BTreeSet::from([1, 9]),
        plan: 2,
        ..company(id)
    };
    let mut snapshot = Snapshot::open(file).unwrap();
    drop(snapshot.sync(&client, (0..4).map(changed)));
}

#[test]
fn a_run_is_killed_at_each_request_and_the_next_one_mends_it() {
    // A run of four companies, two of them new, sends at most four requests of three updates.
    for request in 1..=4 {
        let (emulator, folder) = (Emulator::start().unwrap(), Folder::new());
        let client = client(&emulator);
        run(&folder, &client, &[company(0), company(1)])
            .into_result()
            .unwrap();
        let before = emulator.requests().len();
        // Each request is applied, and gets its response after the kill.
        for _ in 1..request {
            emulator.fail_next(Fault::Delay(Duration::ZERO));
        }
        emulator.fail_next(Fault::Delay(Duration::from_secs(60)));
        let mut child = again(child)
            .env(
                CHILD,
                format!("{}|{}", emulator.endpoint(), folder.file().display()),
            )
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        while emulator.requests().len() < before + request && child.try_wait().unwrap().is_none() {
            thread::yield_now();
        }
        assert_eq!(emulator.requests().len(), before + request, "it ended");
        child.kill().unwrap();
        child.wait().unwrap();
        emulator.recover();

        let last = [
            Company {
                industry: None,
                ..company(0)
            },
            company(1),
        ];
        let mut snapshot = Snapshot::open(folder.file()).unwrap().delete_gone(true);
        snapshot
            .sync(&client, &last)
            .unwrap()
            .into_result()
            .unwrap();
        assert_eq!(emulator.profiles().len(), 2, "killed at request {request}");
        for company in &last {
            let profile = emulator.profile("company", &company.id.to_string());
            assert_eq!(
                comparable(profile),
                comparable(Some(expected(company))),
                "killed at {request}"
            );
        }
        assert_eq!(snapshot.sync(&client, &last).unwrap(), Report::default());
    }
}

const NIGHTS: &str = "MIXPANEL_GROUPS_SNAPSHOT_NIGHTS";

/// What is killed: runs one after the other, with other groups and values each time.
#[test]
#[ignore = "run by other tests"]
fn nights() {
    let Ok(arguments) = std::env::var(NIGHTS) else {
        return;
    };
    let (endpoint, file) = arguments.split_once('|').unwrap();
    let client = Client::builder("T").endpoint(endpoint).connections(1);
    let client = client.max_batch(2).build().unwrap();
    let mut snapshot = Snapshot::open(file).unwrap().delete_gone(true);
    for night in 0..=255 {
        let groups = (night % 3..6).map(|id| Company {
            plan: night,
            industry: (night % 2 == 0).then_some(night),
            tags: BTreeSet::from([id, night % 5]),
            ..company(id)
        });
        let _ = snapshot.sync(&client, groups).unwrap();
    }
}

/// A way to the emulator on which it is known when all that was sent has been applied.
struct Way {
    endpoint: String,
    connections: mpsc::Receiver<thread::JoinHandle<()>>,
}

impl Way {
    fn to(emulator: &Emulator) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let address = emulator.endpoint().replace("http://", "");
        let (started, connections) = mpsc::channel();
        thread::spawn(move || {
            for client in listener.incoming() {
                let (mut client, mut server) =
                    (client.unwrap(), TcpStream::connect(&address).unwrap());
                let (mut requests, mut to) =
                    (client.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || {
                    let _ = io::copy(&mut requests, &mut to);
                    let _ = to.shutdown(Shutdown::Write);
                });
                let responses = thread::spawn(move || {
                    if io::copy(&mut server, &mut client).is_err() {
                        let _ = io::copy(&mut server, &mut io::sink());
                    }
                });
                if started.send(responses).is_err() {
                    return;
                }
            }
        });
        Self {
            endpoint,
            connections,
        }
    }

    /// Waits until all connections have ended at the emulator too.
    fn wait(&self) {
        for connection in self.connections.try_iter() {
            connection.join().unwrap();
        }
    }
}

#[test]
fn runs_are_killed_at_any_moment_and_the_next_one_mends_it() {
    let (emulator, folder) = (Emulator::start().unwrap(), Folder::new());
    let client = client(&emulator);
    let way = Way::to(&emulator);
    let last = [
        Company {
            industry: None,
            ..company(0)
        },
        company(4),
    ];
    for round in 0..20 {
        let mut child = again(nights)
            .env(
                NIGHTS,
                format!("{}|{}", way.endpoint, folder.file().display()),
            )
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // The kill comes while later requests and writes are under way.
        let requests = emulator.requests().len() + 1 + round * 7 % 11;
        let arrived = emulator.wait_for(Duration::from_secs(60), |emulator| {
            (emulator.requests().len() >= requests).then_some(())
        });
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();
        arrived.unwrap();
        way.wait();

        let mut snapshot = Snapshot::open(folder.file()).unwrap().delete_gone(true);
        let report = snapshot.sync(&client, &last).unwrap();
        assert_eq!(report.rejected, [], "round {round}");
        assert_eq!(emulator.profiles().len(), 2, "round {round}");
        for company in &last {
            let profile = emulator.profile("company", &company.id.to_string());
            assert_eq!(
                comparable(profile),
                comparable(Some(expected(company))),
                "round {round}"
            );
        }
        assert_eq!(snapshot.sync(&client, &last).unwrap(), Report::default());
    }
}

//! What holds whatever happens to a send: each update ends in one place, and a group's updates keep their order.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use crate::client::endpoint::Endpoint;
use crate::client::retry::Failure;
use crate::client::transport::{Request, Response, Transport, TransportError};
use crate::client::{Client, ClientBuilder, RetryPolicy};
use crate::group::Group;
use crate::record::{Error, ErrorKind};

/// Numbers that look random, the same for each seed.
#[derive(Clone)]
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap() % end
    }

    fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }
}

/// What a server has accepted: groups and positions, in order.
struct Server {
    accepted: Mutex<Vec<(String, usize)>>,
    chance: Mutex<Chance>,
    /// In percent of the requests.
    faults: usize,
    panics: usize,
}

struct Connection(Arc<Server>);

impl Transport for Connection {
    fn post(&self, request: Request<'_>) -> Result<Response, TransportError> {
        let records: Vec<serde_json::Value> = serde_json::from_slice(request.body).unwrap();
        let server = &self.0;
        let respond = |status, body: &str| {
            Ok(Response {
                status,
                retry_after: None,
                body: body.into(),
            })
        };
        let (is_panic, fault) = {
            let mut chance = server.chance.lock().unwrap();
            let is_fault = chance.percent(server.faults);
            (
                chance.percent(server.panics),
                is_fault.then(|| chance.below(5)),
            )
        };
        assert!(!is_panic, "as a logger may");
        match fault {
            Some(0) => {
                return Err(TransportError {
                    error: Error::new(ErrorKind::Network, "broken"),
                    failure: Some(Failure::Breakage),
                });
            }
            Some(1) => return respond(500, ""),
            Some(2) => return respond(413, ""),
            Some(3) => return respond(429, ""),
            Some(_) => return respond(403, "a firewall"),
            None => {}
        }
        let position = |record: &serde_json::Value| {
            usize::try_from(record["$set"]["position"].as_u64().unwrap()).unwrap()
        };
        if records.iter().any(|record| position(record) % 29 == 3) {
            return respond(200, r#"{"status": 0, "error": "bad"}"#);
        }
        let mut accepted = server.accepted.lock().unwrap();
        accepted.extend(records.iter().map(|record| {
            let id = record["$group_id"].as_str().unwrap();
            (id.to_owned(), position(record))
        }));
        respond(200, "1")
    }

    fn abort(&self) {}
}

fn client(server: &Arc<Server>, chance: &mut Chance) -> Client {
    let server = Arc::clone(server);
    let open = Box::new(move || Arc::new(Connection(Arc::clone(&server))) as Arc<dyn Transport>);
    let retry = RetryPolicy::default()
        .base_delay(Duration::from_micros(1))
        .max_delay(Duration::from_micros(10));
    let builder = ClientBuilder::new("TOKEN".to_owned())
        .connections(1 + chance.below(3))
        .max_batch(1 + chance.below(7))
        .max_body([300, 3_000][usize::from(chance.percent(50))])
        .retry(retry);
    let client = builder.connect(Endpoint::nowhere(), open);
    assert!(client.0.has_one_core.set(chance.percent(50)).is_ok());
    client
}

/// Sends updates of a few groups, with all that can happen on the way, and checks that each ended in one place and in
/// its order.
fn run(seed: u64) {
    let mut chance = Chance(seed);
    let [faults, panics] = [[0, 20, 60], [0, 0, 5]].map(|of| of[chance.below(3)]);
    let server = Arc::new(Server {
        accepted: Mutex::default(),
        chance: Mutex::new(chance.clone()),
        faults,
        panics,
    });
    let client = client(&server, &mut chance);
    let other = Client::disabled();
    for _ in 0..4 {
        server.accepted.lock().unwrap().clear();
        let count = chance.below(60);
        let panics_at = chance.percent(10).then(|| chance.below(60));
        let stop = AtomicBool::new(chance.percent(5));
        let stops_at = chance.percent(20).then(|| chance.below(60));
        let kinds: Vec<_> = (0..count).map(|_| chance.below(12)).collect();
        let updates = kinds.iter().enumerate().map(|(position, kind)| {
            assert_ne!(Some(position), panics_at, "the caller's");
            if Some(position) == stops_at {
                stop.store(true, Ordering::Relaxed);
            }
            let group = Group::new("company", position % 5);
            let mut properties = BTreeMap::new();
            match kind {
                0 | 1 => {}
                2 => drop(properties.insert("position", "x".repeat(3_000))),
                3 => {
                    // Another call on this thread meanwhile.
                    assert_eq!(other.send(group.delete()).unwrap().accepted, 1);
                    return group.set(BTreeMap::from([("position", position)]));
                }
                _ => return group.set(BTreeMap::from([("position", position)])),
            }
            group.set(properties)
        });
        let mut sending = client.with_options();
        let looks = chance.percent(40);
        if looks {
            sending = sending.cancel_on(&stop);
        }
        if chance.percent(20) {
            sending = sending.on_progress(|_| {});
        }
        let sent = catch_unwind(AssertUnwindSafe(|| sending.send(updates)));
        let Ok(sent) = sent else {
            assert!(panics_at.is_some_and(|at| at < count));
            continue;
        };
        assert!(panics_at.is_none_or(|at| at >= count));
        let (report, undelivered) = match sent {
            Ok(report) => (report, BTreeSet::new()),
            Err(error) => {
                let positions: Vec<_> = error.undelivered().positions().map(|(at, _)| at).collect();
                assert!(positions.is_sorted());
                let unique: BTreeSet<_> = positions.iter().copied().collect();
                assert_eq!(unique.len(), positions.len());
                (error.report().unwrap().clone(), unique)
            }
        };
        let rejected: BTreeSet<_> = report.rejected.iter().map(|one| one.position).collect();
        assert_eq!(rejected.len(), report.rejected.len());
        let accepted = server.accepted.lock().unwrap();
        let arrived: BTreeSet<_> = accepted.iter().map(|(_, position)| *position).collect();
        assert_eq!(arrived.len(), accepted.len(), "none twice");
        assert_eq!(arrived.len(), report.accepted);
        for (position, kind) in kinds.iter().enumerate() {
            let places = [&arrived, &rejected, &undelivered];
            let found = places.map(|place| usize::from(place.contains(&position)));
            let expected = usize::from(!matches!(kind, 0 | 1));
            assert_eq!(
                found.iter().sum::<usize>(),
                expected,
                "{position}: {found:?}"
            );
            assert!(*kind != 2 || rejected.contains(&position));
        }
        let mut last = HashMap::new();
        for (group, position) in accepted.iter() {
            assert!(
                last.insert(group, position)
                    .is_none_or(|last| last < position)
            );
        }
        let kept = &client.0.idle.lock().unwrap().buffers;
        let most = 3 * client.0.connections;
        assert!(kept.len() <= most, "{} of {most}", kept.len());
    }
}

#[test]
fn each_update_ends_in_one_place_whatever_happens() {
    for seed in 0..200 {
        let (is_over, over) = mpsc::channel();
        let one = thread::spawn(move || {
            run(seed);
            let _ = is_over.send(());
        });
        match over.recv_timeout(Duration::from_secs(120)) {
            Ok(()) => one.join().unwrap(),
            Err(error) => panic!("seed {seed}: {error}"),
        }
    }
}

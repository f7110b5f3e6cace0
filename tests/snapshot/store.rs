//! A snapshot in a store of one's own, which fails at any write.

use std::sync::{Arc, Mutex};

use mixpanel_groups::snapshot::{EachRow, SnapshotStore};
use mixpanel_groups::{Client, Error, ErrorKind, Report, Snapshot};
use mixpanel_groups_emulator::Emulator;

use crate::{Company, client, company, comparable, expected};

/// A store in memory, whose process can be killed at a write.
#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    rows: Vec<(u64, Vec<u8>)>,
    next: u64,
    /// How many writes there were.
    writes: usize,
    /// At which write the process is killed, and how many rows of it are written.
    killed_at: Option<(usize, usize)>,
    is_dead: bool,
    /// Whether a write was interrupted.
    is_cut: bool,
}

impl Memory {
    pub fn open(&self) -> Snapshot {
        Snapshot::open_in(self.clone()).unwrap().delete_gone(true)
    }

    pub fn writes(&self) -> usize {
        self.0.lock().unwrap().writes
    }

    pub fn rows(&self) -> usize {
        self.0.lock().unwrap().rows.len()
    }

    /// Kills the process at that write from now on, after so many rows of it.
    pub fn kill_at(&self, write: usize, rows: usize) {
        let mut state = self.0.lock().unwrap();
        state.killed_at = Some((state.writes + write, rows));
    }

    /// Starts another process.
    pub fn restart(&self) {
        let mut state = self.0.lock().unwrap();
        (state.killed_at, state.is_dead) = (None, false);
    }

    fn state(&self) -> Result<std::sync::MutexGuard<'_, State>, Error> {
        let state = self.0.lock().unwrap();
        if state.is_dead {
            return Err(Error::new(ErrorKind::Io, "the process was killed"));
        }
        Ok(state)
    }
}

impl SnapshotStore for Memory {
    fn load(&mut self, each: &mut EachRow<'_>) -> Result<bool, Error> {
        let mut state = self.state()?;
        for (place, row) in &state.rows {
            each(*place, row)?;
        }
        Ok(!std::mem::take(&mut state.is_cut))
    }

    fn read(&mut self, place: u64) -> Result<Vec<u8>, Error> {
        let state = self.state()?;
        let row = state.rows.iter().find(|(other, _)| *other == place);
        Ok(row.expect("a row that was appended").1.clone())
    }

    fn append(&mut self, rows: &[Vec<u8>]) -> Result<Vec<u64>, Error> {
        let mut state = self.state()?;
        state.writes += 1;
        let killed = state.killed_at.filter(|(at, _)| *at == state.writes);
        let written = killed.map_or(rows.len(), |(_, written)| written.min(rows.len()));
        let mut places = Vec::new();
        for row in &rows[..written] {
            let place = state.next;
            state.rows.push((place, row.clone()));
            places.push(place);
            state.next += 1;
        }
        if killed.is_some() {
            state.is_dead = true;
            state.is_cut = written < rows.len();
            return Err(Error::new(ErrorKind::Io, "the process was killed"));
        }
        Ok(places)
    }

    fn retain(&mut self, places: &[u64]) -> Result<(), Error> {
        let mut state = self.state()?;
        let kept = places.iter().zip(1_000_000..).map(|(place, new)| {
            let row = state.rows.iter().find(|(other, _)| other == place);
            (new, row.expect("a row that was appended").1.clone())
        });
        let kept: Vec<_> = kept.collect();
        state.next = state.next.max(1_000_000 + kept.len() as u64);
        state.rows = kept;
        Ok(())
    }
}

fn sync(store: &Memory, client: &Client, companies: &[Company]) -> Report {
    let report = store.open().sync(client, companies).unwrap();
    assert_eq!(report.rejected, []);
    report
}

#[test]
fn a_run_is_killed_at_each_write_and_the_next_one_mends_it() {
    let changed = |id| Company {
        tags: [1, 9].into(),
        plan: 2,
        ..company(id)
    };
    let last = [
        Company {
            industry: None,
            ..company(0)
        },
        company(1),
    ];
    let mut kills = 0;
    for write in 1.. {
        let mut was_killed = false;
        for rows in 0..6 {
            let (emulator, store) = (Emulator::start().unwrap(), Memory::default());
            let client = client(&emulator);
            let _ = sync(&store, &client, &[company(0), company(1), company(5)]);
            store.kill_at(write, rows);
            let mut snapshot = store.open();
            // Two groups change, one is gone, two are new.
            let result = snapshot.sync(&client, (0..2).chain(6..8).map(changed));
            was_killed |= result.is_err();
            kills += usize::from(result.is_err());
            store.restart();
            // The same process can go on, or another one is started.
            if rows % 2 == 0 {
                drop(snapshot);
                snapshot = store.open();
            }
            let report = snapshot.sync(&client, &last).unwrap();
            assert_eq!(report.rejected, [], "killed at {write}, {rows}");
            assert_eq!(emulator.profiles().len(), 2, "killed at {write}, {rows}");
            for company in &last {
                let profile = emulator.profile("company", &company.id.to_string());
                assert_eq!(comparable(profile), comparable(Some(expected(company))));
            }
            let writes = store.writes();
            assert_eq!(snapshot.sync(&client, &last).unwrap(), Report::default());
            assert_eq!(store.writes(), writes, "nothing has changed");
        }
        if !was_killed {
            break;
        }
    }
    assert!(kills > 10, "{kills}");
}

#[test]
fn rows_are_written_before_the_request_that_depends_on_them() {
    /// A store that notes how many requests there were at each write.
    struct Watched(Memory, Emulator, Arc<Mutex<Vec<(usize, usize)>>>);

    impl SnapshotStore for Watched {
        fn load(&mut self, each: &mut EachRow<'_>) -> Result<bool, Error> {
            self.0.load(each)
        }
        fn read(&mut self, place: u64) -> Result<Vec<u8>, Error> {
            self.0.read(place)
        }
        fn append(&mut self, rows: &[Vec<u8>]) -> Result<Vec<u64>, Error> {
            let requests = self.1.requests().len();
            self.2.lock().unwrap().push((rows.len(), requests));
            self.0.append(rows)
        }
        fn retain(&mut self, places: &[u64]) -> Result<(), Error> {
            self.0.retain(places)
        }
    }

    let emulator = Emulator::start().unwrap();
    let client = client(&emulator);
    let written = Arc::new(Mutex::new(Vec::new()));
    let other = Emulator::start().unwrap();
    drop(other);
    let store = Watched(Memory::default(), emulator, Arc::clone(&written));
    let mut snapshot = Snapshot::open_in(store).unwrap();
    // Three updates each, and three fit into a request.
    let report = snapshot.sync(&client, (0..4).map(company)).unwrap();
    assert_eq!(report.requests, 4);
    let written = written.lock().unwrap();
    let (mut groups, mut requests) = (0, 0);
    for (rows, before) in &written[..written.len() - 1] {
        assert!(*before <= groups, "{written:?}");
        groups += rows - usize::from(groups == 0);
        requests = requests.max(*before);
    }
    assert_eq!(written.last(), Some(&(1, 4)), "the row that ends the run");
    assert_eq!(groups, 4);
}

#[test]
fn a_store_that_cannot_be_written_is_found_out_before_the_first_request() {
    let (emulator, store) = (Emulator::start().unwrap(), Memory::default());
    let client = client(&emulator);
    store.kill_at(1, 0);
    let error = store.open().sync(&client, [company(1)]).unwrap_err();
    assert_eq!(error.to_string(), "the process was killed (3 undelivered)");
    assert_eq!(error.report().map(|report| report.requests), Some(0));
    assert_eq!(emulator.requests().len(), 0);
}

/// A write waits for the disk, so one for each of them would take minutes.
#[test]
fn groups_that_come_twice_take_no_writes_of_their_own() {
    let (emulator, store) = (Emulator::start().unwrap(), Memory::default());
    let client = Client::builder("T").endpoint(emulator.endpoint());
    let client = client.connections(1).build().unwrap();
    let last = |id| Company {
        plan: 2,
        ..company(id)
    };
    let report = store
        .open()
        .sync(&client, (0..100).flat_map(|id| [company(id), last(id)]));
    assert_eq!(report.unwrap().accepted, 400);
    assert_eq!(store.writes(), 2, "before the request, and at the end");
    for (id, profile) in emulator.profiles() {
        let id = id.1.parse().unwrap();
        assert_eq!(
            comparable(Some(profile)),
            comparable(Some(expected(&last(id))))
        );
    }
    let again = store.open().sync(&client, (0..100).map(last)).unwrap();
    assert_eq!(again, Report::default());
}

#[test]
fn outdated_rows_are_removed_and_the_order_of_the_groups_stays() {
    let (emulator, store) = (Emulator::start().unwrap(), Memory::default());
    let client = Client::builder("T").endpoint(emulator.endpoint());
    let client = client.build().unwrap();
    let companies = |plan| {
        (0..50).map(move |id| Company {
            plan: if id % 2 == 0 { plan } else { 1 },
            ..company(id)
        })
    };
    let mut most = 0;
    let mut snapshot = store.open();
    for plan in 0..120 {
        // At times it is another process.
        if plan % 40 == 0 {
            drop(snapshot);
            snapshot = store.open();
        }
        let _ = snapshot.sync(&client, companies(plan)).unwrap();
        most = most.max(store.rows());
        assert_eq!(snapshot.len(), 50);
        let again = snapshot.sync(&client, companies(plan)).unwrap();
        assert_eq!(again, Report::default());
    }
    assert!((1_000..1_200).contains(&most), "{most}");
    drop(snapshot);
    let gone = store.open().sync(&client, companies(119).skip(1)).unwrap();
    assert_eq!(gone.accepted, 1);
    assert_eq!(emulator.profiles().len(), 49);
}

#[test]
fn only_groups_that_the_killed_run_was_about_to_change_are_sent_again() {
    let (emulator, store) = (Emulator::start().unwrap(), Memory::default());
    let client = client(&emulator);
    let changed = Company {
        plan: 2,
        ..company(0)
    };
    let mut snapshot = store.open();
    let all: Vec<_> = (0..10).map(company).collect();
    let _ = snapshot.sync(&client, &all).unwrap();
    store.kill_at(1, usize::MAX);
    let _ = snapshot
        .sync(&client, std::iter::once(&changed).chain(&all[1..]))
        .unwrap_err();
    store.restart();
    drop(snapshot);
    let report = sync(&store, &client, &all);
    assert!((1..=4).contains(&report.sent), "{report}");
}

#[test]
fn data_in_another_order_is_no_change() {
    let (emulator, store) = (Emulator::start().unwrap(), Memory::default());
    let client = client(&emulator);
    let all: Vec<_> = (0..60).map(company).collect();
    let _ = sync(&store, &client, &all);
    let reversed: Vec<_> = all.iter().rev().cloned().collect();
    let mut rotated = all.clone();
    rotated.rotate_left(23);
    let mut exchanged = all.clone();
    exchanged.swap(3, 40);
    for other in [reversed, rotated, exchanged] {
        assert_eq!(sync(&store, &client, &other), Report::default());
    }
    // Some are gone, and some are new in between.
    let mut some = all[..20].to_vec();
    some.splice(5..18, [company(100), company(101)]);
    let report = sync(&store, &client, &some);
    assert_eq!(report.accepted, 2 * 3 + 60 - 7);
    assert_eq!(emulator.profiles().len(), 9);
    assert_eq!(sync(&store, &client, &some), Report::default());
}

#[test]
fn a_source_that_fails_deletes_nothing_and_what_came_before_is_kept() {
    let (emulator, store) = (Emulator::start().unwrap(), Memory::default());
    let client = client(&emulator);
    let _ = sync(&store, &client, &[company(1), company(2)]);
    let mut snapshot = store.open();
    let changed = Company {
        plan: 2,
        ..company(1)
    };
    let rows = [
        Ok(changed.clone()),
        Err(std::io::Error::other("the cursor failed")),
        Ok(company(3)),
    ];
    let error = snapshot.try_sync(&client, rows).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Source);
    assert_eq!(
        format!("{error:#}"),
        "the data ended early: what came before the error was sent: the cursor failed"
    );
    assert_eq!(error.report().unwrap().accepted, 1);
    assert_eq!(emulator.profiles().len(), 2, "nothing is deleted");
    // What was accepted is known, and the rest follows.
    let report = snapshot.sync(&client, [changed, company(3)]).unwrap();
    assert_eq!(report.accepted, 3 + 1);
    assert_eq!(emulator.profiles().len(), 2);
}

#[test]
fn a_source_and_a_server_that_fail_give_back_what_was_not_delivered() {
    let (emulator, store) = (Emulator::start().unwrap(), Memory::default());
    let client = client(&emulator);
    emulator.fail_next(mixpanel_groups_emulator::Fault::Status(503));
    let rows = [Ok(company(1)), Err("the cursor failed")];
    let error = store.open().try_sync(&client, rows).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Source);
    assert_eq!(error.undelivered().len(), 3);
    assert_eq!(error.report().unwrap().requests, 1);
    assert_eq!(sync(&store, &client, &[company(1)]).accepted, 3);
}

#[test]
fn a_disabled_client_does_not_change_the_snapshot() {
    let (emulator, store) = (Emulator::start().unwrap(), Memory::default());
    let client = client(&emulator);
    let _ = sync(&store, &client, &[company(1), company(2)]);
    let writes = store.writes();
    let changed = Company {
        plan: 2,
        ..company(1)
    };
    let next = [changed, company(3)];
    let mut snapshot = store.open();
    for _ in 0..2 {
        let report = snapshot.sync(&Client::disabled(), &next).unwrap();
        assert_eq!(report.accepted, 1 + 3 + 1, "what would be sent");
    }
    assert_eq!(store.writes(), writes);
    // The same snapshot with a client that sends.
    assert_eq!(snapshot.sync(&client, &next).unwrap().accepted, 1 + 3 + 1);
    assert_eq!(emulator.profiles().len(), 2);
    let nothing = snapshot.sync(&client, &next).unwrap();
    assert_eq!(nothing, Report::default());
}

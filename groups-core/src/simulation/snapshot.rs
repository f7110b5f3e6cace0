//! A snapshot whose processes are killed at any moment, over a disk that fails.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::json;
use shuttle::rand::{Rng as _, thread_rng};
use shuttle::thread;

use crate::group::{Group, Operation, Property};
use crate::json::EncodeError;
use crate::record::visit::{Visitor, Walk};
use crate::record::{Error, ErrorKind, MixpanelGroup};
use crate::simulation::server::{Process, Server};
use crate::simulation::updates::{BLOCKED, Model, REFUSED};
use crate::simulation::{percent, simulate};
use crate::snapshot::{EachRow, Snapshot, SnapshotStore};
use crate::util::simulated::sleep;

#[test]
fn whatever_is_killed_the_next_good_run_ends_in_sync() {
    simulate(|| {
        let mut random = thread_rng();
        let server = Server::new(random.gen_range(0..60), percent(20));
        let disk = Arc::new(Disk::default());
        let disk_faults = if percent(30) { 15 } else { 0 };
        for _ in 0..random.gen_range(1..5) {
            let process = Arc::new(Process::alone(disk_faults));
            let killer = percent(60).then(|| {
                let (process, time) = (Arc::clone(&process), thread_rng().gen_range(0..15_000));
                thread::spawn(move || {
                    sleep(Duration::from_millis(time));
                    process.kill();
                })
            });
            let client = server.client(Some(&process));
            let snapshot = Snapshot::open_in(disk.handle(&process));
            if let Ok(mut snapshot) = snapshot.map(|snapshot| snapshot.delete_gone(percent(50))) {
                for _ in 0..random.gen_range(1..3) {
                    drop(snapshot.try_sync(&client, any_rows()));
                }
            }
            if let Some(killer) = killer {
                killer.join().expect("the killer does not panic");
            }
        }

        // The last process is well.
        server.recover();
        let process = Arc::new(Process::alone(0));
        let client = server.client(Some(&process));
        let snapshot = Snapshot::open_in(disk.handle(&process));
        let mut snapshot = snapshot.expect("the disk is well").delete_gone(true);
        let mut companies: Vec<_> = any_rows().into_iter().flatten().collect();
        companies.iter_mut().for_each(Company::make_acceptable);
        let report = snapshot.sync(&client, &companies);
        let report = report.expect("a server that is well takes all");
        assert_eq!(report.rejected, []);
        // Of a group that comes several times, the last one counts.
        let last: BTreeMap<_, _> = companies
            .iter()
            .map(|company| (company.id, company))
            .collect();
        let again = snapshot.sync(&client, last.values().copied());
        assert_eq!(again.expect("there is nothing to do").sent, 0);
        if !server.is_ever_late() {
            let mut model = Model::default();
            last.values().for_each(|company| company.apply(&mut model));
            server.assert_is(&model);
        }
    });
}

/// Some groups, some of them several times, from a source that may fail.
fn any_rows() -> Vec<Result<Company, &'static str>> {
    let (rows, groups) = if percent(50) { (0..6, 4) } else { (6..16, 3) };
    let rows = 0..thread_rng().gen_range(rows);
    rows.map(|_| {
        if percent(5) {
            return Err("the cursor failed");
        }
        Ok(Company::any(thread_rng().gen_range(0..groups)))
    })
    .collect()
}

#[derive(Debug)]
struct Company {
    id: u8,
    plan: String,
    industry: Option<u8>,
    tags: Vec<u8>,
    /// Set once, and unset if there is none.
    first: Option<u8>,
    refused: Option<bool>,
}

impl Company {
    fn any(id: u8) -> Self {
        let mut random = thread_rng();
        let plan = match random.gen_range(0..20) {
            0 => BLOCKED.to_owned(),
            number => format!("plan {}", number % 3),
        };
        Self {
            id,
            plan,
            industry: percent(50).then_some(1),
            tags: (0..4).filter(|_| percent(50)).collect(),
            first: percent(50).then_some(1),
            refused: percent(10).then_some(true),
        }
    }

    fn make_acceptable(&mut self) {
        self.refused = None;
    }

    fn apply(&self, model: &mut Model) {
        let id = self.id.to_string();
        let mut set = json!({"plan": self.plan});
        if let Some(industry) = self.industry {
            set["industry"] = json!(industry);
        }
        model.apply(&id, Operation::Set, set);
        if !self.tags.is_empty() {
            model.apply(&id, Operation::Union, json!({"tags": self.tags}));
        }
        if let Some(first) = self.first {
            model.apply(&id, Operation::SetOnce, json!({"first": first}));
        }
    }
}

/// As the derive would have it, which the simulation is built without.
impl MixpanelGroup for Company {
    const GROUP_KEY: &'static str = "company";
    const GROUP_HEAD: &'static str = r#""$group_key":"company","$group_id":"#;
    const PROPERTIES: &'static [Property] = &Property::all([
        ("plan", "plan", Operation::Set, "", ",\"plan\":", false),
        (
            "industry",
            "industry",
            Operation::Set,
            "",
            ",\"industry\":",
            false,
        ),
        ("tags", "tags", Operation::Union, "", ",\"tags\":", false),
        (REFUSED, REFUSED, Operation::Set, "", ",\"refused\":", false),
        (
            "first",
            "first",
            Operation::SetOnce,
            "",
            ",\"first\":",
            true,
        ),
    ]);

    fn group(&self) -> Group<'_> {
        Group::new("company", self.id)
    }

    fn visit_properties<V: Visitor>(
        &self,
        old: &Self,
        operation: Operation,
        visitor: &mut V,
    ) -> Result<(), EncodeError> {
        let mut walk = Walk::new(visitor, Self::PROPERTIES);
        let is_complete = match operation {
            Operation::Set => {
                walk.property(0, &self.plan, &old.plan)
                    && walk.property(1, &self.industry, &old.industry)
                    && walk.property(3, &self.refused, &old.refused)
            }
            Operation::SetOnce => walk.property(4, &self.first, &old.first),
            Operation::Union => walk.list(2, &self.tags, &old.tags),
            _ => true,
        };
        walk.end(is_complete)
    }
}

/// What outlives the processes.
#[derive(Default)]
struct Disk(Mutex<Rows>);

#[derive(Default)]
struct Rows {
    rows: Vec<(u64, Vec<u8>)>,
    next: u64,
    /// Whether the last write was interrupted.
    is_cut: bool,
}

/// The disk as one process has it.
struct Handle {
    disk: Arc<Disk>,
    process: Arc<Process>,
}

impl Disk {
    fn handle(self: &Arc<Self>, process: &Arc<Process>) -> Handle {
        let (disk, process) = (Arc::clone(self), Arc::clone(process));
        Handle { disk, process }
    }
}

impl Handle {
    fn rows(&self) -> Result<MutexGuard<'_, Rows>, Error> {
        // The process may be killed here.
        thread::yield_now();
        if self.process.is_dead() {
            return Err(fault());
        }
        Ok(self.disk.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_faulty(&self) -> bool {
        percent(self.process.faults())
    }
}

fn fault() -> Error {
    Error::new(ErrorKind::Io, "the disk fails")
}

impl SnapshotStore for Handle {
    fn load(&mut self, each: &mut EachRow<'_>) -> Result<bool, Error> {
        let mut rows = self.rows()?;
        for (place, row) in &rows.rows {
            each(*place, row)?;
        }
        Ok(!std::mem::take(&mut rows.is_cut))
    }

    fn read(&mut self, place: u64) -> Result<Vec<u8>, Error> {
        let rows = self.rows()?;
        if self.is_faulty() {
            return Err(fault());
        }
        let row = rows.rows.iter().find(|(other, _)| *other == place);
        Ok(row
            .expect("only rows that were appended are read")
            .1
            .clone())
    }

    fn append(&mut self, new: &[Vec<u8>]) -> Result<Vec<u64>, Error> {
        let mut rows = self.rows()?;
        let written = if self.is_faulty() {
            thread_rng().gen_range(0..=new.len())
        } else {
            usize::MAX
        };
        let mut places = Vec::new();
        for row in new.iter().take(written) {
            let place = rows.next;
            rows.rows.push((place, row.clone()));
            rows.next += 1;
            places.push(place);
        }
        if written == usize::MAX {
            return Ok(places);
        }
        // A process that is not killed may undo what it could not write whole.
        rows.is_cut = percent(50);
        Err(fault())
    }

    fn retain(&mut self, places: &[u64]) -> Result<(), Error> {
        let mut rows = self.rows()?;
        if self.is_faulty() {
            return Err(fault());
        }
        let kept: Vec<_> = places
            .iter()
            .map(|place| {
                let row = rows.rows.iter().find(|(other, _)| other == place);
                row.expect("only rows that were appended are kept")
                    .1
                    .clone()
            })
            .collect();
        rows.rows = (0..).zip(kept).collect();
        rows.next = rows.rows.len() as u64;
        Ok(())
    }
}

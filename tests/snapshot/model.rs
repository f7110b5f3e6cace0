//! Anything that may happen between two runs, with `Profile` as the judge.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use mixpanel_groups::{Client, MixpanelGroup, Report, Snapshot};
use mixpanel_groups_emulator::{Emulator, Fault};
use mixpanel_groups_sqlite::SqliteSnapshot;
use proptest::prelude::*;

use crate::store::Memory;
use crate::{Folder, client, comparable, expected, fault};

/// The struct of one release.
#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Old {
    #[mixpanel(group_id)]
    id: u8,
    plan: Option<u8>,
    #[mixpanel(union)]
    tags: HashSet<u8>,
    limits: HashMap<String, HashMap<u8, f32>>,
    #[mixpanel(with = "mixpanel_groups::sorted")]
    regions: HashSet<u8>,
    #[mixpanel(set_once, unset_none)]
    first: Option<u8>,
    #[mixpanel(set_once)]
    origin: Option<u8>,
    owner: Option<u8>,
    #[mixpanel(flatten)]
    extra: HashMap<String, u8>,
}

/// That of another: operations and types are others, and a property is gone.
#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct New {
    #[mixpanel(group_id)]
    id: u64,
    #[mixpanel(union)]
    plan: Vec<u64>,
    tags: Option<i32>,
    limits: BTreeMap<String, BTreeMap<u8, f64>>,
    #[mixpanel(union)]
    regions: HashSet<u64>,
    #[mixpanel(union)]
    first: Vec<u64>,
    #[mixpanel(set_once, unset_none)]
    origin: Option<u8>,
    #[mixpanel(set_once)]
    owner: Option<u8>,
    #[mixpanel(flatten, union)]
    extra: HashMap<String, HashSet<u8>>,
}

/// The values of a group, from which a struct of either release is built anew for each run.
#[derive(Clone, Debug)]
struct Values {
    id: u8,
    plan: Option<u8>,
    set: BTreeSet<u8>,
    first: Option<u8>,
    origin: Option<u8>,
    extra: BTreeMap<String, u8>,
}

/// With a hash seed and a capacity of its own.
fn filled<T: Default + Extend<I>, I>(items: impl Iterator<Item = I>) -> T {
    let mut all = T::default();
    all.extend(items);
    all
}

impl Values {
    fn of_old(&self) -> Old {
        let number = |item: &u8| f32::from(*item) / 4.0;
        let inner = || filled(self.set.iter().map(|item| (*item, number(item))));
        Old {
            id: self.id,
            plan: self.plan,
            tags: filled(self.set.iter().copied()),
            limits: filled(self.set.iter().map(|item| (format!("l{item}"), inner()))),
            regions: filled(self.set.iter().copied()),
            first: self.first,
            origin: self.origin,
            owner: self.origin,
            extra: filled(self.extra.iter().map(|(name, item)| (name.clone(), *item))),
        }
    }

    fn of_new(&self) -> New {
        let number = |item: &u8| f64::from(*item) / 4.0;
        let inner = || filled(self.set.iter().map(|item| (*item, number(item))));
        let one = |item: &u8| filled(self.set.iter().copied().chain([*item]));
        New {
            id: self.id.into(),
            plan: self.plan.into_iter().map(u64::from).collect(),
            tags: self.plan.map(i32::from),
            limits: filled(self.set.iter().map(|item| (format!("l{item}"), inner()))),
            regions: filled(self.set.iter().copied().map(u64::from)),
            first: self.first.into_iter().map(u64::from).collect(),
            origin: self.origin,
            owner: self.origin,
            extra: filled(
                self.extra
                    .iter()
                    .map(|(name, item)| (name.clone(), one(item))),
            ),
        }
    }
}

/// One run.
#[derive(Clone, Debug)]
struct Night {
    is_new: bool,
    groups: Vec<Values>,
    /// After how many groups the source fails.
    fails_after: Option<usize>,
    /// At which write the process is killed, and how many rows of it are written.
    killed_at: Option<(usize, usize)>,
    faults: Vec<Fault>,
    restarts: bool,
}

fn night() -> impl Strategy<Value = Night> {
    let values = (
        0..4_u8,
        prop::option::of(0..3_u8),
        prop::collection::btree_set(0..5_u8, 0..5),
        prop::option::of(0..2_u8),
        prop::option::of(0..2_u8),
        prop::collection::btree_map("[xy]", 0..2_u8, 0..3),
    );
    let values = values.prop_map(|(id, plan, set, first, origin, extra)| Values {
        id,
        plan,
        set,
        first,
        origin,
        extra,
    });
    let groups = prop::collection::vec(values, 0..5);
    let fails_after = prop::option::weighted(0.2, 0..4_usize);
    let killed_at = prop::option::weighted(0.3, (1..4_usize, 0..4_usize));
    let faults = prop::collection::vec(fault(), 0..3);
    let rest = (fails_after, killed_at, faults, any::<bool>());
    (any::<bool>(), groups, rest).prop_map(
        |(is_new, groups, (fails_after, killed_at, faults, restarts))| Night {
            is_new,
            groups,
            fails_after,
            killed_at,
            faults: faults.into_iter().flatten().collect(),
            restarts,
        },
    )
}

fn sync(
    snapshot: &mut Snapshot,
    client: &Client,
    night: &Night,
    fails_after: Option<usize>,
) -> Result<Report, mixpanel_groups::Error> {
    let rows = night.groups.iter().enumerate().map(|(number, values)| {
        if fails_after == Some(number) {
            return Err("the cursor failed");
        }
        Ok(values)
    });
    if night.is_new {
        snapshot.try_sync(client, rows.map(|row| row.map(Values::of_new)))
    } else {
        snapshot.try_sync(client, rows.map(|row| row.map(Values::of_old)))
    }
}

/// Where the snapshot is. A store in memory can be killed at each write.
enum Store {
    Memory(Memory),
    File(Folder),
    Sqlite(Folder),
}

impl Store {
    fn open(&self) -> Snapshot {
        let snapshot = match self {
            Self::Memory(store) => Snapshot::open_in(store.clone()),
            Self::File(folder) => Snapshot::open(folder.file()),
            Self::Sqlite(folder) => SqliteSnapshot::open(folder.file()).and_then(Snapshot::open_in),
        };
        snapshot.unwrap().delete_gone(true)
    }

    /// Kills the process at that write, where that can be.
    fn kill_at(&self, (write, rows): (usize, usize)) {
        if let Self::Memory(store) = self {
            store.kill_at(write, rows);
        }
    }

    fn restart(&self) {
        if let Self::Memory(store) = self {
            store.restart();
        }
    }

    /// Changes if anything is written.
    fn version(&self) -> u64 {
        match self {
            Self::Memory(store) => store.writes() as u64,
            Self::File(folder) => std::fs::metadata(folder.file()).map_or(0, |file| file.len()),
            Self::Sqlite(_) => 0,
        }
    }
}

fn check(nights: &[Night], store: &Store) -> Result<(), TestCaseError> {
    let emulator = Emulator::start().unwrap();
    let client = client(&emulator);
    let mut snapshot = store.open();
    for night in nights {
        for fault in &night.faults {
            emulator.fail_next(fault.clone());
        }
        night.killed_at.iter().for_each(|at| store.kill_at(*at));
        drop(sync(&mut snapshot, &client, night, night.fails_after));
        store.restart();
        if night.restarts {
            drop(snapshot);
            snapshot = store.open();
        }
    }
    emulator.recover();
    let last = nights.last().unwrap();
    let report = sync(&mut snapshot, &client, last, None).unwrap();
    prop_assert_eq!(report.rejected, vec![]);

    // A group that is there twice is as it was last.
    let groups = last.groups.iter().map(|values| (values.id, values));
    let groups: BTreeMap<_, _> = groups.collect();
    for id in 0..4 {
        let expected = groups.get(&id).map(|values| {
            if last.is_new {
                expected(&values.of_new())
            } else {
                expected(&values.of_old())
            }
        });
        let profile = emulator.profile("company", &id.to_string());
        // Of what is set once, the value depends on when. It stays where there is none now, unless it says `unset_none`.
        let (once, kept) = if last.is_new {
            (["origin", "owner"], "owner")
        } else {
            (["first", "origin"], "origin")
        };
        let is_kept = groups.get(&id).is_some_and(|of| of.origin.is_none());
        let [profile, expected] = [profile, expected].map(|profile| {
            let mut profile = comparable(profile);
            for name in once {
                let value = profile.entry(name.to_owned());
                value.and_modify(|value| *value = "once".into());
            }
            if is_kept {
                profile.remove(kept);
            }
            profile
        });
        prop_assert_eq!(profile, expected, "company {}", id);
    }
    // Every value is built anew, with other hash seeds: nothing is sent, and nothing is written.
    if groups.len() == last.groups.len() {
        let version = store.version();
        let again = sync(&mut snapshot, &client, last, None);
        prop_assert_eq!(again.unwrap(), Report::default());
        drop(snapshot);
        let again = sync(&mut store.open(), &client, last, None);
        prop_assert_eq!(again.unwrap(), Report::default());
        prop_assert_eq!(store.version(), version);
    }
    Ok(())
}

fn nights() -> impl Strategy<Value = Vec<Night>> {
    prop::collection::vec(night(), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_happens_the_next_good_run_ends_in_sync(nights in nights()) {
        check(&nights, &Store::Memory(Memory::default()))?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50))]

    #[test]
    fn whatever_happens_the_next_good_run_ends_in_sync_with_a_file(nights in nights()) {
        check(&nights, &Store::File(Folder::new()))?;
    }

    #[test]
    fn whatever_happens_the_next_good_run_ends_in_sync_with_a_database(nights in nights()) {
        check(&nights, &Store::Sqlite(Folder::new()))?;
    }
}

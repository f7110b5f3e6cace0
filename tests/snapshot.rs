//! A snapshot on disk: only what changed is sent, and whatever happens, the next run mends it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use mixpanel_groups::{Client, ErrorKind, MixpanelGroup, Profile, Report, RetryPolicy, Snapshot};
use mixpanel_groups_emulator::{Emulator, Fault};
use proptest::prelude::*;
use serde_json::{Value, json};

#[derive(Clone, Debug, MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Company {
    #[mixpanel(group_id)]
    id: u8,
    plan: u8,
    industry: Option<u8>,
    #[mixpanel(set_once)]
    founded: Option<u8>,
    #[mixpanel(union)]
    tags: BTreeSet<u8>,
    #[mixpanel(flatten)]
    extra: BTreeMap<String, u8>,
}

fn company(id: u8) -> Company {
    let tags = BTreeSet::from([1, 2]);
    Company {
        id,
        plan: 1,
        industry: Some(1),
        founded: Some(1),
        tags,
        extra: BTreeMap::new(),
    }
}

/// A file of its own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("mixpanel-groups-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn file(&self) -> PathBuf {
        self.0.join("companies.snapshot")
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn client(emulator: &Emulator) -> Client {
    let client = Client::builder("T")
        .endpoint(emulator.endpoint())
        .retry(RetryPolicy::none());
    client.max_batch(3).build().unwrap()
}

/// One nightly run: reads the file, sends, saves.
fn run(folder: &Folder, client: &Client, companies: &[Company]) -> Report {
    Snapshot::open(folder.file())
        .unwrap()
        .sync(client, companies)
        .unwrap()
}

#[test]
fn the_second_run_sends_what_changed() {
    let (emulator, folder) = (Emulator::start().unwrap(), Folder::new());
    let client = client(&emulator);
    let mut companies: Vec<_> = (0..50).map(company).collect();
    assert_eq!(run(&folder, &client, &companies).accepted, 50 * 3);
    assert_eq!(run(&folder, &client, &companies), Report::default());
    assert_eq!(
        folder.files(),
        ["companies.snapshot"],
        "nothing is left lying about"
    );

    companies[7].plan = 2;
    companies[7].founded = Some(2);
    companies[9].industry = None;
    companies[9].tags = BTreeSet::from([2, 3]);
    let sent_before = emulator.requests().len();
    // $set of 7; $unset, $remove and $union of 9.
    assert_eq!(run(&folder, &client, &companies).accepted, 4);
    let sent: Vec<Value> = emulator.requests()[sent_before..]
        .iter()
        .flat_map(|request| serde_json::from_str::<Vec<Value>>(&request.body).unwrap())
        .collect();
    assert_eq!(sent[0]["$set"], json!({"plan": 2}));
    assert_eq!(sent[1]["$unset"], json!(["industry"]));
    assert_eq!(sent[2]["$remove"], json!({"tags": 1}));
    assert_eq!(sent[3]["$union"], json!({"tags": [3]}));
    assert_eq!(run(&folder, &client, &companies), Report::default());
}

#[test]
fn groups_that_are_gone_are_deleted_on_request_only() {
    let (emulator, folder) = (Emulator::start().unwrap(), Folder::new());
    let client = client(&emulator);
    let companies: Vec<_> = (0..5).map(company).collect();
    run(&folder, &client, &companies).into_result().unwrap();
    assert_eq!(run(&folder, &client, &companies[..3]), Report::default());
    assert_eq!(emulator.profiles().len(), 5);

    let snapshot = Snapshot::open(folder.file()).unwrap();
    let mut snapshot = snapshot.delete_gone(true);
    assert_eq!(snapshot.sync(&client, &companies[..3]).unwrap().accepted, 2);
    assert_eq!((emulator.profiles().len(), snapshot.len()), (3, 3));
    assert_eq!(
        snapshot.sync(&client, &companies[..3]).unwrap(),
        Report::default()
    );
    // Come again, a group is new.
    assert_eq!(snapshot.sync(&client, &companies[..4]).unwrap().accepted, 3);
}

#[test]
fn the_company_of_a_group_is_known() {
    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "$user_id")]
    struct User {
        #[mixpanel(group_id)]
        id: u8,
        #[mixpanel(company_id)]
        company: &'static str,
        #[mixpanel(union)]
        roles: Vec<&'static str>,
    }
    let user = |id, company, role| User {
        id,
        company,
        roles: vec![role],
    };
    let (emulator, folder) = (Emulator::start().unwrap(), Folder::new());
    let client = client(&emulator);
    let sync = |users: &[User]| {
        let sent_before = emulator.requests().len();
        let snapshot = Snapshot::open(folder.file()).unwrap();
        let report = snapshot.delete_gone(true).sync(&client, users).unwrap();
        assert_eq!(report.rejected, []);
        emulator.requests()[sent_before..]
            .iter()
            .flat_map(|request| serde_json::from_str::<Vec<Value>>(&request.body).unwrap())
            .collect::<Vec<_>>()
    };
    sync(&[user(1, "acme", "admin"), user(2, "acme", "admin")]);

    let sent = sync(&[user(1, "acme", "admin")]);
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0]["$delete"], "");
    assert_eq!(sent[0]["$company_id"], "acme");

    // In another company, all is said again.
    let sent = sync(&[user(1, "globex", "admin")]);
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0]["$union"], json!({"roles": ["admin"]}));
    assert_eq!(sent[0]["$company_id"], "globex");
    assert_eq!(sync(&[user(1, "globex", "admin")]), Vec::<Value>::new());
}

#[test]
fn groups_of_other_keys_are_not_gone() {
    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "team")]
    struct Team {
        #[mixpanel(group_id)]
        id: u8,
        size: u8,
    }
    let (emulator, folder) = (Emulator::start().unwrap(), Folder::new());
    let client = client(&emulator);
    let mut snapshot = Snapshot::open(folder.file()).unwrap().delete_gone(true);
    snapshot
        .sync(&client, &[company(1)])
        .unwrap()
        .into_result()
        .unwrap();
    snapshot
        .sync(&client, &[Team { id: 1, size: 2 }])
        .unwrap()
        .into_result()
        .unwrap();
    assert_eq!(emulator.profiles().len(), 2);
}

#[test]
fn a_damaged_file_is_an_error_and_left_alone() {
    let (emulator, folder) = (Emulator::start().unwrap(), Folder::new());
    run(&folder, &client(&emulator), &[company(1), company(2)])
        .into_result()
        .unwrap();
    let good = fs::read(folder.file()).unwrap();
    let check = |bytes: &[u8], why: &str| {
        fs::write(folder.file(), bytes).unwrap();
        let error = Snapshot::open(folder.file()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
        assert!(error.to_string().contains(why), "{error}");
        assert!(error.to_string().contains("companies.snapshot"), "{error}");
        assert_eq!(fs::read(folder.file()).unwrap(), bytes);
    };
    for length in 0..good.len() - 1 {
        check(&good[..length], "");
    }
    for at in 0..good.len() - 1 {
        let mut bad = good.clone();
        bad[at] ^= 1;
        check(&bad, "");
    }
    check(b"\xFF\xFE", "it is not text");
    check(b"id,name\n1,Acme\n", "it is no snapshot");
    check(
        b"{\"mixpanel-groups snapshot\":2}\n",
        "it is of version 2, and this library reads 1",
    );
    fs::write(folder.file(), good).unwrap();
    assert_eq!(Snapshot::open(folder.file()).unwrap().len(), 2);
}

#[test]
fn a_folder_that_is_not_there_is_an_error_that_names_it() {
    let folder = Folder::new();
    let file = folder.0.join("nowhere").join("snapshot");
    let emulator = Emulator::start().unwrap();
    let mut snapshot = Snapshot::open(&file).unwrap();
    let error = snapshot
        .sync(&client(&emulator), &[company(1)])
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("nowhere"), "{error}");
    assert!(
        emulator.requests().is_empty(),
        "found out before anything is sent"
    );
}

#[test]
fn after_a_run_that_was_killed_everything_is_said_again() {
    let (emulator, folder) = (Emulator::start().unwrap(), Folder::new());
    let client = client(&emulator);
    run(&folder, &client, &[company(1)]).into_result().unwrap();
    let saved = fs::read(folder.file()).unwrap();

    // A run that sends a change and is killed before it has saved it.
    let changed = Company {
        plan: 2,
        tags: BTreeSet::from([1, 9]),
        ..company(1)
    };
    run(&folder, &client, &[changed]).into_result().unwrap();
    fs::write(folder.file(), saved).unwrap();
    fs::write(folder.0.join("companies.snapshot.unfinished"), "").unwrap();

    // The change is taken back. The snapshot alone would say that there is nothing to do.
    let report = run(&folder, &client, &[company(1)]);
    assert!(report.accepted > 0);
    assert_eq!(
        emulator.profile("company", "1").unwrap().get("plan"),
        Some(&json!(1))
    );
    assert_eq!(run(&folder, &client, &[company(1)]), Report::default());
}

fn versions() -> impl Strategy<Value = Vec<Vec<Company>>> {
    let company = |id: u8| {
        let tags = prop::collection::btree_set(0..4_u8, 0..4);
        let extra = prop::collection::btree_map("[xy]", 0..2_u8, 0..3);
        let rest = (
            0..3_u8,
            prop::option::of(0..2_u8),
            prop::option::of(0..2_u8),
            tags,
            extra,
        );
        rest.prop_map(move |(plan, industry, founded, tags, extra)| Company {
            id,
            plan,
            industry,
            founded,
            tags,
            extra,
        })
    };
    let night = prop::collection::vec((0..4_u8).prop_flat_map(company), 0..5);
    prop::collection::vec(night, 1..6)
}

fn fault() -> impl Strategy<Value = Option<Fault>> {
    prop_oneof![
        2 => Just(None),
        1 => prop::collection::vec(0..3_usize, 1..3).prop_map(|at| Some(Fault::Reject(at))),
        1 => Just(Some(Fault::Status(503))),
        1 => Just(Some(Fault::CloseAfter)),
        1 => Just(Some(Fault::CloseBefore)),
    ]
}

/// The profile as it can be compared: lists have no order, what was set once depends on when.
fn comparable(profile: Option<Profile>) -> BTreeMap<String, Value> {
    let profile = profile.unwrap_or_default();
    let properties = profile.iter().filter(|(name, _)| *name != "founded");
    properties
        .map(|(name, value)| {
            let mut value = value.clone();
            if let Value::Array(items) = &mut value {
                items.sort_by_key(ToString::to_string);
            }
            (name.to_owned(), value)
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn whatever_went_wrong_the_next_good_run_mends_it(
        nights in versions(),
        faults in prop::collection::vec(fault(), 0..12),
        restart in any::<bool>(),
    ) {
        let (emulator, folder) = (Emulator::start().unwrap(), Folder::new());
        let client = client(&emulator);
        let mut faults = faults.into_iter();
        let mut snapshot = Snapshot::open(folder.file()).unwrap().delete_gone(true);
        let last = nights.last().unwrap().clone();
        for companies in nights {
            faults.by_ref().take(3).flatten().for_each(|fault| emulator.fail_next(fault));
            drop(snapshot.sync(&client, &companies));
            if restart {
                snapshot = Snapshot::open(folder.file()).unwrap().delete_gone(true);
            }
        }
        emulator.recover();
        snapshot.sync(&client, &last).unwrap().into_result().unwrap();

        // A company that is there twice is as it was last.
        let companies: BTreeMap<_, _> = last.iter().map(|company| (company.id, company)).collect();
        for id in 0..4 {
            let mut expected = Profile::default();
            if let Some(company) = companies.get(&id) {
                company.updates().for_each(|update| expected.apply(&update).unwrap());
            }
            let profile = emulator.profile("company", &id.to_string());
            prop_assert_eq!(comparable(profile), comparable(Some(expected)), "company {}", id);
        }
        prop_assert_eq!(snapshot.sync(&client, &last).unwrap().rejected, vec![]);
    }
}

//! A snapshot: only what changed is sent, and whatever happens, the next run mends it.

mod files;
mod kill;
mod lists;
mod logged;
mod model;
mod project;
mod set_once;
mod sqlite;
mod stopped;
mod store;
#[cfg(target_os = "linux")]
mod users;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
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
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
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
        ["companies.snapshot", "companies.snapshot.lock"],
        "nothing else is left lying about"
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
fn a_group_that_comes_twice_is_compared_with_what_it_was_the_first_time() {
    let (emulator, folder) = (Emulator::start().unwrap(), Folder::new());
    let client = client(&emulator);
    run(&folder, &client, &[company(1)]).into_result().unwrap();
    let sent_before = emulator.requests().len();
    let [one, two] = [2, 3].map(|plan| Company { plan, ..company(1) });
    assert_eq!(run(&folder, &client, &[one, two]).accepted, 2);
    let sent: Vec<Value> = emulator.requests()[sent_before..]
        .iter()
        .flat_map(|request| serde_json::from_str::<Vec<Value>>(&request.body).unwrap())
        .map(|update| update["$set"].clone())
        .collect();
    assert_eq!(sent, [json!({"plan": 2}), json!({"plan": 3})]);
}

#[test]
fn what_an_earlier_run_of_the_same_process_sent_is_certain() {
    let (emulator, folder) = (Emulator::start().unwrap(), Folder::new());
    let client = client(&emulator);
    let mut snapshot = Snapshot::open(folder.file()).unwrap();
    let mut sync = |tags: &[u8]| {
        let tags = tags.iter().copied().collect();
        snapshot.sync(&client, [Company { tags, ..company(1) }])
    };
    assert_eq!(sync(&[1, 2]).unwrap().accepted, 3);
    assert_eq!(sync(&[1]).unwrap().accepted, 1, "2 is removed");
    emulator.fail_always(Fault::Status(401));
    let error = sync(&[1, 3]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    emulator.recover();
    sync(&[1]).unwrap().into_result().unwrap();
    let sent: String = emulator.requests()[3..]
        .iter()
        .map(|request| &*request.body)
        .collect();
    let removes = |tag: u8| sent.contains(&format!(r#""$remove":{{"tags":{tag}}}"#));
    assert!(removes(3), "it may be there");
    assert!(!removes(2), "it is certain that it is not there");
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
    assert!(!snapshot.is_empty());
    assert!(format!("{snapshot:?}").contains("groups: 3"));
    assert_eq!(
        snapshot.sync(&client, &companies[..3]).unwrap(),
        Report::default()
    );
    // Come again, a group is new.
    assert_eq!(snapshot.sync(&client, &companies[..4]).unwrap().accepted, 3);
    assert_eq!(snapshot.sync(&client, &companies[..0]).unwrap().accepted, 4);
    assert!(snapshot.is_empty());
}

/// As those of channels do, and of cursors that begin anew.
#[test]
fn a_source_that_goes_on_after_its_end_is_read_to_its_end() {
    let (emulator, folder) = (Emulator::start().unwrap(), Folder::new());
    let client = client(&emulator);
    let snapshot = Snapshot::open(folder.file()).unwrap();
    let mut snapshot = snapshot.delete_gone(true);
    let report = snapshot.sync(&client, (0..4).map(company)).unwrap();
    assert_eq!(report.accepted, 4 * 3);
    let mut rows = [Some(0), None, Some(9), None].into_iter();
    let source = std::iter::from_fn(|| rows.next().flatten()).map(company);
    assert_eq!(snapshot.sync(&client, source).unwrap().accepted, 3);
    assert_eq!((emulator.profiles().len(), snapshot.len()), (1, 1));
    assert_eq!(rows.next(), Some(Some(9)));
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
fn a_damaged_file_is_an_error_and_left_alone_or_everything_is_sent_again() {
    let (emulator, folder) = (Emulator::start().unwrap(), Folder::new());
    let client = client(&emulator);
    run(&folder, &client, &[company(1)]).into_result().unwrap();
    let first = fs::read(folder.file()).unwrap().len();
    run(&folder, &client, &[company(1), company(2)])
        .into_result()
        .unwrap();
    let good = fs::read(folder.file()).unwrap();
    let mut errors = 0;
    let mut check = |bytes: &[u8], why: &str| {
        fs::write(folder.file(), bytes).unwrap();
        match Snapshot::open(folder.file()) {
            // It looks as if the last write was interrupted.
            Ok(mut snapshot) => {
                assert_eq!(why, "");
                let before = emulator.requests().len();
                let report = snapshot.sync(&client, &[company(1), company(2)]).unwrap();
                assert!(report.is_all_accepted());
                let requests = emulator.requests().split_off(before);
                let is_sent = |id| {
                    let id = format!(r#""$group_id":"{id}""#);
                    requests.iter().any(|request| request.body.contains(&id))
                };
                // The first write of the second run may not have been complete: nothing was sent then.
                assert!(is_sent(1) || (first..good.len()).contains(&bytes.len()));
                assert!(is_sent(2));
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
                assert!(error.to_string().contains(why), "{error}");
                assert!(error.to_string().contains("companies.snapshot"), "{error}");
                assert_eq!(fs::read(folder.file()).unwrap(), bytes);
                errors += 1;
            }
        }
    };
    for length in (0..good.len()).step_by(3) {
        // Between the two runs the file is as it was after the first one.
        check(&good[..length], "");
    }
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        check(&bad, "");
    }
    check(b"\xFF\xFE", "it is not a snapshot");
    check(b"id,name\n1,Acme\n", "it is not a snapshot");
    check(
        b"mixpanel-groups snapshot 2\n",
        "it was written by a newer version of this library",
    );
    assert!(errors > good.len() / 2, "{errors}");
    fs::write(folder.file(), good).unwrap();
    assert_eq!(Snapshot::open(folder.file()).unwrap().len(), 2);
}

#[test]
fn a_folder_that_is_not_there_is_an_error_that_names_it() {
    let folder = Folder::new();
    let file = folder.0.join("nowhere").join("snapshot");
    let error = Snapshot::open(&file).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("nowhere"), "{error}");
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

/// The profile that the updates of a struct make.
fn expected<T: MixpanelGroup + Sync>(group: &T) -> Profile {
    let mut profile = Profile::default();
    for update in group.updates() {
        profile.apply(&update).unwrap();
    }
    profile
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
                drop(snapshot);
                snapshot = Snapshot::open(folder.file()).unwrap().delete_gone(true);
            }
        }
        emulator.recover();
        snapshot.sync(&client, &last).unwrap().into_result().unwrap();

        // A company that is there twice is as it was last.
        let companies: BTreeMap<_, _> = last.iter().map(|company| (company.id, company)).collect();
        for id in 0..4 {
            let expected = companies.get(&id).map(|company| expected(*company));
            let profile = emulator.profile("company", &id.to_string());
            prop_assert_eq!(comparable(profile), comparable(expected), "company {}", id);
        }
        prop_assert_eq!(snapshot.sync(&client, &last).unwrap().rejected, vec![]);
    }
}

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Hashed {
    #[mixpanel(group_id)]
    id: u8,
    seats: HashMap<String, HashMap<u8, u8>>,
    #[mixpanel(flatten)]
    extra: HashMap<String, u8>,
    #[mixpanel(union)]
    tags: HashSet<u8>,
    #[mixpanel(with = "mixpanel_groups::sorted")]
    regions: HashSet<u8>,
    nested: Vec<HashMap<u8, u8>>,
}

/// The same values, each map with a seed and a capacity of its own.
fn hashed(values: &BTreeMap<u8, u8>) -> Hashed {
    fn filled<T: Default + Extend<I>, I>(items: impl Iterator<Item = I>) -> T {
        let mut all = T::default();
        all.extend(items);
        all
    }
    let map = || filled::<HashMap<u8, u8>, _>(values.iter().map(|(name, value)| (*name, *value)));
    Hashed {
        id: 1,
        seats: filled(values.keys().map(|name| (format!("n{name}"), map()))),
        extra: filled(
            values
                .iter()
                .map(|(name, value)| (format!("e{name}"), *value)),
        ),
        tags: filled(values.keys().copied()),
        regions: filled(values.keys().copied()),
        nested: vec![map(), map()],
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn other_hash_seeds_are_no_change(values in prop::collection::btree_map(any::<u8>(), any::<u8>(), 1..9)) {
        let (emulator, folder) = (Emulator::start().unwrap(), Folder::new());
        let client = client(&emulator);
        prop_assert_eq!(hashed(&values).changes_since(&hashed(&values)).count(), 0);
        let mut snapshot = Snapshot::open(folder.file()).unwrap();
        prop_assert!(snapshot.sync(&client, [hashed(&values)]).unwrap().accepted > 0);
        prop_assert_eq!(snapshot.sync(&client, [hashed(&values)]).unwrap(), Report::default());

        let mut changed = values.clone();
        let value = changed.values_mut().next().unwrap();
        *value = value.wrapping_add(1);
        prop_assert!(hashed(&changed).changes_since(&hashed(&values)).count() > 0);
        prop_assert!(snapshot.sync(&client, [hashed(&changed)]).unwrap().accepted > 0);
    }
}

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Plan {
    #[mixpanel(group_id)]
    id: u8,
    plan: &'static str,
}

#[test]
fn values_whose_short_hashes_were_the_same_are_told_apart() {
    let (emulator, folder) = (Emulator::start().unwrap(), Folder::new());
    let mut snapshot = Snapshot::open(folder.file()).unwrap();
    for plan in ["bA-a  CFbVD -P", "vMYtdYKF-WCbSE"] {
        let report = snapshot.sync(&client(&emulator), [Plan { id: 1, plan }]);
        assert_eq!(report.unwrap().accepted, 1, "{plan}");
    }
}

#[test]
fn a_second_run_is_refused_before_it_sends() {
    let folder = Folder::new();
    let first = Snapshot::open(folder.file()).unwrap();
    let error = Snapshot::open(folder.file()).unwrap_err();
    assert!(
        error.to_string().contains("in use by another run"),
        "{error}"
    );
    drop(first);
    Snapshot::open(folder.file()).unwrap();
}

#[test]
fn a_property_that_changes_its_operation_becomes_a_list() {
    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company")]
    struct Plans {
        #[mixpanel(group_id)]
        id: u8,
        #[mixpanel(union)]
        plan: Vec<&'static str>,
    }
    let (emulator, folder) = (Emulator::start().unwrap(), Folder::new());
    let client = client(&emulator);
    let plan = || {
        emulator
            .profile("company", "1")
            .unwrap()
            .get("plan")
            .cloned()
    };
    for is_killed in [false, true] {
        let plan_before = Plan {
            id: 1,
            plan: "free",
        };
        let mut snapshot = Snapshot::open(folder.file()).unwrap();
        snapshot
            .sync(&client, [plan_before])
            .unwrap()
            .into_result()
            .unwrap();
        if is_killed {
            // Before the row that ends the run was written.
            drop(snapshot);
            let file = fs::OpenOptions::new().write(true).open(folder.file());
            let file = file.unwrap();
            let length = file.metadata().unwrap().len();
            file.set_len(length - 1).unwrap();
            snapshot = Snapshot::open(folder.file()).unwrap();
        }
        let plans = Plans {
            id: 1,
            plan: vec!["free", "gold", "free"],
        };
        snapshot
            .sync(&client, [&plans])
            .unwrap()
            .into_result()
            .unwrap();
        assert_eq!(plan(), Some(json!(["free", "gold"])));
        assert_eq!(snapshot.sync(&client, [&plans]).unwrap(), Report::default());
    }
}

#[test]
fn the_caller_panics_at_any_group_and_the_next_run_mends_it() {
    for at in 0..4_u8 {
        let (emulator, folder) = (Emulator::start().unwrap(), Folder::new());
        let client = client(&emulator);
        let mut snapshot = Snapshot::open(folder.file()).unwrap().delete_gone(true);
        let changed = |id| Company {
            tags: BTreeSet::from([1, 9]),
            ..company(id)
        };
        let groups = (0..4).map(|id| {
            if id == at {
                panic!("on purpose")
            } else {
                changed(id)
            }
        });
        let run = AssertUnwindSafe(|| drop(snapshot.sync(&client, groups)));
        assert!(catch_unwind(run).is_err());

        let last = Company {
            industry: None,
            ..company(0)
        };
        snapshot
            .sync(&client, [last])
            .unwrap()
            .into_result()
            .unwrap();
        assert_eq!(
            emulator.profiles().len(),
            1,
            "groups that the run created are deleted"
        );
        let profile = emulator.profile("company", "0").unwrap();
        assert_eq!(profile.get("industry"), None);
        assert_eq!(comparable(Some(profile))["tags"], json!([1, 2]));
    }
}

#[test]
fn a_renamed_property_moves_unless_it_was_set_once() {
    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company")]
    struct Before {
        #[mixpanel(group_id)]
        id: u8,
        plan: &'static str,
        #[mixpanel(set_once)]
        founded: u16,
    }
    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company")]
    struct After {
        #[mixpanel(group_id)]
        id: u8,
        #[mixpanel(rename = "Plan")]
        plan: &'static str,
        #[mixpanel(set_once, rename = "Founded")]
        founded: u16,
    }
    let (folder, emulator) = (Folder::new(), Emulator::start().unwrap());
    let client = client(&emulator);
    let (id, plan, founded) = (1, "pro", 1999);
    let mut snapshot = Snapshot::open(folder.file()).unwrap();
    let report = snapshot.sync(&client, [Before { id, plan, founded }]);
    assert!(report.unwrap().is_all_accepted());
    let report = snapshot.sync(&client, [After { id, plan, founded }]);
    assert!(report.unwrap().is_all_accepted());
    let profile = emulator.profile("company", "1").unwrap();
    let expected = json!({"Plan": "pro", "Founded": 1999, "founded": 1999});
    assert_eq!(profile, expected);
}

/// Two structs of one group, each with a snapshot.
#[test]
fn a_struct_with_other_properties_has_a_snapshot_of_its_own() {
    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company")]
    struct Usage {
        #[mixpanel(group_id)]
        id: u8,
        logins: u32,
    }
    let folders = [Folder::new(), Folder::new()];
    let emulator = Emulator::start().unwrap();
    let client = client(&emulator);
    let [mut companies, mut usage] = folders
        .each_ref()
        .map(|folder| Snapshot::open(folder.file()).unwrap());
    for logins in 0..3 {
        let report = companies.sync(&client, [company(1)]).unwrap();
        assert!(report.is_all_accepted());
        let report = usage.sync(&client, [Usage { id: 1, logins }]).unwrap();
        assert_eq!(report.accepted, 1);
        let profile = emulator.profile("company", "1").unwrap();
        assert_eq!(profile.get("plan"), Some(&json!(1)));
        assert_eq!(profile.get("logins"), Some(&json!(logins)));
    }
}

#[test]
fn a_group_that_cannot_be_named_is_rejected_once() {
    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company")]
    struct Named {
        #[mixpanel(group_id)]
        id: &'static str,
        plan: Option<u8>,
    }
    let named = |id, plan| Named { id, plan };
    let folder = Folder::new();
    let emulator = Emulator::start().unwrap();
    let client = client(&emulator);
    let mut snapshot = Snapshot::open(folder.file()).unwrap().delete_gone(true);
    let all = [named("", Some(1)), named("a", Some(1))];
    let report = snapshot.sync(&client, all).unwrap();
    assert_eq!((report.accepted, report.rejected.len()), (1, 1));
    // Without properties nothing is sent of it, and nothing is to be deleted.
    let report = snapshot.sync(&client, [named("", None), named("a", Some(1))]);
    assert!(report.unwrap().is_all_accepted());
    let report = snapshot.sync(&client, [named("a", Some(1))]).unwrap();
    assert!(report.is_all_accepted());
    assert_eq!(snapshot.len(), 1);
}

/// A value whose `Serialize` ignores an error and goes on.
#[test]
fn what_goes_on_after_an_error_is_rejected_each_time() {
    use common::careless::{Careless, Second, Shape};

    #[derive(MixpanelGroup)]
    #[mixpanel(group_key = "company")]
    struct Company {
        #[mixpanel(group_id)]
        id: u8,
        odd: Careless,
        #[mixpanel(flatten)]
        flat: BTreeMap<&'static str, Careless>,
    }
    let (folder, emulator) = (Folder::new(), Emulator::start().unwrap());
    let client = client(&emulator);
    let company = |id, value| Company {
        id,
        odd: value,
        flat: BTreeMap::from([("deep", value)]),
    };
    for shape in [Shape::Seq, Shape::Entries, Shape::Keys, Shape::Struct] {
        let fine = company(1, Careless(shape, Second::Fine));
        for second in Second::FAILURES {
            let companies = [&fine, &company(2, Careless(shape, second))];
            let mut snapshot = Snapshot::open(folder.file()).unwrap();
            let report = snapshot.sync(&client, companies).unwrap();
            assert_eq!(report.rejected.len(), 1, "{shape:?} {second:?}");
            assert_eq!(report.rejected[0].field.as_deref(), Some("odd"));
        }
    }
    assert!(emulator.profile("company", "1").is_some());
    assert!(emulator.profile("company", "2").is_none());
}

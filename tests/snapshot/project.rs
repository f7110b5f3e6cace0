//! A snapshot belongs to one project.

use mixpanel_groups::{Client, ErrorKind, Group, MixpanelGroup, Report, RetryPolicy, Snapshot};
use mixpanel_groups_emulator::{Emulator, Fault};
use serde_json::json;

use crate::store::Memory;
use crate::{Company, Folder, company};

fn client(emulator: &Emulator, token: &str) -> Client {
    let client = Client::builder(token)
        .endpoint(emulator.endpoint())
        .retry(RetryPolicy::none());
    client.build().unwrap()
}

#[test]
fn a_snapshot_of_another_project_is_refused_before_anything_is_sent() {
    let (emulator, folder) = (Emulator::start().unwrap(), Folder::new());
    let [staging, live] = ["STAGING-TOKEN", "LIVE-TOKEN"].map(|token| client(&emulator, token));
    let mut snapshot = Snapshot::open(folder.file()).unwrap();
    assert!(snapshot.sync(&staging, [company(1)]).is_ok());
    let requests = emulator.requests().len();
    // The same process, and another one.
    for _ in 0..2 {
        let error = snapshot.sync(&live, [company(1)]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        let message = format!(
            "the snapshot {} was kept with another project's token: use another snapshot for this project, or move it away to send everything again",
            folder.file().display()
        );
        assert_eq!(error.to_string(), message);
        let error = snapshot.sync(&live, [company(2)]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        drop(snapshot);
        snapshot = Snapshot::open(folder.file()).unwrap();
    }
    assert_eq!(emulator.requests().len(), requests);
    // It is as it was. A disabled client is of no project.
    let report = snapshot.sync(&Client::disabled(), [company(1)]).unwrap();
    assert_eq!(report, Report::default());
    let nothing = snapshot.sync(&staging, [company(1)]).unwrap();
    assert_eq!(nothing, Report::default());

    let file = std::fs::read(folder.file()).unwrap();
    let token = b"STAGING-TOKEN";
    assert!(!file.windows(token.len()).any(|bytes| bytes == token));
    let known = format!("{snapshot:?}");
    assert!(!known.contains("TOKEN"), "{known}");
}

/// Another port or a proxy is the same project.
#[test]
fn the_endpoint_may_change() {
    let emulators = [Emulator::start().unwrap(), Emulator::start().unwrap()];
    let [one, other] = emulators.each_ref().map(|at| client(at, "TOKEN"));
    let store = Memory::default();
    assert!(store.open().sync(&one, [company(1)]).is_ok());
    let nothing = store.open().sync(&other, [company(1)]).unwrap();
    assert_eq!(nothing, Report::default());
}

/// What may have been sent with another token is not removed with this one.
#[test]
fn a_project_that_accepted_nothing_leaves_nothing_to_remove() {
    let emulator = Emulator::start().unwrap();
    let [staging, live] = ["STAGING", "LIVE"].map(|token| client(&emulator, token));
    for is_killed in [false, true] {
        emulator.reset();
        let store = Memory::default();
        if is_killed {
            store.kill_at(2, 0);
        } else {
            emulator.fail_next(Fault::Status(401));
        }
        assert!(store.open().sync(&staging, [company(1)]).is_err());
        store.restart();
        let by_another = Group::new("company", 1).set(json!({"by": "a web handler"}));
        assert_eq!(live.send(by_another).unwrap().accepted, 1);
        for _ in 0..2 {
            let report = store.open().sync(&live, [company(2)]).unwrap();
            assert!(report.is_all_accepted());
        }
        assert_eq!(store.open().len(), 1);
        assert!(emulator.profile("company", "1").is_some());
        let error = store.open().sync(&staging, [company(1)]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
    }
}

#[derive(MixpanelGroup)]
#[mixpanel(group_key = "company")]
struct Numbered {
    #[mixpanel(group_id)]
    id: u16,
    plan: &'static str,
}

/// A run that begins anew and has nothing to write leaves the file as it is.
#[test]
fn a_run_of_nothing_with_another_token_harms_nothing() {
    let (emulator, folder) = (Emulator::start().unwrap(), Folder::new());
    let [wrong, right] = ["WRONG", "RIGHT"].map(|token| client(&emulator, token));
    let mut snapshot = Snapshot::open(folder.file()).unwrap();
    emulator.fail_next(Fault::Status(401));
    // So many that outdated rows are removed.
    let all = || (0..600).map(|id| Numbered { id, plan: "free" });
    assert!(snapshot.sync(&wrong, all()).is_err());
    let nothing = snapshot.sync(&right, all().take(0)).unwrap();
    assert_eq!(nothing, Report::default());
    assert_eq!(snapshot.sync(&right, all().take(1)).unwrap().accepted, 1);
    drop(snapshot);
    assert_eq!(Snapshot::open(folder.file()).unwrap().len(), 1);
}

/// With a wrong token, everything is refused. It must not keep the right one out.
#[test]
fn a_snapshot_has_no_project_before_something_was_accepted() {
    let (emulator, store) = (Emulator::start().unwrap(), Memory::default());
    let [wrong, right] = ["WRONG", "RIGHT"].map(|token| client(&emulator, token));
    let mut snapshot = store.open();
    let nothing = snapshot.sync(&wrong, Vec::<Company>::new()).unwrap();
    assert_eq!(nothing, Report::default());
    emulator.fail_next(Fault::Status(401));
    let error = snapshot.sync(&wrong, [company(1)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    drop(snapshot);
    // Nor does a run that was killed: all of it is sent again.
    store.kill_at(2, 0);
    assert!(store.open().sync(&wrong, [company(1)]).is_err());
    store.restart();

    let mut snapshot = store.open();
    let report = snapshot.sync(&right, [company(1)]).unwrap();
    assert_eq!(report.accepted, 3);
    let error = snapshot.sync(&wrong, [company(1)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    drop(snapshot);
    let error = store.open().sync(&wrong, [company(1)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
}

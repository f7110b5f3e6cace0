//! Mixpanel's official SDKs for other languages against the emulator: the profiles are the same as
//! those of our own client, and what the README says of the SDKs is so.
//!
//! They come from PyPI and npm. Where that fails, the test says so and is skipped, but not where
//! `CI` is set.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use common::say_missing;
use mixpanel_groups::{Client, Event, Group};
use mixpanel_groups_emulator::{Emulator, Fault};
use serde_json::{Value, json};

/// Tests run side by side, and one installation is enough.
static INSTALLING: Mutex<()> = Mutex::new(());

/// The folder of an SDK that is installed; nothing if it cannot be.
fn install(sdk: &str) -> Option<PathBuf> {
    let _turn = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(sdk);
    let output = Command::new("tests/emulator/sdks/install.sh")
        .arg(sdk)
        .arg(&folder)
        .output()
        .unwrap();
    if output.status.success() {
        return Some(folder);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    say_missing(format!("the SDK for {sdk}: {said}"));
    None
}

/// What a program prints that runs a script with an emulator's address and these arguments.
fn run(program: &Path, folder: &Path, emulator: &Emulator, script: &str, more: &[&str]) -> String {
    let output = Command::new(program)
        .arg(format!("tests/emulator/sdks/{script}"))
        .arg(emulator.endpoint())
        .args(more)
        .env("NODE_PATH", folder.join("node_modules"))
        // The emulator is here, whatever stands between us and other machines.
        .env_remove("HTTP_PROXY")
        .env_remove("HTTPS_PROXY")
        .env("NO_PROXY", "127.0.0.1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The same with our own client.
fn ours() -> Emulator {
    let emulator = Emulator::start().unwrap();
    let client = Client::builder("TOKEN")
        .endpoint(emulator.endpoint())
        .service_account("USER", "SECRET", 12345)
        .build()
        .unwrap();
    let acme = Group::new("company", "acme");
    let globex = Group::new("company", "globex");
    let report = client.send([
        acme.set(json!({
            "name": "Acmé & Söhne+", "plan": "free", "seats": 5, "ratio": 0.25, "is_active": true,
            "old": 1,
        })),
        acme.set_once(json!({"plan": "enterprise", "founded": 1999})),
        acme.union(json!({"tags": ["a", "b"], "ids": [1, 2]})),
        acme.union(json!({"tags": ["b", "c"]})),
        acme.remove("tags", "a"),
        acme.unset(["old"]),
        globex.set(json!({"plan": "free"})),
        globex.delete(),
    ]);
    assert_eq!(report.unwrap().accepted, 8);
    let event = Event::new("Purchase")
        .distinct_id("user123")
        .group(&acme)
        .property("amount", 99.99);
    assert_eq!(client.import([event]).unwrap().accepted, 1);
    emulator
}

#[test]
fn python() {
    let Some(folder) = install("python") else {
        return;
    };
    let theirs = Emulator::start().unwrap();
    let program = folder.join("venv/bin/python");
    run(&program, &folder, &theirs, "groups.py", &[]);
    let ours = ours();
    assert_eq!(theirs.profiles(), ours.profiles());
    assert_eq!(theirs.profiles().len(), 1);
    let linked = |emulator: &Emulator| {
        let events = emulator.events_of("company", "acme");
        let shown = |event: &Value| {
            let properties = &event["properties"];
            let amount = properties["amount"].clone();
            (
                event["event"].clone(),
                properties["distinct_id"].clone(),
                amount,
            )
        };
        events.iter().map(shown).collect::<Vec<_>>()
    };
    assert_eq!(linked(&theirs), linked(&ours));
    assert_eq!(linked(&ours).len(), 1);
}

#[test]
fn node() {
    let Some(folder) = install("node") else {
        return;
    };
    let theirs = Emulator::start().unwrap();
    run(Path::new("node"), &folder, &theirs, "groups.js", &[]);
    assert_eq!(theirs.profiles(), ours().profiles());
    assert_eq!(theirs.profiles().len(), 1);
    let methods: Vec<_> = theirs.requests().into_iter().map(|r| r.method).collect();
    assert_eq!(methods, ["GET"; 8], "what this SDK is known to do");
}

/// With what the README says a test has that is not in Rust.
#[test]
fn a_test_in_python() {
    let Some(folder) = install("python") else {
        return;
    };
    let emulator = Emulator::start().unwrap();
    let program = folder.join("venv/bin/python");
    run(&program, &folder, &emulator, "a_test.py", &[]);
    // The README has its lines.
    let script = include_str!("a_test.py");
    let readme = include_str!("../../../groups-emulator/README.md");
    for line in [
        r#"consumer = Consumer(events_url=url + "/track", people_url=url + "/engage", groups_url=url + "/groups", import_url=url + "/import")"#,
        r#"Mixpanel("TOKEN", consumer=consumer)"#,
        r#"api_secret="TOKEN""#,
        "s = consumer._session",
        r#"s.mount("http://", s.get_adapter("https://"))"#,
    ] {
        assert!(script.contains(line) && readme.contains(line), "{line}");
    }
    assert!(emulator.profiles().is_empty(), "it has reset the emulator");
    let requests = emulator.requests().into_iter();
    let late: Vec<_> = requests.map(|r| (r.path, r.status.unwrap_or(0))).collect();
    assert_eq!(
        late,
        [("/track".to_owned(), 404), ("/engage".to_owned(), 404)]
    );
}

/// Sends so many updates with Python's `BufferedConsumer`, one of them odd if told how, to an
/// emulator with these faults. What the calls raised, and how many updates each request had.
fn buffered(arguments: &[&str], faults: &[Fault]) -> Option<(Emulator, Vec<String>, Vec<usize>)> {
    let folder = install("python")?;
    let emulator = Emulator::start().unwrap();
    faults.iter().for_each(|f| emulator.fail_next(f.clone()));
    let program = folder.join("venv/bin/python");
    let said = run(&program, &folder, &emulator, "batches.py", arguments);
    let raised = said.lines().map(str::to_owned).collect();
    let counts = emulator
        .requests()
        .iter()
        .map(|request| request.body.matches("\"$token\"").count())
        .collect();
    Some((emulator, raised, counts))
}

#[test]
fn python_sends_fifty_a_request() {
    let Some((emulator, raised, counts)) = buffered(&["120"], &[]) else {
        return;
    };
    assert_eq!(raised, [""; 0]);
    assert_eq!(counts, [50, 50, 20]);
    let [first, ..] = &emulator.requests()[..] else {
        panic!("there are three");
    };
    assert_eq!((&*first.method, &*first.query), ("POST", ""));
    let body: Value = serde_json::from_str(&first.body).unwrap();
    assert_eq!(body[0]["$company_id"], "company_0");
}

#[test]
fn python_repeats_at_once_what_the_server_could_not_do() {
    let Some((emulator, raised, counts)) = buffered(&["50"], &[Fault::Status(500)]) else {
        return;
    };
    assert_eq!(raised, [""; 0]);
    assert_eq!(counts, [50, 50]);
    assert_eq!(emulator.profiles().len(), 50);
}

#[test]
fn python_does_not_repeat_after_a_rate_limit_and_later_sends_delivered_updates_again() {
    let none = Fault::Delay(Duration::ZERO);
    let faults = [Fault::Status(429), none, Fault::Status(429)];
    let Some((_, raised, counts)) = buffered(&["51"], &faults) else {
        return;
    };
    assert_eq!(raised.len(), 2, "{raised:?}");
    // The first fifty fail, arrive, and arrive once more.
    assert_eq!(counts, [50, 50, 1, 50, 1]);
}

#[test]
fn python_does_not_learn_of_a_bad_update_among_good_ones() {
    let Some((emulator, raised, counts)) = buffered(&["50", "no-id"], &[]) else {
        return;
    };
    assert_eq!(raised, [""; 0]);
    assert_eq!(counts, [50]);
    assert_eq!(emulator.profiles().len(), 49);
}

#[test]
fn python_sends_a_batch_that_is_no_json_again_with_every_later_update() {
    let Some((emulator, raised, counts)) = buffered(&["53", "nan"], &[]) else {
        return;
    };
    assert_eq!(raised.len(), 5, "{raised:?}");
    assert_eq!(counts, [50; 5]);
    assert_eq!(emulator.profiles().len(), 0);
}

/// What the callback is told of an update with a modifier `$company_id`.
fn of_a_company(faults: &[Fault]) -> Option<(Emulator, String)> {
    let folder = install("node")?;
    let emulator = Emulator::start().unwrap();
    faults.iter().for_each(|f| emulator.fail_next(f.clone()));
    let told = run(Path::new("node"), &folder, &emulator, "company.js", &[]);
    Some((emulator, told))
}

#[test]
fn node_repeats_nothing() {
    let Some((emulator, told)) = of_a_company(&[Fault::Status(503)]) else {
        return;
    };
    assert!(told.starts_with("Mixpanel Server Error"), "{told}");
    assert_eq!(emulator.requests().len(), 1);
    assert_eq!(emulator.profiles().len(), 0);
}

#[test]
fn node_leaves_the_company_id_out_and_sends_what_is_no_number_as_null() {
    let Some((emulator, _)) = of_a_company(&[]) else {
        return;
    };
    let [request] = &emulator.requests()[..] else {
        panic!("one update is one request");
    };
    let body: Value = serde_json::from_str(&request.body).unwrap();
    assert_eq!(body["$group_id"], "acme");
    assert_eq!(body.get("$company_id"), None);
    assert_eq!(body["$set"], json!({"ratio": null}));
}

//! Mixpanel's official SDKs for other languages against the emulator: the profiles are the same as
//! those of our own client.
//!
//! They come from PyPI and npm. Where that fails, the test says so and is skipped, but not where
//! `CI` is set.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use mixpanel_groups::{Client, Emulator, Event, Group};
use serde_json::json;

/// The folder of an SDK that is installed; nothing if it cannot be.
fn install(sdk: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(sdk);
    let output = Command::new("tests/sdks/install.sh")
        .arg(sdk)
        .arg(&folder)
        .output()
        .unwrap();
    if output.status.success() {
        return Some(folder);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let missing = format!("skipped: no SDK for {sdk}: {said}");
    assert!(std::env::var_os("CI").is_none(), "{missing}");
    println!("{missing}");
    None
}

/// Runs a program with an emulator's address.
fn run(program: &Path, script: &str, folder: &Path, emulator: &Emulator) {
    let output: Output = Command::new(program)
        .arg(format!("tests/sdks/{script}"))
        .arg(emulator.endpoint())
        .env("NODE_PATH", folder.join("node_modules"))
        // The emulator is here, whatever stands between us and other machines.
        .env_remove("HTTP_PROXY")
        .env_remove("HTTPS_PROXY")
        .env("NO_PROXY", "127.0.0.1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
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
    run(
        &folder.join("venv/bin/python"),
        "groups.py",
        &folder,
        &theirs,
    );
    let ours = ours();
    assert_eq!(theirs.profiles(), ours.profiles());
    assert_eq!(theirs.profiles().len(), 1);
    let linked = |emulator: &Emulator| {
        let events = emulator.events_of("company", "acme");
        let shown = |event: &serde_json::Value| {
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
    run(Path::new("node"), "groups.js", &folder, &theirs);
    assert_eq!(theirs.profiles(), ours().profiles());
    assert_eq!(theirs.profiles().len(), 1);
    let methods: Vec<_> = theirs.requests().into_iter().map(|r| r.method).collect();
    assert_eq!(methods, ["GET"; 8], "what this SDK is known to do");
}

//! The file that outlives an emulator.

use std::error::Error as _;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use common::{Mount, eventually};
use mixpanel_groups::{Client, Error, ErrorKind, Event, Group};
use mixpanel_groups_emulator::Emulator;
use serde_json::json;

use crate::page::view;
use crate::wire::{JSON, Sender, update};

/// A file of its own for each test, gone when the test ends.
struct Kept(PathBuf);

impl Kept {
    fn new(name: &str) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("keep-{name}"));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        Self(folder.join("state.json"))
    }

    fn start(&self) -> Result<Emulator, Error> {
        Emulator::builder().keep(&self.0).start()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.0.parent().unwrap());
    }
}

/// The names of what is in the file's folder.
fn files_of(kept: &Kept) -> Vec<String> {
    let files = fs::read_dir(kept.0.parent().unwrap()).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

fn client(emulator: &Emulator) -> Client {
    let client = Client::builder("TOKEN").endpoint(emulator.endpoint());
    client.build().unwrap()
}

#[test]
fn what_was_there_is_there_again() {
    let kept = Kept::new("again");
    let first = kept.start().unwrap();
    assert!(first.profiles().is_empty());
    let acme = Group::new("company", "acme");
    let updates = [
        acme.set(json!({"plan": "free", "big": u64::MAX, "ratio": 0.1, "nested": {"a": [null]}})),
        acme.set(json!({"plan": "enterprise"})),
        Group::new("company", "none").set(json!({"a": 1})),
        Group::new("company", "none").unset(["a"]),
        Group::new("company", "gone").set(json!({"a": 1})),
        Group::new("company", "gone").delete(),
        Group::new("company", "never").delete(),
    ];
    client(&first).send(updates).unwrap().into_result().unwrap();
    let event = Event::new("Purchase").distinct_id("user123").group(&acme);
    client(&first)
        .import([&event])
        .unwrap()
        .into_result()
        .unwrap();
    let (profiles, events) = (first.profiles(), first.events());
    assert_eq!((profiles.len(), events.len()), (2, 1));
    drop(first);

    let second = kept.start().unwrap();
    assert_eq!((second.profiles(), second.events()), (profiles, events));
    assert_eq!(second.events_of("company", "acme").len(), 1);
    // An event that comes again is still the same.
    client(&second)
        .import([event])
        .unwrap()
        .into_result()
        .unwrap();
    assert_eq!(second.events().len(), 1);
    client(&second)
        .send([acme.set(json!({"seats": 5}))])
        .unwrap()
        .into_result()
        .unwrap();
    second.save().unwrap();

    // Saved without being dropped, as when the program is killed.
    let killed = Kept::new("killed");
    fs::copy(&kept.0, &killed.0).unwrap();
    let third = killed.start().unwrap();
    let profile = third.profile("company", "acme").unwrap();
    assert_eq!(profile.get("seats"), Some(&json!(5)));
    assert_eq!(profile.get("plan"), Some(&json!("enterprise")));
    let listed = view(&third, "/emulator/groups");
    let existed = |id: &str| {
        let mut groups = listed["groups"].as_array().unwrap().iter();
        groups.find(|group| group["id"] == id).unwrap()["existed"].clone()
    };
    assert_eq!(["gone", "never"].map(existed), [json!(true), json!(false)]);
    assert_eq!(files_of(&kept), ["state.json", "state.json.lock"]);
}

/// Writing so many groups takes a while, in which the client goes on.
#[test]
fn what_was_acknowledged_before_a_drop_is_there_again() {
    let kept = Kept::new("busy");
    let first = kept.start().unwrap();
    let groups = (0..20_000).map(|id| Group::new("company", id).set(json!({"plan": "free"})));
    client(&first).send(groups).unwrap().into_result().unwrap();
    let sender = Sender::new(&first);
    let acknowledged = AtomicU64::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            for n in 1.. {
                let body = json!([update("busy", "$set", json!({"n": n}))]).to_string();
                match sender.post("/groups", &JSON, body.as_bytes()) {
                    Ok(response) if response.body == "1" => acknowledged.store(n, Ordering::SeqCst),
                    _ => return,
                }
            }
        });
        eventually("acknowledged", || acknowledged.load(Ordering::SeqCst) >= 10);
        drop(first);
    });
    let busy = kept.start().unwrap().profile("company", "busy").unwrap();
    let n = busy.get("n").unwrap().as_u64().unwrap();
    let acknowledged = acknowledged.into_inner();
    assert!(n >= acknowledged, "{n} is kept of {acknowledged}");
}

/// The file has everything some levels deeper than a request.
#[test]
fn what_is_accepted_can_be_read_again_however_deep() {
    let kept = Kept::new("deep");
    let first = kept.start().unwrap();
    let sender = Sender::new(&first);
    let post = |path: &str, levels: usize, before: &str, after: &str| {
        let lists = "[".repeat(levels) + &"]".repeat(levels);
        let body = format!("[{before}{lists}{after}]");
        let token = [JSON[0], ("authorization", "Basic VE9LRU46")];
        sender.post(path, &token, body.as_bytes()).unwrap()
    };
    let named = r#"{"$token":"T","$group_key":"company","$group_id":"acme","#;
    let set = format!(r#"{named}"$set":{{"p":"#);
    let delete = named.replace("acme", "gone") + r#""$delete":"#;
    sender.send("", &update("gone", "$set", json!({"a": 1})));
    let time = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let event = format!(
        r#"{{"event":"E","properties":{{"time":{time},"distinct_id":"","$insert_id":"i","p":"#
    );
    for levels in 90..130 {
        let responses = [
            post("/groups?strict=1", levels, &delete, "}"),
            post("/groups?strict=1", levels, &set, "}}"),
            post("/import?strict=1", levels, &event, "}}"),
        ];
        // A record of 122 levels, these around the value with it.
        for (response, around) in responses.iter().zip([1, 2, 2]) {
            let expected = if levels + around <= 122 { 200 } else { 400 };
            assert_eq!(response.status, expected, "{levels} {response:?}");
        }
        if (122..=124).contains(&levels) {
            let message = &responses[0].json()["failed_records"][0]["message"];
            assert_eq!(message, "record is nested in more than 122 levels");
        }
    }
    let (profiles, events) = (first.profiles(), first.events());
    assert_eq!((profiles.len(), events.len()), (1, 1));
    drop(first);
    let second = kept.start().unwrap();
    assert_eq!((second.profiles(), second.events()), (profiles, events));
}

#[test]
fn a_file_that_is_none_is_an_error_and_stays() {
    let kept = Kept::new("none");
    for text in [
        " ",
        "{}",
        "[]",
        r#"{"groups":[{}],"events":[]}"#,
        r#"{"groups":[5],"events":[]}"#,
        r#"{"groups":[{"key":"a","id":"b","profile":null,"history":[7]}],"events":[]}"#,
        "text",
    ] {
        fs::write(&kept.0, text).unwrap();
        let error = kept.start().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged);
        assert!(error.to_string().contains("state.json"), "{error}");
        assert_eq!(fs::read_to_string(&kept.0).unwrap(), text);
    }
}

#[test]
fn nothing_new_is_not_written() {
    let kept = Kept::new("nothing");
    let emulator = kept.start().unwrap();
    emulator.save().unwrap();
    assert_eq!(fs::read(&kept.0).unwrap(), b"", "what a start makes");
    client(&emulator)
        .send([Group::new("company", "acme").set(json!({"a": 1}))])
        .unwrap()
        .into_result()
        .unwrap();
    emulator.save().unwrap();
    fs::remove_file(&kept.0).unwrap();
    emulator.save().unwrap();
    assert!(!kept.0.exists());
}

#[test]
fn a_file_that_cannot_be_made_is_an_error_at_once() {
    let kept = Kept::new("missing");
    fs::remove_dir_all(kept.0.parent().unwrap()).unwrap();
    let error = kept.start().unwrap_err();
    let message = format!("cannot write the emulator's file {}", kept.0.display());
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Io, message));
    assert!(error.source().unwrap().is::<std::io::Error>());
}

#[test]
fn a_file_that_cannot_be_written_is_an_error_and_can_be_later() {
    let kept = Kept::new("later");
    let emulator = kept.start().unwrap();
    client(&emulator)
        .send([Group::new("company", "acme").set(json!({"a": 1}))])
        .unwrap()
        .into_result()
        .unwrap();
    fs::remove_dir_all(kept.0.parent().unwrap()).unwrap();
    let error = emulator.save().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    let message = format!("cannot write the emulator's file {}", kept.0.display());
    assert_eq!(error.to_string(), message);
    assert!(error.source().unwrap().is::<std::io::Error>());
    fs::create_dir_all(kept.0.parent().unwrap()).unwrap();
    emulator.save().unwrap();
    assert!(kept.0.exists());
}

#[test]
fn a_file_that_cannot_take_its_place_is_not_left_behind() {
    let kept = Kept::new("behind");
    let emulator = kept.start().unwrap();
    client(&emulator)
        .send([Group::new("company", "acme").set(json!({"a": 1}))])
        .unwrap()
        .into_result()
        .unwrap();
    fs::remove_file(&kept.0).unwrap();
    fs::create_dir(&kept.0).unwrap();
    assert!(emulator.save().is_err());
    assert_eq!(files_of(&kept), ["state.json", "state.json.lock"]);
}

fn set_plan(emulator: &Emulator, plan: &str) {
    let update = Group::new("company", "acme").set(json!({"plan": plan}));
    let report = client(emulator).send([update]).unwrap();
    report.into_result().unwrap();
    emulator.save().unwrap();
}

#[test]
#[cfg(unix)]
fn modes_and_symbolic_links_stay() {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    let kept = Kept::new("linked");
    let mode = || fs::metadata(&kept.0).unwrap().permissions().mode() & 0o777;
    let emulator = kept.start().unwrap();
    set_plan(&emulator, "free");
    let other = kept.0.with_extension("other");
    fs::write(&other, "").unwrap();
    let usual = fs::metadata(&other).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), usual, "as any file that is made");
    fs::set_permissions(&kept.0, fs::Permissions::from_mode(0o640)).unwrap();
    set_plan(&emulator, "pro");
    assert_eq!(mode(), 0o640);
    drop(emulator);

    // A link that leads nowhere yet.
    fs::remove_file(&kept.0).unwrap();
    symlink("target", &kept.0).unwrap();
    let emulator = kept.start().unwrap();
    for plan in ["free", "pro"] {
        set_plan(&emulator, plan);
        assert!(fs::symlink_metadata(&kept.0).unwrap().is_symlink());
    }
    drop(emulator);
    let profile = kept.start().unwrap().profile("company", "acme").unwrap();
    assert_eq!(profile, json!({"plan": "pro"}));
}

#[test]
fn a_mounted_file_is_written_in_place() {
    let (kept, outside) = (Kept::new("mounted"), Kept::new("outside"));
    // Empty files, as they are made to be mounted.
    fs::write(&kept.0, "").unwrap();
    fs::write(&outside.0, "").unwrap();
    let Some(mount) = Mount::new(&["--bind", outside.0.to_str().unwrap()], &kept.0) else {
        return;
    };
    let emulator = kept.start().unwrap();
    set_plan(&emulator, &"long".repeat(50));
    set_plan(&emulator, "pro");
    assert_eq!(files_of(&kept), ["state.json", "state.json.lock"]);
    drop((emulator, mount));
    let profile = outside.start().unwrap().profile("company", "acme").unwrap();
    assert_eq!(profile, json!({"plan": "pro"}));
}

/// As in a container of another user than root, or with `--read-only`, where the file is mounted by itself.
#[test]
#[cfg(unix)]
fn a_file_in_a_folder_that_cannot_be_written_is_written_in_place() {
    use std::os::unix::fs::PermissionsExt as _;
    let (kept, outside) = (Kept::new("unwritable"), Kept::new("writable"));
    let folder = kept.0.parent().unwrap();
    let in_folder = folder.to_str().unwrap();
    fs::write(&kept.0, "").unwrap();
    fs::write(&outside.0, "").unwrap();
    let set_mode = |mode| fs::set_permissions(folder, fs::Permissions::from_mode(mode)).unwrap();
    set_mode(0o555);
    let is_root = fs::write(folder.join("other"), "").is_ok();
    let mut mounts = Vec::new();
    if is_root {
        mounts.extend(Mount::new(&["--bind", in_folder], folder));
        mounts.extend(Mount::new(
            &["--bind", outside.0.to_str().unwrap()],
            &kept.0,
        ));
        let read_only = Mount::new(&["-o", "remount,bind,ro"], folder);
        if read_only.map(std::mem::forget).is_none() {
            return;
        }
    }
    let emulator = kept.start().unwrap();
    set_plan(&emulator, &"long".repeat(50));
    set_plan(&emulator, "pro");
    drop(emulator);
    let profile = kept.start().unwrap().profile("company", "acme").unwrap();
    assert_eq!(profile, json!({"plan": "pro"}));
    while mounts.pop().is_some() {} // The last one first.
    set_mode(0o755);
}

/// A volume of the file that is full does not cost what the file had.
#[test]
#[cfg(unix)]
fn a_mounted_file_on_a_full_volume_keeps_what_it_has() {
    let (kept, volume) = (Kept::new("full-volume"), Kept::new("volume"));
    let folder = volume.0.parent().unwrap();
    let Some(tmpfs) = Mount::new(&["-t", "tmpfs", "-o", "size=64k", "tmpfs"], folder) else {
        return;
    };
    let (on_volume, other) = (folder.join("kept"), folder.join("other"));
    fs::write(&kept.0, "").unwrap();
    fs::write(&on_volume, "").unwrap();
    let file = Mount::new(&["--bind", on_volume.to_str().unwrap()], &kept.0).unwrap();
    let emulator = kept.start().unwrap();
    set_plan(&emulator, "pro");
    emulator.save().unwrap();
    fs::write(&other, vec![0; 64 << 10]).unwrap_err();
    let client = Client::builder("T").endpoint(emulator.endpoint());
    let more = (0..100).map(|id| Group::new("company", id).set(json!({"plan": "more".repeat(50)})));
    let report = client.build().unwrap().send(more).unwrap();
    assert!(report.is_all_accepted());
    let error = emulator.save().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    drop(emulator);
    let profile = kept.start().unwrap().profile("company", "acme").unwrap();
    assert_eq!(profile, json!({"plan": "pro"}));
    drop((file, tmpfs));
}

#[test]
#[cfg(unix)]
fn a_link_that_leads_nowhere_yet_is_in_use_too() {
    let kept = Kept::new("link-in-use");
    std::os::unix::fs::symlink("target", &kept.0).unwrap();
    let first = kept.start().unwrap();
    set_plan(&first, "pro");
    first.save().unwrap();
    assert!(kept.start().is_err());
}

#[test]
fn a_file_that_another_emulator_keeps_is_in_use() {
    let kept = Kept::new("in-use");
    let first = kept.start().unwrap();
    let error = kept.start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    let message = format!(
        "{} is in use by another emulator: stop that one, or keep another file",
        kept.0.display()
    );
    assert_eq!(format!("{error:#}"), message);
    set_plan(&first, "pro");
    assert!(kept.start().is_err());
    drop(first);
    let profile = kept.start().unwrap().profile("company", "acme").unwrap();
    assert_eq!(profile, json!({"plan": "pro"}));
}

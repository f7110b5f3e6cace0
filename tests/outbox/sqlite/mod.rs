//! `SqliteOutbox`, and what only it has.

mod contention;
mod counts;
mod crash;
mod damage;
mod file;
#[cfg(unix)]
mod forks;
mod full_disk;
mod processes;
mod relays;
mod tables;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::{LONG, again, eventually, say};
use mixpanel_groups::outbox::{Capacity, OutboxEntry};
use mixpanel_groups::{Client, EncodedUpdate, Group, Outbox, Rejection, Update};
use mixpanel_groups_sqlite::{Durability, SqliteOutbox};
use rusqlite::Connection;
use serde_json::json;
use tempfile::TempDir;

use full_disk::append_until_it_fails;
use processes::{append_and_settle, append_until_full};

const ROOM: Capacity = Capacity::new(usize::MAX, usize::MAX);

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox.db");
    (folder, path)
}

fn stored(update: &Update<'_>) -> EncodedUpdate {
    EncodedUpdate::new(update).unwrap().unwrap()
}

fn update(group: usize, number: usize) -> EncodedUpdate {
    stored(&Group::new("company", group.to_string()).set(json!({"number": number})))
}

/// The group and the number that [`update`] was given.
fn numbers(update: &EncodedUpdate) -> (usize, usize) {
    let json: serde_json::Value = serde_json::from_str(update.as_json()).unwrap();
    let group = json["$group_id"].as_str().unwrap().parse().unwrap();
    let number = json["$set"]["number"].as_u64().unwrap();
    (group, usize::try_from(number).unwrap())
}

/// What waits, whoever has taken it.
fn all_numbers(path: &Path) -> Vec<(usize, usize)> {
    let db = Connection::open(path).unwrap();
    let mut rows = db
        .prepare("SELECT body FROM mixpanel_outbox ORDER BY id")
        .unwrap();
    let bodies = rows.query_map([], |row| row.get::<_, String>(0)).unwrap();
    let updates = bodies.map(|body| EncodedUpdate::from_json(&body.unwrap()).unwrap());
    updates.map(|update| numbers(&update)).collect()
}

fn ids(waiting: &[OutboxEntry]) -> Vec<i64> {
    waiting.iter().map(|waiting| waiting.id).collect()
}

fn count(db: &Connection, table: &str) -> usize {
    let sql = format!("SELECT * FROM {table}");
    let mut rows = db.prepare(&sql).unwrap();
    rows.query_map([], |_| Ok(())).unwrap().count()
}

/// Waits until the lease of another has ended.
fn take_when_free(outbox: &SqliteOutbox) -> Vec<OutboxEntry> {
    let mut taken = Vec::new();
    eventually("free", || {
        taken = outbox.take(10).unwrap();
        !taken.is_empty()
    });
    taken
}

fn rejection() -> Rejection {
    let nowhere = Client::builder("TOKEN")
        .endpoint("http://127.0.0.1:1")
        .build()
        .unwrap();
    let report = nowhere.send([Group::new("company", "").delete()]).unwrap();
    report.rejected[0].clone()
}

// Other processes: this program once more, in a role.

const ROLE: &str = "SQLITE_OUTBOX_ROLE";
const FILE: &str = "SQLITE_OUTBOX_FILE";

/// What a child process does.
#[test]
#[ignore = "run by other tests"]
fn child() {
    let (Ok(role), Some(path)) = (std::env::var(ROLE), std::env::var_os(FILE)) else {
        return;
    };
    let outbox = SqliteOutbox::open_with(path, Durability::Normal).unwrap();
    say("ready", "");
    match role.rsplit_once(' ').unwrap() {
        ("append and settle", first) => append_and_settle(&outbox, first.parse().unwrap()),
        ("append until full", group) => append_until_full(&outbox, group.parse().unwrap()),
        ("append until it fails", _) => append_until_it_fails(&outbox),
        ("send all", _) => {
            let buffered = Client::disabled().buffered().outbox(outbox);
            let outcome = buffered.start().unwrap().shutdown(LONG);
            assert!(outcome.is_complete(), "{outcome:?}");
            say("sent", outcome.stats.accepted);
        }
        ("take", _) => {
            say("took", outbox.take(2).unwrap().len());
            // Until it is killed, or its parent has ended.
            drop(std::io::stdin().read(&mut [0]));
        }
        (role, _) => panic!("{role}"),
    }
}

fn spawn(role: &str, path: &Path) -> Child {
    spawn_by(again(child), role, path)
}

fn spawn_by(mut command: Command, role: &str, path: &Path) -> Child {
    command
        .envs([(ROLE, role.as_ref()), (FILE, path.as_os_str())])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    command.spawn().unwrap()
}

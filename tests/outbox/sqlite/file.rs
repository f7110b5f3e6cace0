//! An outbox in a file: what other processes, crashes, full disks and people do to it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use common::{LONG, again, eventually, said, say};
use mixpanel_groups::buffered::{DeliveryEvent, OverflowPolicy};
use mixpanel_groups::outbox::{Capacity, Depth, OutboxEntry};
use mixpanel_groups::record::EncodedEvent;
use mixpanel_groups::{
    Client, EncodedUpdate, Error, ErrorKind, Event, Group, Outbox, Rejection, Update,
};
use mixpanel_groups_emulator::Emulator;
use mixpanel_groups_sqlite::{Durability, SqliteOutbox};
use rusqlite::{Connection, TransactionBehavior};
use serde_json::json;
use tempfile::TempDir;

pub(super) const ROOM: Capacity = Capacity::new(usize::MAX, usize::MAX);

pub(super) fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox.db");
    (folder, path)
}

fn stored(update: &Update<'_>) -> EncodedUpdate {
    EncodedUpdate::new(update).unwrap().unwrap()
}

pub(super) fn update(group: usize, number: usize) -> EncodedUpdate {
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

pub(super) fn ids(waiting: &[OutboxEntry]) -> Vec<i64> {
    waiting.iter().map(|waiting| waiting.id).collect()
}

pub(super) fn count(db: &Connection, table: &str) -> usize {
    let sql = format!("SELECT * FROM {table}");
    let mut rows = db.prepare(&sql).unwrap();
    rows.query_map([], |_| Ok(())).unwrap().count()
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

const WRITERS: usize = 3;

/// Appends numbers from `first` on in several threads, each of a group of its own, and takes and
/// settles all the time.
fn append_and_settle(outbox: &SqliteOutbox, first: usize) {
    thread::scope(|scope| {
        for group in 0..WRITERS {
            scope.spawn(move || {
                for number in (first..).step_by(2) {
                    let two = [update(group, number), update(group, number + 1)];
                    assert!(outbox.append(&two, ROOM).unwrap());
                    say("appended", format!("{group} {}", number + 1));
                }
            });
        }
        loop {
            let some = outbox.take(7).unwrap();
            // From now on each of them may be gone.
            for entry in &some {
                let (group, number) = numbers(entry.update.as_ref().unwrap());
                say("settling", format!("{group} {number}"));
            }
            outbox.settle(&ids(&some), &[]).unwrap();
        }
    });
}

#[test]
fn what_was_appended_is_there_after_the_process_was_killed() {
    const ROUNDS: usize = 60;
    const A_ROUND: usize = 1_000_000;
    let (_folder, path) = folder();
    // For each group: the last number that is known to be appended, the last that may be settled.
    let mut known: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
    for round in 0..ROUNDS {
        let first = (round + 1) * A_ROUND;
        let mut child = spawn(&format!("append and settle {first}"), &path);
        let lines = said(&mut child);
        // The pipe is read while the child lives, or it would wait for room in it.
        let (line, is_said) = mpsc::channel();
        let reader = thread::spawn(move || {
            let lines = lines.inspect(|_| line.send(()).unwrap());
            lines.collect::<Vec<_>>()
        });
        // It is ready, and has done more or less since.
        let before = 1 + round * 7919 % 400;
        is_said.iter().take(before).for_each(drop);
        child.kill().unwrap();
        child.wait().unwrap();
        let said = reader.join().unwrap();
        for (word, rest) in &said {
            let Some((group, number)) = rest.split_once(' ') else {
                continue;
            };
            let number = number.parse().unwrap();
            let (appended, settling) = known.entry(group.parse().unwrap()).or_default();
            *(if word == "settling" {
                settling
            } else {
                appended
            }) = number;
        }

        let outbox = SqliteOutbox::open_with(&path, Durability::Normal).unwrap();
        let mut there: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (group, number) in all_numbers(&path) {
            there.entry(group).or_default().push(number);
        }
        let nothing = Vec::new();
        for (group, (appended, settling)) in &known {
            let there = there.get(group).unwrap_or(&nothing);
            assert!(there.is_sorted_by(|one, next| one < next), "{there:?}");
            // Two were appended together: both are there, or none.
            assert!(there.last().is_none_or(|last| last % 2 == 1), "{there:?}");
            // All that may not be settled and was appended in this round is there, without a gap.
            let from = first.max(settling + 1);
            let expected: Vec<_> = (from..=*appended).collect();
            let found = there
                .iter()
                .copied()
                .filter(|n| (from..=*appended).contains(n));
            assert_eq!(
                found.collect::<Vec<_>>(),
                expected,
                "group {group}, round {round}"
            );
        }
        let left: usize = there.values().map(Vec::len).sum();
        assert_eq!(outbox.depth().unwrap().updates, left, "round {round}");
    }
}

const FULL: Capacity = Capacity::new(200, usize::MAX);

fn append_until_full(outbox: &SqliteOutbox, group: usize) {
    let mut number = 0;
    while outbox.append(&[update(group, number)], FULL).unwrap() {
        number += 1;
    }
    say("appended", number);
}

#[test]
fn several_processes_append_to_one_file_up_to_its_capacity() {
    let (_folder, path) = folder();
    // They all make the file at once, too.
    let mut children: Vec<_> = (0..4)
        .map(|group| spawn(&format!("append until full {group}"), &path))
        .collect();
    let appended: Vec<usize> = children
        .iter_mut()
        .map(|child| {
            let mut lines = said(child);
            let (_, count) = lines.find(|(word, _)| word == "appended").unwrap();
            lines.for_each(drop); // The pipe stays open until the child has said everything.
            assert!(child.wait().unwrap().success());
            count.parse().unwrap()
        })
        .collect();
    assert_eq!(appended.iter().sum::<usize>(), FULL.updates);
    let all = all_numbers(&path);
    for (group, appended) in appended.into_iter().enumerate() {
        let numbers = all.iter().filter(|(g, _)| *g == group).map(|(_, n)| *n);
        assert!(numbers.eq(0..appended), "group {group}");
    }
}

#[test]
fn one_process_takes_at_a_time_and_its_turn_ends_with_it() {
    let (_folder, path) = folder();
    let outbox = SqliteOutbox::open(&path).unwrap();
    let three: Vec<_> = (0..3).map(|number| update(0, number)).collect();
    assert!(outbox.append(&three, ROOM).unwrap());

    let mut child = spawn("take ", &path);
    let (_, took) = said(&mut child).find(|(word, _)| word == "took").unwrap();
    assert_eq!(took, "2");
    assert!(outbox.take(10).unwrap().is_empty());
    // The others go on publishing meanwhile.
    assert!(outbox.append(&[update(0, 3)], ROOM).unwrap());
    assert_eq!(outbox.depth().unwrap().updates, 4);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(take_when_free(&outbox).len(), 4);
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

#[test]
fn a_successor_takes_nothing_before_the_last_request_of_one_that_was_killed_can_have_ended() {
    let (_folder, path) = folder();
    let [killed, successor] = [(); 2].map(|()| SqliteOutbox::open(&path).unwrap());
    assert!(killed.append(&[update(0, 0)], ROOM).unwrap());
    assert_eq!(killed.take(10).unwrap().len(), 1);
    let request = Duration::from_millis(1_500);
    assert!(killed.hold(request).unwrap());
    let started = Instant::now();
    std::mem::forget(killed); // It does not say that it ends.
    assert_eq!(take_when_free(&successor).len(), 1);
    assert!(started.elapsed() >= request);
}

#[test]
fn one_that_was_paused_starts_no_request_after_another_took_over() {
    let (_folder, path) = folder();
    let [paused, other] = [(); 2].map(|()| SqliteOutbox::open(&path).unwrap());
    assert!(paused.append(&[update(0, 0)], ROOM).unwrap());
    let taken = paused.take(10).unwrap();
    assert!(paused.hold(Duration::from_millis(1)).unwrap());
    assert_eq!(take_when_free(&other), taken);
    assert!(!paused.hold(Duration::from_millis(1)).unwrap());
    // Nor when the other has sent and is done.
    other.settle(&ids(&taken), &[]).unwrap();
    assert!(!paused.hold(Duration::from_millis(1)).unwrap());
}

#[test]
fn a_lease_of_which_nobody_else_wants_to_know_is_extended_after_its_end() {
    let (_folder, path) = folder();
    let outbox = SqliteOutbox::open(&path).unwrap();
    assert!(outbox.append(&[update(0, 0)], ROOM).unwrap());
    assert!(
        !outbox.hold(Duration::from_secs(1)).unwrap(),
        "nothing was taken"
    );
    outbox.take(10).unwrap();
    let db = Connection::open(&path).unwrap();
    let earlier = "UPDATE mixpanel_outbox_lease SET since = since - 3600, until = until - 3600";
    assert_eq!(db.execute(earlier, []).unwrap(), 1);
    // Longer than it is known to last.
    assert!(outbox.hold(Duration::from_secs(60)).unwrap());
}

#[test]
fn a_flush_waits_for_what_another_process_sends() {
    let (_folder, path) = folder();
    let [other, mine] = [(); 2].map(|()| SqliteOutbox::open(&path).unwrap());
    assert!(other.append(&[update(0, 0)], ROOM).unwrap());
    let taken = other.take(10).unwrap();
    assert!(other.hold(Duration::from_secs(60)).unwrap());
    let client = Client::disabled();
    let buffered = client.buffered().outbox(mine).start().unwrap();
    let flushed = buffered.flush(Duration::from_millis(300));
    assert_eq!(flushed.waiting, Some(1), "it is not said to be done");
    thread::scope(|scope| {
        let (start, is_started) = mpsc::channel();
        let buffered = &buffered;
        let flush = scope.spawn(move || {
            start.send(()).unwrap();
            buffered.flush(LONG)
        });
        is_started.recv().unwrap();
        other.settle(&ids(&taken), &[]).unwrap();
        assert!(flush.join().unwrap().is_complete());
    });
    assert_eq!(buffered.stats().accepted, 0, "the other sent it");
}

#[test]
fn no_more_is_taken_at_once_than_fits_into_memory() {
    let (_folder, path) = folder();
    let outbox = SqliteOutbox::open(&path).unwrap();
    let text = "x".repeat(900_000);
    let large = |number| stored(&Group::new("company", number).set(json!({"text": text})));
    let all: Vec<_> = (0..30).map(large).collect();
    assert!(outbox.append(&all, ROOM).unwrap());
    let mut left = all.len();
    while left > 0 {
        let taken = outbox.take(20_000).unwrap();
        let bytes: usize = taken.iter().map(|entry| entry.json().len()).sum();
        assert!(bytes <= 16 << 20);
        assert!(taken.len() == left || bytes > 15 << 20, "as much as fits");
        left -= taken.len();
        outbox.settle(&ids(&taken), &[]).unwrap();
    }
}

#[test]
fn a_clock_that_was_set_back_holds_nobody_up() {
    let (_folder, path) = folder();
    let [gone, successor] = [(); 2].map(|()| SqliteOutbox::open(&path).unwrap());
    assert!(gone.append(&[update(0, 0)], ROOM).unwrap());
    gone.take(10).unwrap();
    std::mem::forget(gone);
    let db = Connection::open(&path).unwrap();
    let later = "UPDATE mixpanel_outbox_lease SET since = since + 3600, until = until + 3600";
    assert_eq!(db.execute(later, []).unwrap(), 1);
    assert_eq!(successor.take(10).unwrap().len(), 1);
}

#[test]
fn a_clock_that_was_set_back_a_little_ends_no_lease() {
    let (_folder, path) = folder();
    let [holder, other] = [(); 2].map(|()| SqliteOutbox::open(&path).unwrap());
    assert!(holder.append(&[update(0, 0)], ROOM).unwrap());
    holder.take(10).unwrap();
    let db = Connection::open(&path).unwrap();
    let later = "UPDATE mixpanel_outbox_lease SET since = since + 9, until = until + 3600";
    assert_eq!(db.execute(later, []).unwrap(), 1);
    assert!(
        other.take(10).unwrap().is_empty(),
        "its request is under way"
    );
}

#[test]
fn turns_pass_between_handles_when_all_is_settled_or_released() {
    let (_folder, path) = folder();
    let [one, other] = [(); 2].map(|()| SqliteOutbox::open(&path).unwrap());
    let four: Vec<_> = (0..4).map(|number| update(0, number)).collect();
    assert!(one.append(&four, ROOM).unwrap());

    let taken = one.take(2).unwrap();
    assert!(other.take(10).unwrap().is_empty());
    one.settle(&[taken[0].id], &[]).unwrap();
    assert!(other.take(10).unwrap().is_empty());
    one.settle(&[taken[1].id], &[]).unwrap();
    assert_eq!(other.take(1).unwrap()[0].update, Ok(four[2].clone()));
    assert!(one.take(10).unwrap().is_empty());
    other.release().unwrap();
    assert_eq!(one.take(10).unwrap().len(), 2);
    drop(one);
    assert_eq!(other.take(10).unwrap().len(), 2);
}

/// A full disk: files may not grow beyond 256 KiB, and what is written beyond fails.
fn append_until_it_fails(outbox: &SqliteOutbox) {
    let large = |number| {
        stored(
            &Group::new("company", "0").set(json!({"number": number, "text": "x".repeat(5_000)})),
        )
    };
    let errors: Vec<(usize, Error)> = thread::scope(|scope| {
        let writers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    for number in 0.. {
                        match outbox.append(&[large(number)], ROOM) {
                            Ok(appended) => assert!(appended),
                            Err(error) => return (number, error),
                        }
                    }
                    unreachable!()
                })
            })
            .collect();
        writers
            .into_iter()
            .map(|writer| writer.join().unwrap())
            .collect()
    });
    for (appended, error) in errors {
        say("appended", appended);
        say("error", format!("{:?} {error:#}", error.kind()));
    }
    // Reading goes on.
    say("depth", outbox.depth().unwrap().updates);
}

#[test]
fn a_full_disk_is_an_error_and_takes_nothing_with_it() {
    let (_folder, path) = folder();
    let mut shell = Command::new("sh");
    // In units of 512 bytes. Without the trap the signal would end the process.
    shell.args(["-c", "trap '' XFSZ; ulimit -f 512; exec \"$0\" \"$@\""]);
    let program = again(child);
    shell.arg(program.get_program()).args(program.get_args());
    let mut child = spawn_by(shell, "append until it fails ", &path);
    let said: Vec<_> = said(&mut child).collect();
    assert!(child.wait().unwrap().success());
    let of = |wanted: &str| -> Vec<_> {
        let said = said.iter().filter(|(word, _)| word == wanted);
        said.map(|(_, rest)| rest.as_str()).collect()
    };
    for error in of("error") {
        let beginning = format!("Io cannot write to the outbox {}", path.display());
        assert!(error.starts_with(&beginning), "{error}");
    }
    let appended: usize = of("appended")
        .iter()
        .map(|count| count.parse::<usize>().unwrap())
        .sum();
    assert!(appended > 0, "{said:?}");
    assert_eq!(of("depth"), [appended.to_string()]);

    // With room again, all that was said to be there is.
    let outbox = SqliteOutbox::open(&path).unwrap();
    assert_eq!(all_numbers(&path).len(), appended);
    assert!(outbox.append(&[update(0, 0)], ROOM).unwrap());
}

// Deadlines, beside a transaction of another program that does not end.

#[test]
fn every_call_of_a_client_returns_by_its_deadline_while_another_writes() {
    let (_folder, path) = folder();
    let outbox = SqliteOutbox::open(&path).unwrap();
    assert!(outbox.append(&[update(0, 0)], ROOM).unwrap());
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let short = Duration::from_millis(100);
    let buffered = Client::disabled().buffered().outbox(outbox);
    let buffered = buffered
        .outbox_timeout(short)
        .drop_timeout(short)
        .overflow(OverflowPolicy::Reject)
        .start()
        .unwrap();
    let start = Instant::now();
    thread::scope(|scope| {
        for number in 1..9 {
            let buffered = &buffered;
            scope.spawn(move || {
                let set = Group::new("company", "0").set(json!({"number": number}));
                let error = buffered.publish(set).unwrap_err();
                assert_eq!(
                    (error.kind(), error.undelivered().len()),
                    (ErrorKind::Timeout, 1)
                );
                // The thread that waits for the file says why; those that wait for that thread do not know.
                let why = format!("{error:#}");
                let is_known = why.ends_with("database is locked");
                assert!(is_known || why.contains("others write to it"), "{why}");
            });
        }
    });
    // It waits for nobody.
    assert_eq!(buffered.stats().queued, Some(1));
    assert_eq!(buffered.flush(short).waiting, Some(1));
    assert_eq!(buffered.shutdown(short).waiting, Some(1));
    drop(buffered);
    assert!(start.elapsed() < LONG, "{:?}", start.elapsed());
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(
        all_numbers(&path),
        [(0, 0)],
        "what was refused is not there"
    );
}

// A disk that the outbox has filled.

/// A disk of that many MiB; `None`, and a line that says so, where nothing can be mounted.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn new(mib: usize) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={mib}m");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]);
        let is_mounted = mount.arg(folder.path()).stderr(Stdio::null()).status();
        if is_mounted.is_ok_and(|status| status.success()) {
            return Some(Self(folder));
        }
        let line = b"\nSKIPPED the outbox on a full disk: a tmpfs cannot be mounted here (run as root on Linux)\n";
        std::io::stdout().write_all(line).unwrap();
        None
    }

    /// Makes every byte that is left another's.
    fn fill(&self) {
        let mut other = fs::File::create(self.0.path().join("other")).unwrap();
        let _ = std::io::copy(&mut std::io::repeat(0), &mut other);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .arg("--lazy")
            .arg(self.0.path())
            .status();
    }
}

fn large(number: usize, bytes: usize) -> EncodedUpdate {
    let text = "x".repeat(bytes);
    stored(&Group::new("company", number).set(json!({"number": number, "text": text})))
}

/// Appends until the disk is full, small updates many at once; how many are there.
fn fill(outbox: &SqliteOutbox, bytes: usize) -> usize {
    let at_once = (20_000 / bytes).max(1);
    for first in (0..).step_by(at_once) {
        let some: Vec<_> = (first..first + at_once)
            .map(|number| large(number, bytes))
            .collect();
        if let Err(error) = outbox.append(&some, ROOM) {
            assert_eq!(error.kind(), ErrorKind::Io);
            return first;
        }
    }
    unreachable!()
}

#[test]
fn an_outbox_that_has_filled_its_disk_is_sent_and_takes_updates_again() {
    for (bytes, is_opened_again) in [
        (1_000, false),
        (1_000, true),
        (20_000, false),
        (900_000, true),
    ] {
        let Some(disk) = SmallDisk::new(30) else {
            return;
        };
        let path = disk.0.path().join("outbox.db");
        let mut outbox = SqliteOutbox::open_with(&path, Durability::Normal).unwrap();
        let appended = fill(&outbox, bytes);
        assert_eq!(outbox.depth().unwrap().updates, appended);
        // Not even the log can grow.
        disk.fill();
        if is_opened_again {
            drop(outbox);
            outbox = SqliteOutbox::open_with(&path, Durability::Normal).unwrap();
        }
        let client = Client::disabled();
        let buffered = client
            .buffered()
            .outbox(outbox)
            .overflow(OverflowPolicy::Reject);
        let buffered = buffered.start().unwrap();
        let outcome = buffered.flush(Duration::from_secs(60));
        assert!(outcome.is_complete(), "{bytes}: {outcome:?}");
        assert_eq!(outcome.stats.accepted, appended, "{bytes}");
        // In the room that became free.
        for number in 0..100 {
            let set = Group::new("company", number).set(json!({"number": number}));
            buffered.publish(set).unwrap();
        }
        let outcome = buffered.shutdown(Duration::from_secs(60));
        assert!(outcome.is_complete(), "{bytes}: {outcome:?}");
        assert_eq!(outcome.stats.accepted, appended + 100);
    }
}

/// What another user's process fills the disk with is sent too: the reserve is then that user's, and cannot be emptied.
#[cfg(target_os = "linux")]
#[test]
fn the_reserve_of_another_user_is_spent_too() {
    use common::postgres::server::unprivileged;
    use std::os::unix::fs::PermissionsExt as _;
    let Some(disk) = SmallDisk::new(30) else {
        return;
    };
    let path = disk.0.path().join("outbox.db");
    let open_to_all = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    open_to_all(disk.0.path(), 0o777);
    drop(SqliteOutbox::open(&path).unwrap());
    open_to_all(&path, 0o666); // SQLite's files beside it will be too.
    let outbox = SqliteOutbox::open_with(&path, Durability::Normal).unwrap();
    let appended = fill(&outbox, 1_000);
    drop(outbox);
    disk.fill();
    // Another user may not reach the folder of this program.
    let folder = tempfile::tempdir().unwrap();
    open_to_all(folder.path(), 0o755);
    let (program, copy) = (again(child), folder.path().join("program"));
    fs::copy(program.get_program(), &copy).unwrap();
    let mut other_user = unprivileged(&copy);
    other_user.args(program.get_args());
    let mut child = spawn_by(other_user, "send all ", &path);
    let said: Vec<_> = said(&mut child).collect();
    assert!(child.wait().unwrap().success(), "{said:?}");
    let sent = ("sent".to_owned(), appended.to_string());
    assert_eq!(said.last(), Some(&sent));
}

/// A rejected update is copied before it is removed: for all of them at once there is not enough room.
#[test]
fn what_fills_a_disk_can_be_rejected() {
    for bytes in [1_000, 20_000, 900_000] {
        let Some(disk) = SmallDisk::new(40) else {
            return;
        };
        let path = disk.0.path().join("outbox.db");
        let outbox = SqliteOutbox::open_with(&path, Durability::Normal).unwrap();
        let appended = fill(&outbox, bytes);
        drop(outbox);
        let outbox = SqliteOutbox::open_with(&path, Durability::Normal).unwrap();
        disk.fill();
        let rejection = rejection();
        let mut left = appended;
        while left > 0 {
            let taken = ids(&outbox.take(usize::MAX).unwrap());
            let all: Vec<_> = taken.iter().map(|id| (*id, &rejection)).collect();
            outbox.settle(&[], &all).unwrap();
            left -= taken.len();
        }
        assert_eq!(outbox.depth().unwrap(), Depth::default());
        let db = Connection::open(&path).unwrap();
        assert_eq!(count(&db, "mixpanel_outbox_rejected"), appended);
        let disorder = "mixpanel_outbox_rejected WHERE id <> rowid";
        assert_eq!(count(&db, disorder), 0, "they are in order");
    }
}

#[test]
fn a_disk_may_become_full_again_and_again() {
    let Some(disk) = SmallDisk::new(30) else {
        return;
    };
    let path = disk.0.path().join("outbox.db");
    let outbox = SqliteOutbox::open_with(&path, Durability::Normal).unwrap();
    for round in 0..4 {
        let appended = fill(&outbox, 10_000);
        assert!(appended > 100, "round {round}: {appended}");
        let mut left = appended;
        while left > 0 {
            let taken = outbox.take(500).unwrap();
            outbox.settle(&ids(&taken), &[]).unwrap();
            left -= taken.len();
        }
        assert!(outbox.take(1).unwrap().is_empty(), "round {round}");
    }
}

// Files that are not as they should be.

fn open_error(path: &Path) -> Error {
    let error = SqliteOutbox::open(path).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&path.display().to_string()), "{text}");
    error
}

#[test]
fn a_file_that_cannot_be_opened_is_an_error() {
    let (folder, path) = folder();
    assert_eq!(open_error(folder.path()).kind(), ErrorKind::Io);
    let error = open_error(&path.join("no/such/folder"));
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(std::error::Error::source(&error).is_some());
}

#[test]
fn a_path_that_keeps_nothing_is_an_error() {
    for path in ["", ":memory:"] {
        let error = SqliteOutbox::open(path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        let message = format!("path {path:?} is not a file: name one");
        assert_eq!(error.to_string(), message);
    }
}

/// SQLite reads such a path as a URI: some keep nothing, and of others the files beside them have other names.
#[test]
fn a_path_that_is_a_uri_is_an_error() {
    let (folder, path) = folder();
    let uri = format!("file:{}?cache=shared", path.display());
    for path in ["file::memory:", "file:outbox?mode=memory", &uri] {
        let error = SqliteOutbox::open(path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        let message = format!(
            "path \"{path}\" is a URI: name a file, or \"./{path}\" for a file of that name"
        );
        assert_eq!(error.to_string(), message);
    }
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    let file = folder.path().join("file:outbox");
    drop(SqliteOutbox::open(&file).unwrap());
    assert!(file.exists());
}

#[test]
fn a_file_that_is_no_database_is_an_error_and_left_as_it_is() {
    let (_folder, path) = folder();
    let text = "a letter, not a database. ".repeat(1_000);
    fs::write(&path, &text).unwrap();
    let error = open_error(&path);
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(
        format!("{error:#}").ends_with("file is not a database"),
        "{error:#}"
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn a_damaged_file_is_an_error() {
    let (_folder, path) = folder();
    let outbox = SqliteOutbox::open(&path).unwrap();
    let many: Vec<_> = (0..2_000).map(|number| update(0, number)).collect();
    assert!(outbox.append(&many, ROOM).unwrap());
    drop(outbox);
    let mut bytes = fs::read(&path).unwrap();
    let end = bytes.len();
    bytes[4096..end].fill(0x5a);
    fs::write(&path, bytes).unwrap();
    let error = SqliteOutbox::open(&path)
        .and_then(|outbox| outbox.take(usize::MAX).map(drop))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    assert!(
        error.to_string().contains(path.to_str().unwrap()),
        "{error}"
    );
}

/// One page of the table is damaged: all that is on others is sent, in order, and publishing goes on.
#[test]
fn what_a_damaged_page_holds_is_set_aside_and_the_rest_goes_on() {
    const UPDATES: usize = 20_000;
    // Also with the last page of the table, with two at once, and where the rows are larger than a page.
    for (pages, large) in [
        (vec![50], false),
        (vec![30, 31, 70], false),
        (vec![99], false),
        (vec![50], true),
    ] {
        let (_folder, path) = folder();
        let outbox = SqliteOutbox::open(&path).unwrap();
        let updates = if large { 200 } else { UPDATES };
        let text = "x".repeat(if large { 10_000 } else { 0 });
        let many = (0..updates).map(|number| {
            let group = Group::new("company", (number % 10).to_string());
            stored(&group.set(json!({"number": number, "text": text})))
        });
        assert!(outbox.append(&many.collect::<Vec<_>>(), ROOM).unwrap());
        drop(outbox);
        let mut bytes = fs::read(&path).unwrap();
        for percent in &pages {
            let page = bytes.len() / 4096 * percent / 100 * 4096;
            bytes[page..page + 4096].fill(0x5a);
        }
        fs::write(&path, bytes).unwrap();

        let outbox = SqliteOutbox::open(&path).unwrap();
        assert!(outbox.append(&[update(0, updates)], ROOM).unwrap());
        let emulator = Emulator::start().unwrap();
        let client = Client::builder("T").endpoint(emulator.endpoint());
        let buffered = client.build().unwrap().buffered().outbox(outbox);
        let buffered = buffered.start().unwrap();
        let outcome = buffered.flush(Duration::from_secs(1));
        let outcome = if outcome.is_complete() {
            outcome
        } else {
            buffered.flush(LONG)
        };
        assert!(outcome.is_complete(), "{pages:?}: {outcome:?}");
        let lost = updates + 1 - outcome.stats.accepted;
        assert!((1..updates / 20).contains(&lost), "{pages:?}: {lost} lost");
        let set = Group::new("company", "0").set(json!({"number": updates + 1}));
        buffered.publish(set).unwrap();
        assert!(buffered.shutdown(LONG).is_complete());
        let newest = emulator.profile("company", "0").unwrap();
        assert_eq!(newest.get("number"), Some(&json!(updates + 1)));
        let db = Connection::open(&path).unwrap();
        let aside = count(
            &db,
            "sqlite_schema WHERE name LIKE 'mixpanel_outbox_damaged%'",
        );
        // Where the page has only text, SQLite sees no damage, and the row is not an update.
        let rejected = count(&db, "mixpanel_outbox_rejected");
        assert_eq!(aside, usize::from(rejected == 0), "{pages:?}: {rejected}");
        assert!(!large || rejected <= 1, "{rejected}");
    }
}

/// The queue of events has tables of its own, also where they are damaged: the error names the one that is there.
#[test]
fn a_damaged_page_of_events_is_set_aside_and_leaves_updates_alone() {
    let (_folder, path) = folder();
    let event = |number: usize| {
        let event = Event::new("Purchase").distinct_id("user123");
        EncodedEvent::new(&event.insert_id(format!("event-{number}"))).unwrap()
    };
    let outbox = SqliteOutbox::open(&path).unwrap();
    let events = outbox.events().unwrap();
    let many: Vec<_> = (0..5_000).map(event).collect();
    assert!(events.append(&many, ROOM).unwrap());
    drop((events, outbox));
    let mut bytes = fs::read(&path).unwrap();
    let page = bytes.len() / 4096 / 2 * 4096;
    bytes[page..page + 4096].fill(0x5a);
    fs::write(&path, bytes).unwrap();

    let outbox = SqliteOutbox::open(&path).unwrap();
    let events = outbox.events().unwrap();
    assert!(outbox.append(&[update(0, 0)], ROOM).unwrap());
    let (mut arrived, mut errors) = (0, Vec::new());
    while errors.is_empty() || events.depth().unwrap().updates > 0 {
        let entries = match events.take(usize::MAX) {
            Ok(entries) => entries,
            Err(error) => {
                errors.push(error.to_string());
                assert!(errors.len() < 10, "{errors:?}");
                continue;
            }
        };
        arrived += entries.len();
        let entries: Vec<_> = entries.iter().map(|entry| entry.id).collect();
        events.settle(&entries, &[]).unwrap();
    }
    assert!((4_500..5_000).contains(&arrived), "{arrived} arrived");
    let db = Connection::open(&path).unwrap();
    let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name LIKE '%damaged%'";
    let aside: Vec<String> = db
        .prepare(sql)
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let [aside] = &aside[..] else {
        panic!("{aside:?}")
    };
    assert!(
        aside.starts_with("mixpanel_outbox_event_damaged_"),
        "{aside}"
    );
    let [error] = &errors[..] else {
        panic!("{errors:?}")
    };
    assert!(error.contains(&format!("table {aside} ")), "{error}");
    // New ones have new ids, and the updates are as they were.
    assert!(events.append(&[event(5_000)], ROOM).unwrap());
    assert_eq!(events.take(1).unwrap()[0].id, 5_001);
    assert_eq!(outbox.take(10).unwrap().len(), 1);
}

/// What cannot be set aside makes publishing fail, so that it is not said to be kept.
#[test]
fn damage_elsewhere_makes_publishing_fail() {
    let (_folder, path) = folder();
    let outbox = SqliteOutbox::open(&path).unwrap();
    let rejected: Vec<_> = (0..1_000).map(|number| update(0, number)).collect();
    assert!(outbox.append(&rejected, ROOM).unwrap());
    let (taken, rejection) = (ids(&outbox.take(1_000).unwrap()), rejection());
    let settled: Vec<_> = taken.iter().map(|id| (*id, &rejection)).collect();
    outbox.settle(&[], &settled).unwrap();
    drop(outbox);
    let db = Connection::open(&path).unwrap();
    let sql = "SELECT rootpage FROM sqlite_schema WHERE name = 'mixpanel_outbox_rejected'";
    let root: i64 = db.query_row(sql, [], |row| row.get(0)).unwrap();
    drop(db);
    let mut bytes = fs::read(&path).unwrap();
    let page = usize::try_from(root - 1).unwrap() * 4096;
    bytes[page..page + 4096].fill(0x5a);
    fs::write(&path, bytes).unwrap();

    let outbox = SqliteOutbox::open(&path).unwrap();
    assert!(outbox.append(&[update(0, 0), update(0, 1)], ROOM).unwrap());
    let taken = ids(&outbox.take(10).unwrap());
    let settled = outbox.settle(&taken[..1], &[(taken[1], &rejection)]);
    assert_eq!(settled.unwrap_err().kind(), ErrorKind::Damaged);
    let error = outbox.append(&[update(0, 2)], ROOM).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(error.to_string().contains("nothing is sent"), "{error}");
    can_be_repaired(&path, &error);
    // Accepted updates can be settled, and then it goes on.
    outbox.settle(&taken, &[]).unwrap();
    assert!(outbox.append(&[update(0, 2)], ROOM).unwrap());
}

/// Runs the command that the error names, if its program is there: what waits is in the file that it writes.
fn can_be_repaired(path: &Path, error: &Error) {
    if Command::new("sqlite3").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "sqlite3 is not installed");
        let line = b"\nSKIPPED the repair of a damaged outbox: sqlite3 is not installed\n";
        std::io::stdout().write_all(line).unwrap();
        return;
    }
    let message = error.to_string();
    let command = message.split('`').nth(1).unwrap();
    let repaired = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(repaired.status.success(), "{message}: {repaired:?}");
    let outbox = SqliteOutbox::open(path.with_extension("db.repaired")).unwrap();
    assert_eq!(outbox.depth().unwrap().updates, 2);
    // The lease of this process, which goes on, is in the file as well.
    let taken = take_when_free(&outbox);
    let found: Vec<_> = taken
        .iter()
        .map(|entry| numbers(entry.update.as_ref().unwrap()))
        .collect();
    assert_eq!(found, [(0, 0), (0, 1)]);
    outbox.settle(&ids(&taken), &[]).unwrap();
    assert!(outbox.append(&[update(0, 2)], ROOM).unwrap());
    assert!(
        outbox.take(1).unwrap()[0].id > taken[1].id,
        "an id is not used twice"
    );
}

#[test]
fn a_file_that_was_removed_or_replaced_is_an_error_before_anything_is_published() {
    type Act = fn(&Path);
    let acts: [Act; 5] = [
        |path| fs::remove_file(path).unwrap(),
        |path| {
            let other = path.with_extension("other");
            drop(SqliteOutbox::open(&other).unwrap());
            fs::rename(other, path).unwrap();
        },
        |path| fs::rename(path, path.with_extension("moved")).unwrap(),
        |path| fs::remove_file(format!("{}-wal", path.display())).unwrap(),
        |path| fs::remove_dir_all(path.parent().unwrap()).unwrap(),
    ];
    for (number, act) in acts.iter().enumerate() {
        let (folder, _) = folder();
        let path = folder.path().join("data").join("outbox.db");
        fs::create_dir(path.parent().unwrap()).unwrap();
        let outbox = SqliteOutbox::open(&path).unwrap();
        assert!(outbox.append(&[update(0, 0)], ROOM).unwrap());
        act(&path);
        let error = outbox.append(&[update(0, 1)], ROOM).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        let text = error.to_string();
        assert!(text.contains("was removed or replaced"), "{number}: {text}");
        assert!(text.contains(path.to_str().unwrap()), "{number}: {text}");
        // What was published before is still sent.
        let taken = outbox.take(10).unwrap();
        assert_eq!(taken.len(), 1, "{number}");
        outbox.settle(&ids(&taken), &[]).unwrap();
    }
}

/// Opening and closing a file of one's own process drops SQLite's locks on it.
#[test]
fn copying_the_file_changes_nothing() {
    let (folder, path) = folder();
    let outbox = SqliteOutbox::open(&path).unwrap();
    assert!(outbox.append(&[update(0, 0), update(0, 1)], ROOM).unwrap());
    assert_eq!(outbox.take(1).unwrap().len(), 1);
    for name in ["outbox.db", "outbox.db-wal", "outbox.db-shm"] {
        fs::copy(
            folder.path().join(name),
            folder.path().join(format!("{name}.copy")),
        )
        .unwrap();
    }
    let mut child = spawn("take ", &path);
    let (_, took) = said(&mut child).find(|(word, _)| word == "took").unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(took, "0", "it is still this one's turn");
    assert!(outbox.append(&[update(0, 2)], ROOM).unwrap());
    assert_eq!(all_numbers(&path), [(0, 0), (0, 1), (0, 2)]);
}

#[test]
fn a_file_that_can_only_be_read_is_an_error() {
    let (_folder, path) = folder();
    drop(SqliteOutbox::open(&path).unwrap());
    // SQLite's own mark for "written by something newer: do not write". A file's permissions
    // would not stop the superuser, as whom tests may run.
    let mut bytes = fs::read(&path).unwrap();
    bytes[18] = 3;
    fs::write(&path, &bytes).unwrap();
    let error = open_error(&path);
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("is read-only: "), "{error}");
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn a_newer_version_is_an_error() {
    let (_folder, path) = folder();
    drop(SqliteOutbox::open(&path).unwrap());
    let db = Connection::open(&path).unwrap();
    db.execute("UPDATE mixpanel_outbox_state SET version = 4", [])
        .unwrap();
    let error = open_error(&path);
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(
        error
            .to_string()
            .contains("has tables of version 4: expected 3, "),
        "{error}"
    );
}

#[test]
fn a_table_that_somebody_removed_is_an_error() {
    let (_folder, path) = folder();
    let outbox = SqliteOutbox::open(&path).unwrap();
    let db = Connection::open(&path).unwrap();
    db.execute("DROP TABLE mixpanel_outbox", []).unwrap();
    let error = outbox.append(&[update(0, 0)], ROOM).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(
        format!("{error:#}").contains("no such table: mixpanel_outbox"),
        "{error:#}"
    );
}

// What people and programs do with the tables.

#[test]
fn an_update_in_a_transaction_of_the_user_shares_its_fate() {
    let (_folder, path) = folder();
    let mut db = Connection::open(&path).unwrap();
    db.execute_batch("CREATE TABLE companies (id TEXT)")
        .unwrap();
    let outbox = SqliteOutbox::open(&path).unwrap();
    let acme = Group::new("company", "acme");
    for commit in [false, true] {
        let transaction = db.transaction().unwrap();
        transaction
            .execute("INSERT INTO companies VALUES ('acme')", [])
            .unwrap();
        let update = acme.set(json!({"plan": "pro"}));
        SqliteOutbox::publish_in(&transaction, &update).unwrap();
        SqliteOutbox::publish_in(&transaction, acme.set(json!({}))).unwrap();
        SqliteOutbox::publish_in(&transaction, stored(&acme.delete())).unwrap();
        let wrong = acme.set(17);
        let error = SqliteOutbox::publish_in(&transaction, wrong).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidUpdate);
        assert_eq!(outbox.depth().unwrap(), Depth::default());
        if commit {
            transaction.commit().unwrap();
        } else {
            transaction.rollback().unwrap();
        }
        let rows = count(&db, "companies");
        assert_eq!(rows, usize::from(commit));
        assert_eq!(outbox.depth().unwrap().updates, rows * 2);
    }
    let waiting = outbox.take(10).unwrap();
    assert_eq!(
        waiting[0].update,
        Ok(stored(&acme.set(json!({"plan": "pro"}))))
    );
    assert_eq!(waiting[1].update, Ok(stored(&acme.delete())));
}

#[test]
fn a_transaction_on_another_file_is_an_error() {
    let (_folder, path) = folder();
    let mut db = Connection::open(&path).unwrap();
    let transaction = db.transaction().unwrap();
    let update = Group::new("company", "acme").delete();
    let error = SqliteOutbox::publish_in(&transaction, &update).unwrap_err();
    assert!(
        format!("{error:#}").contains("no such table: mixpanel_outbox"),
        "{error:#}"
    );
    assert!(
        error.to_string().contains(path.to_str().unwrap()),
        "{error}"
    );
    // The tables can be made by the user's own migration.
    transaction.execute_batch(SqliteOutbox::SCHEMA).unwrap();
    SqliteOutbox::publish_in(&transaction, &update).unwrap();
    transaction.commit().unwrap();
    assert_eq!(
        SqliteOutbox::open(&path).unwrap().depth().unwrap().updates,
        1
    );
}

/// The connection that publishes waits as long as its application lets it, here not at all.
#[test]
fn a_transaction_that_waits_for_another_one_in_vain_is_a_timeout() {
    let (_folder, path) = folder();
    drop(SqliteOutbox::open(&path).unwrap());
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut db = Connection::open(&path).unwrap();
    db.busy_timeout(Duration::ZERO).unwrap();
    let transaction = db.transaction().unwrap();
    let update = Group::new("company", "acme").delete();
    let error = SqliteOutbox::publish_in(&transaction, &update).unwrap_err();
    assert!(error.is_timeout(), "{error:#}");
    // One that has begun to read cannot write after another one has written.
    let sql = "SELECT updates FROM mixpanel_outbox_state";
    let updates: i64 = transaction.query_one(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(updates, 0);
    other
        .execute_batch("CREATE TABLE of_the_other (id); COMMIT")
        .unwrap();
    let error = SqliteOutbox::publish_in(&transaction, &update).unwrap_err();
    assert!(error.is_timeout(), "{error:#}");
}

#[test]
fn appending_waits_for_a_transaction_of_others() {
    let (_folder, path) = folder();
    let outbox = SqliteOutbox::open(&path).unwrap();
    let mut db = Connection::open(&path).unwrap();
    let transaction = db
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .unwrap();
    thread::scope(|scope| {
        let appended = scope.spawn(|| outbox.append(&[update(0, 1)], ROOM));
        thread::sleep(Duration::from_millis(50));
        assert!(!appended.is_finished());
        let update = Group::new("company", "0").set(json!({"number": 0}));
        SqliteOutbox::publish_in(&transaction, &update).unwrap();
        transaction.commit().unwrap();
        assert!(appended.join().unwrap().unwrap());
    });
    assert_eq!(all_numbers(&path), [(0, 0), (0, 1)]);
}

/// Each call gives up at its own deadline, however many wait for the same connection.
#[test]
fn the_timeouts_of_many_threads_do_not_add_up() {
    let (_folder, path) = folder();
    let outbox = SqliteOutbox::open(&path).unwrap();
    outbox.append(&[update(0, 1)], ROOM).unwrap();
    assert!(outbox.set_timeout(Duration::from_secs(1)));
    let mut db = Connection::open(&path).unwrap();
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate);
    let start = Instant::now();
    thread::scope(|scope| {
        for number in 0..30 {
            let outbox = &outbox;
            scope.spawn(move || {
                let error = match number % 2 {
                    0 => outbox.append(&[update(0, number)], ROOM).unwrap_err(),
                    _ => outbox.drop_oldest(1, 1, ROOM).unwrap_err(),
                };
                assert_eq!(error.kind(), ErrorKind::Timeout);
            });
        }
    });
    // One after the other, they would take half a minute.
    assert!(start.elapsed() < Duration::from_secs(10));
    drop(transaction);
    assert_eq!(all_numbers(&path), [(0, 1)]);
}

fn rejection() -> Rejection {
    let nowhere = Client::builder("TOKEN")
        .endpoint("http://127.0.0.1:1")
        .build()
        .unwrap();
    let report = nowhere.send([Group::new("company", "").delete()]).unwrap();
    report.rejected[0].clone()
}

#[test]
fn rejected_updates_are_kept_for_a_person_to_look_at() {
    let (_folder, path) = folder();
    let outbox = SqliteOutbox::open(&path).unwrap();
    let two = [update(0, 0), update(0, 1)];
    assert!(outbox.append(&two, ROOM).unwrap());
    let taken = ids(&outbox.take(2).unwrap());
    outbox
        .settle(&taken[..1], &[(taken[1], &rejection())])
        .unwrap();
    assert_eq!(outbox.depth().unwrap(), Depth::default());

    let db = Connection::open(&path).unwrap();
    let sql = "SELECT id, field, message, body, since <= rejected_at AND rejected_at LIKE '20__-__-__T__:__:__.___Z'
               FROM mixpanel_outbox_rejected";
    let row: (i64, String, String, String, bool) = db
        .query_one(sql, [], |row| {
            Ok((
                row.get(0)?,
                row.get(1)?,
                row.get(2)?,
                row.get(3)?,
                row.get(4)?,
            ))
        })
        .unwrap();
    let (field, message) = ("$group_id".to_owned(), "the id is empty".to_owned());
    assert_eq!(
        row,
        (taken[1], field, message, two[1].as_json().to_owned(), true)
    );

    // They can be tried once more, in plain SQL.
    db.execute_batch(
        "BEGIN; INSERT INTO mixpanel_outbox (body) SELECT body FROM mixpanel_outbox_rejected ORDER BY rowid;
         DELETE FROM mixpanel_outbox_rejected; COMMIT",
    )
    .unwrap();
    assert_eq!(outbox.depth().unwrap().updates, 1);
    assert_eq!(outbox.take(1).unwrap()[0].update, Ok(two[1].clone()));
}

#[test]
fn the_depth_is_right_whoever_changes_the_rows() {
    let (_folder, path) = folder();
    let outbox = SqliteOutbox::open(&path).unwrap();
    let three: Vec<_> = (0..3).map(|number| update(0, number)).collect();
    assert!(outbox.append(&three, ROOM).unwrap());
    let db = Connection::open(&path).unwrap();
    db.execute("DELETE FROM mixpanel_outbox WHERE id = 1", [])
        .unwrap();
    db.execute(
        "UPDATE mixpanel_outbox SET body = body || '  é' WHERE id = 2",
        [],
    )
    .unwrap();
    let bytes = three[1].as_json().len() + three[2].as_json().len() + 4;
    let depth = outbox.depth().unwrap();
    assert_eq!((depth.updates, depth.bytes), (2, bytes));
    // Not a time, or one in the future.
    for since in ["soon", "2999-01-01T00:00:00.000Z"] {
        db.execute("UPDATE mixpanel_outbox SET since = ?1", [since])
            .unwrap();
        assert_eq!(outbox.depth().unwrap().oldest, Some(Duration::ZERO));
    }
}

#[test]
fn counts_below_zero_are_counted_again() {
    let (_folder, path) = folder();
    let outbox = SqliteOutbox::open(&path).unwrap();
    let two = [update(0, 0), update(0, 1)];
    assert!(outbox.append(&two, ROOM).unwrap());
    let bytes: usize = two.iter().map(EncodedUpdate::len).sum();
    let db = Connection::open(&path).unwrap();
    db.execute(
        "UPDATE mixpanel_outbox_state SET updates = -5, bytes = -7",
        [],
    )
    .unwrap();
    let depth = outbox.depth().unwrap();
    assert_eq!((depth.updates, depth.bytes), (2, bytes));
    // The bound holds, and the counts are right from then on.
    assert!(
        !outbox
            .append(&[update(0, 2)], Capacity::new(2, usize::MAX))
            .unwrap()
    );
    assert!(
        outbox
            .append(&[update(0, 2)], Capacity::new(3, usize::MAX))
            .unwrap()
    );
    let sql = "SELECT updates FROM mixpanel_outbox_state";
    let updates: i64 = db.query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(updates, 3);
    // What is not a number at all is an error, not a default.
    db.execute("UPDATE mixpanel_outbox_state SET bytes = 'many'", [])
        .unwrap();
    assert_eq!(outbox.depth().unwrap_err().kind(), ErrorKind::Damaged);
    assert_eq!(
        outbox.append(&[update(0, 3)], ROOM).unwrap_err().kind(),
        ErrorKind::Damaged
    );
}

/// `OR REPLACE` removes rows without their triggers, for example. A flush waits until the count is zero.
#[test]
fn counts_that_are_too_high_are_corrected_when_nothing_waits() {
    let (_folder, path) = folder();
    let outbox = SqliteOutbox::open(&path).unwrap();
    let events = outbox.events().unwrap();
    let event = Event::new("Purchase").distinct_id("user123");
    let two = [(); 2].map(|()| EncodedEvent::new(&event).unwrap());
    assert!(events.append(&two, ROOM).unwrap());
    let two = [update(0, 0), update(0, 1)];
    assert!(outbox.append(&two, ROOM).unwrap());
    let db = Connection::open(&path).unwrap();
    for table in ["mixpanel_outbox", "mixpanel_outbox_event"] {
        let replace = format!("INSERT OR REPLACE INTO {table} SELECT id, since, body FROM {table}");
        db.execute(&replace, []).unwrap();
    }
    assert_eq!(outbox.depth().unwrap().updates, 4);
    assert_eq!(events.depth().unwrap().updates, 4);
    // Not while something waits: a count takes time.
    let taken = outbox.take(10).unwrap();
    assert_eq!(outbox.depth().unwrap().updates, 4);
    outbox.settle(&ids(&taken), &[]).unwrap();

    let emulator = Emulator::start().unwrap();
    let client = Client::builder("T").endpoint(emulator.endpoint());
    let buffered = client.build().unwrap().buffered().outbox(outbox);
    let buffered = buffered.start().unwrap();
    let outcome = buffered.flush(Duration::from_secs(20));
    assert!(outcome.is_complete(), "{outcome:?}");
    assert_eq!(outcome.event_stats.accepted, 2);
    assert_eq!(events.depth().unwrap(), Depth::default());
    let outcome = buffered.shutdown(LONG);
    assert!(outcome.is_complete(), "{outcome:?}");
    for table in ["mixpanel_outbox_state", "mixpanel_outbox_event_state"] {
        let right = format!("{table} WHERE updates = 0 AND bytes = 0");
        assert_eq!(count(&db, &right), 1);
    }
}

#[test]
fn a_row_of_another_driver_is_an_update_or_an_event() {
    let (_folder, path) = folder();
    let outbox = SqliteOutbox::open(&path).unwrap();
    let update = update(0, 0);
    let event = EncodedEvent::new(&Event::new("Purchase").distinct_id("user123")).unwrap();
    let db = Connection::open(&path).unwrap();
    for (table, json) in [
        ("mixpanel_outbox", update.as_json()),
        ("mixpanel_outbox_event", event.as_json()),
    ] {
        let sql = format!("INSERT INTO {table} (body) VALUES (?1)");
        db.execute(&sql, [json]).unwrap();
    }
    assert_eq!(outbox.take(10).unwrap()[0].update, Ok(update));
    let events = outbox.events().unwrap();
    assert_eq!(events.take(10).unwrap()[0].update, Ok(event));
}

#[test]
fn rows_that_are_not_updates_are_rejected_counted_and_reported() {
    let (_folder, path) = folder();
    let outbox = SqliteOutbox::open(&path).unwrap();
    let db = Connection::open(&path).unwrap();
    let good = update(0, 0);
    for row in [
        "'text'",
        "'{}'",
        "''",
        "x'ff00'",
        "17",
        "CAST(x'ff' AS TEXT)",
    ] {
        let sql = format!("INSERT INTO mixpanel_outbox (body) VALUES ({row})");
        db.execute(&sql, []).unwrap();
    }
    assert!(outbox.append(std::slice::from_ref(&good), ROOM).unwrap());

    let emulator = Emulator::start().unwrap();
    let client = Client::builder("T").endpoint(emulator.endpoint());
    let reported = Arc::new(Mutex::new(Vec::new()));
    let its_reported = Arc::clone(&reported);
    let buffered = client.build().unwrap().buffered().outbox(outbox);
    let buffered = buffered.on_error(move |event| {
        assert!(matches!(event, DeliveryEvent::Rejected(..)));
        its_reported.lock().unwrap().push(event.to_string());
    });
    let outcome = buffered.start().unwrap().shutdown(Duration::from_secs(20));
    assert!(outcome.is_complete(), "{outcome:?}");
    assert_eq!((outcome.stats.accepted, outcome.stats.rejected), (1, 6));
    let reported = reported.lock().unwrap();
    assert_eq!(reported.len(), 6, "{reported:#?}");
    assert_eq!(
        reported[1],
        "rejected unreadable \"{}\": not an update: `$group_key` is missing"
    );
    assert_eq!(
        count(&db, "mixpanel_outbox_rejected WHERE message <> ''"),
        6
    );
    assert_eq!(count(&db, "mixpanel_outbox"), 0);
}

#[test]
fn the_newest_rejected_updates_are_kept() {
    let (_folder, path) = folder();
    let outbox = SqliteOutbox::open(&path).unwrap();
    let db = Connection::open(&path).unwrap();
    db.execute_batch(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)
         INSERT INTO mixpanel_outbox_rejected (id, since, message, body) SELECT -i, '', '', '' FROM n",
    )
    .unwrap();
    assert!(outbox.append(&[update(0, 0)], ROOM).unwrap());
    let taken = ids(&outbox.take(1).unwrap());
    outbox.settle(&[], &[(taken[0], &rejection())]).unwrap();
    assert_eq!(count(&db, "mixpanel_outbox_rejected"), 100_000);
    assert_eq!(count(&db, "mixpanel_outbox_rejected WHERE id = -1"), 0);
    assert_eq!(count(&db, "mixpanel_outbox_rejected WHERE id = 1"), 1);
}

#[test]
fn what_waits_is_there_when_the_file_is_opened_again() {
    let (_folder, path) = folder();
    let mut last_id = 0;
    for number in 0..3 {
        let outbox = SqliteOutbox::open(&path).unwrap();
        assert!(
            outbox
                .append(&[update(0, number), update(1, number)], ROOM)
                .unwrap()
        );
        let waiting = outbox.take(10).unwrap();
        assert_eq!(numbers(waiting[0].update.as_ref().unwrap()), (0, number));
        assert!(waiting[0].id > last_id);
        last_id = waiting[1].id;
        // What is taken is there again, too.
        drop(outbox);
        let outbox = SqliteOutbox::open(&path).unwrap();
        let again = outbox.take(10).unwrap();
        assert_eq!(again, waiting);
        outbox.settle(&ids(&again), &[]).unwrap();
    }
}

#[test]
fn it_says_where_it_is() {
    let (_folder, path) = folder();
    let outbox = SqliteOutbox::open(&path).unwrap();
    assert!(outbox.is_durable());
    assert_eq!(
        format!("{outbox:?}"),
        format!("SqliteOutbox {{ path: {path:?}, .. }}")
    );
    let mut bytes = [0; 16];
    fs::File::open(&path)
        .unwrap()
        .read_exact(&mut bytes)
        .unwrap();
    assert_eq!(&bytes, b"SQLite format 3\0");
}

#[test]
fn a_durability_has_a_name() {
    for durability in [Durability::Full, Durability::Normal] {
        let name = durability.to_string();
        assert_eq!(name.parse::<Durability>().unwrap(), durability);
    }
    assert_eq!(Durability::default().to_string(), "full");
    for other in ["", "Full", "off"] {
        let error = other.parse::<Durability>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        let message = format!("unknown durability {other:?}: expected \"full\" or \"normal\"");
        assert_eq!(error.to_string(), message);
    }
}

/// Diesel's defaults: no patience at all, and transactions that take the write lock at their first write.
fn refused_transactions(interval: Duration) -> usize {
    const TRANSACTIONS: usize = 2_000;
    let (_folder, path) = folder();
    let outbox = SqliteOutbox::open(&path).unwrap();
    let emulator = Emulator::start().unwrap();
    let client = Client::builder("T").endpoint(emulator.endpoint());
    let buffered = client.build().unwrap().buffered().outbox(outbox);
    let buffered = buffered.flush_interval(interval).start().unwrap();
    let mut db = Connection::open(&path).unwrap();
    db.busy_timeout(Duration::ZERO).unwrap();
    db.execute_batch("CREATE TABLE companies (id INTEGER, plan TEXT)")
        .unwrap();
    let mut refused = 0;
    for number in 0..TRANSACTIONS {
        let mut publish = || -> Result<(), Box<dyn std::error::Error>> {
            let transaction = db.transaction()?;
            transaction.execute("INSERT INTO companies VALUES (?1, 'pro')", [number as i64])?;
            let company = Group::new("company", number % 50);
            SqliteOutbox::publish_in(&transaction, company.set(json!({"number": number})))?;
            Ok(transaction.commit()?)
        };
        refused += usize::from(publish().is_err());
        thread::sleep(Duration::from_millis(1)); // What else the application does.
    }
    let outcome = buffered.shutdown(Duration::from_secs(60));
    assert!(outcome.is_complete(), "{outcome:?}");
    assert_eq!(outcome.stats.accepted, TRANSACTIONS - refused);
    refused
}

/// Each time that it takes the write lock, it may be in somebody's way.
#[test]
fn a_round_of_the_relay_takes_the_lease_and_settles_and_no_more() {
    let (_folder, path) = folder();
    let outbox = SqliteOutbox::open(&path).unwrap();
    let db = Connection::open(&path).unwrap();
    db.execute_batch(
        "CREATE TABLE written (at INTEGER PRIMARY KEY);
         CREATE TRIGGER lease_written AFTER INSERT ON mixpanel_outbox_lease BEGIN
             INSERT INTO written VALUES (NULL);
         END;",
    )
    .unwrap();
    let emulator = Emulator::start().unwrap();
    let client = Client::builder("T").endpoint(emulator.endpoint());
    let buffered = client.build().unwrap().buffered().outbox(outbox);
    let buffered = buffered.start().unwrap();
    let flush = || {
        let acme = Group::new("company", "acme");
        buffered.publish(acme.set(json!({"plan": "pro"}))).unwrap();
        assert!(buffered.flush(LONG).is_complete());
        count(&db, "written")
    };
    // In the first round it does not know yet how long a request can take.
    let first = flush();
    assert!(first <= 2, "{first}");
    (0..9).for_each(|_| _ = flush());
    let ten_more = flush();
    assert!(ten_more - first <= 10, "{ten_more}");
    // Where nothing waits it writes nothing, nor where another holds the lease.
    let other = SqliteOutbox::open(&path).unwrap();
    assert!(buffered.flush(LONG).is_complete());
    let waiting = SqliteOutbox::open(&path).unwrap();
    drop(buffered);
    assert!(other.append(&[update(0, 0)], ROOM).unwrap());
    let taken = other.take(10).unwrap();
    let before = count(&db, "written");
    db.execute_batch("BEGIN IMMEDIATE").unwrap();
    waiting.set_timeout(Duration::ZERO);
    assert_eq!(taken.len(), 1);
    assert!(waiting.take(10).unwrap().is_empty());
    db.execute_batch("COMMIT").unwrap();
    assert_eq!(count(&db, "written"), before);
}

#[test]
fn an_application_without_patience_is_hardly_refused_by_the_relay() {
    for (interval, most) in [(1_000, 100), (10, 700)] {
        let refused = refused_transactions(Duration::from_millis(interval));
        println!("interval {interval} ms: {refused} of 2000 transactions were refused");
        assert!(refused <= most, "{refused} at an interval of {interval} ms");
    }
}

#[test]
fn an_event_commits_and_rolls_back_with_the_applications_transaction() {
    let (_folder, path) = folder();
    let outbox = SqliteOutbox::open(&path).unwrap();
    let mut db = Connection::open(&path).unwrap();
    let event = |id: &str| Event::new("Purchase").distinct_id("user123").insert_id(id);
    let lost = db.transaction().unwrap();
    SqliteOutbox::publish_in(&lost, event("lost")).unwrap();
    lost.rollback().unwrap();
    let kept = db.transaction().unwrap();
    let purchase = event("kept");
    SqliteOutbox::publish_in(&kept, &purchase).unwrap();
    SqliteOutbox::publish_in(&kept, Group::new("company", "acme").delete()).unwrap();
    let error = SqliteOutbox::publish_in(&kept, Event::new("Purchase")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidUpdate);
    kept.commit().unwrap();

    assert_eq!(outbox.depth().unwrap().updates, 1);
    let events = outbox.events().unwrap();
    let taken = events.take(10).unwrap();
    let taken: Vec<_> = taken.iter().map(|entry| entry.update.clone()).collect();
    assert_eq!(taken, [Ok(EncodedEvent::new(&purchase).unwrap())]);
}

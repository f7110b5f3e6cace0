//! A full disk: publishing fails, and what waits is sent and makes room again.

use std::cell::Cell;
use std::collections::HashSet;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{fs, thread};

use common::{LONG, again, said, say, say_skipped};
use mixpanel_groups::buffered::OverflowPolicy;
use mixpanel_groups::outbox::Depth;
use mixpanel_groups::{Client, EncodedUpdate, Error, ErrorKind, Group, Outbox};
use mixpanel_groups_sqlite::{Durability, SqliteOutbox};
use rusqlite::{Connection, TransactionBehavior};
use serde_json::json;
use tempfile::TempDir;

use super::{ROOM, all_numbers, child, count, folder, ids, rejection, spawn_by, stored, update};

/// A full disk: files may not grow beyond 256 KiB, and what is written beyond fails.
pub(super) fn append_until_it_fails(outbox: &SqliteOutbox) {
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
        say_skipped(
            "the outbox on a full disk: a tmpfs cannot be mounted here (run as root on Linux)",
        );
        None
    }

    /// Makes every byte that is left another's.
    fn fill(&self) {
        self.fill_but(0);
    }

    /// Makes all but so many bytes of what is left another's.
    fn fill_but(&self, bytes: u64) {
        let mut other = fs::File::create(self.0.path().join("other")).unwrap();
        let _ = std::io::copy(&mut std::io::repeat(0), &mut other);
        let length = other.metadata().unwrap().len();
        other.set_len(length.saturating_sub(bytes)).unwrap();
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

/// Accepts all that waits, so many at once; how many there were.
fn accept_all(outbox: &SqliteOutbox, at_once: usize) -> usize {
    let mut accepted = 0;
    loop {
        let taken = ids(&outbox.take(at_once).unwrap());
        if taken.is_empty() {
            return accepted;
        }
        outbox.settle(&taken, &[]).unwrap();
        accepted += taken.len();
    }
}

#[test]
fn an_outbox_that_has_filled_its_disk_is_sent_and_takes_updates_again() {
    for (mib, bytes, is_opened_again) in [
        (30, 1_000, false),
        (30, 1_000, true),
        (30, 20_000, false),
        (30, 900_000, true),
        (16, 900_000, false),
        (4, 1_000, false),
        (4, 20_000, true),
        (1, 100, true),
    ] {
        let Some(disk) = SmallDisk::new(mib) else {
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
        assert!(outcome.is_complete(), "{mib} MiB, {bytes}: {outcome:?}");
        assert_eq!(outcome.stats.accepted, appended, "{mib} MiB, {bytes}");
        // In the room that became free.
        for number in 0..100 {
            let set = Group::new("company", number).set(json!({"number": number}));
            buffered.publish(set).unwrap();
        }
        let outcome = buffered.shutdown(Duration::from_secs(60));
        assert!(outcome.is_complete(), "{mib} MiB, {bytes}: {outcome:?}");
        assert_eq!(outcome.stats.accepted, appended + 100);
    }
}

/// What another user's process fills the disk with is sent too: the reserve is then that user's, and cannot be emptied.
#[cfg(target_os = "linux")]
#[test]
fn the_reserve_of_another_user_is_spent_too() {
    use common::postgres::server::unprivileged;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;
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
    open_to_all(&path.with_extension("db-reserve"), 0o600); // Nor may another read it.
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
    for (mib, bytes) in [
        (40, 1_000),
        (40, 20_000),
        (40, 900_000),
        (12, 900_000),
        (4, 1_000),
        (2, 100),
    ] {
        let Some(disk) = SmallDisk::new(mib) else {
            return;
        };
        let path = disk.0.path().join("outbox.db");
        let outbox = SqliteOutbox::open_with(&path, Durability::Normal).unwrap();
        let accepted = fill(&outbox, bytes);
        assert_eq!(accept_all(&outbox, 20_000), accepted, "{mib} MiB");
        // In the room that became free.
        let appended = fill(&outbox, bytes);
        assert!(appended > 0, "{mib} MiB");
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
        let disorder = format!("mixpanel_outbox_rejected WHERE id <> rowid + {accepted}");
        assert_eq!(count(&db, &disorder), 0, "they are in order");
    }
}

#[test]
fn a_disk_may_become_full_again_and_again() {
    for (mib, bytes, is_opened_again) in [
        (30, 10_000, false),
        (30, 10_000, true),
        (4, 1_000, false),
        (4, 1_000, true),
    ] {
        let Some(disk) = SmallDisk::new(mib) else {
            return;
        };
        let path = disk.0.path().join("outbox.db");
        let open = || SqliteOutbox::open_with(&path, Durability::Normal).unwrap();
        let mut outbox = open();
        let mut first = 0;
        for round in 0..4 {
            let appended = fill(&outbox, bytes);
            first = first.max(appended);
            assert!(
                appended > first / 3,
                "{mib} MiB, round {round}: {appended} of {first}"
            );
            if is_opened_again {
                drop(outbox);
                outbox = open();
            }
            assert_eq!(
                accept_all(&outbox, 500),
                appended,
                "{mib} MiB, round {round}"
            );
        }
    }
}

/// A file system that compresses what is written would keep little room for bytes that are all the same.
#[test]
fn the_reserve_cannot_be_compressed() {
    let (_folder, path) = folder();
    let _outbox = SqliteOutbox::open(&path).unwrap();
    let reserve = fs::read(path.with_extension("db-reserve")).unwrap();
    assert_eq!(reserve.len(), 8 << 20);
    let level = flate2::Compression::fast();
    let mut compressed = flate2::write::ZlibEncoder::new(Vec::new(), level);
    compressed.write_all(&reserve).unwrap();
    let compressed = compressed.finish().unwrap().len();
    assert!(compressed > reserve.len() / 10 * 9, "{compressed}");
    // Nor is a part of it there twice, for those that keep equal parts once.
    let parts: HashSet<_> = reserve.chunks(1 << 10).collect();
    assert_eq!(parts.len(), 8 << 10);
}

/// An operator removes it, for example, to have room on a full disk.
#[test]
fn a_reserve_that_is_missing_is_made_again() {
    let (_folder, path) = folder();
    let outbox = SqliteOutbox::open(&path).unwrap();
    let reserve = path.with_extension("db-reserve");
    fs::remove_file(&reserve).unwrap();
    assert!(outbox.append(&[update(0, 0)], ROOM).unwrap());
    let taken = ids(&outbox.take(1).unwrap());
    outbox.settle(&taken, &[]).unwrap();
    assert_eq!(fs::metadata(&reserve).unwrap().len(), 8 << 20);
    // Each try needs room for a moment: the next one is an hour later.
    fs::remove_file(&reserve).unwrap();
    assert!(outbox.take(1).unwrap().is_empty());
    assert!(!reserve.exists());
}

/// In a folder that others can write, too.
#[test]
fn a_link_where_the_reserve_is_filled_is_not_followed() {
    let (folder, path) = folder();
    let other = folder.path().join("other");
    fs::write(&other, "another program's").unwrap();
    let link = path.with_extension("db-reserve-new");
    std::os::unix::fs::symlink(&other, &link).unwrap();
    let _outbox = SqliteOutbox::open(&path).unwrap();
    assert_eq!(fs::read_to_string(&other).unwrap(), "another program's");
    let reserve = path.with_extension("db-reserve");
    let reserve = fs::symlink_metadata(reserve).unwrap();
    assert!(reserve.is_file() && reserve.len() == 8 << 20);
}

/// Nothing is left beside an outbox that was removed.
#[test]
fn the_reserve_of_an_outbox_that_was_removed_is_not_made_again() {
    let (folder, path) = folder();
    let outbox = SqliteOutbox::open(&path).unwrap();
    for file in fs::read_dir(&folder).unwrap() {
        fs::remove_file(file.unwrap().path()).unwrap();
    }
    assert!(outbox.take(1).unwrap().is_empty());
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
}

/// Other processes need not wait for the end of a lease that its holder does not use any more.
#[test]
fn what_is_settled_on_a_full_disk_gives_up_the_lease() {
    let Some(disk) = SmallDisk::new(30) else {
        return;
    };
    let path = disk.0.path().join("outbox.db");
    let outbox = SqliteOutbox::open_with(&path, Durability::Normal).unwrap();
    let some: Vec<_> = (0..100).map(|number| large(number, 1_000)).collect();
    assert!(outbox.append(&some, ROOM).unwrap());
    let taken = ids(&outbox.take(100).unwrap());
    assert!(outbox.hold(LONG).unwrap());
    disk.fill();
    outbox.settle(&taken, &[]).unwrap();
    let db = Connection::open(&path).unwrap();
    assert_eq!(count(&db, "mixpanel_outbox"), 0);
    assert_eq!(count(&db, "mixpanel_outbox_lease"), 0);
}

/// An application publishes in its own transactions, which no capacity holds back, until its disk is full.
#[test]
fn what_own_transactions_have_filled_a_disk_with_is_sent() {
    for (mib, at_once, tries) in [(30, 1, 3), (4, 200, 3), (4, 1, 100), (2, 60, 3), (1, 60, 3)] {
        let Some(disk) = SmallDisk::new(mib) else {
            return;
        };
        let path = disk.0.path().join("outbox.db");
        let outbox = SqliteOutbox::open_with(&path, Durability::Normal).unwrap();
        let mut own = Connection::open(&path).unwrap();
        let published = Cell::new(0);
        let mut fill_the_disk = || while publish_in_one(&mut own, &published, at_once).is_ok() {};
        fill_the_disk();
        // Mixpanel cannot be reached, and there is less room after each try.
        for _ in 0..tries {
            outbox.take(1_000).unwrap();
            fill_the_disk();
            outbox.release().unwrap();
            fill_the_disk();
        }
        assert_eq!(outbox.depth().unwrap().updates, published.get());
        disk.fill();
        let sent = accept_all(&outbox, 20_000);
        assert_eq!(sent, published.get(), "{mib} MiB, {at_once} at once");
        assert_eq!(outbox.depth().unwrap(), Depth::default());
        // In the room that became free.
        publish_in_one(&mut own, &published, 1).unwrap();
    }
}

fn publish_in_one(
    own: &mut Connection,
    published: &Cell<usize>,
    updates: usize,
) -> Result<(), Error> {
    let failed = |error| Error::new(ErrorKind::Io, "own").with_source(error);
    let transaction = own.transaction_with_behavior(TransactionBehavior::Immediate);
    let transaction = transaction.map_err(failed)?;
    let text = "x".repeat(1_000);
    for number in published.get()..published.get() + updates {
        let set = Group::new("company", number).set(json!({"number": number, "text": text}));
        SqliteOutbox::publish_in(&transaction, set)?;
    }
    transaction.commit().map_err(failed)?;
    published.set(published.get() + updates);
    Ok(())
}

/// On a disk that another program has nearly filled.
#[test]
fn the_room_of_what_was_sent_is_used_though_the_log_cannot_grow() {
    let Some(disk) = SmallDisk::new(30) else {
        return;
    };
    let path = disk.0.path().join("outbox.db");
    let outbox = SqliteOutbox::open_with(&path, Durability::Normal).unwrap();
    let first = fill(&outbox, 10_000);
    let accepted = ids(&outbox.take(first).unwrap());
    outbox.settle(&accepted, &[]).unwrap();
    disk.fill_but(1 << 20);
    let again = fill(&outbox, 10_000);
    assert!(again > accepted.len() / 2, "{again} of {first}");
}

/// Many large updates in one transaction: what the log has of them must have room in the database.
#[test]
fn a_large_transaction_leaves_room_to_remove_it() {
    for (mib, at_once) in [(64, 20), (40, 10), (4, 1)] {
        let Some(disk) = SmallDisk::new(mib) else {
            return;
        };
        let path = disk.0.path().join("outbox.db");
        let outbox = SqliteOutbox::open_with(&path, Durability::Normal).unwrap();
        let all: Vec<_> = (0..at_once).map(|number| large(number, 900_000)).collect();
        let mut appended = 0;
        while outbox.append(&all, ROOM).is_ok() {
            appended += at_once;
        }
        assert!(appended > 0, "{mib} MiB");
        assert_eq!(outbox.depth().unwrap().updates, appended);
        disk.fill();
        assert_eq!(accept_all(&outbox, 20_000), appended, "{mib} MiB");
    }
}

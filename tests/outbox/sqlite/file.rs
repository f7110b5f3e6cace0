//! The file itself: which paths and files can be opened, and what becomes of a file that is moved, copied or opened again.

use std::fs;
use std::io::Read;
use std::path::Path;

use common::{LONG, said};
use mixpanel_groups::{Client, Error, ErrorKind, Event, Group, Outbox};
use mixpanel_groups_sqlite::{Durability, SqliteOutbox, SqliteSnapshot};
use rusqlite::Connection;

use super::{ROOM, all_numbers, folder, ids, numbers, spawn, update};

fn open_error(path: &Path) -> Error {
    let error = SqliteOutbox::open(path).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&path.display().to_string()), "{text}");
    error
}

#[test]
fn a_file_that_cannot_be_opened_is_an_error() {
    let (folder, path) = folder();
    assert_eq!(open_error(folder.path()).kind(), ErrorKind::Config);
    let error = open_error(&path.join("no/such/folder"));
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(std::error::Error::source(&error).is_some());
}

#[test]
#[cfg(unix)]
fn too_many_open_files_are_the_reason_in_an_error() {
    use common::is_own_process;
    use nix::sys::resource::{Resource, getrlimit, setrlimit};

    if !is_own_process(too_many_open_files_are_the_reason_in_an_error, &[]) {
        return;
    }
    let (_folder, path) = folder();
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 64, most).unwrap();
    let open: Vec<_> = std::iter::from_fn(|| fs::File::open("/dev/null").ok()).collect();
    let error = open_error(&path).to_string();
    let snapshot = SqliteSnapshot::open(&path).unwrap_err().to_string();
    drop(open);
    for error in [error, snapshot] {
        assert!(error.contains(": Too many open files"), "{error}");
    }
    SqliteOutbox::open(&path).unwrap();
}

#[test]
fn a_path_that_keeps_nothing_is_an_error() {
    for path in ["", ":memory:", "a\0b", "/dev/null", "missing/"] {
        let message = format!("path {path:?} is not a file: name one");
        for error in [
            SqliteOutbox::open(path).unwrap_err(),
            SqliteSnapshot::open(path).map(drop).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Config);
            assert_eq!(error.to_string(), message);
        }
    }
    assert!(!Path::new("/dev/null-journal").exists());
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

/// Puts another outbox there.
fn replace(path: &Path) {
    let other = path.with_extension("other");
    drop(SqliteOutbox::open(&other).unwrap());
    fs::rename(other, path).unwrap();
}

/// The same without leaving the log of the old one.
fn replace_all(path: &Path) {
    for suffix in ["wal", "shm"] {
        fs::remove_file(format!("{}-{suffix}", path.display())).unwrap();
    }
    replace(path);
}

#[test]
fn a_file_that_was_removed_or_replaced_is_an_error_before_anything_is_published() {
    type Act = fn(&Path);
    let acts: [Act; 5] = [
        |path| fs::remove_file(path).unwrap(),
        replace_all,
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

/// Also by a connection that had nothing to do before the file was removed.
#[test]
fn what_waits_in_a_file_that_was_removed_is_sent_and_a_flush_ends() {
    type Act = fn(&Path);
    let acts: [Act; 2] = [
        |path| fs::remove_file(path).unwrap(),
        |path| fs::remove_file(format!("{}-wal", path.display())).unwrap(),
    ];
    for act in acts {
        let (_folder, path) = folder();
        let outbox = SqliteOutbox::open(&path).unwrap();
        let buffered = Client::disabled().buffered().outbox(outbox);
        let buffered = buffered.flush_interval(LONG).start().unwrap();
        let acme = Group::new("company", "acme");
        buffered.publish(acme.delete()).unwrap();
        act(&path);
        let error = buffered.publish(acme.delete()).unwrap_err();
        assert!(error.to_string().contains("was removed or replaced"));
        let error = buffered
            .publish(Event::new("Signup").distinct_id("u"))
            .unwrap_err();
        assert!(error.to_string().contains("was removed or replaced"));
        let flushed = buffered.flush(LONG);
        assert!(flushed.is_complete(), "{flushed:?}");
        assert_eq!(buffered.stats().queued, Some(0));
        let outcome = buffered.shutdown(LONG);
        assert!(outcome.is_complete(), "{outcome:?}");
        assert_eq!(outcome.stats.accepted, 1);
    }
}

/// What others publish to the file that is there now, this process would never send.
#[test]
fn a_sender_whose_file_was_replaced_says_so_when_nothing_is_left_in_the_old_one() {
    type Act = fn(&Path);
    let acts: [Act; 2] = [replace_all, |path| {
        let log = format!("{}-wal", path.display());
        fs::remove_file(&log).unwrap();
        fs::write(&log, "").unwrap();
    }];
    for act in acts {
        let (_folder, path) = folder();
        let outbox = SqliteOutbox::open(&path).unwrap();
        assert!(outbox.append(&[update(0, 0)], ROOM).unwrap());
        act(&path);
        let taken = outbox.take(10).unwrap();
        assert_eq!(taken.len(), 1);
        assert_eq!(outbox.depth().unwrap().updates, 1);
        outbox.settle(&ids(&taken), &[]).unwrap();
        for error in [outbox.take(10).unwrap_err(), outbox.depth().unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::Io);
            let text = error.to_string();
            assert!(text.contains("was removed or replaced"), "{text}");
        }
    }
}

/// What this process wrote to the log would be another database's.
#[test]
fn a_database_that_was_put_beside_the_log_of_an_open_one_is_not_written() {
    let (_folder, path) = folder();
    let outbox = SqliteOutbox::open(&path).unwrap();
    assert!(outbox.append(&[update(0, 0)], ROOM).unwrap());
    let taken = outbox.take(10).unwrap();
    replace(&path);
    let files = || ["", "-wal"].map(|suffix| fs::read(format!("{}{suffix}", path.display())));
    let before = files().map(Result::unwrap);
    let is_replaced = |error: Error| {
        let text = error.to_string();
        assert!(text.contains("was removed or replaced"), "{text}");
    };
    is_replaced(outbox.settle(&ids(&taken), &[]).unwrap_err());
    is_replaced(outbox.hold(LONG).unwrap_err());
    is_replaced(outbox.release().unwrap_err());
    is_replaced(outbox.take(10).unwrap_err());
    is_replaced(outbox.depth().unwrap_err());
    is_replaced(outbox.append(&[update(0, 1)], ROOM).unwrap_err());
    is_replaced(outbox.drop_oldest(1, 1, ROOM).unwrap_err());
    drop(outbox);
    assert_eq!(files().map(Result::unwrap), before);
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

//! A snapshot in an SQLite file.

use std::path::Path;

use mixpanel_groups::snapshot::SnapshotStore as _;
use mixpanel_groups::{Client, ErrorKind, Report, Snapshot};
use mixpanel_groups_emulator::Emulator;
use mixpanel_groups_sqlite::SqliteSnapshot;
use rusqlite::Connection;

use crate::{Company, Folder, client, company};

fn open(path: &Path) -> Snapshot {
    let store = SqliteSnapshot::open(path).unwrap();
    Snapshot::open_in(store).unwrap().delete_gone(true)
}

#[test]
fn only_what_changed_is_sent_and_outdated_rows_are_removed() {
    let (emulator, folder) = (Emulator::start().unwrap(), Folder::new());
    let client_of = Client::builder("T").endpoint(emulator.endpoint());
    let client = client_of.build().unwrap();
    let rows = || {
        let db = Connection::open(folder.file()).unwrap();
        let count = "SELECT COUNT(*) FROM mixpanel_snapshot";
        db.query_row(count, [], |row| row.get::<_, u32>(0)).unwrap()
    };
    let mut most = 0;
    for night in 0..60 {
        let companies = (0..20).map(|id| Company {
            plan: night,
            ..company(id)
        });
        let mut snapshot = open(&folder.file());
        let report = snapshot.sync(&client, companies.clone()).unwrap();
        assert_eq!(report.accepted, if night == 0 { 60 } else { 20 });
        assert_eq!(
            snapshot.sync(&client, companies).unwrap(),
            Report::default()
        );
        most = most.max(rows());
    }
    assert!((1_000..1_100).contains(&most), "{most}");
    assert!(rows() < most / 2);
    let report = open(&folder.file()).sync(&client, [company(100)]).unwrap();
    assert_eq!(report.accepted, 3 + 20);
    assert_eq!(emulator.profiles().len(), 1);
}

/// A group that seems to be another one would be deleted as one that is gone.
#[test]
fn a_row_whose_name_was_damaged_deletes_no_group() {
    let (emulator, folder) = (Emulator::start().unwrap(), Folder::new());
    let client = client(&emulator);
    let mut companies = [company(1), company(2)];
    let report = open(&folder.file()).sync(&client, &companies).unwrap();
    assert!(report.is_all_accepted());
    let db = Connection::open(folder.file()).unwrap();
    let find =
        "SELECT max(id), row FROM mixpanel_snapshot WHERE substr(row, 1, 16) != zeroblob(16)";
    let found = db.query_row(find, [], |row| Ok((row.get(0)?, row.get(1)?)));
    let (id, mut row): (i64, Vec<u8>) = found.unwrap();
    row[0] ^= 1;
    let update = "UPDATE mixpanel_snapshot SET row = ?1 WHERE id = ?2";
    assert_eq!(db.execute(update, (row, id)).unwrap(), 1);
    drop(db);
    companies.iter_mut().for_each(|company| company.plan += 1);
    let error = open(&folder.file()).sync(&client, &companies).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    assert_eq!(emulator.profiles().len(), 2);
}

#[test]
fn rows_are_read_where_they_were_appended_and_retained_in_the_order_asked_for() {
    let folder = Folder::new();
    let mut store = SqliteSnapshot::open(folder.file()).unwrap();
    let all = [b"one".to_vec(), Vec::new(), b"three".to_vec()];
    let mut places = store.append(&all[..2]).unwrap();
    places.extend(store.append(&all[2..]).unwrap());
    for (place, row) in places.iter().zip(&all) {
        assert_eq!(store.read(*place).unwrap(), *row);
    }
    store.retain(&[places[2], places[0]]).unwrap();
    let mut kept = Vec::new();
    let loaded = store.load(&mut |place, row| {
        kept.push((place, row.to_vec()));
        Ok(())
    });
    assert!(loaded.unwrap());
    let rows: Vec<_> = kept.iter().map(|(_, row)| row.clone()).collect();
    assert_eq!(rows, [b"three".to_vec(), b"one".to_vec()]);
    assert_eq!(store.read(kept[0].0).unwrap(), b"three");
    assert_eq!(
        store.read(places[1]).unwrap_err().kind(),
        ErrorKind::Damaged
    );
}

#[test]
fn a_second_run_is_refused_and_other_tables_can_be_written() {
    let (emulator, folder) = (Emulator::start().unwrap(), Folder::new());
    let mut first = open(&folder.file());
    let error = SqliteSnapshot::open(folder.file()).unwrap_err();
    assert!(
        error.to_string().contains("in use by another run"),
        "{error}"
    );
    let db = Connection::open(folder.file()).unwrap();
    db.execute_batch("CREATE TABLE companies (id TEXT)")
        .unwrap();
    let report = first.sync(&client(&emulator), [company(1)]).unwrap();
    assert_eq!(report.accepted, 3);
    drop(first);
    assert_eq!(open(&folder.file()).len(), 1);
}

/// Only in WAL mode: else, a query that is not read to its end would keep the rows from being committed.
#[test]
fn the_groups_may_come_from_a_cursor_on_the_same_file() {
    let (emulator, folder) = (Emulator::start().unwrap(), Folder::new());
    let db = Connection::open(folder.file()).unwrap();
    db.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE companies (id INTEGER)")
        .unwrap();
    for id in 0..50 {
        let insert = "INSERT INTO companies VALUES (?1)";
        db.execute(insert, [id]).unwrap();
    }
    let mut select = db.prepare("SELECT id FROM companies").unwrap();
    let mut snapshot = open(&folder.file());
    let rows = select.query_map([], |row| row.get(0).map(company)).unwrap();
    let report = snapshot.try_sync(&client(&emulator), rows).unwrap();
    assert_eq!(report.accepted, 50 * 3);
}

#[cfg(unix)]
#[test]
fn a_second_run_is_refused_by_whatever_name() {
    let folder = Folder::new();
    let link = folder.file().with_extension("link");
    let other = folder.file().with_file_name("other");
    std::os::unix::fs::symlink("companies.snapshot", &link).unwrap();
    std::os::unix::fs::symlink(".", &other).unwrap();
    let paths = [link, other.join("companies.snapshot"), folder.file()];
    for first in &paths {
        // The first time, the link is to a file that does not exist.
        let _first = open(first);
        for second in &paths {
            let error = SqliteSnapshot::open(second).unwrap_err();
            let message = error.to_string();
            assert!(message.contains("in use by another run"), "{message}");
        }
    }
}

#[test]
fn what_is_not_a_database_is_an_error_that_names_it() {
    let folder = Folder::new();
    std::fs::write(
        folder.file(),
        "id,name\n1,Acme, which is not a database\n".repeat(99),
    )
    .unwrap();
    let error = SqliteSnapshot::open(folder.file()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(error.to_string().contains("companies.snapshot"), "{error}");
    for path in ["", ":memory:", "file::memory:"] {
        let error = SqliteSnapshot::open(path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    }
}

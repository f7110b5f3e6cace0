//! What is logged of a run that was killed.

use std::fs;
use std::sync::Mutex;

use common::is_own_process;
use mixpanel_groups::Snapshot;
use mixpanel_groups_emulator::Emulator;

use crate::store::Memory;
use crate::{Company, Folder, client, company, run};

struct Logged(Mutex<Vec<String>>);

static LOGGED: Logged = Logged(Mutex::new(Vec::new()));

impl log::Log for Logged {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        self.0.lock().unwrap().push(record.args().to_string());
    }

    fn flush(&self) {}
}

#[test]
fn a_run_that_was_killed_is_logged_until_its_groups_are_sent_again() {
    // In a process of its own, which has one logger.
    let test = a_run_that_was_killed_is_logged_until_its_groups_are_sent_again;
    if !is_own_process(test, &[]) {
        return;
    }
    log::set_logger(&LOGGED).unwrap();
    log::set_max_level(log::LevelFilter::Warn);
    let times = || {
        let lines = LOGGED.0.lock().unwrap();
        lines.iter().filter(|line| line.contains("killed")).count()
    };
    let (emulator, store) = (Emulator::start().unwrap(), Memory::default());
    let client = client(&emulator);
    store.kill_at(2, 0); // Before the row that ends the run.
    assert!(store.open().sync(&client, [company(1)]).is_err());
    store.restart();
    drop(store.open());
    assert_eq!(times(), 1);
    let report = store.open().sync(&client, [company(1)]).unwrap();
    assert_eq!((times(), report.accepted), (2, 3));
    drop(store.open());
    assert_eq!(times(), 2);

    // After a write that was interrupted, a group that the data no longer has is never sent again.
    let folder = Folder::new();
    drop(run(&folder, &client, &[company(1), company(2)]));
    let changed = Company {
        plan: 2,
        ..company(1)
    };
    drop(run(&folder, &client, &[changed]));
    let file = fs::read(folder.file()).unwrap();
    fs::write(folder.file(), &file[..file.len() - 1]).unwrap();
    drop(run(&folder, &client, &[company(1)]));
    assert_eq!(times(), 3);
    drop(Snapshot::open(folder.file()).unwrap());
    assert_eq!(times(), 3);
}

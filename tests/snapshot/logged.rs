//! What is logged of a run that was killed.

use std::sync::Mutex;

use common::is_own_process;
use mixpanel_groups_emulator::Emulator;

use crate::store::Memory;
use crate::{client, company};

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
}

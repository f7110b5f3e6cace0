//! What is logged, and a logger that panics, as one that writes to a closed standard output does. Each test has a process of
//! its own, which has one logger.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use common::faulty::Faulty;
use common::{LONG, eventually, is_own_process};
use mixpanel_groups::buffered::{DeliveryEvent, OverflowPolicy};
use mixpanel_groups::{BufferedClient, Client, ErrorKind};
use mixpanel_groups_emulator::{Emulator, Fault};

use super::{buffered, set};
use crate::faults::raw::{Raw, read_request};

/// Keeps the library's lines.
struct Keeping(Mutex<Vec<String>>);

impl log::Log for Keeping {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target().starts_with("mixpanel_groups")
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            self.0.lock().unwrap().push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

/// Panics at the lines of the background client that contain this.
struct Panicking(&'static str);

impl log::Log for Panicking {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target().contains("::buffered::")
    }

    fn log(&self, record: &log::Record<'_>) {
        let is_such = record.args().to_string().contains(self.0);
        assert!(
            !self.enabled(record.metadata()) || !is_such,
            "a broken pipe"
        );
    }

    fn flush(&self) {}
}

fn install(logger: &'static dyn log::Log) {
    log::set_logger(logger).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
}

#[test]
fn a_client_whose_worker_ends_by_it_is_closed_and_hands_back_what_is_queued() {
    if !is_own_process(
        a_client_whose_worker_ends_by_it_is_closed_and_hands_back_what_is_queued,
        &[],
    ) {
        return;
    }
    install(&Panicking(""));
    let emulator = Emulator::start().unwrap();
    emulator.fail_always(Fault::Status(503));
    let buffered = buffered(&emulator).start().unwrap();
    buffered.publish(set(0, 0)).unwrap();
    let mut published = 1;
    eventually("closed", || match buffered.publish(set(1, 1)) {
        Ok(()) => {
            published += 1;
            false
        }
        Err(error) => error.kind() == ErrorKind::Closed,
    });
    let start = Instant::now();
    assert!(!buffered.flush(LONG).is_complete());
    assert!(start.elapsed() < LONG, "nobody would end it");
    assert_eq!(buffered.shutdown(LONG).undelivered.len(), published);
}

#[test]
fn a_callback_that_panics_before_it_does_is_called_again() {
    if !is_own_process(a_callback_that_panics_before_it_does_is_called_again, &[]) {
        return;
    }
    install(&Panicking("`on_error` panicked"));
    let emulator = Emulator::start().unwrap();
    // What is being sent is not dropped.
    let outbox = Faulty::in_memory();
    outbox.faults.hang(&["take"]);
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let buffered = buffered(&emulator)
        .flush_interval(Duration::from_secs(3_600))
        .outbox(outbox.clone())
        .capacity(1, 1 << 20)
        .overflow(OverflowPolicy::DropOldest)
        .on_error(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            panic!("on_error");
        });
    let buffered = buffered.start().unwrap();
    buffered.publish(set(0, 0)).unwrap();
    for dropped in 1..3 {
        let publish = AssertUnwindSafe(|| buffered.publish(set(dropped, 0)));
        assert!(catch_unwind(publish).is_err(), "the logger panics");
        assert_eq!(calls.load(Ordering::Relaxed), dropped);
        buffered.publish(set(dropped, 0)).unwrap();
    }
    outbox.faults.hang(&[]);
}

#[test]
fn a_request_that_a_shutdown_aborts_is_not_logged_as_a_failure_of_the_network() {
    if !is_own_process(
        a_request_that_a_shutdown_aborts_is_not_logged_as_a_failure_of_the_network,
        &[],
    ) {
        return;
    }
    static LINES: Keeping = Keeping(Mutex::new(Vec::new()));
    install(&LINES);
    let (arrived, arrives) = mpsc::channel();
    let mut open = Vec::new();
    let silent = Raw::start(move |stream, _| {
        read_request(&stream).unwrap();
        open.push(stream);
        arrived.send(()).unwrap();
    });
    let client = Client::builder("T").endpoint(&silent.endpoint);
    let buffered = client.build().unwrap().buffered();
    let buffered = buffered.flush_interval(Duration::from_millis(5));
    let buffered = buffered.start().unwrap();
    buffered.publish(set(0, 0)).unwrap();
    arrives.recv_timeout(LONG).unwrap();
    assert_eq!(buffered.shutdown(Duration::ZERO).undelivered.len(), 1);
    drop(buffered);
    let lines = LINES.0.lock().unwrap().clone();
    let cancelled = "updates keep waiting: cancelled while sending (1 undelivered)";
    assert_eq!(lines, [cancelled]);
}

/// In an outage, a service that publishes a thousand updates a second logged as many errors a second.
#[test]
fn what_is_dropped_while_a_delivery_is_in_progress_is_two_lines() {
    if !is_own_process(
        what_is_dropped_while_a_delivery_is_in_progress_is_two_lines,
        &[],
    ) {
        return;
    }
    static LINES: Keeping = Keeping(Mutex::new(Vec::new()));
    install(&LINES);
    let emulator = Emulator::start().unwrap();
    let outbox = Faulty::in_memory();
    outbox.faults.hang(&["take"]);
    let told = Arc::new(AtomicUsize::new(0));
    let its_told = Arc::clone(&told);
    let buffered = buffered(&emulator)
        .outbox(outbox.clone())
        .capacity(10, 1 << 20)
        .overflow(OverflowPolicy::DropOldest)
        .on_error(move |event| {
            assert!(matches!(event, DeliveryEvent::Dropped(1)));
            its_told.fetch_add(1, Ordering::Relaxed);
        });
    let buffered = buffered.start().unwrap();
    for id in 0..110 {
        buffered.publish(set(id, 0)).unwrap();
    }
    assert_eq!(told.load(Ordering::Relaxed), 100);
    let lines = || {
        let lines = LINES.0.lock().unwrap().clone();
        let dropped = lines.into_iter().filter(|line| line.contains("dropped"));
        dropped.collect::<Vec<_>>()
    };
    let first = "dropped 1 of the oldest updates to make room";
    assert_eq!(lines(), [first]);
    outbox.faults.hang(&[]);
    let outcome = buffered.shutdown(LONG);
    assert!(outcome.is_complete());
    assert_eq!(outcome.stats.dropped, 100);
    let others = "dropped 99 of the oldest updates to make room";
    assert_eq!(lines(), [first, others]);
}

/// Does this at a line of ureq that is logged while its connections are locked.
struct Locked(fn());

impl log::Log for Locked {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if record.args().to_string().contains("Use pooled") {
            self.0();
        }
    }

    fn flush(&self) {}
}

/// Publishes two updates, each of which is a request. At the second one, the connection is used again.
fn publish_two(buffered: &BufferedClient) {
    buffered.publish(set(0, 0)).unwrap();
    assert!(buffered.flush(LONG).is_complete());
    buffered.publish(set(1, 1)).unwrap();
}

/// As one does that writes to a pipe that nobody reads.
#[test]
fn a_shutdown_does_not_wait_for_one_that_hangs() {
    if !is_own_process(a_shutdown_does_not_wait_for_one_that_hangs, &[]) {
        return;
    }
    static HANGS: AtomicBool = AtomicBool::new(true);
    static HUNG: AtomicBool = AtomicBool::new(false);
    install(&Locked(|| {
        HUNG.store(true, Ordering::Relaxed);
        while HANGS.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(1));
        }
    }));
    let emulator = Emulator::start().unwrap();
    let buffered = buffered(&emulator).start().unwrap();
    publish_two(&buffered);
    eventually("the second request", || HUNG.load(Ordering::Relaxed));
    let (ended, ends) = mpsc::channel();
    let its_buffered = buffered.clone();
    thread::spawn(move || {
        let outcome = its_buffered.shutdown(Duration::ZERO);
        ended.send(outcome.undelivered.len())
    });
    let undelivered = ends.recv_timeout(LONG);
    HANGS.store(false, Ordering::Relaxed);
    assert_eq!(undelivered, Ok(1));
}

#[test]
fn one_that_shuts_the_client_down_does_not_wait_for_itself() {
    if !is_own_process(one_that_shuts_the_client_down_does_not_wait_for_itself, &[]) {
        return;
    }
    static CLIENT: OnceLock<BufferedClient> = OnceLock::new();
    static UNDELIVERED: OnceLock<usize> = OnceLock::new();
    install(&Locked(|| {
        let outcome = CLIENT.get().map(|client| client.shutdown(LONG));
        let undelivered = outcome.map(|outcome| outcome.undelivered.len());
        UNDELIVERED.set(undelivered.unwrap()).unwrap();
    }));
    let emulator = Emulator::start().unwrap();
    let buffered = buffered(&emulator).start().unwrap();
    assert!(CLIENT.set(buffered.clone()).is_ok());
    publish_two(&buffered);
    eventually("shut down", || UNDELIVERED.get() == Some(&1));
}

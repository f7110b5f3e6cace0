//! A logger that panics, as one that writes to a closed standard output does. Each test has a process of its own, which has
//! one logger.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::faulty::Faulty;
use common::{LONG, eventually, is_own_process};
use mixpanel_groups::ErrorKind;
use mixpanel_groups::buffered::OverflowPolicy;
use mixpanel_groups_emulator::{Emulator, Fault};

use super::{buffered, set};

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

fn install(logger: &'static Panicking) {
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

//! Background clients of processes that are killed and started again, over one outbox that outlives them.

use std::sync::Arc;
use std::time::Duration;

use shuttle::rand::{Rng as _, thread_rng};

use crate::record::ErrorKind;
use crate::simulation::events::Happened;
use crate::simulation::server::{Process, Server};
use crate::simulation::store::{Store, TOLERANCE};
use crate::simulation::updates::{Model, Said};
use crate::simulation::{percent, simulate};
use crate::util::simulated::{set_clock, sleep};

/// Sets the time of day, and returns whether that can end a lease early.
fn set_any_time() -> bool {
    let time = Duration::from_secs([1, 9, 3_600][thread_rng().gen_range(0..3)]);
    if percent(50) {
        set_clock(time, Duration::ZERO);
        return true;
    }
    set_clock(Duration::ZERO, time);
    time > TOLERANCE
}

#[test]
fn what_was_published_outlives_its_process_and_keeps_its_order() {
    simulate(|| {
        let mut random = thread_rng();
        let server = Server::new(random.gen_range(0..60), percent(20));
        let store = Arc::new(Store::default());
        let disk_faults = if percent(30) { 10 } else { 0 };
        let (mut published, mut happened, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        // Updates that may be in the outbox, since `publish` did not wait for it.
        let (mut unknown, mut unknown_events) = (0, 0);
        // Where the clock is set at all, it is set once: what it was set to and back leaves no trace.
        let mut is_to_be_set = percent(30);
        let mut may_end_a_lease = false;
        for number in 0..random.gen_range(2..4) {
            let process = Arc::new(Process::new(number, disk_faults, &store));
            let buffered = server
                .client(Some(&process))
                .buffered()
                .flush_interval(Duration::from_millis(random.gen_range(1..5_000)))
                .drop_timeout(Duration::ZERO)
                .coalesce(percent(50))
                .outbox(store.handle(&process))
                .outbox_timeout(Duration::from_secs(if percent(10) { 5 } else { 3_600 }))
                .start()
                .expect("the settings are valid");
            for _ in 0..random.gen_range(1..6) {
                let said = Said::any(published.len()).among_others();
                match buffered.publish(said.update()) {
                    Ok(()) => published.push(said),
                    Err(error) => unknown += usize::from(error.kind() == ErrorKind::Timeout),
                }
                if percent(40) {
                    let event = Happened::any(format!("{number}-{}", happened.len()));
                    // Where `publish` did not wait for the outbox, it may be there.
                    let published = buffered.publish(event.event());
                    let is_known = match published {
                        Ok(()) => Some(true),
                        Err(error) if error.kind() == ErrorKind::Timeout => Some(false),
                        Err(_) => None,
                    };
                    if let Some(is_known) = is_known {
                        happened.push(event);
                        unknown_events += usize::from(!is_known);
                    }
                }
                if percent(30) {
                    sleep(Duration::from_millis(thread_rng().gen_range(0..6_000)));
                }
                if is_to_be_set && percent(30) {
                    may_end_a_lease = set_any_time();
                    is_to_be_set = false;
                }
            }
            if percent(30) {
                let _ = buffered.flush(Duration::from_millis(random.gen_range(0..20_000)));
            }
            if percent(70) {
                process.kill();
                gone.push(buffered);
            } else {
                let outcome = buffered.shutdown(Duration::from_millis(random.gen_range(0..60_000)));
                assert!(outcome.undelivered.is_empty(), "it is in the outbox");
                gone.push(buffered);
            }
        }

        // The last process is well.
        server.recover();
        let process = Arc::new(Process::new(u64::MAX, 0, &store));
        let buffered = server
            .client(Some(&process))
            .buffered()
            .outbox(store.handle(&process));
        let buffered = buffered.start().expect("the settings are valid");
        let mut outcome = buffered.flush(Duration::from_secs(60));
        while !outcome.is_complete() {
            outcome = buffered.flush(Duration::from_secs(60));
        }
        let outcome = buffered.shutdown(Duration::from_secs(60));
        assert!(outcome.undelivered.is_empty(), "it is in the outbox");
        store.assert_one_sender();
        let (accepted, rejected) = store.settled();
        let settled = accepted + rejected;
        assert!(
            (published.len()..=published.len() + unknown).contains(&settled),
            "each update ends in one place"
        );
        let (accepted_events, rejected_events) = store.settled_events();
        let settled_events = accepted_events + rejected_events;
        assert!(
            (happened.len() - unknown_events..=happened.len()).contains(&settled_events),
            "each event ends in one place"
        );
        if unknown_events == 0 {
            server.assert_arrived(&happened);
        }
        let may_be_rejected = published.iter().filter(|said| said.may_be_rejected());
        assert!(
            rejected <= may_be_rejected.count() + unknown,
            "only what the server or the firewall refuses"
        );
        // What a firewall stopped may have been rejected: the model does not know which.
        // A request that is under way while its lease ends can be overtaken.
        let is_exact = unknown == 0
            && !server.is_ever_late()
            && !may_end_a_lease
            && !published.iter().any(Said::is_blocked);
        if is_exact {
            server.assert_is(&Model::of(&published));
        }
        drop(gone);
    });
}

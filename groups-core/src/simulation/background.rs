//! The background client over the outbox in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use shuttle::rand::{Rng as _, thread_rng};
use shuttle::thread;

use crate::buffered::{DeliveryEvent, OverflowPolicy};
use crate::record::{ErrorKind, Update};
use crate::simulation::events::Happened;
use crate::simulation::server::Server;
use crate::simulation::unreliable::Unreliable;
use crate::simulation::updates::{Model, Said};
use crate::simulation::{percent, simulate};
use crate::util::simulated::sleep;

#[test]
fn what_is_published_is_accepted_rejected_dropped_or_handed_back() {
    simulate(|| {
        let mut random = thread_rng();
        let server = Server::new(random.gen_range(0..60), percent(20));
        let client = server.client(None);
        let capacity = if percent(20) {
            random.gen_range(1..5)
        } else {
            1_000
        };
        let overflow = match random.gen_range(0..3) {
            0 => OverflowPolicy::Reject,
            1 => OverflowPolicy::DropOldest,
            _ => OverflowPolicy::Block(Duration::from_secs(random.gen_range(0..30))),
        };
        // Where it fails, `settle` removes nothing, and what was to be removed is handed back all the same.
        let faults = Arc::new(AtomicU32::new(if percent(30) { 20 } else { 0 }));
        let has_panicked = Arc::new(AtomicBool::new(false));
        let noted = Arc::clone(&has_panicked);
        let buffered = client
            .buffered()
            .outbox(Unreliable::new(&faults))
            .flush_interval(Duration::from_millis(random.gen_range(1..5_000)))
            .capacity(capacity, 1 << 20)
            .overflow(overflow)
            .coalesce(percent(50))
            .on_error(move |event| {
                if let DeliveryEvent::Undelivered(error) = event
                    && error.kind() == ErrorKind::Io
                {
                    noted.store(true, Ordering::Relaxed);
                }
            })
            .start()
            .expect("the settings are valid");

        // Each publisher has groups of its own, so that a group's order is known.
        let publishers: Vec<_> = (0..random.gen_range(1..3))
            .map(|publisher| {
                let buffered = buffered.clone();
                let updates = thread_rng().gen_range(1..8);
                thread::spawn(move || {
                    let (mut published, mut happened) = (Vec::new(), Vec::new());
                    for number in 0..updates {
                        if percent(40) {
                            let event = Happened::any(format!("{publisher}-{number}"));
                            if buffered.publish(event.event()).is_ok() {
                                happened.push(event);
                            }
                        }
                        let mut said = Said::any(number).among_others();
                        said.group = format!("{} of {publisher}", said.group);
                        if buffered.publish(said.update()).is_ok() {
                            published.push(said);
                        }
                        if percent(20) {
                            sleep(Duration::from_millis(thread_rng().gen_range(0..3_000)));
                        }
                    }
                    (published, happened)
                })
            })
            .collect();
        if percent(30) {
            let outcome = buffered.flush(Duration::from_millis(random.gen_range(0..10_000)));
            assert!(outcome.undelivered.is_empty(), "a flush hands nothing back");
        }
        let (mut published, mut happened) = (Vec::new(), Vec::new());
        let mut join = |publishers: Vec<thread::JoinHandle<(Vec<_>, Vec<_>)>>| {
            for publisher in publishers {
                let (updates, events) = publisher.join().unwrap();
                published.extend(updates);
                happened.extend(events);
            }
        };
        let shut_down = || {
            let most = if percent(50) { 60_000 } else { 1_000 };
            buffered.shutdown(Duration::from_millis(thread_rng().gen_range(0..most)))
        };
        let mut outcomes = Vec::new();
        if percent(50) {
            join(publishers);
            outcomes.push(shut_down());
        } else {
            outcomes.push(shut_down());
            if percent(30) {
                outcomes.push(shut_down());
            }
            join(publishers);
        }
        // What was handed back, or could not be, because the outbox failed.
        faults.store(0, Ordering::Relaxed);
        outcomes.push(shut_down());
        let (mut undelivered, mut undelivered_events) = (Vec::new(), Vec::new());
        for outcome in outcomes {
            undelivered.extend(outcome.undelivered);
            undelivered_events.extend(outcome.undelivered_events);
        }

        assert!(!has_panicked.load(Ordering::Relaxed), "a thread panicked");
        let stats = buffered.stats();
        assert_eq!(stats.queued, Some(0), "what was in memory is handed back");
        assert_eq!(
            stats.accepted + stats.rejected + stats.dropped + undelivered.len(),
            published.len(),
            "each update ends in one place: {stats:?}, {undelivered:?}",
        );
        let may_be_rejected = published.iter().filter(|said| said.may_be_rejected());
        assert!(
            stats.rejected <= may_be_rejected.count(),
            "only what the server or the firewall refuses is rejected"
        );

        let stats = buffered.event_stats();
        assert_eq!(stats.queued, Some(0), "what was in memory is handed back");
        assert_eq!(
            stats.accepted + stats.rejected + stats.dropped + undelivered_events.len(),
            happened.len(),
            "each event ends in one place: {stats:?}, {undelivered_events:?}",
        );
        let dropped_events = stats.dropped;
        let stats = buffered.stats();

        // Where the worker was too slow to end, its last request can overtake what follows.
        let may_be_set_aside = stats.rejected > 0 && published.iter().any(Said::is_blocked);
        let is_exact = buffered.has_ended()
            && !may_be_set_aside
            && !server.is_ever_late()
            && stats.dropped == 0;
        // The rest goes out as a user would send it.
        server.recover();
        let mut left: Vec<Update<'_>> = undelivered.iter().map(Update::from).collect();
        while !left.is_empty() {
            left = match client.send(left) {
                Ok(_) => Vec::new(),
                Err(error) => error
                    .into_undelivered()
                    .updates()
                    .map(Update::into_owned)
                    .collect(),
            };
        }
        if is_exact {
            server.assert_is(&Model::of(&published));
        }
        let mut left = undelivered_events;
        while !left.is_empty() {
            left = match client.import(left) {
                Ok(_) => Vec::new(),
                Err(error) => error.undelivered().events().collect(),
            };
        }
        if dropped_events == 0 {
            server.assert_arrived(&happened);
        }
    });
}

//! The background client over the outbox in memory.

use std::time::Duration;

use shuttle::rand::{Rng as _, thread_rng};
use shuttle::thread;

use crate::buffered::OverflowPolicy;
use crate::record::Update;
use crate::simulation::server::Server;
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
        let buffered = client
            .buffered()
            .flush_interval(Duration::from_millis(random.gen_range(1..5_000)))
            .capacity(capacity, 1 << 20)
            .overflow(overflow)
            .coalesce(percent(50))
            .start()
            .expect("the settings are valid");

        // Each publisher has groups of its own, so that a group's order is known.
        let publishers: Vec<_> = (0..random.gen_range(1..3))
            .map(|publisher| {
                let buffered = buffered.clone();
                let updates = thread_rng().gen_range(1..8);
                thread::spawn(move || {
                    let mut published = Vec::new();
                    for number in 0..updates {
                        let mut said = Said::any(number);
                        said.group = format!("{} of {publisher}", said.group);
                        if buffered.publish(said.update()).is_ok() {
                            published.push(said);
                        }
                        if percent(20) {
                            sleep(Duration::from_millis(thread_rng().gen_range(0..3_000)));
                        }
                    }
                    published
                })
            })
            .collect();
        if percent(30) {
            let outcome = buffered.flush(Duration::from_millis(random.gen_range(0..10_000)));
            assert!(outcome.undelivered.is_empty(), "a flush hands nothing back");
        }
        let published: Vec<_>;
        let outcome;
        if percent(50) {
            published = publishers
                .into_iter()
                .flat_map(|thread| thread.join().unwrap())
                .collect();
            outcome = buffered.shutdown(Duration::from_millis(random.gen_range(0..60_000)));
        } else {
            outcome = buffered.shutdown(Duration::from_millis(random.gen_range(0..60_000)));
            published = publishers
                .into_iter()
                .flat_map(|thread| thread.join().unwrap())
                .collect();
        }

        let stats = buffered.stats();
        assert_eq!(stats.queued, Some(0), "what was in memory is handed back");
        assert_eq!(
            stats.accepted + stats.rejected + stats.dropped + outcome.undelivered.len(),
            published.len(),
            "each update ends in one place: {outcome:?}",
        );
        let may_be_rejected = |said: &Said| said.is_refused() || said.is_blocked();
        assert!(
            stats.rejected == 0 || published.iter().any(may_be_rejected),
            "only what the server or the firewall refuses is rejected"
        );

        // Where the worker was too slow to end, its last request can overtake what follows.
        let may_be_set_aside = stats.rejected > 0 && published.iter().any(Said::is_blocked);
        let is_exact = buffered.has_ended()
            && !may_be_set_aside
            && !server.is_ever_late()
            && stats.dropped == 0;
        // The rest goes out as a user would send it.
        server.recover();
        let mut left: Vec<Update<'_>> = outcome.undelivered.iter().map(Update::from).collect();
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
    });
}

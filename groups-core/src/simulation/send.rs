//! `Client::send`, again with what was not delivered, until all of it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use shuttle::rand::{Rng as _, thread_rng};
use shuttle::thread;

use crate::record::error::outcome;
use crate::record::{EncodedUpdate, Error, ErrorKind, Update};
use crate::simulation::server::Server;
use crate::simulation::updates::{Model, Said, group_of};
use crate::simulation::{percent, simulate};
use crate::util::simulated::sleep;

#[test]
fn what_is_sent_is_accepted_rejected_or_handed_back() {
    simulate(|| {
        let server = Server::new(thread_rng().gen_range(0..60), percent(20));
        let client = server.client(None);
        let said: Vec<_> = (0..thread_rng().gen_range(1..16)).map(Said::any).collect();
        let coalesce = percent(50);
        let mut left: Vec<Update<'static>> = said.iter().map(Said::update).collect();
        for round in 0.. {
            if round == 3 {
                server.recover();
            }
            let cancel = Arc::new(AtomicBool::new(false));
            let canceller = percent(20).then(|| {
                let (cancel, time) = (Arc::clone(&cancel), thread_rng().gen_range(0..20_000));
                thread::spawn(move || {
                    sleep(Duration::from_millis(time));
                    cancel.store(true, Ordering::Relaxed);
                })
            });
            let sent = left.len();
            let options = client.with_options().cancel_on(&cancel);
            let options = if coalesce {
                options.coalesce()
            } else {
                options
            };
            let result = options.send(left);
            let (report, undelivered) = outcome(&result);
            let report = report.expect("a delivery has a report, however it ends");
            let kind = result.as_ref().err().map(Error::kind);
            assert_ne!(kind, Some(ErrorKind::Io), "a thread panicked: {result:?}");
            assert_eq!(
                report.accepted + report.rejected.len() + report.coalesced + undelivered.len(),
                sent,
                "each update ends in one place",
            );
            for rejection in &report.rejected {
                let group = rejection.group().map(group_of);
                let group = group.expect("a rejection names its group");
                assert!(group.starts_with("refused "), "{rejection}");
            }
            let updates = undelivered.updates().map(|update| {
                let encoded = EncodedUpdate::new(&update).expect("it was encoded before");
                Update::from(encoded.expect("it has something to send"))
            });
            left = updates.collect();
            if let Some(canceller) = canceller {
                canceller.join().expect("the canceller does not panic");
            }
            if left.is_empty() {
                break;
            }
            assert!(
                round < 12 || cancel.load(Ordering::Relaxed),
                "a server that is well takes all"
            );
        }
        server.recover();
        if !server.is_ever_late() {
            server.assert_is(&Model::of(&said));
        }
    });
}

//! A process that forks while it has a client.

use common::{in_child, is_own_process};
use mixpanel_groups::{Client, ErrorKind};

use super::set;

#[test]
fn a_child_is_refused_however_soon_it_publishes() {
    if !is_own_process(a_child_is_refused_however_soon_it_publishes, &[]) {
        return;
    }
    let buffered = Client::disabled().buffered().start().unwrap();
    for seats in 0..100 {
        let child = || {
            let error = buffered.publish(set(1, seats)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
            assert_eq!(error.undelivered().len(), 1);
        };
        buffered.publish(set(1, seats)).unwrap();
        in_child(child, || ());
    }
}

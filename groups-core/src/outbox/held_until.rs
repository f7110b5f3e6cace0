use std::time::Duration;

use crate::util::sync::{Instant, SystemTime};

/// The end of a lease, for the method [`hold`](crate::Outbox::hold) of an outbox that several processes share.
///
/// It reads two clocks: the wall clock can be set, and the monotonic one stops while the machine sleeps. The lease has
/// ended if either of them says so. If the wall clock is set to a time before the lease, the lease covers nothing: another
/// process may have seen that it has ended.
#[derive(Clone, Copy, Debug)]
pub struct HeldUntil {
    since: Instant,
    since_by_clock: SystemTime,
    time: Duration,
}

impl HeldUntil {
    /// Returns the end of a lease of that time. Call it before the lease is written, so that this end is the
    /// earlier one.
    #[must_use]
    pub fn after(time: Duration) -> Self {
        Self {
            since: Instant::now(),
            since_by_clock: SystemTime::now(),
            time,
        }
    }

    /// Returns whether the lease lasts for longer than that time from now on.
    #[must_use]
    pub fn covers(&self, time: Duration) -> bool {
        let Ok(elapsed_by_clock) = self.since_by_clock.elapsed() else {
            return false;
        };
        let elapsed = self.since.elapsed().max(elapsed_by_clock);
        self.time.saturating_sub(elapsed) > time
    }

    /// Returns how long to hold what was taken, for a request of that time: longer by a quarter, five seconds at most, so
    /// that not each request has to be written down.
    #[must_use]
    pub fn lease(request: Duration) -> Duration {
        const MAX_SPARE: Duration = Duration::from_secs(5);
        request.saturating_add(MAX_SPARE.min(request / 4))
    }
}

#[cfg(test)]
#[cfg(simulation)]
mod simulation {
    use super::*;
    use crate::util::simulated::{set_clock, simulate_rule};

    const HOUR: Duration = Duration::from_secs(3_600);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_lease_covers_less_than_is_left_of_it() {
        simulate_rule(|| {
            let lease = HeldUntil::after(HOUR);
            assert!(lease.covers(HOUR - SECOND));
            assert!(!lease.covers(HOUR), "not a moment more");
        });
    }

    #[test]
    fn a_lease_covers_nothing_before_it_began_and_nothing_after_its_end_by_the_clock() {
        simulate_rule(|| {
            let lease = HeldUntil::after(HOUR);
            set_clock(SECOND, Duration::ZERO);
            assert!(lease.covers(HOUR - 2 * SECOND) && !lease.covers(HOUR - SECOND));
            set_clock(Duration::ZERO, SECOND);
            assert!(lease.covers(HOUR - SECOND), "the clock is right again");
            set_clock(Duration::ZERO, SECOND);
            assert!(!lease.covers(SECOND), "by this clock it has not begun");
            set_clock(HOUR + SECOND, Duration::ZERO);
            assert!(!lease.covers(Duration::ZERO), "by this clock it has ended");
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn it_covers_what_ends_before_it_and_nothing_else() {
        let held = HeldUntil::after(HOUR);
        assert!(held.covers(Duration::ZERO));
        assert!(held.covers(HOUR / 2));
        assert!(!held.covers(2 * HOUR));
        assert!(!HeldUntil::after(Duration::ZERO).covers(Duration::ZERO));
    }

    #[test]
    fn a_lease_is_longer_than_the_request_by_a_quarter_and_five_seconds_at_most() {
        let secs = Duration::from_secs;
        assert_eq!(HeldUntil::lease(secs(8)), secs(10));
        assert_eq!(HeldUntil::lease(secs(60)), secs(65));
        assert_eq!(HeldUntil::lease(Duration::MAX), Duration::MAX);
    }
}

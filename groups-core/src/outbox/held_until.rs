use std::time::{Duration, Instant, SystemTime};

/// The end of a lease, for the method [`hold`](crate::Outbox::hold) of an outbox that several processes share.
///
/// It uses two clocks, since one can be set and the other stops while the machine sleeps. The earlier end counts.
#[derive(Clone, Copy, Debug)]
pub struct HeldUntil {
    instant: Option<Instant>,
    system: Option<SystemTime>,
}

impl HeldUntil {
    /// Returns the end of a lease of that time. Call it before the lease is written, so that this end is the
    /// earlier one.
    #[must_use]
    pub fn after(time: Duration) -> Self {
        // A time that a clock does not reach is one on which nobody can rely.
        Self {
            instant: Instant::now().checked_add(time),
            system: SystemTime::now().checked_add(time),
        }
    }

    /// Returns whether the lease lasts for longer than that time from now on.
    #[must_use]
    pub fn covers(&self, time: Duration) -> bool {
        let (Some(instant), Some(system)) = (self.instant, self.system) else {
            return false;
        };
        let left = instant.saturating_duration_since(Instant::now());
        let left_by_clock = system.duration_since(SystemTime::now());
        left.min(left_by_clock.unwrap_or_default()) > time
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
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn it_covers_what_ends_before_it_and_nothing_else() {
        let held = HeldUntil::after(HOUR);
        assert!(held.covers(Duration::ZERO));
        assert!(held.covers(HOUR / 2));
        assert!(!held.covers(HOUR), "time has passed, or none");
        assert!(!held.covers(2 * HOUR));
        assert!(!HeldUntil::after(Duration::ZERO).covers(Duration::ZERO));
        let unknown = HeldUntil::after(Duration::MAX);
        assert!(!unknown.covers(Duration::ZERO), "no clock reaches it");
    }

    #[test]
    fn the_earlier_end_of_two_clocks_counts() {
        let held = HeldUntil::after(HOUR);
        let ended = HeldUntil::after(Duration::ZERO);
        for mixed in [
            HeldUntil {
                instant: ended.instant,
                ..held
            },
            HeldUntil {
                system: ended.system,
                ..held
            },
        ] {
            assert!(!mixed.covers(Duration::ZERO));
        }
    }

    #[test]
    fn a_lease_is_longer_than_the_request_by_a_quarter_and_five_seconds_at_most() {
        let secs = Duration::from_secs;
        assert_eq!(HeldUntil::lease(secs(8)), secs(10));
        assert_eq!(HeldUntil::lease(secs(60)), secs(65));
        assert_eq!(HeldUntil::lease(Duration::MAX), Duration::MAX);
    }
}

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

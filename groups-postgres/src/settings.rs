use std::time::Duration;

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) keep_accepted: Duration,
    pub(crate) keep_rejected: Duration,
    pub(crate) grace: Duration,
    pub(crate) notify: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            keep_accepted: Duration::ZERO,
            keep_rejected: Duration::from_secs(30 * 24 * 60 * 60),
            grace: Duration::from_secs(2),
            notify: true,
        }
    }
}

/// For SQL, whose times end somewhere: a thousand years are for ever.
pub(crate) fn seconds(time: Duration) -> f64 {
    const MOST: Duration = Duration::from_secs(1_000 * 365 * 24 * 60 * 60);
    time.min(MOST).as_secs_f64()
}

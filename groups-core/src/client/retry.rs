use std::time::Duration;

use crate::record::Error;

/// A policy that decides when a failed request is retried, and when it is given up.
///
/// The default follows Mixpanel's advice: the wait starts at 2 s, doubles up to 60 s, and has 1–5 s of jitter on top.
/// ([Import API, rate limits](https://developer.mixpanel.com/reference/import-events))
///
/// That advice is for 429, 502 and 503. It is followed after an unexpected response too. After 500, 504 and other 5xx, after
/// a timeout and after a failed connection, the first wait is shorter, at most a tenth of `base_delay`; later waits are as
/// above. If the server has closed an idle connection, the request is sent again at once over a new one.
///
/// ```
/// use std::time::Duration;
/// use mixpanel_groups::RetryPolicy;
///
/// let patient = RetryPolicy::default().attempts(20).deadline(Duration::from_secs(3600));
/// let never = RetryPolicy::none();
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct RetryPolicy {
    attempts: u32,
    base_delay: Duration,
    max_delay: Duration,
    deadline: Duration,
}

/// The reason for a retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The server is overloaded: 429, 502, 503.
    Overload,
    /// The exchange or the server failed: 500, 504, no response, no connection.
    Breakage,
    /// The server had closed an idle connection before the request arrived.
    StaleConnection,
}

/// The decision after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Send again after this time.
    After(Duration),
    GiveUp,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 7,
            base_delay: Duration::from_secs(2),
            max_delay: Duration::from_secs(60),
            deadline: Duration::from_secs(300),
        }
    }
}

impl RetryPolicy {
    /// Returns a policy without retries.
    pub fn none() -> Self {
        Self::default().attempts(1)
    }

    /// Sets the most attempts of a request, the first one included: at least 1; default 7.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// Sets the wait before the second attempt; default 2 s. It doubles with each further attempt. The jitter on top of
    /// each wait is 0.5 to 2.5 times this.
    pub fn base_delay(mut self, delay: Duration) -> Self {
        self.base_delay = delay;
        self
    }

    /// Sets the longest wait, without jitter; default 60 s. A server's `Retry-After` may be longer.
    pub fn max_delay(mut self, max_delay: Duration) -> Self {
        self.max_delay = max_delay;
        self
    }

    /// Sets the time after a request's first attempt within which retries may start; default 5 min. If the server requests
    /// a longer wait (`Retry-After`), the request is given up at once, and
    /// [`Error::retry_after`](crate::Error::retry_after) returns the wait.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    pub(crate) fn check(self) -> Result<(), Error> {
        if self.attempts == 0 {
            return Err(Error::config(
                "invalid retry policy: 0 attempts; for no retries use 1",
            ));
        }
        Ok(())
    }

    /// Decides what to do after the attempt of that number, counted from 1, failed.
    ///
    /// `random` is in 0..=1; `elapsed` is the time since the first attempt.
    pub(crate) fn step(
        &self,
        attempt: u32,
        failure: Failure,
        retry_after: Option<Duration>,
        elapsed: Duration,
        random: f64,
    ) -> Step {
        if attempt >= self.attempts {
            return Step::GiveUp;
        }
        let doublings = match (failure, attempt) {
            // Never twice in a row: the next attempt is on a new connection.
            (Failure::StaleConnection, _) => return Step::After(Duration::ZERO),
            (Failure::Overload, _) => Some(attempt - 1),
            // The first time soon, since such a fault is often over at once.
            (Failure::Breakage, _) => attempt.checked_sub(2),
        };
        let wait = match doublings {
            None => times(self.base_delay, random / 10.0),
            Some(doublings) => {
                let doubled = self
                    .base_delay
                    .saturating_mul(2_u32.saturating_pow(doublings));
                let jitter = times(self.base_delay, 0.5 + 2.0 * random);
                doubled.min(self.max_delay).saturating_add(jitter)
            }
        };
        let wait = wait.max(retry_after.unwrap_or_default());
        if elapsed.saturating_add(wait) > self.deadline {
            return Step::GiveUp;
        }
        Step::After(wait)
    }
}

/// Multiplies without a panic on overflow.
fn times(delay: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(delay.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn steps() {
        use Failure::{Breakage, Overload, StaleConnection};
        use Step::{After, GiveUp};
        let retry = RetryPolicy::default();
        let ms = Duration::from_millis;
        let rows = [
            // attempt, failure, retry after, elapsed, random → step
            // Mixpanel's advice: 2 s, doubling to 60 s, 1 to 5 s of jitter.
            (1, Overload, None, 0, 0.0, After(secs(2 + 1))),
            (1, Overload, None, 0, 1.0, After(secs(2 + 5))),
            (2, Overload, None, 0, 0.0, After(secs(4 + 1))),
            (3, Overload, None, 0, 0.5, After(secs(8 + 3))),
            (6, Overload, None, 0, 0.0, After(secs(60 + 1))),
            (7, Overload, None, 0, 0.0, GiveUp),
            // Breakage: the first time soon, then the same.
            (1, Breakage, None, 0, 0.0, After(ms(0))),
            (1, Breakage, None, 0, 1.0, After(ms(200))),
            (2, Breakage, None, 0, 0.0, After(secs(2 + 1))),
            (3, Breakage, None, 0, 1.0, After(secs(4 + 5))),
            (7, Breakage, None, 0, 0.0, GiveUp),
            // A stale connection: at once.
            (1, StaleConnection, None, 0, 1.0, After(secs(0))),
            (2, StaleConnection, None, 0, 0.0, After(secs(0))),
            (7, StaleConnection, None, 0, 0.0, GiveUp),
            // Retry-After is a minimum, also above the longest delay.
            (1, Overload, Some(30), 0, 0.0, After(secs(30))),
            (1, Overload, Some(1), 0, 0.0, After(secs(3))),
            (1, Breakage, Some(10), 0, 0.0, After(secs(10))),
            (1, Overload, Some(61), 0, 0.0, After(secs(61))),
            (1, Overload, Some(300), 0, 0.0, After(secs(300))),
            // Beyond the deadline, the server is not asked again.
            (1, Overload, Some(301), 0, 0.0, GiveUp),
            (2, Overload, Some(200), 101, 0.0, GiveUp),
            (1, Breakage, Some(100_000), 0, 0.0, GiveUp),
            (1, Overload, Some(u64::MAX), 0, 0.0, GiveUp),
            // The deadline.
            (1, Overload, None, 297, 0.0, After(secs(3))),
            (1, Overload, None, 298, 0.0, GiveUp),
            (1, Overload, None, u64::MAX, 0.0, GiveUp),
        ];
        for (attempt, failure, retry_after, elapsed, random, expected) in rows {
            let step = retry.step(
                attempt,
                failure,
                retry_after.map(secs),
                secs(elapsed),
                random,
            );
            assert_eq!(
                step, expected,
                "{attempt} {failure:?} {retry_after:?} {elapsed} {random}"
            );
        }
    }

    #[test]
    fn settings_are_those_of_the_policy_and_no_attempt_is_not_one() {
        let retry = RetryPolicy::none()
            .attempts(9)
            .base_delay(secs(10))
            .max_delay(secs(15))
            .deadline(secs(45));
        let step = |attempt, elapsed, random| {
            retry.step(attempt, Failure::Overload, None, secs(elapsed), random)
        };
        assert_eq!(step(1, 0, 0.0), Step::After(secs(10 + 5)));
        assert_eq!(step(8, 0, 1.0), Step::After(secs(15 + 25)));
        assert_eq!(step(8, 5, 1.0), Step::After(secs(15 + 25)));
        assert_eq!(step(8, 6, 1.0), Step::GiveUp);
        assert_eq!(step(9, 0, 0.0), Step::GiveUp);

        assert!(RetryPolicy::none().check().is_ok());
        let error = retry.attempts(0).check().unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid retry policy: 0 attempts; for no retries use 1"
        );
    }

    #[test]
    fn none_never_retries() {
        for failure in [
            Failure::Overload,
            Failure::Breakage,
            Failure::StaleConnection,
        ] {
            let step = RetryPolicy::none().step(1, failure, Some(secs(1)), secs(0), 0.5);
            assert_eq!(step, Step::GiveUp);
        }
    }

    #[test]
    fn extreme_settings_do_not_overflow() {
        let retry = RetryPolicy::default()
            .attempts(u32::MAX)
            .base_delay(secs(1 << 40))
            .max_delay(Duration::MAX)
            .deadline(Duration::MAX);
        for (attempt, wait) in [
            (1, secs(7 << 39)),
            (2, secs(9 << 39)),
            (33, Duration::MAX),
            (u32::MAX - 1, Duration::MAX),
        ] {
            let step = retry.step(attempt, Failure::Overload, None, Duration::MAX, 1.0);
            assert_eq!(step, Step::After(wait), "{attempt}");
        }
    }
}

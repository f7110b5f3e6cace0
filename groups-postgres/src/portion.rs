use std::time::{Duration, Instant};

/// How much one call requests of the database: all, or a part of it after calls that did not end by their deadline. With
/// that much again they would end as late, and nothing would ever be done.
///
/// A call that fails halves it. One that is quick doubles it, and one that takes longer adds an eighth: what it does in vain
/// when that becomes too much is little, compared with what it has done by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Portion {
    /// How many of the parts of the whole.
    parts: i64,
}

/// A call that has begun.
#[must_use = "a call that does not succeed counts as one that failed"]
pub(crate) struct Attempt {
    pub(crate) portion: Portion,
    start: Instant,
    time: Duration,
}

impl Portion {
    const WHOLE: i64 = 1 << 20;

    pub(crate) const ALL: Self = Self { parts: Self::WHOLE };

    /// Returns that part of a number: at least 1, unless that is more than the number.
    pub(crate) fn of(self, all: i64) -> i64 {
        // In this order, since the product may be too large.
        let (times, rest) = (all / Self::WHOLE, all % Self::WHOLE);
        (times * self.parts + rest * self.parts / Self::WHOLE).max(all.min(1))
    }

    /// Begins a call with so much time. It counts as one that failed from now on, because it may be given up at any moment.
    pub(crate) fn begin(&mut self, time: Duration) -> Attempt {
        let attempt = Attempt {
            portion: *self,
            start: Instant::now(),
            time,
        };
        self.parts = (self.parts / 2).max(1);
        attempt
    }

    /// Ends a call that has done what it should, unless its caller has already given it up.
    pub(crate) fn succeed(&mut self, attempt: &Attempt) {
        self.succeed_after(attempt, attempt.start.elapsed());
    }

    fn succeed_after(&mut self, attempt: &Attempt, elapsed: Duration) {
        let Attempt { portion, time, .. } = attempt;
        let parts = portion.parts;
        let more = if elapsed < *time / 4 {
            parts
        } else if elapsed < *time {
            (parts / 8).max(1)
        } else {
            return;
        };
        self.parts = (parts + more).min(Self::WHOLE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(8);

    fn after(portion: Portion, elapsed: u64) -> Portion {
        let mut portion = portion;
        let attempt = portion.begin(TIME);
        portion.succeed_after(&attempt, Duration::from_secs(elapsed));
        portion
    }

    #[test]
    fn it_is_all_or_a_part_and_never_nothing() {
        for all in [0, 1, 1_000, 32 << 20, i64::MAX] {
            assert_eq!(Portion::ALL.of(all), all);
        }
        let mut portion = Portion::ALL;
        drop(portion.begin(TIME));
        assert_eq!([20_000, 1, 0].map(|all| portion.of(all)), [10_000, 1, 0]);
        assert_eq!(portion.of(32 << 20), 16 << 20);
        for _ in 0..100 {
            drop(portion.begin(TIME));
        }
        assert_eq!([20_000, 32 << 20, 0].map(|all| portion.of(all)), [1, 32, 0]);
    }

    #[test]
    fn it_grows_as_quickly_as_the_calls_are() {
        let mut half = Portion::ALL;
        drop(half.begin(TIME));
        assert_eq!(after(half, 1).of(800), 800);
        assert_eq!(after(half, 2).of(800), 450);
        assert_eq!(after(half, 7).of(800), 450);
        assert_eq!(after(half, 8).of(800), 200, "its caller is gone");
        assert_eq!(after(Portion::ALL, 1).of(800), 800, "not beyond all");
        // From the smallest part too.
        let mut portion = Portion { parts: 1 };
        let mut calls = 0;
        while portion.parts < Portion::WHOLE {
            portion = after(portion, 7);
            calls += 1;
        }
        assert!(calls < 150, "{calls}");
    }
}

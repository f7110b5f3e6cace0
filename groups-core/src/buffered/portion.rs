//! How many entries a delivery takes.

use crate::client::records::MAX_RECORDS;

/// After so many successes, more is tried again than was too much.
const ENOUGH: u32 = 20;

/// How many entries are taken at once.
///
/// After a delivery of which nothing was accepted in time it is half as many: on a slow line, a smaller request may
/// arrive. With each success it is twice as many, but for a while not again as many as were too many for a line that works.
pub(super) struct Portion {
    /// The most, and what is taken as long as nothing times out.
    full: usize,
    now: usize,
    too_many: Option<usize>,
    /// How many deliveries succeeded since the last time-out.
    successes: u32,
}

impl Portion {
    pub(super) fn new(full: usize) -> Self {
        Self {
            full,
            now: full,
            too_many: None,
            successes: 0,
        }
    }

    pub(super) fn now(&self) -> usize {
        self.now
    }

    /// Records that a delivery succeeded.
    pub(super) fn succeeded(&mut self) {
        self.successes = self.successes.saturating_add(1);
        if self.successes >= ENOUGH {
            self.too_many = None;
        }
        let most = self.too_many.map_or(self.full, |many| (many / 2).max(1));
        self.now = self.now.saturating_mul(2).min(most);
    }

    /// Records that nothing of so many was accepted in time. Returns whether something else was, since the last time that
    /// this happened. If not, it may be an outage, which says nothing of the size.
    pub(super) fn timed_out(&mut self, taken: usize) -> bool {
        let taken = taken.min(MAX_RECORDS);
        let has_succeeded = std::mem::take(&mut self.successes) > 0;
        self.too_many = has_succeeded.then_some(taken);
        self.now = (taken / 2).max(1);
        has_succeeded
    }

    /// Records that a delivery failed for another reason: responses come in time. A few entries may be the very ones that
    /// cannot be delivered.
    pub(super) fn failed(&mut self) {
        *self = Self::new(self.full);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_line_gets_what_it_can_carry_and_seldom_more() {
        let mut portion = Portion::new(20_000);
        let (mut waiting, mut time_outs) = (10_000, 0);
        while waiting > 0 {
            let taken = waiting.min(portion.now());
            if taken > 300 {
                portion.timed_out(taken);
                time_outs += 1;
            } else {
                portion.succeeded();
                waiting -= taken;
            }
        }
        // 2,000, 1,000 and 500, when 250 had passed, 500 once more, and again after 20 of 250.
        assert_eq!((portion.now(), time_outs), (250, 5));
    }

    #[test]
    fn after_an_outage_it_is_soon_as_before() {
        let mut portion = Portion::new(20_000);
        // A quiet service.
        for _ in 0..100 {
            portion.succeeded();
        }
        assert!(portion.timed_out(1));
        for _ in 0..100 {
            assert!(!portion.timed_out(portion.now()));
        }
        assert_eq!(portion.now(), 1);
        for _ in 0..15 {
            portion.succeeded();
        }
        assert_eq!(portion.now(), 20_000);
    }

    #[test]
    fn one_time_out_is_forgotten() {
        let mut portion = Portion::new(20_000);
        portion.succeeded();
        assert!(portion.timed_out(1));
        for _ in 0..19 {
            portion.succeeded();
            assert_eq!(portion.now(), 1);
        }
        portion.succeeded();
        assert_eq!(portion.now(), 2);
        portion.failed();
        assert_eq!(portion.now(), 20_000, "it was not for the size");
    }
}

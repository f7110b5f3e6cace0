//! How many entries a delivery takes.

use crate::client::records::MAX_RECORDS;

/// How many entries are taken at once.
///
/// After a delivery of which nothing was accepted in time it is half as many: on a slow line, a smaller request may
/// arrive. With each success it is twice as many, but not again as many as were too many for a line that works.
pub(super) struct Portion {
    /// The most, and what is taken as long as nothing times out.
    full: usize,
    now: usize,
    too_many: Option<usize>,
    /// Whether something was delivered since the last time-out.
    has_succeeded: bool,
}

impl Portion {
    pub(super) fn new(full: usize) -> Self {
        Self {
            full,
            now: full,
            too_many: None,
            has_succeeded: false,
        }
    }

    pub(super) fn now(&self) -> usize {
        self.now
    }

    /// Records that a delivery succeeded.
    pub(super) fn succeeded(&mut self) {
        let most = self.too_many.map_or(self.full, |many| (many / 2).max(1));
        self.now = self.now.saturating_mul(2).min(most);
        self.has_succeeded = true;
    }

    /// Records that nothing of so many was accepted in time. Returns whether something else was, since the last time that
    /// this happened.
    pub(super) fn timed_out(&mut self, taken: usize) -> bool {
        let taken = taken.min(MAX_RECORDS);
        let has_succeeded = std::mem::take(&mut self.has_succeeded);
        if has_succeeded {
            self.too_many = Some(taken);
        }
        self.now = (taken / 2).max(1);
        has_succeeded
    }

    /// Records that nothing is left: later, the line may be another.
    pub(super) fn all_sent(&mut self) {
        self.too_many = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_line_gets_what_it_can_carry_and_no_more() {
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
        // 2,000, 1,000 and 500, and when 250 had passed, 500 once more.
        assert_eq!((portion.now(), time_outs), (250, 4));
        portion.all_sent();
        portion.succeeded();
        assert_eq!(portion.now(), 500, "it is tried again later");
    }

    #[test]
    fn after_an_outage_it_is_soon_as_before() {
        let mut portion = Portion::new(20_000);
        for _ in 0..100 {
            assert!(!portion.timed_out(portion.now()));
        }
        assert_eq!(portion.now(), 1);
        for _ in 0..15 {
            portion.succeeded();
        }
        assert_eq!(portion.now(), 20_000);
    }
}

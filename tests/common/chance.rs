//! Chance that is the same in each run of a test.

use std::time::Duration;

use proptest::prelude::ProptestConfig;
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::{RngSeed, TestRunner};

/// A sequence of numbers from a seed.
pub struct Chance(TestRunner);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(TestRunner::new(ProptestConfig {
            rng_seed: RngSeed::Fixed(seed),
            ..ProptestConfig::default()
        }))
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (0..limit).new_tree(&mut self.0).unwrap().current()
    }

    pub fn millis(&mut self, limit: usize) -> Duration {
        Duration::from_millis(self.below(limit).try_into().unwrap())
    }
}

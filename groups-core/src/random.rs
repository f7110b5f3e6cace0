use std::hash::{BuildHasher, Hasher, RandomState};

/// A number in 0..=1, different at each call: enough to keep clients from retrying in step.
pub(crate) fn random() -> f64 {
    f64::from(u32::try_from(random_bits() >> 32).unwrap_or_default()) / f64::from(u32::MAX)
}

/// 64 bits, different at each call.
pub(crate) fn random_bits() -> u64 {
    RandomState::new().build_hasher().finish()
}

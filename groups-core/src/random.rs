use std::hash::{BuildHasher, Hasher, RandomState};

/// A number in 0..=1, different at each call: enough to keep clients from retrying in step.
pub(crate) fn random() -> f64 {
    let hash = RandomState::new().build_hasher().finish();
    f64::from(u32::try_from(hash >> 32).unwrap_or_default()) / f64::from(u32::MAX)
}

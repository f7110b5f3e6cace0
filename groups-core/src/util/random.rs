use std::hash::{BuildHasher, Hasher, RandomState};

/// A number in 0..=1, different at each call: enough to keep clients from retrying in step.
pub(crate) fn random() -> f64 {
    f64::from(u32::try_from(random_bits() >> 32).unwrap_or_default()) / f64::from(u32::MAX)
}

/// A random UUID (version 4) as text.
///
/// The standard library's keys, which come from the operating system, are random enough for it:
/// nobody gains by guessing one, and two events are one only if all that they say is the same too.
/// That saves every user two crates more.
pub(crate) fn uuid() -> String {
    let random = u128::from(random_bits()) << 64 | u128::from(random_bits());
    let version = random & !(0xF << 76) | 4 << 76;
    let variant = version & !(0b11 << 62) | 0b10 << 62;
    let hex = format!("{variant:032x}");
    let part = |range| hex.get(range).unwrap_or_default();
    [
        part(0..8),
        part(8..12),
        part(12..16),
        part(16..20),
        part(20..32),
    ]
    .join("-")
}

/// 64 bits: others at each call, and others in a forked process.
pub(crate) fn random_bits() -> u64 {
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    hasher.finish()
}

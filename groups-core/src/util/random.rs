#[cfg(not(simulation))]
use std::hash::{BuildHasher as _, Hasher as _, RandomState};

/// Returns a random number in 0..=1, good enough to keep clients from retrying in step.
pub(crate) fn random() -> f64 {
    let bits = u32::try_from(random_bits() >> 32).expect("32 bits are left");
    f64::from(bits) / f64::from(u32::MAX)
}

/// Returns a random UUID (version 4) as text.
///
/// Its bits come from the standard library's random hash keys, which the operating system seeds. That is random enough
/// here and saves two dependencies: a UUID that is guessed does no harm, and Mixpanel drops an event as a duplicate
/// only if its name, time and user are the same too.
pub(crate) fn uuid() -> String {
    let random = u128::from(random_bits()) << 64 | u128::from(random_bits());
    let version = random & !(0xF << 76) | 4 << 76;
    let variant = version & !(0b11 << 62) | 0b10 << 62;
    let hex = format!("{variant:032x}");
    [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ]
    .join("-")
}

/// Returns 64 random bits, which differ for each call and in forked processes.
pub(crate) fn random_bits() -> u64 {
    #[cfg(simulation)]
    return shuttle::rand::RngCore::next_u64(&mut shuttle::rand::thread_rng());
    #[cfg(not(simulation))]
    fresh_hash()
}

#[cfg(not(simulation))]
fn fresh_hash() -> u64 {
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    hasher.finish()
}

#[cfg(all(test, not(simulation)))]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_between_0_and_1_and_differ() {
        let numbers: Vec<_> = (0..100).map(|_| random()).collect();
        assert!(numbers.iter().all(|number| (0.0..=1.0).contains(number)));
        let average = numbers.iter().sum::<f64>() / 100.0;
        assert!((0.2..0.8).contains(&average), "{numbers:?}");
        assert!(numbers.iter().any(|number| (number - average).abs() > 0.1));
    }
}

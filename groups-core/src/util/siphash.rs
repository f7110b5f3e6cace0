use std::fmt;
use std::str::FromStr;

use siphasher::sip128::SipHasher13;

use crate::util::random::random_bits;

/// The random key of a hash. Nobody who does not know it can make two texts with the same hash.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HashKey(u128);

impl HashKey {
    pub(crate) fn random() -> Self {
        Self(u128::from(random_bits()) << 64 | u128::from(random_bits()))
    }

    /// Returns the SipHash-1-3 of 128 bits, which is the same in all versions of this crate.
    pub(crate) fn hash(self, text: &str) -> u128 {
        let hasher = SipHasher13::new_with_key(&self.0.to_le_bytes());
        hasher.hash(text.as_bytes()).as_u128()
    }
}

impl fmt::Display for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for HashKey {
    type Err = std::num::ParseIntError;

    fn from_str(hex: &str) -> Result<Self, Self::Err> {
        u128::from_str_radix(hex, 16).map(Self)
    }
}

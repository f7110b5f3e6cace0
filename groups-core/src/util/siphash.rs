use siphasher::sip128::SipHasher13;

use crate::util::random::random_bits;

/// The random key of a hash. Without it, nobody can make two texts that have the same hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HashKey(u128);

impl HashKey {
    pub(crate) fn random() -> Self {
        Self(u128::from(random_bits()) << 64 | u128::from(random_bits()))
    }

    /// Returns the SipHash-1-3 of 128 bits, which is the same in all versions of this crate.
    #[inline]
    pub(crate) fn hash(self, bytes: &[u8]) -> u128 {
        let hasher = SipHasher13::new_with_key(&self.0.to_le_bytes());
        hasher.hash(bytes).as_u128()
    }

    pub(crate) fn to_bytes(self) -> [u8; 16] {
        self.0.to_le_bytes()
    }

    pub(crate) fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_le_bytes(bytes))
    }
}

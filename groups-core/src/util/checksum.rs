//! A checksum that detects damage of files, at about the speed of memory. It does not protect against an attacker.

/// Odd, so that multiplying by it can be undone: any change of one word changes the checksum.
const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;

/// Returns the checksum of the bytes, which is the same in all versions of this crate.
pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    let mut lanes = [1_u64, 2, 3, 4];
    let mut chunks = bytes.chunks_exact(32);
    for chunk in chunks.by_ref() {
        for (lane, word) in lanes.iter_mut().zip(chunk.chunks_exact(8)) {
            *lane = mix(*lane, word);
        }
    }
    let mut sum = bytes.len() as u64;
    for word in chunks.remainder().chunks(8) {
        sum = mix(sum, word);
    }
    lanes
        .iter()
        .fold(sum, |sum, lane| mix(sum, &lane.to_le_bytes()))
}

/// Mixes up to eight bytes into the sum.
#[inline]
fn mix(sum: u64, bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    let mixed = (sum ^ u64::from_le_bytes(word)).wrapping_mul(FACTOR);
    mixed ^ mixed >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_changed_bit_and_each_length_changes_it() {
        for length in 0..100 {
            let bytes: Vec<u8> = (0..length).collect();
            let sum = checksum(&bytes);
            for bit in 0..bytes.len() * 8 {
                let mut changed = bytes.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                assert_ne!(checksum(&changed), sum, "bit {bit} of {length}");
            }
            assert_ne!(checksum(&[&bytes[..], &[0]].concat()), sum, "{length}");
        }
    }

    #[test]
    fn it_is_the_same_in_all_versions() {
        let bytes: Vec<u8> = (0..77).collect();
        assert_eq!(checksum(&bytes), 8_748_038_515_935_745_427);
    }
}

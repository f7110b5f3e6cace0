use mixpanel_groups::EncodedUpdate;

/// Into how many parts the work is divided among relays.
pub(crate) const PARTITIONS: i16 = 64;

/// Into how many parts a partition is divided among publishers.
pub(crate) const SLOTS_A_PARTITION: i16 = 256;

/// Which row a publisher of the group locks.
pub(crate) fn slot(update: &EncodedUpdate) -> i16 {
    let group = String::from_utf8_lossy(update.group_bytes());
    let slots = u64::from((PARTITIONS * SLOTS_A_PARTITION).unsigned_abs());
    i16::try_from(hash(&group) % slots).unwrap_or_default()
}

/// FNV-1a, which stays the same from version to version.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

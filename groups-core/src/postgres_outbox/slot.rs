use crate::StoredUpdate;
use crate::hash::hash;

/// Into how many parts the work is divided among relays.
pub(super) const PARTITIONS: i16 = 64;

/// Into how many parts a partition is divided among publishers.
pub(super) const SLOTS_A_PARTITION: i16 = 256;

/// Which row a publisher of the group locks.
pub(super) fn slot(update: &StoredUpdate) -> i16 {
    let group = String::from_utf8_lossy(update.group_bytes());
    let slots = u64::from((PARTITIONS * SLOTS_A_PARTITION).unsigned_abs());
    i16::try_from(hash(&group) % slots).unwrap_or_default()
}

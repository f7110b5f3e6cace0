use std::collections::HashSet;

use crate::buffered::kind::Kind;
use crate::client::coalesce::{Members, coalesce_with_members};
use crate::client::records::Records;
use crate::outbox::OutboxEntry;
use crate::record::Rejection;

/// The first byte of each merged record; the client writes the token after it.
pub(super) const OPENING: &[u8] = b"{";

/// The records to send for the entries that were taken.
pub(super) struct TakenBatch {
    /// What is sent instead of the entries that can be read, if some of these were merged.
    pub(super) merged: Option<Records>,
    /// The entries that each record stands for.
    pub(super) members: Members,
    /// Entries that cannot be sent, each by its position.
    pub(super) refused: Vec<Rejection>,
}

impl TakenBatch {
    /// Coalesces into records of so many bytes at most, if that is set, except for the groups `apart`. Returns `None` if it
    /// is cancelled meanwhile.
    pub(super) fn new<R: Kind>(
        taken: &[OutboxEntry<R>],
        coalesce: Option<usize>,
        apart: &HashSet<Vec<u8>>,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Option<Self> {
        let mut refused = Vec::new();
        for (position, entry) in taken.iter().enumerate() {
            if let Err(unreadable) = &entry.update {
                log::warn!("rejected a row of the outbox: {unreadable}");
                let mut rejection = unreadable.rejection();
                rejection.position = position;
                refused.push(rejection);
            }
        }
        let coalesce = coalesce.filter(|_| has_a_group_twice(taken));
        let Some(most) = coalesce else {
            return Some(Self {
                merged: None,
                members: Members::each(readable(taken).map(|(position, _)| position)),
                refused,
            });
        };
        let mut records = Records::default();
        for (position, update) in readable(taken) {
            if let Err(rejection) = records.push(position, OPENING, update) {
                refused.push(*rejection);
            }
        }
        let opening = OPENING.len();
        let members = coalesce_with_members(&mut records, opening, most, apart, is_cancelled)?;
        Some(Self {
            merged: Some(records),
            members,
            refused,
        })
    }
}

/// Returns the entries that can be sent, each with its position.
pub(super) fn readable<R: Kind>(taken: &[OutboxEntry<R>]) -> impl Iterator<Item = (usize, &R)> {
    let updates = taken.iter().map(|entry| entry.update.as_ref().ok());
    let updates = updates.enumerate();
    updates.filter_map(|(position, update)| Some((position, update?)))
}

/// Returns `false` for events, which have no group.
fn has_a_group_twice<R: Kind>(taken: &[OutboxEntry<R>]) -> bool {
    let mut seen = HashSet::with_capacity(taken.len());
    let mut groups = readable(taken).filter_map(|(_, update)| update.group_bytes());
    groups.any(|group| !seen.insert(group))
}

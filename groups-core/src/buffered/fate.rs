use std::collections::HashSet;

use crate::buffered::kind::Kind;
use crate::outbox::OutboxEntry;
use crate::record::Rejection;

/// The outcome of an entry that was taken.
#[derive(Clone, Copy)]
pub(super) enum Fate<'a> {
    Accepted,
    Rejected(&'a Rejection),
    Undelivered,
}

/// Keeps what follows an undelivered update of the same group, delivered or not: coalesced into others, it may have been
/// sent before what it follows, whose older values must not be the last ones when that is sent again.
pub(super) fn keep_order<R: Kind>(taken: &[OutboxEntry<R>], fates: &mut [Fate<'_>]) {
    let mut kept = HashSet::new();
    for (entry, fate) in taken.iter().zip(fates) {
        let Some(group) = entry.update.as_ref().ok().and_then(R::group_bytes) else {
            continue;
        };
        match fate {
            Fate::Undelivered => _ = kept.insert(group),
            _ if kept.contains(group) => *fate = Fate::Undelivered,
            _ => {}
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::record::EncodedUpdate;

    pub(crate) fn entry(id: i64, group: &str) -> OutboxEntry<EncodedUpdate> {
        let json =
            format!(r#"{{"$group_key":"company","$group_id":"{group}","$set":{{"number":{id}}}}}"#);
        OutboxEntry::read(id, &json)
    }

    #[test]
    fn what_follows_an_undelivered_update_of_its_group_is_sent_again_with_it() {
        let groups = ["one", "other", "one", "other", "one"];
        let mut taken: Vec<_> = (0..)
            .zip(groups)
            .map(|(id, group)| entry(id, group))
            .collect();
        taken.push(OutboxEntry::unreadable(5, "{", "it is not JSON"));
        let mut fates = [Fate::Accepted; 6];
        fates[2] = Fate::Undelivered;
        keep_order(&taken, &mut fates);
        let undelivered = fates.map(|fate| matches!(fate, Fate::Undelivered));
        assert_eq!(undelivered, [false, false, true, false, true, false]);
    }
}

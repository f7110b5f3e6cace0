use std::collections::{HashMap, HashSet};

use crate::buffered::fate::Fate;
use crate::buffered::kind::Kind;
use crate::outbox::OutboxEntry;
use crate::record::error::outcome;
use crate::record::report::BlockedRecord;
use crate::record::{Error, RecordRef, Rejection, Report};

/// In how many deliveries an update is blocked, while others are accepted, before it is rejected.
const MAX_BLOCKED: u32 = 3;

/// Updates that were blocked or refused, remembered from one delivery to the next.
#[derive(Default)]
pub(super) struct Suspects {
    /// Updates that something before Mixpanel blocks, such as a firewall that matches their text, and in how many
    /// deliveries. If everything is blocked, the text is not the reason. So an update counts from the first delivery in
    /// which others were accepted after it was blocked, be it in that one or in one before.
    blocked: HashMap<i64, u32>,
    /// Groups of which a merged update was refused, or any was blocked, by the bytes that identify them. Their updates are
    /// sent one by one: only those are refused that are refused alone, and none waits for one that was merged into a later
    /// one.
    pub(super) apart: HashSet<Vec<u8>>,
}

impl Suspects {
    /// Counts the entries, and returns the rejections, each with the record's `name`, of those that were blocked often enough.
    pub(super) fn give_up<R: Kind>(
        &mut self,
        blocked: impl Iterator<Item = BlockedRecord>,
        taken: &[OutboxEntry<R>],
        result: &Result<Report, Error>,
        name: fn(&[u8]) -> RecordRef,
    ) -> Vec<Rejection> {
        let (report, _) = outcome(result);
        let mut given_up = Vec::new();
        let mut counts = HashMap::new();
        for blocked in blocked {
            let position = blocked.position;
            let (Some(entry), Err(error)) = (taken.get(position), result) else {
                continue;
            };
            // The number of the request after which it was known to be blocked.
            let (before, since) = match self.blocked.get(&entry.id) {
                Some(before) => (*before, 0),
                None => (0, blocked.requests_before),
            };
            let are_others_accepted =
                report.is_some_and(|report| !report.is_all_blocked && report.last_accepted > since);
            let count = before + u32::from(before > 0 || are_others_accepted);
            match &entry.update {
                Ok(update) if count >= MAX_BLOCKED => {
                    let record = name(&update.as_json().as_bytes()[1..]);
                    let message = format!("blocked while others are accepted: {error:#}");
                    let mut rejection = Rejection::new(record, None, message);
                    rejection.position = position;
                    given_up.push(rejection);
                }
                _ => _ = counts.insert(entry.id, count),
            }
        }
        // Those that were not reached keep their counts.
        if !self.blocked.is_empty() {
            let mut left: HashSet<_> = taken.iter().map(|entry| entry.id).collect();
            for rejection in &given_up {
                left.remove(&taken[rejection.position].id);
            }
            self.blocked.retain(|id, _| left.contains(id));
        }
        self.blocked.extend(counts);
        given_up
    }

    /// Returns whether all that is undelivered waits for updates that are known to be blocked or refused for themselves:
    /// those counted here, and those at the positions `known`.
    pub(super) fn explain<R: Kind>(
        &self,
        known: impl Iterator<Item = usize>,
        taken: &[OutboxEntry<R>],
        fates: &[Fate<'_>],
    ) -> bool {
        let counted = |entry: &&OutboxEntry<R>| self.blocked.get(&entry.id).is_some_and(|n| *n > 0);
        let blocked = taken.iter().filter(counted);
        let blocked = blocked.chain(known.map(|position| &taken[position]));
        let (mut ids, mut groups) = (HashSet::new(), HashSet::new());
        for entry in blocked {
            ids.insert(entry.id);
            groups.extend(group_of(entry));
        }
        let undelivered = taken.iter().zip(fates);
        let mut undelivered = undelivered.filter(|(_, fate)| matches!(fate, Fate::Undelivered));
        undelivered.all(|(entry, _)| {
            ids.contains(&entry.id) || group_of(entry).is_some_and(|group| groups.contains(group))
        })
    }

    /// Sets the groups of these entries apart. A group is no longer apart when nothing of it is undelivered.
    pub(super) fn set_apart<R: Kind>(
        &mut self,
        stopped: impl Iterator<Item = usize>,
        taken: &[OutboxEntry<R>],
        fates: &[Fate<'_>],
    ) {
        let group = |entry| group_of(entry).map(<[u8]>::to_vec);
        self.apart
            .extend(stopped.filter_map(|at| group(&taken[at])));
        if !self.apart.is_empty() {
            let undelivered = taken.iter().zip(fates);
            let undelivered = undelivered.filter(|(_, fate)| matches!(fate, Fate::Undelivered));
            let groups: HashSet<_> = undelivered.filter_map(|(entry, _)| group(entry)).collect();
            self.apart.retain(|apart| groups.contains(apart));
        }
    }
}

fn group_of<R: Kind>(entry: &OutboxEntry<R>) -> Option<&[u8]> {
    entry.update.as_ref().ok()?.group_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffered::fate::tests::entry;
    use crate::record::{EncodedUpdate, ErrorKind, Update};

    #[test]
    fn what_is_blocked_while_others_are_accepted_is_given_up_in_the_third_delivery() {
        let taken = [entry(7, "one"), entry(8, "other")];
        let mut suspects = Suspects::default();
        // Blocked in the third request of a delivery; the last one of which something was accepted.
        let mut deliver = |positions: &[usize], last_accepted, is_all_blocked| {
            let blocked = positions.iter().map(|position| BlockedRecord {
                position: *position,
                requests_before: 3,
            });
            let report = Report {
                is_all_blocked,
                last_accepted,
                ..Report::default()
            };
            let result = Err(Error::new(ErrorKind::Server, "blocked").with_report(report));
            let given_up = suspects.give_up(blocked, &taken, &result, Update::name);
            let given_up = given_up.into_iter().map(|rejection| rejection.position);
            given_up.collect::<Vec<_>>()
        };
        assert_eq!(deliver(&[1], 3, false), [0; 0], "it may have begun then");
        for _ in 0..5 {
            assert_eq!(deliver(&[1], 0, false), [0; 0], "nothing is accepted");
            assert_eq!(deliver(&[1], 4, true), [0; 0], "it began meanwhile");
        }
        assert_eq!(deliver(&[1], 1, false), [0; 0], "it was blocked before");
        assert_eq!(deliver(&[], 1, false), [0; 0], "it was not reached");
        assert_eq!(deliver(&[0, 1], 0, false), [0; 0], "it counts from then on");
        assert_eq!(deliver(&[0, 1], 0, false), [1]);
        for _ in 0..2 {
            assert_eq!(deliver(&[0, 1], 4, false), [0; 0], "both count from one");
        }
        assert_eq!(deliver(&[0], 0, true), [0]);
        assert_eq!(deliver(&[1], 0, false), [1]);
    }

    #[test]
    fn a_group_is_apart_until_nothing_of_it_is_undelivered() {
        let taken = ["one", "other", "one", "third"].map(|group| entry(7, group));
        let mut suspects = Suspects::default();
        let mut apart = |merged: &[usize], undelivered: &[usize]| {
            let mut fates = [Fate::Accepted; 4];
            for at in undelivered {
                fates[*at] = Fate::Undelivered;
            }
            suspects.set_apart(merged.iter().copied(), &taken, &fates);
            let groups = taken.iter().map(|entry| entry.update.as_ref().unwrap());
            let is_apart = |update: &EncodedUpdate| suspects.apart.contains(update.group_bytes());
            groups.map(is_apart).collect::<Vec<_>>()
        };
        assert_eq!(apart(&[], &[3]), [false; 4], "it was not merged");
        let one = [true, false, true, false];
        assert_eq!(apart(&[0, 2], &[0, 2, 3]), one);
        assert_eq!(apart(&[], &[2]), one);
        assert_eq!(apart(&[1], &[1]), [false, true, false, false]);
        assert_eq!(apart(&[], &[]), [false; 4]);
    }
}

//! Any calls in any order, beside a list that does the same.

use std::collections::BTreeSet;

use mixpanel_groups::outbox::{Capacity, OutboxEntry};
use mixpanel_groups::{EncodedUpdate, Outbox};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::Open;
use super::promises::{ROOM, bytes, ids, rejection, update};

#[derive(Clone, Debug)]
enum Call {
    /// Updates of these groups.
    Append(Vec<u8>),
    Take(usize),
    /// What becomes of each one that is taken: accepted, rejected, or not known.
    Settle(Vec<u8>),
    Release,
    DropOldest(usize, usize),
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        5 => prop::collection::vec(0..3u8, 0..5).prop_map(Call::Append),
        3 => (0..8usize).prop_map(Call::Take),
        3 => prop::collection::vec(0..3u8, 8).prop_map(Call::Settle),
        1 => Just(Call::Release),
        1 => (0..4usize, 0..400usize).prop_map(|(updates, bytes)| Call::DropOldest(updates, bytes)),
    ]
}

const CAPACITY: Capacity = Capacity::new(12, 800);

/// What waits, the oldest first.
#[derive(Default)]
struct Model {
    waiting: Vec<EncodedUpdate>,
    taken: Vec<OutboxEntry>,
    appended: usize,
    last_ids: BTreeSet<i64>,
}

impl Model {
    fn has_room(&self, updates: usize, new_bytes: usize) -> bool {
        self.waiting.len() + updates <= CAPACITY.updates
            && bytes(&self.waiting) + new_bytes <= CAPACITY.bytes
    }

    fn of_group(&self, group: &[u8]) -> impl Iterator<Item = &EncodedUpdate> {
        let waiting = self.waiting.iter();
        waiting.filter(move |update| update.group_bytes() == group)
    }

    fn is_taken(&self, update: &EncodedUpdate) -> bool {
        self.taken
            .iter()
            .any(|taken| taken.update.as_ref() == Ok(update))
    }

    fn call(&mut self, outbox: &dyn Outbox, call: &Call) {
        match call {
            Call::Append(groups) => self.append(outbox, groups),
            Call::Take(most) => self.take(outbox, *most),
            Call::Settle(fates) => self.settle(outbox, fates),
            Call::Release => self.release(outbox),
            Call::DropOldest(updates, bytes) => self.drop_oldest(outbox, *updates, *bytes),
        }
    }

    fn append(&mut self, outbox: &dyn Outbox, groups: &[u8]) {
        let updates: Vec<_> = (self.appended..)
            .zip(groups)
            .map(|(number, group)| update(&group.to_string(), number))
            .collect();
        self.appended += updates.len();
        let has_room = self.has_room(updates.len(), bytes(&updates));
        assert_eq!(outbox.append(&updates, CAPACITY).unwrap(), has_room);
        if has_room {
            self.waiting.extend(updates);
        }
    }

    /// Of each group the oldest, and at least something if there is something.
    fn take(&mut self, outbox: &dyn Outbox, most: usize) {
        self.release(outbox);
        self.taken = outbox.take(most).unwrap();
        assert!(self.taken.len() <= most);
        assert_eq!(
            self.taken.is_empty(),
            most == 0 || self.waiting.is_empty(),
            "{:?}",
            self.taken
        );
        for group in self
            .taken
            .iter()
            .map(|taken| taken.update.as_ref().unwrap().group_bytes())
        {
            let taken = self.taken.iter();
            let taken: Vec<_> = taken
                .filter(|t| t.update.as_ref().unwrap().group_bytes() == group)
                .collect();
            assert!(taken.is_sorted_by(|one, next| one.id < next.id));
            let taken: Vec<_> = taken
                .iter()
                .map(|taken| taken.update.as_ref().unwrap())
                .collect();
            let oldest: Vec<_> = self.of_group(group).take(taken.len()).collect();
            assert_eq!(taken, oldest);
        }
    }

    fn settle(&mut self, outbox: &dyn Outbox, fates: &[u8]) {
        let rejection = rejection();
        let fated = |fate: u8| {
            let taken = self.taken.iter().zip(fates);
            taken.filter(move |(_, f)| **f == fate).map(|(t, _)| t.id)
        };
        let accepted: Vec<_> = fated(0).collect();
        let rejected: Vec<_> = fated(1).map(|id| (id, &rejection)).collect();
        outbox.settle(&accepted, &rejected).unwrap();
        let settled: BTreeSet<_> = fated(0).chain(fated(1)).collect();
        let (gone, left): (Vec<_>, _) = std::mem::take(&mut self.taken)
            .into_iter()
            .partition(|taken| settled.contains(&taken.id));
        self.taken = left;
        self.waiting
            .retain(|update| gone.iter().all(|gone| gone.update.as_ref() != Ok(update)));
        for id in settled {
            assert!(self.last_ids.insert(id), "the id {id} was used twice");
        }
    }

    fn release(&mut self, outbox: &dyn Outbox) {
        outbox.release().unwrap();
        self.taken.clear();
    }

    fn drop_oldest(&mut self, outbox: &dyn Outbox, updates: usize, bytes: usize) {
        let mut dropped = 0;
        while !self.has_room(updates, bytes) {
            let oldest = self
                .waiting
                .iter()
                .position(|update| !self.is_taken(update));
            let Some(oldest) = oldest else { break };
            self.waiting.remove(oldest);
            dropped += 1;
        }
        assert_eq!(
            outbox.drop_oldest(updates, bytes, CAPACITY).unwrap(),
            dropped
        );
    }

    fn compare(&self, outbox: &dyn Outbox) {
        let depth = outbox.depth().unwrap();
        assert_eq!(depth.updates, self.waiting.len());
        assert_eq!(depth.bytes, bytes(&self.waiting));
        assert_eq!(depth.oldest.is_some(), !self.waiting.is_empty());
    }

    /// An empty outbox, also after a run that failed.
    fn begin(outbox: &dyn Outbox) -> Self {
        outbox.release().unwrap();
        let left = outbox.take(usize::MAX).unwrap();
        outbox.settle(&ids(&left), &[]).unwrap();
        Self::default()
    }

    /// Takes all that is left, and leaves nothing.
    fn end(&mut self, outbox: &dyn Outbox) {
        while !self.waiting.is_empty() {
            self.take(outbox, 5);
            self.settle(outbox, &[0; 5]);
        }
        self.take(outbox, 5);
        self.compare(outbox);
        self.release(outbox);
        assert!(outbox.append(&[], ROOM).unwrap());
        assert!(ids(&outbox.take(1).unwrap()).is_empty());
    }
}

pub(crate) fn any_order_of_calls(open: Open<'_>) {
    let outbox = open();
    let config = Config {
        cases: 64,
        failure_persistence: None,
        ..Config::default()
    };
    let calls = prop::collection::vec(call(), 1..40);
    let run = |calls: Vec<Call>| {
        let mut model = Model::begin(&*outbox);
        for call in &calls {
            model.call(&*outbox, call);
            model.compare(&*outbox);
        }
        model.end(&*outbox);
        Ok(())
    };
    let tested = TestRunner::new(config).run(&calls, run);
    if let Err(error) = tested {
        panic!("{error}");
    }
}

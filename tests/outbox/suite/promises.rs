//! What an outbox does, by examples. Order is promised within a group, so nothing else is asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::LONG;
use common::faulty::Faulty;
use mixpanel_groups::buffered::OverflowPolicy;
use mixpanel_groups::outbox::{Capacity, Depth, OutboxEntry};
use mixpanel_groups::{Client, EncodedUpdate, ErrorKind, Group, Outbox, Rejection, Update};
use serde_json::json;

use super::{Block, Open};

pub(crate) const ROOM: Capacity = Capacity::new(usize::MAX, usize::MAX);

pub(crate) fn stored(update: &Update<'_>) -> EncodedUpdate {
    EncodedUpdate::new(update).unwrap().unwrap()
}

/// The updates of one group are numbered.
pub(crate) fn update(group: &str, number: usize) -> EncodedUpdate {
    stored(&Group::new("company", group).set(json!({"number": number})))
}

fn updates(group: &str, numbers: impl IntoIterator<Item = usize>) -> Vec<EncodedUpdate> {
    let numbers = numbers.into_iter();
    numbers.map(|number| update(group, number)).collect()
}

pub(crate) fn bytes(updates: &[EncodedUpdate]) -> usize {
    updates.iter().map(|update| update.as_json().len()).sum()
}

pub(crate) fn ids(waiting: &[OutboxEntry]) -> Vec<i64> {
    waiting.iter().map(|waiting| waiting.id).collect()
}

fn taken(waiting: &[OutboxEntry]) -> Vec<EncodedUpdate> {
    waiting
        .iter()
        .map(|waiting| waiting.update.clone().unwrap())
        .collect()
}

/// A rejection, as only a client can make one.
pub(crate) fn rejection() -> Rejection {
    let nowhere = Client::builder("TOKEN").endpoint("http://127.0.0.1:1");
    let report = nowhere
        .build()
        .unwrap()
        .send([Group::new("company", "").delete()])
        .unwrap();
    report.rejected[0].clone()
}

pub(crate) fn what_is_appended_is_taken_in_order(open: Open<'_>) {
    let outbox = open();
    assert!(outbox.take(10).unwrap().is_empty());
    let all = updates("acme", 0..5);
    assert!(outbox.append(&all[..1], ROOM).unwrap());
    assert!(outbox.append(&[], ROOM).unwrap());
    assert!(outbox.append(&all[1..4], ROOM).unwrap());
    assert!(outbox.append(&all[4..], ROOM).unwrap());

    let first = outbox.take(2).unwrap();
    assert_eq!(taken(&first), all[..2]);
    outbox.settle(&ids(&first), &[]).unwrap();
    let rest = outbox.take(10).unwrap();
    assert_eq!(taken(&rest), all[2..]);
    let both = [ids(&first), ids(&rest)].concat();
    assert!(both.is_sorted_by(|id, next| id < next), "{both:?}");
    outbox.settle(&ids(&rest), &[]).unwrap();
    assert!(outbox.take(10).unwrap().is_empty());
    assert_eq!(outbox.depth().unwrap(), Depth::default());

    // An id is not used twice, not even when all is gone.
    assert!(outbox.append(&all[..1], ROOM).unwrap());
    assert!(outbox.take(1).unwrap()[0].id > both[4]);
}

pub(crate) fn what_is_taken_stays_until_it_is_settled(open: Open<'_>) {
    let outbox = open();
    let all = updates("acme", 0..4);
    assert!(outbox.append(&all, ROOM).unwrap());
    let first = outbox.take(3).unwrap();
    assert_eq!(outbox.depth().unwrap().updates, 4);
    assert_eq!(outbox.depth().unwrap().bytes, bytes(&all));
    outbox.release().unwrap();
    outbox.release().unwrap();
    assert_eq!(outbox.take(3).unwrap(), first);

    // What was sent in the middle is settled, and what comes before it is sent again.
    outbox.settle(&[first[1].id], &[]).unwrap();
    outbox.release().unwrap();
    let left = outbox.take(10).unwrap();
    let expected = [&all[..1], &all[2..]].concat();
    assert_eq!(taken(&left), expected);
    assert_eq!(outbox.depth().unwrap().bytes, bytes(&expected));
}

pub(crate) fn only_what_is_named_is_settled(open: Open<'_>) {
    let outbox = open();
    let rejection = rejection();
    let all = updates("acme", 0..6);
    assert!(outbox.append(&all, ROOM).unwrap());
    let six = ids(&outbox.take(6).unwrap());
    outbox
        .settle(&[six[4], six[0]], &[(six[2], &rejection)])
        .unwrap();
    outbox.settle(&[], &[]).unwrap();
    // Once more, and what was never there.
    outbox
        .settle(&[six[0], i64::MAX], &[(six[2], &rejection)])
        .unwrap();
    outbox.release().unwrap();
    let left = outbox.take(10).unwrap();
    assert_eq!(ids(&left), [six[1], six[3], six[5]]);
}

pub(crate) fn an_append_is_whole_or_not_at_all(open: Open<'_>) {
    let outbox = open();
    let three = Capacity::new(3, ROOM.bytes);
    assert!(outbox.append(&updates("acme", 0..2), three).unwrap());
    assert!(!outbox.append(&updates("acme", 2..4), three).unwrap());
    assert_eq!(outbox.depth().unwrap().updates, 2);
    assert!(outbox.append(&updates("acme", 4..5), three).unwrap());
    let all = outbox.take(10).unwrap();
    assert_eq!(taken(&all), updates("acme", [0, 1, 4]));
}

pub(crate) fn the_capacity_is_exact(open: Open<'_>) {
    let outbox = open();
    let all = updates("é", 0..4);
    let enough = bytes(&all[..2]);
    let room = |bytes| Capacity::new(ROOM.updates, bytes);
    assert!(!outbox.append(&all[..2], room(enough - 1)).unwrap());
    assert!(outbox.append(&all[..2], room(enough)).unwrap());
    assert!(!outbox.append(&all[2..3], room(enough)).unwrap());
    assert!(
        !outbox
            .append(&all[2..3], Capacity::new(2, ROOM.bytes))
            .unwrap()
    );
    // What is taken still counts, until it is settled.
    let first = outbox.take(1).unwrap();
    assert!(!outbox.append(&all[2..3], room(enough)).unwrap());
    outbox.settle(&ids(&first), &[]).unwrap();
    assert!(outbox.append(&all[2..3], room(enough)).unwrap());
    assert!(!outbox.append(&all[3..], room(enough)).unwrap());
}

pub(crate) fn dropping_the_oldest_spares_what_is_taken(open: Open<'_>) {
    let outbox = open();
    let all = updates("acme", 0..6);
    assert!(outbox.append(&all, ROOM).unwrap());
    let first = outbox.take(2).unwrap();
    let six = Capacity::new(6, ROOM.bytes);
    assert_eq!(outbox.drop_oldest(1, 10, six).unwrap(), 1);
    let limited = Capacity::new(ROOM.updates, bytes(&all[1..]) + 1);
    assert_eq!(outbox.drop_oldest(1, 2, limited).unwrap(), 1);
    outbox.release().unwrap();
    let left = outbox.take(10).unwrap();
    assert_eq!(taken(&left), [&all[..2], &all[4..]].concat());
    assert_eq!(ids(&left)[..2], ids(&first));
    // All are taken now.
    assert_eq!(outbox.drop_oldest(1, 10, six).unwrap(), 0);
    assert_eq!(outbox.drop_oldest(10, 10, six).unwrap(), 0);
    // Nothing is.
    outbox.release().unwrap();
    assert_eq!(outbox.drop_oldest(10, 10, six).unwrap(), 4);
    assert_eq!(outbox.depth().unwrap(), Depth::default());
}

pub(crate) fn nothing_is_dropped_where_there_is_room(open: Open<'_>) {
    let outbox = open();
    let all = updates("acme", 0..3);
    let four = Capacity::new(4, bytes(&all) + 10);
    assert_eq!(outbox.drop_oldest(1, 10, four).unwrap(), 0);
    assert!(outbox.append(&all, ROOM).unwrap());
    assert_eq!(outbox.drop_oldest(1, 10, four).unwrap(), 0);
    assert_eq!(outbox.depth().unwrap().updates, 3);
}

pub(crate) fn the_oldest_has_an_age(open: Open<'_>) {
    let outbox = open();
    assert_eq!(outbox.depth().unwrap().oldest, None);
    let start = Instant::now();
    assert!(outbox.append(&updates("acme", 0..1), ROOM).unwrap());
    let appended = Instant::now();
    let age = || outbox.depth().unwrap().oldest.unwrap();
    thread::sleep(Duration::from_millis(300));
    assert!(outbox.append(&updates("acme", 1..2), ROOM).unwrap());
    let least = appended.elapsed();
    let age = age();
    // Engines round to milliseconds, and use another clock.
    let difference = Duration::from_millis(100);
    assert!(age + difference >= least, "{age:?} < {least:?}");
    assert!(age <= start.elapsed() + difference, "{age:?}");
}

pub(crate) fn updates_come_back_as_they_were(open: Open<'_>) {
    let outbox = open();
    let odd = Group::new("ключ \"'\\ \u{1}", "id\n\u{10FFFF}").in_company("company '");
    let all = [
        stored(&odd.set(json!({"it's": "\u{0}\"\\; -- é", "deep": {"$set": [1, 1.0, -0.0]}}))),
        stored(&odd.set_once(json!({"a": 1.5e300}))),
        stored(&odd.union(json!({"a": [1, "1"]}))),
        stored(&odd.remove("a", "x")),
        stored(&odd.unset(["a", "b"])),
        stored(&odd.set(json!({"large": "é".repeat(400_000)}))),
        stored(&odd.delete()),
    ];
    assert!(outbox.append(&all, ROOM).unwrap());
    let back = taken(&outbox.take(10).unwrap());
    for (back, update) in back.iter().zip(&all) {
        assert_eq!(back.as_json(), update.as_json());
        assert_eq!(back.group_bytes(), update.group_bytes());
    }
    assert_eq!(back, all);
}

pub(crate) fn many_threads_append_while_one_takes(open: Open<'_>) {
    const THREADS: usize = 4;
    const EACH: usize = 300;
    let outbox = open();
    let outbox: &dyn Outbox = &*outbox;
    let running = AtomicUsize::new(THREADS);
    let append = |thread: usize| {
        let group = thread.to_string();
        let mut numbers = (0..EACH).peekable();
        while numbers.peek().is_some() {
            // One, two and three at a time.
            let some = numbers.by_ref().take(thread % 3 + 1);
            assert!(outbox.append(&updates(&group, some), ROOM).unwrap());
        }
        running.fetch_sub(1, Ordering::SeqCst);
    };
    let take = || {
        let mut seen: BTreeMap<String, Vec<EncodedUpdate>> = BTreeMap::new();
        let mut seen_ids = BTreeSet::new();
        loop {
            let is_last = running.load(Ordering::SeqCst) == 0;
            let some = outbox.take(50).unwrap();
            if some.is_empty() && is_last {
                return seen;
            }
            outbox.settle(&ids(&some), &[]).unwrap();
            for OutboxEntry { id, update, .. } in some {
                assert!(seen_ids.insert(id), "{id} was taken twice");
                let update = update.unwrap();
                let group = update.group().id().to_string();
                seen.entry(group).or_default().push(update);
            }
        }
    };
    let seen = thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || append(thread));
        }
        scope.spawn(take).join().unwrap()
    });
    assert_eq!(seen.len(), THREADS);
    for (group, seen) in seen {
        assert_eq!(seen, updates(&group, 0..EACH), "group {group}");
    }
    assert_eq!(outbox.depth().unwrap(), Depth::default());
}

/// What others keep with a larger capacity is not this process's to drop.
pub(crate) fn a_small_capacity_drops_nothing_of_others(open: Open<'_>) {
    let outbox = open();
    let all = updates("acme", 0..1_000);
    assert!(outbox.append(&all, ROOM).unwrap());
    let buffered = Client::disabled()
        .buffered()
        .flush_interval(Duration::from_secs(3_600))
        .capacity(100, 1 << 20)
        .overflow(OverflowPolicy::DropOldest)
        // Another process relays.
        .outbox(Faulty::over(open()).taking(|_, _| Ok(Vec::new())))
        .start()
        .unwrap();
    let error = buffered
        .publish(Group::new("company", "new").delete())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full);
    assert_eq!(buffered.stats().dropped, 0);
    let few_bytes = Capacity::new(ROOM.updates, 1_000);
    assert_eq!(outbox.drop_oldest(1, 100, few_bytes).unwrap(), 0);
    assert_eq!(outbox.depth().unwrap().updates, 1_000);
    // A little more than the capacity may be its own, published at the same time as others.
    let tight = Capacity::new(900, ROOM.bytes);
    assert_eq!(outbox.drop_oldest(1, 100, tight).unwrap(), 101);
    assert!(outbox.append(&updates("acme", [1_000]), tight).unwrap());
    assert!(!outbox.append(&updates("acme", [1_001]), tight).unwrap());
    assert_eq!(outbox.depth().unwrap().updates, 900);
}

/// Whatever others do with the engine, and for however long: `depth` is known, and every other call ends.
pub(crate) fn calls_end_by_their_timeout(open: Open<'_>, block: &dyn Fn() -> Block) {
    const TIMEOUT: Duration = Duration::from_millis(100);
    let outbox = open();
    outbox.set_timeout(TIMEOUT);
    let all = updates("acme", 0..4);
    assert!(outbox.append(&all[..3], ROOM).unwrap());
    let taken = outbox.take(1).unwrap();
    let is_free = {
        let blocked = block();
        let start = Instant::now();
        assert_eq!(outbox.depth().unwrap().updates, 3);
        let is_free = outbox.append(&all[3..], ROOM).is_ok();
        drop(outbox.hold(Duration::from_secs(60)));
        drop(outbox.settle(&ids(&taken), &[]));
        drop(outbox.drop_oldest(1, 10, Capacity::new(1, ROOM.bytes)));
        drop(outbox.release());
        drop(outbox.take(10));
        assert!(start.elapsed() < LONG, "{:?}", start.elapsed());
        drop(blocked);
        is_free
    };
    // Nothing was done half, or later.
    if !is_free {
        outbox.release().unwrap();
        assert_eq!(self::taken(&outbox.take(10).unwrap()), all[..3]);
    }
}

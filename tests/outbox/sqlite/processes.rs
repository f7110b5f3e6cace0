//! Several processes append to one file: up to its capacity, and until they are killed.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::thread;

use common::{said, say};
use mixpanel_groups::Outbox;
use mixpanel_groups::outbox::Capacity;
use mixpanel_groups_sqlite::{Durability, SqliteOutbox};

use super::{ROOM, all_numbers, folder, ids, numbers, spawn, update};

const WRITERS: usize = 3;

/// Appends numbers from `first` on in several threads, each of a group of its own, and takes and
/// settles all the time.
pub(super) fn append_and_settle(outbox: &SqliteOutbox, first: usize) {
    thread::scope(|scope| {
        for group in 0..WRITERS {
            scope.spawn(move || {
                for number in (first..).step_by(2) {
                    let two = [update(group, number), update(group, number + 1)];
                    assert!(outbox.append(&two, ROOM).unwrap());
                    say("appended", format!("{group} {}", number + 1));
                }
            });
        }
        loop {
            let some = outbox.take(7).unwrap();
            // From now on each of them may be gone.
            for entry in &some {
                let (group, number) = numbers(entry.update.as_ref().unwrap());
                say("settling", format!("{group} {number}"));
            }
            outbox.settle(&ids(&some), &[]).unwrap();
        }
    });
}

#[test]
fn what_was_appended_is_there_after_the_process_was_killed() {
    const ROUNDS: usize = 60;
    const A_ROUND: usize = 1_000_000;
    let (_folder, path) = folder();
    // For each group: the last number that is known to be appended, the last that may be settled.
    let mut known: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
    for round in 0..ROUNDS {
        let first = (round + 1) * A_ROUND;
        let mut child = spawn(&format!("append and settle {first}"), &path);
        let lines = said(&mut child);
        // The pipe is read while the child lives, or it would wait for room in it.
        let (line, is_said) = mpsc::channel();
        let reader = thread::spawn(move || {
            let lines = lines.inspect(|_| line.send(()).unwrap());
            lines.collect::<Vec<_>>()
        });
        // It is ready, and has done more or less since.
        let before = 1 + round * 7919 % 400;
        is_said.iter().take(before).for_each(drop);
        child.kill().unwrap();
        child.wait().unwrap();
        let said = reader.join().unwrap();
        for (word, rest) in &said {
            let Some((group, number)) = rest.split_once(' ') else {
                continue;
            };
            let number = number.parse().unwrap();
            let (appended, settling) = known.entry(group.parse().unwrap()).or_default();
            *(if word == "settling" {
                settling
            } else {
                appended
            }) = number;
        }

        let outbox = SqliteOutbox::open_with(&path, Durability::Normal).unwrap();
        let mut there: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (group, number) in all_numbers(&path) {
            there.entry(group).or_default().push(number);
        }
        let nothing = Vec::new();
        for (group, (appended, settling)) in &known {
            let there = there.get(group).unwrap_or(&nothing);
            assert!(there.is_sorted_by(|one, next| one < next), "{there:?}");
            // Two were appended together: both are there, or none.
            assert!(there.last().is_none_or(|last| last % 2 == 1), "{there:?}");
            // All that may not be settled and was appended in this round is there, without a gap.
            let from = first.max(settling + 1);
            let expected: Vec<_> = (from..=*appended).collect();
            let found = there
                .iter()
                .copied()
                .filter(|n| (from..=*appended).contains(n));
            assert_eq!(
                found.collect::<Vec<_>>(),
                expected,
                "group {group}, round {round}"
            );
        }
        let left: usize = there.values().map(Vec::len).sum();
        assert_eq!(outbox.depth().unwrap().updates, left, "round {round}");
    }
}

const FULL: Capacity = Capacity::new(200, usize::MAX);

pub(super) fn append_until_full(outbox: &SqliteOutbox, group: usize) {
    let mut number = 0;
    while outbox.append(&[update(group, number)], FULL).unwrap() {
        number += 1;
    }
    say("appended", number);
}

#[test]
fn several_processes_append_to_one_file_up_to_its_capacity() {
    let (_folder, path) = folder();
    // They all make the file at once, too.
    let mut children: Vec<_> = (0..4)
        .map(|group| spawn(&format!("append until full {group}"), &path))
        .collect();
    let appended: Vec<usize> = children
        .iter_mut()
        .map(|child| {
            let mut lines = said(child);
            let (_, count) = lines.find(|(word, _)| word == "appended").unwrap();
            lines.for_each(drop); // The pipe stays open until the child has said everything.
            assert!(child.wait().unwrap().success());
            count.parse().unwrap()
        })
        .collect();
    assert_eq!(appended.iter().sum::<usize>(), FULL.updates);
    let all = all_numbers(&path);
    for (group, appended) in appended.into_iter().enumerate() {
        let numbers = all.iter().filter(|(g, _)| *g == group).map(|(_, n)| *n);
        assert!(numbers.eq(0..appended), "group {group}");
    }
}

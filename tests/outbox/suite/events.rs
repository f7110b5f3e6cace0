//! The queue of events that an outbox has beside that of its updates.

use std::sync::Arc;
use std::time::Duration;

use common::faulty::Faulty;
use mixpanel_groups::outbox::{Capacity, OutboxEntry};
use mixpanel_groups::record::EncodedEvent;
use mixpanel_groups::{Client, Event, Outbox};
use mixpanel_groups_emulator::Emulator;

use super::Open;
use super::promises::{ROOM, rejection, update};

type Queue = Arc<dyn Outbox<EncodedEvent>>;

fn event(number: usize) -> EncodedEvent {
    let event = Event::new("Happened")
        .distinct_id("user")
        .time(1_700_000_000);
    EncodedEvent::new(&event.insert_id(number + 1).property("text", "é\n\u{1F600}")).unwrap()
}

fn events(numbers: std::ops::Range<usize>) -> Vec<EncodedEvent> {
    numbers.map(event).collect()
}

fn queue(open: Open<'_>) -> Queue {
    open().events().expect("it keeps events")
}

fn ids(entries: &[OutboxEntry<EncodedEvent>]) -> Vec<i64> {
    entries.iter().map(|entry| entry.id).collect()
}

fn taken(queue: &Queue) -> Vec<EncodedEvent> {
    let entries = queue.take(100).unwrap();
    entries
        .into_iter()
        .map(|entry| entry.update.unwrap())
        .collect()
}

pub(crate) fn events_are_kept_as_updates_are(open: Open<'_>) {
    let queue = queue(open);
    let all = events(0..6);
    assert!(queue.append(&all[..2], ROOM).unwrap());
    assert!(queue.append(&all[2..], ROOM).unwrap());
    let bytes = all.iter().map(EncodedEvent::len).sum();
    let depth = queue.depth().unwrap();
    assert_eq!((depth.updates, depth.bytes), (6, bytes));
    assert!(depth.oldest.is_some());
    assert_eq!(taken(&queue), all);
    let six = ids(&queue.take(6).unwrap());
    assert!(queue.hold(Duration::from_secs(1)).unwrap());
    queue
        .settle(&[six[0], six[2]], &[(six[1], &rejection())])
        .unwrap();
    queue.release().unwrap();
    assert_eq!(taken(&queue), all[3..]);
    queue.settle(&six[3..], &[]).unwrap();
    assert!(taken(&queue).is_empty());
    assert_eq!(queue.depth().unwrap().updates, 0);
}

pub(crate) fn neither_kind_counts_for_the_other(open: Open<'_>) {
    let outbox = open();
    let queue = queue(open);
    let two = Capacity::new(2, 1 << 20);
    assert!(queue.append(&events(0..2), two).unwrap());
    assert!(!queue.append(&events(2..3), two).unwrap());
    let updates = [update("acme", 0), update("acme", 1)];
    assert!(outbox.append(&updates, two).unwrap());
    assert_eq!(outbox.depth().unwrap().updates, 2);
    assert_eq!(queue.depth().unwrap().updates, 2);

    // Each is taken, dropped and settled by itself.
    assert_eq!(taken(&queue), events(0..2));
    queue.release().unwrap();
    assert_eq!(outbox.take(10).unwrap().len(), 2);
    assert_eq!(queue.drop_oldest(1, 1, two).unwrap(), 1);
    assert_eq!(taken(&queue), events(1..2));
    let entries = outbox.take(10).unwrap();
    let entries: Vec<_> = entries.iter().map(|entry| entry.id).collect();
    outbox.settle(&entries, &[]).unwrap();
    assert_eq!(outbox.depth().unwrap().updates, 0);
    assert_eq!(queue.depth().unwrap().updates, 1);
}

/// A background client over the outbox itself.
pub(crate) fn both_kinds_are_delivered(open: Open<'_>) {
    let emulator = Emulator::start().unwrap();
    let client = Client::builder("T").endpoint(emulator.endpoint());
    let buffered = client
        .build()
        .unwrap()
        .buffered()
        .outbox(Faulty::over(open()));
    let buffered = buffered.start().unwrap();
    for number in 0..20 {
        buffered.publish(Event::from(event(number))).unwrap();
        buffered.publish(update("acme", number)).unwrap();
    }
    let outcome = buffered.shutdown(Duration::from_secs(60));
    assert!(outcome.is_complete(), "{outcome}");
    assert_eq!(
        (outcome.stats.accepted, outcome.event_stats.accepted),
        (20, 20)
    );
    assert_eq!(emulator.events().len(), 20);
}

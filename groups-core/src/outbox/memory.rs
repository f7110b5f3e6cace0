use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::outbox::{Capacity, Depth, Outbox, OutboxEntry, OutboxRecord, total_bytes};
use crate::record::{EncodedEvent, EncodedUpdate, Error, Rejection};
use crate::util::sync::{Instant, Mutex, MutexGuard};

/// The most bytes of JSON that are taken at once, unless one record has more, or all are asked for.
const MAX_BYTES: usize = 32 << 20;

/// The outbox in memory, for updates and events. It does not outlive the process.
///
/// Taken entries have a lock of their own, so publishers never wait for the worker. Code that needs both locks takes that
/// of `taken` first.
pub struct MemoryOutbox<R = EncodedUpdate> {
    queue: Mutex<Queue<R>>,
    taken: Mutex<VecDeque<QueuedRecord<R>>>,
    /// Beside updates.
    events: Option<Arc<MemoryOutbox<EncodedEvent>>>,
}

struct Queue<R> {
    entries: VecDeque<QueuedRecord<R>>,
    /// How much there is, but not for how long: what is taken included.
    held: Depth,
    next_id: i64,
}

struct QueuedRecord<R> {
    id: i64,
    record: R,
    since: Instant,
}

impl MemoryOutbox {
    /// Returns an empty outbox.
    #[must_use]
    pub fn new() -> Self {
        Self::with_events(Some(Arc::new(MemoryOutbox::with_events(None))))
    }
}

impl<R> MemoryOutbox<R> {
    fn with_events(events: Option<Arc<MemoryOutbox<EncodedEvent>>>) -> Self {
        let queue = Queue {
            entries: VecDeque::new(),
            held: Depth::default(),
            next_id: 0,
        };
        Self {
            queue: Mutex::new(queue),
            taken: Mutex::new(VecDeque::new()),
            events,
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue<R>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn taken(&self) -> MutexGuard<'_, VecDeque<QueuedRecord<R>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R> Queue<R> {
    fn note_gone(&mut self, updates: usize, bytes: usize) {
        self.held.updates -= updates;
        self.held.bytes -= bytes;
    }
}

impl<R: OutboxRecord> Outbox<R> for MemoryOutbox<R> {
    fn append(&self, records: &[R], capacity: Capacity) -> Result<bool, Error> {
        let bytes = total_bytes(records);
        let since = Instant::now();
        let mut queue = self.queue();
        if !queue.held.has_room(records.len(), bytes, capacity) {
            return Ok(false);
        }
        queue.held.updates += records.len();
        queue.held.bytes += bytes;
        for record in records {
            let (id, record) = (queue.next_id, record.clone());
            queue.next_id += 1;
            queue.entries.push_back(QueuedRecord { id, record, since });
        }
        Ok(true)
    }

    fn take(&self, most: usize) -> Result<Vec<OutboxEntry<R>>, Error> {
        let mut taken = self.taken();
        let mut queue = self.queue();
        let mut bytes = 0;
        let fits = |entry: &&QueuedRecord<R>| {
            let is_first = bytes == 0;
            bytes += entry.record.as_json().len();
            is_first || bytes <= MAX_BYTES || most == usize::MAX
        };
        let oldest = taken.iter().chain(&queue.entries).take(most);
        let count = oldest.take_while(fits).count();
        let more = count.saturating_sub(taken.len());
        taken.extend(queue.entries.drain(..more));
        drop(queue);
        let entries = taken.iter().take(count);
        let entries = entries.map(|entry| OutboxEntry::new(entry.id, entry.record.clone()));
        Ok(entries.collect())
    }

    fn settle(&self, accepted: &[i64], rejected: &[(i64, &Rejection)]) -> Result<(), Error> {
        let rejected = rejected.iter().map(|(id, _)| *id);
        let mut settled: Vec<i64> = accepted.iter().copied().chain(rejected).collect();
        settled.sort_unstable();
        let mut settled = settled.into_iter().peekable();
        let mut taken = self.taken();
        let (mut updates, mut bytes) = (0, 0);
        // What is taken is in the order of its ids too.
        taken.retain(|entry| {
            while settled.next_if(|id| *id < entry.id).is_some() {}
            let is_settled = settled.next_if_eq(&entry.id).is_some();
            if is_settled {
                updates += 1;
                bytes += entry.record.as_json().len();
            }
            !is_settled
        });
        self.queue().note_gone(updates, bytes);
        Ok(())
    }

    fn release(&self) -> Result<(), Error> {
        let mut taken = self.taken();
        let mut queue = self.queue();
        for entry in taken.drain(..).rev() {
            queue.entries.push_front(entry);
        }
        Ok(())
    }

    fn drop_oldest(
        &self,
        updates: usize,
        bytes: usize,
        capacity: Capacity,
    ) -> Result<usize, Error> {
        let mut queue = self.queue();
        let before = queue.held.updates;
        while !queue.held.has_room(updates, bytes, capacity) {
            let Some(oldest) = queue.entries.pop_front() else {
                break;
            };
            queue.note_gone(1, oldest.record.as_json().len());
        }
        Ok(before - queue.held.updates)
    }

    fn depth(&self) -> Result<Depth, Error> {
        let taken = self.taken();
        let queue = self.queue();
        let oldest = taken.front().or(queue.entries.front());
        Ok(Depth {
            oldest: oldest.map(|entry| entry.since.elapsed()),
            ..queue.held
        })
    }

    fn events(&self) -> Option<Arc<dyn Outbox<EncodedEvent>>> {
        let events = self.events.as_ref()?;
        Some(Arc::clone(events) as Arc<dyn Outbox<EncodedEvent>>)
    }

    /// Returns `true`: a call waits only for the locks of the outbox, and never for long.
    fn set_timeout(&self, _timeout: Duration) -> bool {
        true
    }

    fn is_durable(&self) -> bool {
        false
    }
}

impl Default for MemoryOutbox {
    fn default() -> Self {
        Self::new()
    }
}

impl<R: OutboxRecord> fmt::Debug for MemoryOutbox<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryOutbox")
            .field("depth", &self.depth())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::Group;
    use crate::record::RecordRef;
    use crate::util::sync::run_test;

    const ROOM: Capacity = Capacity::new(100, usize::MAX);

    fn update(id: u8) -> EncodedUpdate {
        let update = Group::new("company", id).delete();
        EncodedUpdate::new(&update).unwrap().unwrap()
    }

    fn taken(outbox: &MemoryOutbox, most: usize) -> Vec<(i64, EncodedUpdate)> {
        let entries = outbox.take(most).unwrap().into_iter();
        entries
            .map(|entry| (entry.id, entry.update.unwrap()))
            .collect()
    }

    #[test]
    fn what_is_taken_stays_until_it_is_settled() {
        run_test(|| {
            let outbox = MemoryOutbox::new();
            let bytes = update(0).as_json().len();
            let held = |outbox: &MemoryOutbox| {
                let depth = outbox.depth().unwrap();
                assert_eq!(depth.bytes, depth.updates * bytes);
                assert_eq!(depth.oldest.is_some(), depth.updates > 0);
                depth.updates
            };
            assert!(outbox.append(&[update(0), update(1)], ROOM).unwrap());
            assert!(outbox.append(&[update(2)], ROOM).unwrap());
            assert!(
                !outbox
                    .append(&[update(3)], Capacity::new(3, usize::MAX))
                    .unwrap()
            );
            assert!(
                !outbox
                    .append(&[update(3)], Capacity::new(4, 4 * bytes - 1))
                    .unwrap()
            );
            assert_eq!(held(&outbox), 3);
            let first: Vec<_> = taken(&outbox, 2);
            assert_eq!(first, [(0, update(0)), (1, update(1))]);
            assert_eq!(
                taken(&outbox, 1),
                first[..1],
                "again, as they are not settled"
            );
            assert_eq!(taken(&outbox, 2), first);
            let rejection = Rejection::new(RecordRef::unreadable(""), None, "no");
            outbox.settle(&[1], &[]).unwrap();
            assert_eq!(held(&outbox), 2);
            assert_eq!(taken(&outbox, 9), [(0, update(0)), (2, update(2))]);
            outbox.settle(&[], &[(0, &rejection)]).unwrap();
            assert_eq!(taken(&outbox, 9), [(2, update(2))]);
            outbox.settle(&[7], &[]).unwrap();
            assert_eq!(held(&outbox), 1);
            let debug = format!("{outbox:?}");
            assert!(debug.contains("updates: 1"), "{debug}");
        });
    }

    #[test]
    fn many_bytes_are_taken_in_parts_unless_everything_is() {
        run_test(|| {
            let large = |id: usize, bytes: usize| {
                let text = "x".repeat(bytes);
                EncodedUpdate::from_json(&format!(
                    r#"{{"$group_key":"company","$group_id":"{id}","$set":{{"text":"{text}"}}}}"#
                ))
                .unwrap()
            };
            let mut all: Vec<_> = (0..80).map(|id| large(id, 500_000)).collect();
            // One that no limit holds up, since it is alone.
            all.push(large(80, MAX_BYTES));
            all.push(update(81));
            let outbox = MemoryOutbox::new();
            let room = Capacity::new(usize::MAX, usize::MAX);
            assert!(outbox.append(&all, room).unwrap());
            let first = taken(&outbox, 1_000);
            assert!(first.len() > 60 && first.len() < 80, "{}", first.len());
            assert_eq!(taken(&outbox, 1_000), first);
            assert_eq!(taken(&outbox, 70).len(), first.len().min(70));
            let everything = taken(&outbox, usize::MAX);
            assert_eq!(everything.len(), all.len(), "what a shutdown takes back");
            outbox.release().unwrap();
            let mut gone = Vec::new();
            let mut parts = 0;
            loop {
                let part = taken(&outbox, 1_000);
                if part.is_empty() {
                    break;
                }
                parts += 1;
                let ids: Vec<_> = part.iter().map(|(id, _)| *id).collect();
                outbox.settle(&ids, &[]).unwrap();
                gone.extend(part.into_iter().map(|(_, update)| update));
            }
            assert!(gone == all, "all of them, in order");
            assert_eq!(parts, 4, "two, the large one and the last one");
            assert_eq!(outbox.depth().unwrap(), Depth::default());
        });
    }

    #[test]
    fn what_is_released_is_taken_again_and_what_is_taken_is_not_dropped() {
        run_test(|| {
            let outbox = MemoryOutbox::default();
            let all: Vec<_> = (0..4).map(update).collect();
            assert!(outbox.append(&all, ROOM).unwrap());
            assert_eq!(taken(&outbox, 2).len(), 2);
            let small = Capacity::new(3, usize::MAX);
            assert_eq!(outbox.drop_oldest(0, 0, small).unwrap(), 1);
            assert_eq!(outbox.drop_oldest(0, 0, small).unwrap(), 0);
            outbox.release().unwrap();
            let smaller = Capacity::new(2, usize::MAX);
            assert_eq!(outbox.drop_oldest(0, 0, smaller).unwrap(), 1);
            assert_eq!(taken(&outbox, 9), [(1, update(1)), (3, update(3))]);
            assert_eq!(outbox.drop_oldest(9, 0, small).unwrap(), 0, "all are taken");
            assert!(outbox.set_timeout(Duration::ZERO) && !outbox.is_durable());
            let events = outbox.events().expect("events have a queue of their own");
            assert!(events.events().is_none());
            assert_eq!(events.depth().unwrap(), Depth::default());
        });
    }
}

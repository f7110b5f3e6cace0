use std::cell::OnceCell;
use std::collections::{HashSet, VecDeque};
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use mixpanel_groups::outbox::Capacity;
use mixpanel_groups::record::EncodedRecord;
use mixpanel_groups::{Error, ErrorKind, Group};

/// The most calls of `append` that wait for one transaction.
const MAX_WAITING: usize = 10_000;

/// The most of them that wait for groups that are blocked, so that there is room for others.
const MAX_BLOCKED: usize = MAX_WAITING / 2;

/// The most records of one transaction that are of several calls.
const MAX_RECORDS: usize = 10_000;

/// The most bytes of JSON of one transaction that are of several calls.
const MAX_BYTES: usize = 8 << 20;

/// The calls of `append` that wait, in order. Those for a group that is blocked go aside until it is tried again.
#[derive(Default)]
pub(crate) struct Queue {
    calls: VecDeque<Append>,
    aside: VecDeque<Append>,
    /// Groups for which another session's transaction has published that has not ended, and the other groups of calls
    /// that wait for these: a later call of one of them must not pass.
    blocked: HashSet<Group<'static>>,
    /// When they are tried again, if there are any.
    retry_at: Option<Instant>,
}

pub(crate) struct Append {
    pub(crate) records: Vec<EncodedRecord>,
    pub(crate) bytes: usize,
    pub(crate) capacity: Capacity,
    pub(crate) reply: oneshot::Sender<Result<bool, Arc<Error>>>,
    was_blocked: Arc<AtomicBool>,
    groups: OnceCell<Vec<Group<'static>>>,
}

/// What becomes of a queued call.
pub(crate) struct Reply {
    pub(crate) outcome: oneshot::Receiver<Result<bool, Arc<Error>>>,
    pub(crate) was_blocked: Arc<AtomicBool>,
}

impl Append {
    /// Returns the groups of its updates, each as often as it has updates.
    pub(crate) fn groups(&self) -> &[Group<'static>] {
        let groups = || self.records.iter().filter_map(group).collect();
        self.groups.get_or_init(groups)
    }
}

/// Returns the group that an update is for, with key and id alone: the lock is that of these.
pub(crate) fn group(record: &EncodedRecord) -> Option<Group<'static>> {
    let EncodedRecord::Update(update) = record else {
        return None;
    };
    let group = update.group();
    Some(Group::new(group.key().to_owned(), group.id().clone()))
}

impl Queue {
    /// Returns how many calls wait that are not aside.
    pub(crate) fn len(&self) -> usize {
        self.calls.len()
    }

    pub(crate) fn push(
        &mut self,
        records: Vec<EncodedRecord>,
        capacity: Capacity,
    ) -> Result<Reply, Error> {
        if self.calls.len() + self.aside.len() >= MAX_WAITING {
            return Err(full(MAX_WAITING, "the outbox's database"));
        }
        let (reply, outcome) = oneshot::channel();
        let was_blocked = Arc::default();
        self.calls.push_back(Append {
            bytes: records.iter().map(EncodedRecord::len).sum(),
            records,
            capacity,
            reply,
            was_blocked: Arc::clone(&was_blocked),
            groups: OnceCell::new(),
        });
        Ok(Reply {
            outcome,
            was_blocked,
        })
    }

    /// Takes the first calls that are not blocked, at least one if there is any, and others up to a size.
    pub(crate) fn take(&mut self) -> Vec<Append> {
        if self.retry_at.is_some_and(|at| at <= Instant::now()) {
            self.retry_at = None;
            self.blocked.clear();
            self.aside.append(&mut self.calls);
            mem::swap(&mut self.aside, &mut self.calls);
        }
        let mut batch = Vec::new();
        let (mut records, mut bytes) = (0, 0);
        while let Some(call) = self.calls.pop_front() {
            if call.reply.is_closed() {
                continue;
            }
            if self.blocks(&call) {
                if self.aside.len() < MAX_BLOCKED {
                    self.aside.push_back(call);
                } else {
                    let error = full(MAX_BLOCKED, "transactions that have not ended");
                    drop(call.reply.send(Err(Arc::new(error))));
                }
                continue;
            }
            records += call.records.len();
            bytes += call.bytes;
            if !batch.is_empty() && (records > MAX_RECORDS || bytes > MAX_BYTES) {
                self.calls.push_front(call);
                break;
            }
            batch.push(call);
        }
        batch
    }

    /// Puts calls back in their places, with groups that are blocked for a while.
    pub(crate) fn put_back(
        &mut self,
        calls: Vec<Append>,
        blocked: Vec<Group<'static>>,
        pause: Duration,
    ) {
        if !blocked.is_empty() {
            self.blocked.extend(blocked);
            self.retry_at.get_or_insert_with(|| Instant::now() + pause);
        }
        for call in calls.into_iter().rev() {
            self.calls.push_front(call);
        }
    }

    pub(crate) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Returns whether a call must wait, and blocks all of its groups then.
    fn blocks(&mut self, call: &Append) -> bool {
        if self.blocked.is_empty() {
            return false;
        }
        let groups = call.groups();
        let is_blocked = groups.iter().any(|group| self.blocked.contains(group));
        if is_blocked {
            self.blocked.extend(groups.iter().cloned());
            call.was_blocked.store(true, Ordering::Relaxed);
        }
        is_blocked
    }
}

fn full(calls: usize, what: &str) -> Error {
    Error::new(ErrorKind::Full, format!("{calls} calls wait for {what}"))
}

//! An outbox in memory that fails now and then, and does nothing then.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use shuttle::rand::{Rng as _, thread_rng};
use shuttle::thread;

use crate::outbox::{Capacity, Depth, MemoryOutbox, Outbox, OutboxEntry, OutboxRecord};
use crate::record::{EncodedEvent, EncodedUpdate, Error, ErrorKind, Rejection};
use crate::simulation::percent;
use crate::util::simulated::sleep;

pub(super) struct Unreliable<R = EncodedUpdate> {
    inner: Arc<dyn Outbox<R>>,
    /// How many of a hundred calls fail.
    faults: Arc<AtomicU32>,
}

impl Unreliable {
    pub(super) fn new(faults: &Arc<AtomicU32>) -> Self {
        Self {
            inner: Arc::new(MemoryOutbox::new()),
            faults: Arc::clone(faults),
        }
    }
}

impl<R> Unreliable<R> {
    fn check(&self) -> Result<(), Error> {
        thread::yield_now();
        if percent(self.faults.load(Ordering::Relaxed)) {
            return Err(Error::new(ErrorKind::Io, "the disk fails"));
        }
        Ok(())
    }
}

impl<R: OutboxRecord> Outbox<R> for Unreliable<R> {
    fn append(&self, records: &[R], capacity: Capacity) -> Result<bool, Error> {
        self.check()?;
        let appended = self.inner.append(records, capacity);
        if percent(self.faults.load(Ordering::Relaxed)) {
            sleep(Duration::from_millis(thread_rng().gen_range(0..30_000)));
        }
        appended
    }

    fn take(&self, most: usize) -> Result<Vec<OutboxEntry<R>>, Error> {
        thread::yield_now();
        self.inner.take(most)
    }

    fn settle(&self, accepted: &[i64], rejected: &[(i64, &Rejection)]) -> Result<(), Error> {
        self.check()?;
        self.inner.settle(accepted, rejected)
    }

    fn release(&self) -> Result<(), Error> {
        self.check()?;
        self.inner.release()
    }

    fn events(&self) -> Option<Arc<dyn Outbox<EncodedEvent>>> {
        let inner = self.inner.events()?;
        let faults = Arc::clone(&self.faults);
        Some(Arc::new(Unreliable { inner, faults }))
    }

    fn drop_oldest(&self, records: usize, bytes: usize, most: Capacity) -> Result<usize, Error> {
        self.check()?;
        self.inner.drop_oldest(records, bytes, most)
    }

    fn depth(&self) -> Result<Depth, Error> {
        self.check()?;
        self.inner.depth()
    }

    fn set_timeout(&self, _timeout: Duration) -> bool {
        true
    }

    fn is_durable(&self) -> bool {
        false
    }
}

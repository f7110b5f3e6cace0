//! The caller's side of a delivery.

use std::hash::{DefaultHasher, Hasher as _};
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::client::SendOptions;
use crate::client::coalesce::coalesce;
use crate::client::delivery::Delivery;
use crate::client::records::Records;
use crate::record::Record;
use crate::record::{Error, ErrorKind};
use crate::util::sync::{Instant, Scope, spawn_scoped};

/// The shortest time between two calls of [`SendOptions::on_progress`].
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// How long the caller's thread waits between checks for cancellation.
const LOOK_EVERY: Duration = Duration::from_millis(if cfg!(simulation) { 1_000 } else { 10 });

/// Reads the records and fills a batch for each lane.
pub(super) struct Lanes<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    delivery: &'env Delivery<'env>,
    sending: SendOptions<'env>,
    filling: Vec<Filling>,
    cancelled: bool,
    progressed: Instant,
    finished: bool,
}

#[derive(Default)]
struct Filling {
    batch: Records,
    /// Whether the lane's thread runs.
    started: bool,
}

impl<'scope, 'env> Lanes<'scope, 'env> {
    pub(super) fn new(
        scope: &'scope Scope<'scope, 'env>,
        delivery: &'env Delivery<'env>,
        sending: SendOptions<'env>,
    ) -> Self {
        let mut filling = Vec::new();
        filling.resize_with(delivery.lanes(), Filling::default);
        Self {
            scope,
            delivery,
            sending,
            filling,
            cancelled: false,
            progressed: Instant::now(),
            finished: false,
        }
    }

    /// Reads all records, but never more than the lanes can hold.
    pub(super) fn fill<R: Record>(&mut self, records: impl Iterator<Item = R>) {
        let route = self.delivery.route();
        let mut inbox = Records::default();
        for (position, record) in records.enumerate() {
            self.look();
            match inbox.push(position, &route.opening, &record, route.limits) {
                Err(rejection) => self.delivery.reject(*rejection),
                Ok(()) if inbox.is_empty() => {}
                Ok(()) => self.add::<R>(&mut inbox),
            }
        }
        for lane in 0..self.filling.len() {
            self.coalesce(lane);
        }
        // A lane that is full does not keep the others waiting for their last batch.
        while !self.ship_the_rest::<R>() {
            self.wait();
        }
    }

    /// Ships each lane's last batch if there is room for it. Returns whether all are shipped.
    fn ship_the_rest<R: Record>(&mut self) -> bool {
        let mut is_all = true;
        for lane in 0..self.filling.len() {
            let batch = std::mem::take(&mut self.filling[lane].batch);
            if let Err(back) = self.offer::<R>(lane, batch) {
                self.filling[lane].batch = back;
                is_all = false;
            }
        }
        is_all
    }

    /// Moves the one record of `inbox` to its lane's batch, and ships that if it is full.
    fn add<R: Record>(&mut self, inbox: &mut Records) {
        let lane = self.lane_of(inbox);
        inbox.move_last_to(&mut self.filling[lane].batch);
        if self.filling[lane].batch.fits(self.delivery.route().limits) || self.coalesce(lane) {
            return;
        }
        let mut next = self.delivery.spare();
        self.filling[lane].batch.move_last_to(&mut next);
        let full = std::mem::replace(&mut self.filling[lane].batch, next);
        self.ship::<R>(lane, full);
    }

    /// Coalesces a lane's batch, if that is set. Returns whether as much again would fit.
    fn coalesce(&mut self, lane: usize) -> bool {
        if !self.sending.coalesce {
            return false;
        }
        let route = self.delivery.route();
        let batch = &mut self.filling[lane].batch;
        self.delivery
            .note_coalesced(coalesce(batch, route.opening.len(), route.limits));
        batch.is_half_empty(route.limits)
    }

    /// Returns the lane of a record, the same for every record of a group.
    fn lane_of(&self, inbox: &Records) -> usize {
        let lanes = self.filling.len();
        if lanes == 1 {
            return 0;
        }
        let mut hasher = DefaultHasher::new();
        hasher.write(inbox.head(0, self.delivery.route().opening.len()));
        let lanes_as_hash = u64::try_from(lanes).unwrap_or(u64::MAX);
        usize::try_from(hasher.finish() % lanes_as_hash).unwrap_or_default()
    }

    fn ship<R: Record>(&mut self, lane: usize, mut batch: Records) {
        while let Err(back) = self.offer::<R>(lane, batch) {
            batch = back;
            self.wait();
        }
    }

    /// Hands a batch to a lane, whose thread is started by the first one; gives it back if there is
    /// no room.
    fn offer<R: Record>(&mut self, lane: usize, batch: Records) -> Result<(), Records> {
        if batch.is_empty() {
            return Ok(());
        }
        if !std::mem::replace(&mut self.filling[lane].started, true) {
            let delivery = self.delivery;
            let name = format!("mixpanel-groups lane {lane}");
            let spawned = spawn_scoped(self.scope, name, move || delivery.run_lane::<R>(lane));
            if let Err(error) = spawned {
                self.delivery.stop(
                    Error::new(ErrorKind::Io, "cannot start a sending thread").with_source(error),
                );
            }
        }
        self.delivery.offer(lane, batch)
    }

    /// Waits for the lanes to finish.
    pub(super) fn finish(mut self) {
        self.delivery.close();
        while !self.delivery.is_done() {
            self.wait();
        }
        self.finished = true;
        if let Some(callback) = &mut self.sending.progress {
            callback(&self.delivery.progress());
        }
    }

    fn wait(&mut self) {
        self.delivery.wait(LOOK_EVERY);
        self.look();
    }

    /// Checks for cancellation and reports progress.
    fn look(&mut self) {
        if !self.cancelled
            && self
                .sending
                .cancel
                .is_some_and(|flag| flag.load(Ordering::Relaxed))
        {
            self.cancelled = true;
            self.delivery
                .abort(Error::new(ErrorKind::Cancelled, "cancelled by the caller"));
        }
        if let Some(callback) = &mut self.sending.progress {
            if self.progressed.elapsed() >= PROGRESS_EVERY {
                callback(&self.delivery.progress());
                self.progressed = Instant::now();
            }
        }
    }
}

/// Ends the lanes' threads, also when the caller's iterator or callback panics.
impl Drop for Lanes<'_, '_> {
    fn drop(&mut self) {
        if !self.finished {
            self.delivery
                .abort(Error::new(ErrorKind::Cancelled, "the caller panicked"));
        }
        self.delivery.close();
    }
}

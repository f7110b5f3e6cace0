//! An outbox that does wrong on request.

use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::Duration;

use crate::LONG;
use mixpanel_groups::outbox::{Capacity, Depth, OutboxEntry};
use mixpanel_groups::record::EncodedEvent;
use mixpanel_groups::{EncodedUpdate, Error, ErrorKind, MemoryOutbox, Outbox, Rejection};

/// The methods that the client calls while it runs.
pub const METHODS: [&str; 7] = [
    "append",
    "take",
    "settle",
    "hold",
    "release",
    "drop_oldest",
    "depth",
];

type Hook = Arc<dyn Fn() + Send + Sync>;
type Taken<R> = Result<Vec<OutboxEntry<R>>, Error>;
type Take<R> = dyn Fn(&dyn Outbox<R>, usize) -> Taken<R> + Send + Sync;

/// An outbox, by default in memory. Its clones, and the queue of its events, do wrong together.
pub struct Faulty<R = EncodedUpdate> {
    inner: Arc<dyn Outbox<R>>,
    pub faults: Arc<Faults>,
    take: Arc<Take<R>>,
    pub is_durable: bool,
    pub keeps_events: bool,
    /// It says that what is settled is removed, and keeps it.
    pub keeps_settled: bool,
    pub on_append: Arc<OnceLock<Hook>>,
}

impl<R> Faulty<R> {
    fn with(inner: Arc<dyn Outbox<R>>, faults: Arc<Faults>) -> Self {
        Self {
            inner,
            faults,
            take: Arc::new(|inner, most| inner.take(most)),
            is_durable: false,
            keeps_events: false,
            keeps_settled: false,
            on_append: Arc::default(),
        }
    }
}

impl Faulty {
    pub fn in_memory() -> Self {
        Self::with(Arc::new(MemoryOutbox::new()), Arc::default())
    }

    /// An outbox that outlives the process, with its events.
    pub fn over(inner: Arc<dyn Outbox>) -> Self {
        let mut outbox = Self::with(inner, Arc::default());
        outbox.is_durable = true;
        outbox.keeps_events = true;
        outbox
    }

    pub fn durable() -> Self {
        let mut outbox = Self::in_memory();
        outbox.is_durable = true;
        outbox
    }

    /// It takes in this way.
    pub fn taking(
        mut self,
        take: impl Fn(&dyn Outbox, usize) -> Taken<EncodedUpdate> + Send + Sync + 'static,
    ) -> Self {
        self.take = Arc::new(take);
        self
    }
}

impl<R> Clone for Faulty<R> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            faults: Arc::clone(&self.faults),
            take: Arc::clone(&self.take),
            on_append: Arc::clone(&self.on_append),
            is_durable: self.is_durable,
            keeps_events: self.keeps_events,
            keeps_settled: self.keeps_settled,
        }
    }
}

/// What goes wrong, by the names of methods, and what has been called.
#[derive(Default)]
pub struct Faults {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    hanging: Vec<&'static str>,
    failing: Vec<&'static str>,
    panicking: Vec<&'static str>,
    calls: Vec<&'static str>,
    /// Calls that hang right now.
    hung: usize,
}

impl Faults {
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
        self.changed.notify_all();
    }

    /// Calls of these methods do not return, and those of others that hung go on.
    pub fn hang(&self, methods: &[&'static str]) {
        self.change(|state| state.hanging = methods.to_vec());
    }

    /// Calls of these methods are errors.
    pub fn fail(&self, methods: &[&'static str]) {
        self.change(|state| state.failing = methods.to_vec());
    }

    /// Calls of these methods panic.
    pub fn panic(&self, methods: &[&'static str]) {
        self.change(|state| state.panicking = methods.to_vec());
    }

    /// How often a method was called.
    pub fn calls(&self, method: &str) -> usize {
        let state = self.state.lock().unwrap();
        state.calls.iter().filter(|call| **call == method).count()
    }

    /// The method that was called first.
    pub fn first(&self) -> Option<&'static str> {
        self.state.lock().unwrap().calls.first().copied()
    }

    /// How many calls hang right now.
    pub fn hung(&self) -> usize {
        self.state.lock().unwrap().hung
    }

    /// Waits until a method was called so often.
    #[track_caller]
    pub fn wait_for(&self, method: &str, calls: usize) {
        let state = self.state.lock().unwrap();
        let is_missing = |state: &mut State| {
            let of_method = state.calls.iter().filter(|call| **call == method);
            of_method.count() < calls
        };
        let waited = self.changed.wait_timeout_while(state, LONG, is_missing);
        assert!(!waited.unwrap().1.timed_out(), "{method} is not called");
    }

    fn check(&self, method: &'static str) -> Result<(), Error> {
        let mut state = self.state.lock().unwrap();
        state.calls.push(method);
        state.hung += 1;
        self.changed.notify_all();
        let is_hanging = |state: &mut State| state.hanging.contains(&method);
        let mut state = self.changed.wait_while(state, is_hanging).unwrap();
        state.hung -= 1;
        let panics = state.panicking.contains(&method);
        let fails = state.failing.contains(&method);
        drop(state);
        if panics {
            std::panic::panic_any(Payload);
        }
        match fails {
            true => Err(Error::new(ErrorKind::Io, format!("{method} fails"))),
            false => Ok(()),
        }
    }
}

/// What is thrown panics too when it is dropped.
struct Payload;

impl Drop for Payload {
    fn drop(&mut self) {
        panic!("dropping what was thrown");
    }
}

impl<R> Outbox<R> for Faulty<R> {
    fn append(&self, updates: &[R], capacity: Capacity) -> Result<bool, Error> {
        self.faults.check("append")?;
        self.inner.append(updates, capacity)
    }

    fn take(&self, most: usize) -> Taken<R> {
        self.faults.check("take")?;
        (self.take)(&*self.inner, most)
    }

    fn settle(&self, accepted: &[i64], rejected: &[(i64, &Rejection)]) -> Result<(), Error> {
        self.faults.check("settle")?;
        if self.keeps_settled {
            return Ok(());
        }
        self.inner.settle(accepted, rejected)
    }

    fn hold(&self, time: Duration) -> Result<bool, Error> {
        self.faults.check("hold")?;
        self.inner.hold(time)
    }

    fn release(&self) -> Result<(), Error> {
        self.faults.check("release")?;
        self.inner.release()
    }

    fn drop_oldest(&self, updates: usize, bytes: usize, most: Capacity) -> Result<usize, Error> {
        self.faults.check("drop_oldest")?;
        self.inner.drop_oldest(updates, bytes, most)
    }

    fn depth(&self) -> Result<Depth, Error> {
        self.faults.check("depth")?;
        self.inner.depth()
    }

    fn set_timeout(&self, _: Duration) -> bool {
        drop(self.faults.check("set_timeout"));
        false
    }

    fn events(&self) -> Option<Arc<dyn Outbox<EncodedEvent>>> {
        drop(self.faults.check("events"));
        let events = self.keeps_events.then(|| self.inner.events())??;
        Some(Arc::new(Faulty::with(events, Arc::clone(&self.faults))))
    }

    fn is_durable(&self) -> bool {
        drop(self.faults.check("is_durable"));
        self.is_durable
    }

    fn on_append(&self, wake: Hook) {
        drop(self.faults.check("on_append"));
        let _ = self.on_append.set(wake);
    }
}

impl<R> Drop for Faulty<R> {
    fn drop(&mut self) {
        drop(self.faults.check("drop"));
    }
}

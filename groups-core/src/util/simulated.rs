//! The clock of the simulation. It stands still while threads run, and moves to the next moment that one of them
//! waits for, whenever [`run_clock`] is scheduled: so a thread may be as slow as the seed wants it.

use std::cell::RefCell;
use std::ops::{Add, Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LockResult, PoisonError};
use std::time::Duration;

use shuttle::rand::{Rng as _, thread_rng};
use shuttle::thread::{self, Thread};

/// How many turns of other threads the clock may let pass before it moves.
const MAX_PATIENCE: u32 = 16;

/// The time since the simulation began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(Duration);

#[derive(Default)]
struct Clock {
    now: Duration,
    /// The moments that threads wait for.
    timers: Vec<(Duration, Arc<Waiter>)>,
}

thread_local! {
    // Every thread of one simulation runs on the same thread of the system.
    static CLOCK: RefCell<Clock> = RefCell::default();
}

impl Instant {
    pub(crate) fn now() -> Self {
        CLOCK.with_borrow(|clock| Self(clock.now))
    }

    pub(crate) fn elapsed(self) -> Duration {
        Self::now().saturating_duration_since(self)
    }

    pub(crate) fn saturating_duration_since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time))
    }
}

#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

pub(crate) struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    guard: shuttle::sync::MutexGuard<'a, T>,
}

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(shuttle::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        let mutex = self;
        match self.0.lock() {
            Ok(guard) => Ok(MutexGuard { mutex, guard }),
            Err(poisoned) => {
                let guard = poisoned.into_inner();
                Err(PoisonError::new(MutexGuard { mutex, guard }))
            }
        }
    }

    pub(crate) fn into_inner(self) -> LockResult<T> {
        self.0.into_inner()
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

/// A condition variable whose time is that of the simulation. (`shuttle`'s never times out, and fails where a scoped
/// thread ends while the thread of its scope waits.)
#[derive(Default)]
pub(crate) struct Condvar(std::sync::Mutex<Vec<Arc<Waiter>>>);

struct Waiter {
    thread: Thread,
    is_woken: AtomicBool,
}

impl Waiter {
    fn wake(&self) {
        self.is_woken.store(true, Ordering::Relaxed);
        self.thread.unpark();
    }
}

impl Condvar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    fn waiters(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Waiter>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn notify_one(&self) {
        thread::yield_now();
        let one = {
            let mut waiters = self.waiters();
            let waiting = waiters.len();
            (waiting > 0).then(|| waiters.swap_remove(thread_rng().gen_range(0..waiting)))
        };
        if let Some(waiter) = one {
            waiter.wake();
        }
    }

    pub(crate) fn notify_all(&self) {
        thread::yield_now();
        let all = std::mem::take(&mut *self.waiters());
        all.iter().for_each(|waiter| waiter.wake());
    }

    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        self.wait_until(guard, None)
    }

    fn wait_until<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        time: Option<Duration>,
    ) -> LockResult<MutexGuard<'a, T>> {
        let waiter = Arc::new(Waiter {
            thread: thread::current(),
            is_woken: AtomicBool::new(false),
        });
        self.waiters().push(Arc::clone(&waiter));
        if let Some(time) = time {
            CLOCK.with_borrow_mut(|clock| {
                let at = clock.now.saturating_add(time);
                clock.timers.push((at, Arc::clone(&waiter)));
            });
        }
        let mutex = guard.mutex;
        drop(guard);
        while !waiter.is_woken.load(Ordering::Relaxed) {
            thread::park();
        }
        self.waiters().retain(|other| !Arc::ptr_eq(other, &waiter));
        CLOCK.with_borrow_mut(|clock| {
            clock
                .timers
                .retain(|(_, other)| !Arc::ptr_eq(other, &waiter));
        });
        mutex.lock()
    }

    pub(crate) fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        time: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, ())> {
        let waited = self.wait_until(guard, Some(time));
        Ok((waited.unwrap_or_else(PoisonError::into_inner), ()))
    }

    pub(crate) fn wait_timeout_while<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        time: Duration,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> LockResult<(MutexGuard<'a, T>, ())> {
        let until = Instant::now() + time;
        while condition(&mut guard) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.wait_timeout(guard, left);
            guard = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok((guard, ()))
    }
}

/// Sets the clock to zero.
pub(crate) fn reset_clock() {
    CLOCK.take();
}

/// Moves the clock to every moment that a thread waits for, until `is_over`: the body of a thread.
pub(crate) fn run_clock(is_over: impl Fn() -> bool) {
    while !is_over() {
        for _ in 0..thread_rng().gen_range(0..MAX_PATIENCE) {
            thread::yield_now();
        }
        let due: Vec<_> = CLOCK.with_borrow_mut(|clock| {
            let next = clock.timers.iter().map(|(at, _)| *at).min();
            clock.now = clock.now.max(next.unwrap_or_default());
            let due = clock.timers.iter().filter(|(at, _)| *at <= clock.now);
            due.map(|(_, waiter)| Arc::clone(waiter)).collect()
        });
        due.iter().for_each(|waiter| waiter.wake());
        thread::yield_now();
    }
}

/// Waits for that time of the simulation.
pub(crate) fn sleep(time: Duration) {
    let lock = Mutex::new(());
    let guard = lock.lock().unwrap_or_else(PoisonError::into_inner);
    drop(Condvar::new().wait_timeout_while(guard, time, |()| true));
}

/// Returns either at random, so that both are simulated.
pub(crate) fn has_one_core() -> bool {
    thread_rng().gen_range(0..2) == 0
}

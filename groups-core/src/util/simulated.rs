//! The clock of the simulation. It stands still while threads run, and moves to the next moment that one of them
//! waits for, whenever [`run_clock`] is scheduled: so a thread may be as slow as the seed wants it.

use std::cell::RefCell;
use std::ops::{Add, Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LockResult, PoisonError};
use std::time::Duration;

use shuttle::rand::{Rng as _, thread_rng};
use shuttle::scheduler::RandomScheduler;
use shuttle::thread::{self, Thread};
use shuttle::{Config, Runner};

/// How many times each scenario runs, unless the variable `RUNS` says otherwise.
const RUNS: u64 = 25_000;

/// How many turns of other threads the clock may let pass before it moves.
const MAX_PATIENCE: u32 = 16;

/// The time since the simulation began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(Duration);

/// The time of day, which somebody may set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SystemTime(Duration);

/// The time of day at which a simulation begins.
const MORNING: Duration = Duration::from_secs(1 << 30);

struct Clock {
    now: Duration,
    /// The time of day at which the simulation began, by the clock as it is set now.
    began: Duration,
    /// The moments that threads wait for.
    timers: Vec<(Duration, Arc<Waiter>)>,
    /// The scenario is over: a wait of a thread that still runs ends at once.
    is_over: bool,
}

thread_local! {
    // Every thread of one simulation runs on the same thread of the system.
    static CLOCK: RefCell<Clock> = RefCell::default();
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            now: Duration::ZERO,
            began: MORNING,
            timers: Vec::new(),
            is_over: false,
        }
    }
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

impl SystemTime {
    pub(crate) fn now() -> Self {
        CLOCK.with_borrow(|clock| Self(clock.began.saturating_add(clock.now)))
    }

    /// Returns the time since then, unless the clock was set to an earlier time.
    pub(crate) fn elapsed(self) -> Result<Duration, ()> {
        Self::now().0.checked_sub(self.0).ok_or(())
    }
}

impl Add<Duration> for SystemTime {
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
                // A wait without an end does not move the clock.
                let at = clock.now.saturating_add(time);
                if clock.is_over && at < Duration::MAX {
                    clock.now = at;
                    waiter.is_woken.store(true, Ordering::Relaxed);
                } else if at < Duration::MAX {
                    clock.timers.push((at, Arc::clone(&waiter)));
                }
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

fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name}: {value:?} is not a number")),
    )
}

/// Runs a scenario once for each seed, with a clock that moves while it runs.
pub(crate) fn simulate(scenario: fn()) {
    run(1, scenario);
}

/// Runs what must hold in every interleaving, of which there are few: a fiftieth as often as a scenario.
pub(crate) fn simulate_rule(rule: fn()) {
    run(50, rule);
}

fn run(part: u64, scenario: fn()) {
    let first = variable("SEED").unwrap_or(1);
    let runs = variable("RUNS").unwrap_or(RUNS).div_ceil(part);
    let mut config = Config::new();
    config.stack_size = 256 << 10;
    config.failure_persistence = shuttle::FailurePersistence::None;
    config.max_steps = shuttle::MaxSteps::FailAfter(200_000);
    let runs = usize::try_from(runs).expect("so many can be counted");
    Runner::new(RandomScheduler::new_from_seed(first, runs), config).run(move || {
        CLOCK.take();
        let clock = thread::spawn(run_clock);
        scenario();
        CLOCK.with_borrow_mut(|clock| clock.is_over = true);
        clock.join().expect("the clock does not panic");
    });
}

/// Sets the time of day forward by that much, and then back by that much.
pub(crate) fn set_clock(forward: Duration, back: Duration) {
    CLOCK.with_borrow_mut(|clock| {
        clock.began = clock.began.saturating_add(forward).saturating_sub(back);
    });
}

/// Moves the clock to every moment that a thread waits for, until the scenario is over and none waits: the body of a
/// thread.
fn run_clock() {
    while CLOCK.with_borrow(|clock| !clock.is_over || !clock.timers.is_empty()) {
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

/// Returns whether the system has no thread left, which it now and then has not.
pub(crate) fn refuses_a_thread() -> bool {
    thread_rng().gen_range(0..8) == 0
}

//! Locks, threads and the clock: those of the standard library, and in the simulation (`--cfg simulation`) those that
//! a test owns, so that it chooses every interleaving and every moment from a seed.

#[cfg(not(simulation))]
pub(crate) use std::{
    sync::{Condvar, Mutex, MutexGuard, atomic::AtomicUsize},
    thread,
    thread::Scope,
    time::{Instant, SystemTime},
};

#[cfg(simulation)]
pub(crate) use crate::util::simulated::{Condvar, Instant, Mutex, MutexGuard, SystemTime};
#[cfg(simulation)]
pub(crate) use shuttle::{sync::atomic::AtomicUsize, thread, thread::Scope};

use std::io;
use std::time::Duration;

/// The longest time that is added to an [`Instant`], whatever the settings say: with some longer ones the sum overflows, which
/// panics.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(365 * 24 * 3600);

/// Starts a thread that ends before its scope does.
pub(crate) fn spawn_scoped<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    name: String,
    body: impl FnOnce() + Send + 'scope,
) -> io::Result<()> {
    #[cfg(not(simulation))]
    thread::Builder::new()
        .name(name)
        .spawn_scoped(scope, body)?;
    #[cfg(simulation)]
    if crate::util::simulated::refuses_a_thread() {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    #[cfg(simulation)]
    drop((name, scope.spawn(body)));
    Ok(())
}

/// Returns whether this process may use one core only, by the system's count or a container's limit.
pub(crate) fn has_one_core() -> bool {
    #[cfg(not(simulation))]
    return thread::available_parallelism().is_ok_and(|cores| cores.get() == 1);
    #[cfg(simulation)]
    crate::util::simulated::has_one_core()
}

/// Runs a test of code that uses these, in the simulation as one run of it.
#[cfg(test)]
pub(crate) fn run_test(test: fn()) {
    #[cfg(not(simulation))]
    test();
    #[cfg(simulation)]
    shuttle::check_random(test, 1);
}

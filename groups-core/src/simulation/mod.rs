//! A simulation of the whole delivery, from a seed: clients, a background client, crashes and restarts over a network,
//! a server, an outbox and a clock that belong to the test. Nothing sleeps and nothing opens a socket. `shuttle` chooses
//! which thread runs next at every lock, and the same seed chooses the faults; so a run that fails fails again:
//! `SHUTTLE_RANDOM_SEED=<its seed> just simulate 1`.
//!
//! Its one assertion is the promise: every update ends as accepted, rejected with a reason, or handed back. Accepted ones
//! were applied, rejected ones were refused, and a group's profile is what its updates make of it in their order. Where
//! the server may apply a request after its client gave up (`late`), no client can promise the last part.

mod background;
mod events;
mod restart;
mod send;
mod server;
mod snapshot;
mod store;
mod updates;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use shuttle::rand::{Rng as _, thread_rng};
use shuttle::scheduler::RandomScheduler;
use shuttle::{Config, Runner, thread};

use crate::util::simulated::{reset_clock, run_clock};

/// How many times each scenario runs, unless the variable `RUNS` says otherwise.
const RUNS: u64 = 25_000;

fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name}: {value:?} is not a number")),
    )
}

/// Runs a scenario once for each seed, with a clock that moves while it runs.
fn simulate(scenario: fn()) {
    let first = variable("SEED").unwrap_or(1);
    let runs = variable("RUNS").unwrap_or(RUNS);
    let mut config = Config::new();
    config.stack_size = 256 << 10;
    config.failure_persistence = shuttle::FailurePersistence::None;
    config.max_steps = shuttle::MaxSteps::FailAfter(200_000);
    let runs = usize::try_from(runs).expect("so many can be counted");
    Runner::new(RandomScheduler::new_from_seed(first, runs), config).run(move || {
        reset_clock();
        let is_over = Arc::new(AtomicBool::new(false));
        let clock = thread::spawn({
            let is_over = Arc::clone(&is_over);
            move || run_clock(|| is_over.load(Ordering::Relaxed))
        });
        scenario();
        is_over.store(true, Ordering::Relaxed);
        clock.join().expect("the clock does not panic");
    });
}

/// Returns true in so many of a hundred cases.
fn percent(chance: u32) -> bool {
    thread_rng().gen_range(0..100) < chance
}

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
mod rules;
mod send;
mod server;
mod snapshot;
mod store;
mod unreliable;
mod updates;

use shuttle::rand::{Rng as _, thread_rng};

use crate::util::simulated::simulate;

/// Returns true in so many of a hundred cases.
fn percent(chance: u32) -> bool {
    thread_rng().gen_range(0..100) < chance
}

//! Outboxes: `suite` is what each of them promises, the other modules what only one of them has.

mod postgres;
#[cfg(unix)]
mod soak;
#[cfg(unix)]
mod sqlite;
mod suite;
mod warnings;

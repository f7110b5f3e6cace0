//! `PostgresOutbox` against a real server.

mod backlog;
mod contention;
mod counts;
mod crash;
mod deadlines;
mod encodings;
mod events;
mod examples;
#[cfg(unix)]
mod forks;
mod hosts;
mod housekeeping;
mod lost_replies;
mod order;
mod pooler;
mod relays;
mod runtimes;
mod sql;
mod standby;
mod tables;

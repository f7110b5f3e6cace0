//! `PostgresOutbox` against a real server.

mod counts;
mod crash;
mod deadlines;
mod events;
mod examples;
mod order;
mod pooler;
mod relays;
mod runtimes;
mod sql;
mod standby;
mod tables;

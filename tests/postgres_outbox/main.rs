//! `PostgresOutbox` against a real server.

mod counts;
mod crash;
mod deadlines;
mod events;
mod examples;
mod harness;
mod order;
mod pooler;
mod relays;
mod runtimes;
mod server;
mod sql;
mod standby;
mod tables;

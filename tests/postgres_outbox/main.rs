//! `PostgresOutbox` against a real server.

mod crash;
mod deadlines;
mod harness;
mod order;
mod relays;
mod runtimes;
mod server;
mod sql;
mod tables;

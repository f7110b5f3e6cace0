//! `PostgresOutbox` against a real server.

mod crash;
mod harness;
mod order;
mod relays;
mod server;
mod sql;
mod tables;

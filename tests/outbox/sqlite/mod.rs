//! `SqliteOutbox`, and what only it has.

mod crash;
mod file;

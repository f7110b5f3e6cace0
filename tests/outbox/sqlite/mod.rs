//! `SqliteOutbox`, and what only it has.

mod crash;
mod damage;
mod file;

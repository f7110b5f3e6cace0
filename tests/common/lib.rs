//! What several tests and benchmarks need.

pub mod postgres;
mod says;

pub use says::{all, says};

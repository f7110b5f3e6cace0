//! Tools that know no room: random numbers, a buffer for each thread, a hash that stays the same from
//! version to version, and files that are replaced whole. No threads, no state but the thread's own buffer.

pub(crate) mod atomic_file;
pub(crate) mod fnv;
pub(crate) mod random;
pub(crate) mod scratch;

//! The records of a request: which of them are valid, and what they mean.
//!
//! [`batch`] takes a body apart and reads each record with [`update::read`] or [`event::read`]; these
//! check it by [`rules`]. Nothing in here holds state or touches a socket.

pub(crate) mod batch;
pub(crate) mod event;
pub(crate) mod rules;
pub(crate) mod update;

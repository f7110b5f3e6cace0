//! Sending in the background.

mod events;
mod guarded_outbox;
mod updates;

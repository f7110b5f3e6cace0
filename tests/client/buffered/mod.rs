//! Sending in the background.

mod events;
mod faulty;
mod guarded_outbox;
mod updates;

//! Events, which link users to groups: what `/import` takes.

mod event;
pub(crate) mod rules;
mod time;

pub use self::event::Event;
pub(super) use self::event::shown;
pub use self::time::Time;

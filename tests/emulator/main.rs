//! The emulator over real sockets, with clients that are not ours.
#![allow(clippy::needless_pass_by_value)] // `json!(…)` reads best as an argument.

mod bodies;
mod browser;
mod control;
mod faults;
mod http;
mod import;
mod keep;
mod life;
mod limits;
mod load;
mod model;
mod origins;
mod page;
mod recorded;
mod records;
mod reference_page;
mod responses;
mod sdks;
mod seen;
mod wire;

//! The emulator over real sockets, with clients that are not ours.
#![allow(clippy::needless_pass_by_value)] // `json!(…)` reads best as an argument.

mod answers;
mod bodies;
mod browser;
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
mod sdks;
mod seen;
mod wire;

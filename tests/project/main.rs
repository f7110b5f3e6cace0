//! The project itself: what holds for its files.

mod layers;
mod readme;

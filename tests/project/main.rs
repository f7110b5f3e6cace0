//! The project itself: what holds for its files.

#[cfg(unix)]
mod examples;
mod layers;
mod readme;
mod snippets;

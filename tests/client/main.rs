//! The client over real sockets: what it sends, and what comes of it. `buffered` is the one that sends in the background.

mod accounting;
mod buffered;
mod careless;
mod coalesce;
mod delivery;
mod events;
mod events_faults;
mod faults;
mod interface;
mod network;
mod profile;
mod send;
mod wire;

#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

// Threads: one listener thread accepts connections, and each connection has a thread of its own, all
// named `mixpanel-emulator`. There is no other thread: a delayed reply sleeps in its connection's
// thread.
//
// Ownership: `Emulator` owns the `HttpServer` (the listener and the list of open connections) and
// shares one `Service` with the connection threads. All state is in the service's `Memory`, behind
// one mutex. The mutex is held while records are applied, never while a view is rendered, groups are
// searched, or a socket is read or written. Dropping the `Emulator` closes the sockets, and with that
// ends every thread; then it writes the file to keep, so everything that was replied to is in it.
//
// A request passes the modules in this order: `http` (bytes to request and body), `origin` (may a page
// of this site send it?), `service` (path, fault), `auth`, `records` (body to valid records), `memory` (records to profiles and events),
// `reply` (outcome to body and status), `http`. Requests of the page go from `origin` to `view`, and those of tests in other languages
// from there to `control`.

mod auth;
mod control;
mod cutter;
mod emulator;
mod fault;
mod http;
mod memory;
mod origin;
mod received;
mod records;
mod reply;
mod service;
mod updates;
mod view;

pub use self::emulator::{Emulator, EmulatorBuilder};
pub use self::fault::Fault;
pub use self::received::{DroppedRecord, ReceivedRequest};
pub use self::updates::{AppliedUpdate, EmulatorSnapshot, GroupUpdates, PropertyChange};

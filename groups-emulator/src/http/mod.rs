//! HTTP/1.1 over loopback sockets, and the encodings of a request's body.
//!
//! [`HttpServer`] owns the listener thread and starts one thread for each connection; that thread
//! drives an [`HttpConnection`]. Nothing in here knows what a request is about, except that a form
//! carries its JSON in the field `data`.

pub(crate) mod body;
mod connection;
mod server;

pub(crate) use self::connection::{HttpConnection, Incoming, UnreadBody};
pub(crate) use self::server::{HttpServer, Lifecycle};

#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod answer;
mod auth;
mod batch;
mod body;
mod connection;
mod emulator;
mod event;
mod events;
mod fault;
mod flags;
mod memory;
mod memory_file;
mod profiles;
mod received;
mod rules;
mod server;
mod service;
mod settings;
mod update;
mod view;

pub use self::emulator::{Emulator, EmulatorBuilder};
pub use self::fault::Fault;
pub use self::received::ReceivedRequest;

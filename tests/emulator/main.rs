//! The emulator over real sockets, with clients that are not ours.

mod wire;

mod answers;

//! A Mixpanel of your own, with a page that shows what arrives: for developing without a project
//! that has Group Analytics, and without a network.
//!
//! ```sh
//! cargo run --example local_mixpanel                # on http://127.0.0.1:8080
//! cargo run --example local_mixpanel -- --port 9000 --keep state.json
//! MIXPANEL_TOKEN=any MIXPANEL_ENDPOINT=http://127.0.0.1:8080 cargo run --example quickstart
//! ```
//!
//! You see the address it listens on, and in a browser there a page with the groups, their profiles
//! and history, and the events linked to them, which changes as updates arrive: for instance those of
//! the last command, from another terminal. Ctrl-C stops it. With `--keep` it starts with what it had
//! when it was stopped.
//!
//! This is the program `mixpanel-emulator`, which `cargo install mixpanel-groups-emulator` installs.

#[path = "../groups-emulator/src/main.rs"]
mod program;

fn main() -> std::process::ExitCode {
    program::main()
}

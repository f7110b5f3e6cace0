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

use std::error::Error;
use std::thread;
use std::time::Duration;

use mixpanel_groups_emulator::Emulator;

fn main() -> Result<(), Box<dyn Error>> {
    let mut emulator = Emulator::builder().port(8080);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let value = arguments.next();
        emulator = match (argument.as_str(), value) {
            ("--port", Some(port)) => emulator.port(port.parse()?),
            ("--keep", Some(file)) => emulator.keep(file),
            _ => return Err("the options are --port PORT and --keep FILE".into()),
        };
    }
    let emulator = emulator.start()?;
    println!("A local Mixpanel listens on {}", emulator.endpoint());
    loop {
        // Ctrl-C ends the program at once, so that no more than this is lost.
        thread::sleep(Duration::from_secs(1));
        emulator.save()?;
    }
}

//! A relay: a process that only sends what others published to the outbox in PostgreSQL, until it is stopped.
//!
//! ```sh
//! cargo run --example local_mixpanel # or set MIXPANEL_TOKEN alone, for the real one
//! export DATABASE_URL=postgres://user@localhost/scratch # in another terminal
//! MIXPANEL_TOKEN=any MIXPANEL_ENDPOINT=http://127.0.0.1:8080 cargo run --example relay
//! psql "$DATABASE_URL" -c "SELECT mixpanel_outbox_publish(
//!     '{\"\$group_key\":\"company\",\"\$group_id\":\"acme\",\"\$set\":{\"plan\":\"pro\"}}')" # in a third one
//! ```
//!
//! It creates the tables of the outbox in the schema `public`. Every five seconds you see how many updates and events
//! wait and were accepted. SIGTERM and Ctrl-C end it: it sends what waits, for at most ten seconds, and prints what is
//! left, which the next start sends. Any number of relays may run: one sends, and the others stand by.

use std::error::Error;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use mixpanel_groups::Client;
use mixpanel_groups::buffered::Stats;
use mixpanel_groups_postgres::PostgresOutbox;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::var("DATABASE_URL").map_err(|_| "set DATABASE_URL to a database")?;
    // Before anything is sent, so that no signal ends the process on the spot.
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let (stop, stopped) = mpsc::channel();
    thread::spawn(move || signals.forever().try_for_each(|signal| stop.send(signal)));

    // For TLS, see the README of mixpanel-groups-postgres.
    let outbox = PostgresOutbox::new(url.parse()?, postgres::NoTls)?;
    outbox.migrate()?;
    let relay = Client::from_env()?
        .buffered()
        .outbox(outbox)
        .on_error(|event| eprintln!("relay: {event}"))
        .start()?;
    loop {
        println!("updates: {}", counts(&relay.stats()));
        println!("events: {}", counts(&relay.event_stats()));
        if stopped.recv_timeout(Duration::from_secs(5)) != Err(RecvTimeoutError::Timeout) {
            break;
        }
    }
    println!("{}", relay.shutdown(Duration::from_secs(10)));
    Ok(())
}

fn counts(stats: &Stats) -> String {
    let waiting = stats
        .queued
        .map_or("unknown".to_owned(), |queued| queued.to_string());
    let (accepted, rejected) = (stats.accepted, stats.rejected);
    format!("waiting {waiting}, accepted {accepted}, rejected {rejected}")
}

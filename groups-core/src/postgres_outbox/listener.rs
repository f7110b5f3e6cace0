use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use postgres::fallible_iterator::FallibleIterator as _;

use super::connection::{Connection, failed};
use super::{Hook, Shared};
use crate::Error;

/// How often it looks whether the relay has kept its locks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Starts the thread that wakes the relay when something was published, and stops it when it has
/// lost what it took. It ends with the outbox.
pub(super) fn start(shared: Arc<Shared>) {
    let spawned = thread::Builder::new()
        .name("mixpanel-groups outbox".to_owned())
        .spawn(move || {
            let mut connection = Connection::default();
            let mut looked = Instant::now();
            while !shared.is_over.load(Ordering::Relaxed) {
                if let Err(error) = listen(&shared, &mut connection) {
                    log::warn!("no news of the outbox, it is looked at from time to time: {error}");
                    thread::sleep(LOOK_EVERY);
                }
                if looked.elapsed() >= LOOK_EVERY {
                    watch(&shared);
                    looked = Instant::now();
                }
            }
        });
    if let Err(error) = spawned {
        log::error!("no thread to listen from, the outbox is looked at from time to time: {error}");
    }
}

/// Waits for news, not for long.
fn listen(shared: &Shared, connection: &mut Connection) -> Result<(), Error> {
    let was_open = connection.is_open();
    let client = connection.get(&shared.connect, &shared.listen)?;
    if !was_open {
        // What was published before it listened, nobody told it.
        call(shared.hooks().wake.clone());
        return Ok(());
    }
    let mut notifications = client.notifications();
    let news = notifications.timeout_iter(LOOK_EVERY).next();
    let news = news.map_err(|error| failed("listen to the outbox", error))?;
    if news.is_none() {
        drop(notifications);
        connection.is_alive();
        return Ok(());
    }
    // What has come meanwhile is the same news.
    while let Ok(Some(_)) = notifications.iter().next() {}
    call(shared.hooks().wake.clone());
    Ok(())
}

/// Looks whether the relay has kept what it took, unless it is talking to the server itself.
fn watch(shared: &Shared) {
    let Ok(mut relay) = shared.relay.try_lock() else {
        return;
    };
    let has_kept = relay.has_kept();
    drop(relay);
    if !has_kept {
        log::warn!("the connection to the outbox broke: what is under way is broken off");
        call(shared.hooks().stop.clone());
    }
}

fn call(hook: Option<Hook>) {
    if let Some(hook) = hook {
        hook();
    }
}

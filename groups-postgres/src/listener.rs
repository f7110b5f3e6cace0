use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use postgres::fallible_iterator::FallibleIterator as _;

use crate::connection::{Connect, ReconnectingClient, failed};
use crate::relay::Relay;
use crate::sql::TableNames;
use mixpanel_groups::Error;

/// How often the thread checks the relay's lease, and the longest time that it blocks.
const CHECK_EVERY: Duration = Duration::from_millis(500);

/// A thread that wakes the sender when updates arrive and stops it when the relay loses its lease. The
/// thread ends when the relay is dropped.
pub(crate) struct Listener {
    connect: Arc<Connect>,
    /// The SQL that subscribes to notifications.
    listen: String,
    relay: Weak<Mutex<Relay>>,
    hooks: Mutex<SenderHooks>,
}

/// The functions to call, which the sender registers.
#[derive(Default)]
pub(crate) struct SenderHooks {
    pub(crate) wake: Option<Hook>,
    pub(crate) stop: Option<Hook>,
    is_running: bool,
}

type Hook = Arc<dyn Fn() + Send + Sync>;

impl Listener {
    pub(crate) fn new(
        connect: &Arc<Connect>,
        names: &TableNames,
        relay: &Arc<Mutex<Relay>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            connect: Arc::clone(connect),
            listen: format!("LISTEN \"{}\"", names.channel()),
            relay: Arc::downgrade(relay),
            hooks: Mutex::default(),
        })
    }

    /// Sets a hook, and starts the thread if it does not run yet.
    pub(crate) fn register(self: &Arc<Self>, set: impl FnOnce(&mut SenderHooks)) {
        let mut hooks = self.hooks();
        set(&mut hooks);
        if mem::replace(&mut hooks.is_running, true) {
            return;
        }
        drop(hooks);
        let listener = Arc::clone(self);
        let thread = thread::Builder::new().name("mixpanel-outbox".to_owned());
        if let Err(error) = thread.spawn(move || listener.run()) {
            log::error!(
                "cannot start the listener of the outbox, so the sender polls it and may notice a \
                 lost connection late: {error:#}"
            );
        }
    }

    fn run(&self) {
        let mut connection = ReconnectingClient::new(&self.connect, &*self.listen);
        let mut checked = Instant::now();
        while self.relay.strong_count() > 0 {
            if let Err(error) = self.listen(&mut connection) {
                log::warn!("cannot listen to the outbox, so the sender polls it: {error:#}");
                thread::sleep(CHECK_EVERY);
            }
            if checked.elapsed() >= CHECK_EVERY {
                self.check_lease();
                checked = Instant::now();
            }
        }
    }

    /// Waits for a notification, up to [`CHECK_EVERY`], and wakes the sender if one comes.
    fn listen(&self, connection: &mut ReconnectingClient) -> Result<(), Error> {
        if connection.ensure_open()? {
            // No notification came for what was published before this connection listened.
            self.wake();
            return Ok(());
        }
        let mut notifications = connection.client()?.notifications();
        let first = notifications.timeout_iter(CHECK_EVERY).next();
        let first = first.map_err(|error| failed("listen to the outbox", error))?;
        if first.is_none() {
            drop(notifications);
            connection.close_if_dead();
            return Ok(());
        }
        // One wake is enough for all notifications that have arrived by now.
        while let Ok(Some(_)) = notifications.iter().next() {}
        self.wake();
        Ok(())
    }

    /// Stops the sender if the relay has lost its lease. A locked relay is skipped: it uses its
    /// connection just now, and notices a loss by itself.
    fn check_lease(&self) {
        let Some(relay) = self.relay.upgrade() else {
            return;
        };
        let is_lost = relay
            .try_lock()
            .is_ok_and(|mut relay| relay.close_if_lease_lost());
        if is_lost {
            log::warn!(
                "lost the connection to the outbox: stopping the request under way; its updates \
                 are sent again"
            );
            let stop = self.hooks().stop.clone();
            if let Some(stop) = stop {
                stop();
            }
        }
    }

    fn wake(&self) {
        let wake = self.hooks().wake.clone();
        if let Some(wake) = wake {
            wake();
        }
    }

    fn hooks(&self) -> MutexGuard<'_, SenderHooks> {
        self.hooks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

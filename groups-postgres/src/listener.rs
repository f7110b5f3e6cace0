use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use postgres::fallible_iterator::FallibleIterator as _;

use crate::connection::{Connect, Connection, failed};
use crate::names::Names;
use crate::relay::Relay;
use mixpanel_groups::Error;

/// How often it looks whether the relay has kept its locks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A thread that wakes who sends when something was published, and stops him when the relay has
/// lost what it took. It ends with the relay.
pub(crate) struct Listener {
    connect: Arc<Connect>,
    listen: String,
    relay: Weak<Mutex<Relay>>,
    hooks: Mutex<Hooks>,
}

/// What it calls.
#[derive(Default)]
pub(crate) struct Hooks {
    pub(crate) wake: Option<Hook>,
    pub(crate) stop: Option<Hook>,
    is_listening: bool,
}

type Hook = Arc<dyn Fn() + Send + Sync>;

impl Listener {
    pub(crate) fn new(
        connect: &Arc<Connect>,
        names: &Names,
        relay: &Arc<Mutex<Relay>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            connect: Arc::clone(connect),
            listen: names.put_into("LISTEN \"public.mixpanel_outbox\""),
            relay: Arc::downgrade(relay),
            hooks: Mutex::default(),
        })
    }

    /// Takes a hook, and starts the thread if there is none yet.
    pub(crate) fn call(self: &Arc<Self>, set: impl FnOnce(&mut Hooks)) {
        let mut hooks = self.hooks();
        set(&mut hooks);
        if mem::replace(&mut hooks.is_listening, true) {
            return;
        }
        drop(hooks);
        let listener = Arc::clone(self);
        let thread = thread::Builder::new().name("mixpanel-groups outbox".to_owned());
        if let Err(error) = thread.spawn(move || listener.run()) {
            log::error!(
                "no thread to listen from, the outbox is looked at from time to time: {error:#}"
            );
        }
    }

    fn run(&self) {
        let mut connection = Connection::new(&self.connect, &*self.listen);
        let mut looked = Instant::now();
        while self.relay.strong_count() > 0 {
            if let Err(error) = self.listen(&mut connection) {
                log::warn!("no news of the outbox, it is looked at from time to time: {error:#}");
                thread::sleep(LOOK_EVERY);
            }
            if looked.elapsed() >= LOOK_EVERY {
                self.watch();
                looked = Instant::now();
            }
        }
    }

    /// Waits for news, not for long.
    fn listen(&self, connection: &mut Connection) -> Result<(), Error> {
        if connection.renew()? {
            // What was published before it listened, nobody told it.
            self.wake();
            return Ok(());
        }
        let mut notifications = connection.client()?.notifications();
        let news = notifications.timeout_iter(LOOK_EVERY).next();
        let news = news.map_err(|error| failed("listen to the outbox", error))?;
        if news.is_none() {
            drop(notifications);
            connection.is_alive();
            return Ok(());
        }
        // What has come meanwhile is the same news.
        while let Ok(Some(_)) = notifications.iter().next() {}
        self.wake();
        Ok(())
    }

    /// Looks whether the relay has kept what it took, unless it is talking to the server itself.
    fn watch(&self) {
        let Some(relay) = self.relay.upgrade() else {
            return;
        };
        let has_kept = relay.try_lock().map_or(true, |mut relay| relay.has_kept());
        if !has_kept {
            log::warn!("the connection to the outbox broke: what is under way is broken off");
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

    fn hooks(&self) -> MutexGuard<'_, Hooks> {
        self.hooks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

mod answer;
mod body;
mod connection;
mod fault;
mod groups;
mod log;
mod profiles;
mod record;
mod server;
mod service;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;

pub use self::fault::Fault;
pub use self::log::Received;
use self::server::Server;
use self::service::{Service, Settings};
use crate::Profile;

/// A stand-in for Mixpanel: a real HTTP server on a loopback port, for tests and for trying things
/// out without a project that has Group Analytics.
///
/// It applies the six operations to profiles in memory as [`Profile`] says, takes the forms of body
/// that Mixpanel's reference page shows (JSON; a form's `data`, also in base64; gzip), answers as
/// documented with and without `strict` and `verbose`, and enforces the documented limits: 2,000
/// updates and 2 MiB a request, 1 MB an update, 255 characters a property name. It does not cut
/// texts and does not count properties. It stops when it is dropped.
///
/// ```
/// use mixpanel_groups::Emulator;
///
/// let emulator = Emulator::start()?;
/// let url = format!("{}/groups", emulator.endpoint());
/// // Send something to `url`, then:
/// if let Some(acme) = emulator.profile("company", "acme_corp") {
///     println!("{acme:#}");
/// }
/// # assert!(url.starts_with("http://127.0.0.1:"));
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Emulator {
    server: Server,
    service: Arc<Service>,
}

/// Starts an [`Emulator`] that differs from the usual one: see [`Emulator::builder`].
#[must_use = "nothing listens before `start`"]
pub struct EmulatorBuilder {
    port: u16,
    settings: Settings,
}

impl EmulatorBuilder {
    /// The port on 127.0.0.1; by default 0, which is any that is free.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// The project's token: a request with another one, or with none, is answered 401. By default
    /// any token is taken, but for the empty one.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.settings.token = Some(token.into());
        self
    }

    /// The largest body in bytes, both as it comes and when it is decompressed; 2,097,152 by
    /// default, as in Mixpanel's own message.
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.settings.max_body = bytes;
        self
    }

    /// Starts the emulator.
    ///
    /// # Errors
    /// If it cannot listen on the port.
    pub fn start(self) -> io::Result<Emulator> {
        let service = Arc::new(Service::new(self.settings));
        let its_service = Arc::clone(&service);
        let server = Server::start(self.port, move |stream, life| {
            if let Err(error) = its_service.serve(stream, life) {
                ::log::debug!("a connection to the emulator broke: {error}");
            }
        })?;
        Ok(Emulator { server, service })
    }
}

impl Emulator {
    /// Starts an emulator on a free port.
    ///
    /// # Errors
    /// If it cannot listen on any port.
    pub fn start() -> io::Result<Self> {
        Self::builder().start()
    }

    /// For another port, a fixed token, or another limit.
    pub fn builder() -> EmulatorBuilder {
        EmulatorBuilder {
            port: 0,
            settings: Settings {
                token: None,
                max_body: 2 * 1024 * 1024,
            },
        }
    }

    /// Where it listens, as a client's `endpoint` takes it: `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.server.address)
    }

    /// The profile of a group, if the group exists.
    #[must_use]
    pub fn profile(&self, key: &str, id: &str) -> Option<Profile> {
        self.service.memory().profiles.get(key, id).cloned()
    }

    /// The profiles of all groups that exist, by group key and id.
    #[must_use]
    pub fn profiles(&self) -> BTreeMap<(String, String), Profile> {
        let memory = self.service.memory();
        let all = memory.profiles.iter();
        all.map(|(key, id, profile)| ((key.to_owned(), id.to_owned()), profile.clone()))
            .collect()
    }

    /// What was received, the oldest first: the last 1,000 requests, or fewer where their bodies
    /// together are over 16 MiB. A request is there before it is answered.
    #[must_use]
    pub fn requests(&self) -> Vec<Received> {
        self.service.memory().log.all()
    }

    /// Lets one request go wrong: the next one that has no fault yet. Faults queue up, and each is
    /// for one request, on whichever connection it comes.
    pub fn fail_next(&self, fault: Fault) {
        self.service.memory().faults.push_back(fault);
    }

    /// Lets every request go wrong after those of [`fail_next`](Self::fail_next), until
    /// [`recover`](Self::recover).
    pub fn fail_always(&self, fault: Fault) {
        self.service.memory().lasting = Some(fault);
    }

    /// Forgets all faults that are still to come.
    pub fn recover(&self) {
        let mut memory = self.service.memory();
        memory.faults.clear();
        memory.lasting = None;
    }
}

impl fmt::Debug for Emulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emulator")
            .field("endpoint", &self.endpoint())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for EmulatorBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmulatorBuilder")
            .field("port", &self.port)
            .field("max_body", &self.settings.max_body)
            .finish_non_exhaustive()
    }
}

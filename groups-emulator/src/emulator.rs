use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use crate::fault::Fault;
use crate::memory::Memory;
use crate::memory_file::MemoryFile;
use crate::received::ReceivedRequest;
use crate::server::Server;
use crate::service::Service;
use crate::settings::Settings;
use mixpanel_groups::Profile;

/// A stand-in for Mixpanel: a real HTTP server on a loopback port, for tests and for trying things
/// out without a project that has Group Analytics.
///
/// It applies the six operations to profiles in memory as [`Profile`] says, takes the forms of body
/// that Mixpanel's reference page shows (JSON; a form's `data`, also in base64; gzip), answers as
/// documented with and without `strict` and `verbose`, and enforces the documented limits: 2,000
/// updates and 2 MiB a request, 1 MB an update, 255 characters a property name. It does not cut
/// texts and does not count properties. It stops when it is dropped.
///
/// It imports events too (`/import`; JSON or one event a line), checks them as documented, and keeps
/// those of the same name, time, distinct id and insert id once: the last 100,000.
///
/// A browser shows at [`endpoint`](Self::endpoint) what has arrived: the groups, their profiles, the
/// updates that made them and the events that are linked to them.
///
/// ```
/// use mixpanel_groups_emulator::Emulator;
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
    file: Option<MemoryFile>,
}

/// Starts an [`Emulator`] that differs from the usual one: see [`Emulator::builder`].
#[must_use = "nothing listens before `start`"]
pub struct EmulatorBuilder {
    port: u16,
    settings: Settings,
    keep: Option<PathBuf>,
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

    /// The only service account that may import events. By default any may, for any project, but
    /// none without Basic authorization and `project_id`. The project's token may too, as user name
    /// with an empty password.
    pub fn service_account(
        mut self,
        user: impl Into<String>,
        secret: impl Into<String>,
        project_id: impl fmt::Display,
    ) -> Self {
        let account = [user.into(), secret.into(), project_id.to_string()];
        self.settings.service_account = Some(account);
        self
    }

    /// The largest body in bytes, both as it comes and when it is decompressed; by default
    /// 2,097,152 of updates, as in Mixpanel's own message, and 10,485,760 of events.
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.settings.max_body = Some(bytes);
        self
    }

    /// A file that outlives the emulator: it starts with the profiles, their history and the events
    /// in it, if there is one, and writes it when it is dropped or told to
    /// [`save`](Emulator::save).
    pub fn keep(mut self, file: impl Into<PathBuf>) -> Self {
        self.keep = Some(file.into());
        self
    }

    /// Starts the emulator.
    ///
    /// # Errors
    /// If it cannot listen on the port, or cannot read the file to [`keep`](Self::keep).
    pub fn start(self) -> io::Result<Emulator> {
        let file = self.keep.map(MemoryFile::new);
        let memory = match &file {
            Some(file) => file.load()?,
            None => Memory::default(),
        };
        let service = Arc::new(Service::new(self.settings, memory));
        let its_service = Arc::clone(&service);
        let server = Server::start(self.port, move |stream, life| {
            if let Err(error) = its_service.serve(stream, life) {
                log::debug!("a connection to the emulator broke: {error}");
            }
        })?;
        Ok(Emulator {
            server,
            service,
            file,
        })
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
            settings: Settings::default(),
            keep: None,
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
        let memory = self.service.memory();
        let profile = &memory.profiles.get(key, id)?.profile;
        profile.exists().then(|| profile.clone())
    }

    /// The profiles of all groups that exist, by group key and id.
    #[must_use]
    pub fn profiles(&self) -> BTreeMap<(String, String), Profile> {
        let memory = self.service.memory();
        let all = memory.profiles.iter();
        all.filter(|(_, _, known)| known.profile.exists())
            .map(|(key, id, known)| ((key.to_owned(), id.to_owned()), known.profile.clone()))
            .collect()
    }

    /// The events that were imported, as they came and each once, the oldest first.
    #[must_use]
    pub fn events(&self) -> Vec<Value> {
        self.service.memory().events.iter().cloned().collect()
    }

    /// The events that are linked to a group: those with a property named like the group key, whose
    /// value is the group's id or a list with it.
    #[must_use]
    pub fn events_of(&self, key: &str, id: &str) -> Vec<Value> {
        let memory = self.service.memory();
        memory.events.of(key, id).cloned().collect()
    }

    /// Writes the file to [`keep`](EmulatorBuilder::keep), if there is one and something is new. At
    /// any time there is a whole file.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self) -> io::Result<()> {
        match &self.file {
            Some(file) => file.save(&self.service.memory),
            None => Ok(()),
        }
    }

    /// What was received, the oldest first: the last 1,000 requests, or fewer where their bodies
    /// together are over 16 MiB. A request is there before it is answered.
    #[must_use]
    pub fn requests(&self) -> Vec<ReceivedRequest> {
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

impl Drop for Emulator {
    fn drop(&mut self) {
        if let Err(error) = self.save() {
            log::warn!("the emulator's state is lost: {error}");
        }
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

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use crate::auth::{Credentials, ServiceAccount};
use crate::fault::Fault;
use crate::http::HttpServer;
use crate::memory::{Memory, MemoryFile};
use crate::received::ReceivedRequest;
use crate::service::Service;
use mixpanel_groups::{Error, ErrorKind, Profile};

/// A stand-in for Mixpanel: an HTTP server on a loopback port, which stops when it is dropped.
///
/// - `/groups` applies the six operations to profiles in memory, as [`Profile`] defines them. The body
///   is JSON or a form's `data`, plain or in base64, with or without gzip.
/// - `/import` stores events, as JSON or one a line. Of those with the same name, time, distinct id and
///   insert id it keeps the last, and 100,000 in all.
/// - Both check records by Mixpanel's documented rules and limits, and reply as documented with and
///   without `strict` and `verbose`. Texts are not truncated and properties are not counted.
/// - In a browser, [`endpoint`](Self::endpoint) shows the groups, their profiles, the updates that led
///   to them and the events that are linked to them.
///
/// ```
/// use mixpanel_groups::{Client, Group};
/// use mixpanel_groups_emulator::Emulator;
/// use serde_json::json;
///
/// let emulator = Emulator::start()?;
/// let client = Client::builder("TOKEN").endpoint(emulator.endpoint()).build()?;
/// client.send(Group::new("company", "acme").set(json!({"plan": "free"})))?;
///
/// let acme = emulator.profile("company", "acme").expect("it was just created");
/// assert_eq!(acme, json!({"plan": "free"}));
/// assert_eq!(emulator.requests().len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Emulator {
    server: HttpServer,
    service: Arc<Service>,
    file: Option<MemoryFile>,
}

/// The settings of an [`Emulator`], from [`Emulator::builder`].
#[must_use = "nothing listens before `start`"]
pub struct EmulatorBuilder {
    port: u16,
    credentials: Credentials,
    max_body: Option<usize>,
    keep: Option<PathBuf>,
}

impl EmulatorBuilder {
    /// Sets the port on 127.0.0.1. The default, 0, stands for any free port.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Sets the project's token. A request with another token, or without one, is answered 401. By
    /// default the emulator accepts any token that is not empty.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.credentials.token = Some(token.into());
        self
    }

    /// Sets the service account that may import events. By default any may, for any `project_id`. An
    /// import with the project's token as user name and an empty password is accepted in any case.
    pub fn service_account(
        mut self,
        user: impl Into<String>,
        secret: impl Into<String>,
        project_id: impl fmt::Display,
    ) -> Self {
        self.credentials.service_account = Some(ServiceAccount {
            user: user.into(),
            secret: secret.into(),
            project_id: project_id.to_string(),
        });
        self
    }

    /// Sets the largest body in bytes, as it arrives and after decompression. The default is 2,097,152
    /// for updates, as in Mixpanel's own message, and 10,485,760 for events.
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.max_body = Some(bytes);
        self
    }

    /// Keeps profiles, their history and events in a file. The emulator reads the file when it starts,
    /// if there is one, and writes it when it is dropped and on each [`save`](Emulator::save).
    pub fn keep(mut self, file: impl Into<PathBuf>) -> Self {
        self.keep = Some(file.into());
        self
    }

    /// Starts the emulator.
    ///
    /// # Errors
    /// - [`Config`](mixpanel_groups::ErrorKind::Config) if no request could ever match the settings: a
    ///   largest body of 0 bytes, an empty token, secret or file name.
    /// - [`Io`](mixpanel_groups::ErrorKind::Io) if the emulator cannot listen on the port, or cannot read
    ///   the file to [`keep`](Self::keep).
    /// - [`Damaged`](mixpanel_groups::ErrorKind::Damaged) if that file was not written by an emulator. It
    ///   stays as it is.
    pub fn start(self) -> Result<Emulator, Error> {
        self.check()?;
        let file = self.keep.map(MemoryFile::new);
        let memory = match &file {
            Some(file) => file.load()?,
            None => Memory::default(),
        };
        let service = Arc::new(Service::new(self.credentials, self.max_body, memory));
        let shared = Arc::clone(&service);
        let server = HttpServer::start(self.port, move |stream, lifecycle| {
            if let Err(error) = shared.serve(stream, lifecycle) {
                log::debug!("connection to the emulator broke: {error:#}");
            }
        })?;
        Ok(Emulator {
            server,
            service,
            file,
        })
    }

    fn check(&self) -> Result<(), Error> {
        let fail = |message: &str| Err(Error::new(ErrorKind::Config, message));
        if self.max_body == Some(0) {
            return fail("the largest body is 0 bytes: allow at least 1");
        }
        if self
            .keep
            .as_ref()
            .is_some_and(|path| path.as_os_str().is_empty())
        {
            return fail("the name of the file to keep is empty");
        }
        self.credentials.check()
    }
}

impl Emulator {
    /// Starts an emulator on a free port.
    ///
    /// # Errors
    /// [`Io`](mixpanel_groups::ErrorKind::Io) if it cannot listen on any port.
    pub fn start() -> Result<Self, Error> {
        Self::builder().start()
    }

    /// Returns a builder, to set a port, credentials, a limit or a file.
    pub fn builder() -> EmulatorBuilder {
        EmulatorBuilder {
            port: 0,
            credentials: Credentials::default(),
            max_body: None,
            keep: None,
        }
    }

    /// Returns the base URL, `http://127.0.0.1:PORT`, to pass to
    /// [`ClientBuilder::endpoint`](mixpanel_groups::ClientBuilder::endpoint).
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.server.address)
    }

    /// Returns the profile of a group, or `None` if the group does not exist.
    #[must_use]
    pub fn profile(&self, key: &str, id: &str) -> Option<Profile> {
        let memory = self.service.memory();
        let profile = &memory.profiles.get(key, id)?.profile;
        profile.exists().then(|| profile.clone())
    }

    /// Returns the profiles of all groups that exist, by group key and id.
    #[must_use]
    pub fn profiles(&self) -> BTreeMap<(String, String), Profile> {
        let memory = self.service.memory();
        let all = memory.profiles.iter();
        all.filter(|(_, _, group)| group.profile.exists())
            .map(|(key, id, group)| ((key.to_owned(), id.to_owned()), group.profile.clone()))
            .collect()
    }

    /// Returns the imported events as they came, each once, the oldest first.
    #[must_use]
    pub fn events(&self) -> Vec<Value> {
        self.service.memory().events.iter().cloned().collect()
    }

    /// Returns the events that are linked to a group: those with a property named like the group key,
    /// whose value is the group's id or a list that contains it.
    #[must_use]
    pub fn events_of(&self, key: &str, id: &str) -> Vec<Value> {
        let memory = self.service.memory();
        memory.events.of(key, id).cloned().collect()
    }

    /// Writes the file to [`keep`](EmulatorBuilder::keep), if there is one and profiles or events have
    /// changed. The file is replaced in one step, so it is complete at any time.
    ///
    /// # Errors
    /// [`Io`](mixpanel_groups::ErrorKind::Io) if the file cannot be written. A later call tries again.
    pub fn save(&self) -> Result<(), Error> {
        match &self.file {
            Some(file) => file.save(&self.service.memory),
            None => Ok(()),
        }
    }

    /// Returns the received requests, the oldest first. The emulator keeps the last 1,000, or fewer if
    /// their bodies exceed 16 MiB together. A request is in the list before its reply is sent.
    #[must_use]
    pub fn requests(&self) -> Vec<ReceivedRequest> {
        self.service.memory().log.all()
    }

    /// Injects a fault into one request. Faults queue up: the first is for the next request, on
    /// whichever connection that comes, the second for the one after it.
    pub fn fail_next(&self, fault: Fault) {
        self.service.memory().faults.push_back(fault);
    }

    /// Injects a fault into every request, once those of [`fail_next`](Self::fail_next) are used up,
    /// until [`recover`](Self::recover).
    pub fn fail_always(&self, fault: Fault) {
        self.service.memory().lasting = Some(fault);
    }

    /// Applies at once the requests that [`Fault::ApplyLate`] has put off, in the order of their
    /// arrival, and returns their number. So a test decides when they are applied, and need not wait.
    pub fn apply_late(&self) -> usize {
        let mut applied = 0;
        loop {
            // The lock is not held while the request is applied.
            let late = self.service.memory().late.take_first();
            let Some(late) = late else { return applied };
            self.service.apply_late(late);
            applied += 1;
        }
    }

    /// Removes all faults that are still to come.
    pub fn recover(&self) {
        let mut memory = self.service.memory();
        memory.faults.clear();
        memory.lasting = None;
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        if let Err(error) = self.save() {
            log::warn!("the state of the emulator is lost: {error:#}");
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
            .field("max_body", &self.max_body)
            .finish_non_exhaustive()
    }
}

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::auth::{Credentials, ServiceAccount};
use crate::fault::Fault;
use crate::http::HttpServer;
use crate::memory::{Memory, MemoryFile, is_linked};
use crate::origin::{Allowed, is_host, is_origin, name_of, without_slash};
use crate::received::ReceivedRequest;
use crate::service::{Service, Settings};
use crate::updates::{EmulatorSnapshot, GroupUpdates};
use mixpanel_groups::{Error, ErrorKind, Profile};

/// A stand-in for Mixpanel: an HTTP server on a loopback port, which stops when it is dropped.
///
/// - `/groups` applies the six operations to profiles in memory, as [`Profile`] defines them, but refuses to
///   create a group without a property. The body is JSON or a form's `data`, plain or in base64, with or
///   without gzip.
/// - `/import` stores events, as JSON or one a line. Of those with the same name, time, distinct id and
///   insert id it keeps the last, and 100,000 in all.
/// - Both check records by Mixpanel's documented rules and limits, and reply as documented with and
///   without `strict` and `verbose`. Long texts are truncated, and properties are not counted.
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
/// client.send(Group::new("company", "acme").set(json!({"plan": "free"})))?.into_result()?;
///
/// let acme = emulator.profile("company", "acme").expect("it was just created");
/// assert_eq!(acme, json!({"plan": "free"}));
/// assert_eq!(emulator.requests().len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Emulator {
    server: HttpServer,
    pub(crate) service: Arc<Service>,
    file: Option<MemoryFile>,
}

/// The settings of an [`Emulator`], from [`Emulator::builder`].
#[must_use = "nothing listens before `start`"]
pub struct EmulatorBuilder {
    port: u16,
    settings: Settings,
    keep: Option<PathBuf>,
}

impl EmulatorBuilder {
    /// Sets the port on 127.0.0.1. The default, 0, stands for any free port.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Sets the project's token. A request with another token, or without one, gets 401. By
    /// default the emulator accepts any token that is not empty.
    ///
    /// For updates that is stricter than Mixpanel, whose reply `1` "does not signify a valid token": so
    /// that a test sees a wrong token, which would otherwise show only in profiles that never appear.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.settings.credentials.token = Some(token.into());
        self
    }

    /// Sets the service account that may import events. By default any may whose user name is not empty,
    /// for any `project_id` that is not empty. An import with the project's token as user name and an empty
    /// password is accepted in any case.
    pub fn service_account(
        mut self,
        user: impl Into<String>,
        secret: impl Into<String>,
        project_id: impl fmt::Display,
    ) -> Self {
        self.settings.credentials.service_account = Some(ServiceAccount {
            user: user.into(),
            secret: secret.into(),
            project_id: project_id.to_string(),
        });
        self
    }

    /// Sets the largest body in bytes, as it arrives and after decompression. The default is 2,097,152
    /// for updates, as in Mixpanel's own message, and 10,485,760 for events.
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.settings.max_body = Some(bytes);
        self
    }

    /// Lets the pages of an origin, such as `https://app.example.com`, send updates and events from a
    /// browser and read the replies (CORS). Pages of this machine (`localhost`, `127.0.0.1` and `[::1]`)
    /// may, on any port; those of other origins get 403. Can be called more than once.
    ///
    /// An origin is a scheme, a host and, unless it is the scheme's default, a port. Pages from files and in
    /// sandboxed frames have the origin `null`, which can be allowed too.
    ///
    /// Programs that are not browsers are not affected.
    pub fn allow_origin(mut self, origin: impl Into<String>) -> Self {
        let origin: String = origin.into();
        self.settings.allowed.origins.push(without_slash(origin));
        self
    }

    /// Accepts requests whose `Host` is this name, with any port, such as `host.docker.internal`, by which a
    /// container of Docker Desktop reaches the host's 127.0.0.1. IP addresses and `localhost` are accepted without
    /// it. Any other name gets 403: it may be that of a website that resolves to 127.0.0.1 (DNS rebinding). Can be
    /// called more than once.
    ///
    /// The name alone does not make the emulator reachable: it listens on 127.0.0.1 only.
    pub fn allow_host(mut self, name: impl Into<String>) -> Self {
        let name: String = name.into();
        let name = name_of(&name).to_owned();
        self.settings.allowed.hosts.push(name);
        self
    }

    /// Sets whether a property name over 255 characters and a text over 255 bytes are truncated as
    /// Mixpanel does, so that a profile shows what Mixpanel would keep. The default is `true`. With
    /// `false`, texts stay as they were sent, and an update or event with a longer name is refused.
    ///
    /// Documented are the two limits. That a text is cut between characters, and in nested lists and
    /// objects as well, is a guess.
    pub fn truncate_like_mixpanel(mut self, truncates: bool) -> Self {
        self.settings.truncates = truncates;
        self
    }

    /// Keeps profiles, their history and events in a file. The emulator reads the file when it starts,
    /// or makes an empty one, and writes it on each [`save`](Emulator::save) and when it is dropped. Everything
    /// that was replied to before the drop is in the file then.
    ///
    /// One emulator can keep a file at a time. It locks an empty file beside it, with `.lock` after the name, which stays.
    /// In a folder that cannot be written there is no lock, and of two emulators the last one that saves wins.
    pub fn keep(mut self, file: impl Into<PathBuf>) -> Self {
        self.keep = Some(file.into());
        self
    }

    /// Starts the emulator.
    ///
    /// # Errors
    /// - [`Config`](mixpanel_groups::ErrorKind::Config) if no request could ever match the settings: a
    ///   largest body of 0 bytes, an empty token, secret or file name, a host that is not a name, an
    ///   origin without a scheme, or with a path, a wildcard or the scheme's default port.
    /// - [`Io`](mixpanel_groups::ErrorKind::Io) if the emulator cannot listen on the port, or cannot read
    ///   or make the file to [`keep`](Self::keep), or if another emulator keeps it.
    /// - [`Damaged`](mixpanel_groups::ErrorKind::Damaged) if that file was not written by an emulator. It
    ///   stays as it is.
    pub fn start(self) -> Result<Emulator, Error> {
        self.check()?;
        let file = self.keep.map(MemoryFile::open).transpose()?;
        let memory = match &file {
            Some(file) => file.load()?,
            None => Memory::new(),
        };
        let service = Arc::new(Service::new(self.settings, memory));
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
        if self.settings.max_body == Some(0) {
            return fail("the largest body is 0 bytes: allow at least 1");
        }
        if self
            .keep
            .as_ref()
            .is_some_and(|path| path.as_os_str().is_empty())
        {
            return fail("the name of the file to keep is empty");
        }
        let allowed = &self.settings.allowed;
        if let Some(host) = allowed.hosts.iter().find(|host| !is_host(host)) {
            return fail(&format!(
                "invalid host {host:?}: expected a name such as host.docker.internal, in a call or option of its own"
            ));
        }
        if let Some(origin) = allowed.origins.iter().find(|origin| !is_origin(origin)) {
            return fail(&format!(
                "invalid origin {origin:?}: expected what a browser sends, such as https://app.example.com, \
                 without a path, a wildcard, or the default port of its scheme"
            ));
        }
        self.settings.credentials.check()
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
            settings: Settings {
                credentials: Credentials::default(),
                max_body: None,
                allowed: Allowed::default(),
                truncates: true,
            },
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
        let profile = Arc::clone(&memory.profiles.get(key, id)?.profile);
        drop(memory);
        profile.exists().then(|| Arc::unwrap_or_clone(profile))
    }

    /// Returns the profiles of all groups that exist, by group key and id.
    #[must_use]
    pub fn profiles(&self) -> BTreeMap<(String, String), Profile> {
        let groups = self.service.memory().profiles.existing();
        groups
            .into_iter()
            .map(|group| {
                let name = (group.key.to_string(), group.id.to_string());
                (name, Arc::unwrap_or_clone(group.profile))
            })
            .collect()
    }

    /// Returns the updates that were applied, group by group, in the order of group key and id. The
    /// emulator keeps the last 100 of a group, or fewer if they exceed 16 MiB together.
    ///
    /// The value implements `Serialize`, in the same form and order in every run, for snapshot tests.
    #[must_use]
    pub fn updates(&self) -> Vec<GroupUpdates> {
        let groups: Vec<_> = self.service.memory().profiles.iter().cloned().collect();
        let groups = groups.into_iter();
        groups
            .map(|group| GroupUpdates {
                key: group.key.to_string(),
                id: group.id.to_string(),
                updates: group
                    .history
                    .iter()
                    .map(|update| (**update).clone())
                    .collect(),
            })
            .collect()
    }

    /// Returns profiles and events in a form for snapshot tests: `Serialize` writes the same in every
    /// run that sends the same.
    ///
    /// ```
    /// use mixpanel_groups::{Client, Group};
    /// use mixpanel_groups_emulator::Emulator;
    /// use serde_json::json;
    ///
    /// let emulator = Emulator::start()?;
    /// let client = Client::builder("TOKEN").endpoint(emulator.endpoint()).build()?;
    /// client.send(Group::new("company", "acme").set(json!({"seats": 5, "plan": "free"})))?.into_result()?;
    /// let snapshot = r#"{"groups":{"company":{"acme":{"plan":"free","seats":5}}},"events":[]}"#;
    /// assert_eq!(serde_json::to_string(&emulator.snapshot())?, snapshot);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn snapshot(&self) -> EmulatorSnapshot {
        self.service.snapshot()
    }

    /// Waits until `find` finds something, and returns that. `find` is called at once, and again whenever
    /// anything has arrived, so a test neither sleeps nor polls.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use mixpanel_groups::{Client, Group};
    /// use mixpanel_groups_emulator::Emulator;
    /// use serde_json::json;
    ///
    /// let emulator = Emulator::start()?;
    /// let client = Client::builder("TOKEN").endpoint(emulator.endpoint()).build()?.buffered().start()?;
    /// client.publish(Group::new("company", "acme").set(json!({"plan": "free"})))?;
    /// # client.flush(Duration::from_secs(10));
    /// let acme = emulator.wait_for(Duration::from_secs(10), |e| e.profile("company", "acme"))?;
    /// assert_eq!(acme, json!({"plan": "free"}));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Timeout`](mixpanel_groups::ErrorKind::Timeout) if `find` has found nothing within this time.
    /// The message says how many requests arrived, and what was wrong with the last one that failed.
    pub fn wait_for<T>(
        &self,
        timeout: Duration,
        mut find: impl FnMut(&Self) -> Option<T>,
    ) -> Result<T, Error> {
        let now = Instant::now();
        // A time that cannot be counted is a year.
        let deadline = now.checked_add(timeout);
        let deadline = deadline.unwrap_or_else(|| now + Duration::from_secs(365 * 24 * 3600));
        loop {
            let (epoch, version) = {
                let memory = self.service.memory();
                (memory.epoch.clone(), memory.version)
            };
            if let Some(found) = find(self) {
                return Ok(found);
            }
            if !self.service.wait_for_change(&epoch, version, deadline) {
                return Err(self.nothing_found(timeout));
            }
        }
    }

    fn nothing_found(&self, timeout: Duration) -> Error {
        let (received, failed) = {
            let memory = self.service.memory();
            (memory.log.received, memory.log.failed)
        };
        let mut message = format!(
            "nothing was found within {timeout:?}; {received} requests arrived, {failed} of them failed"
        );
        let requests = self.requests();
        if let Some(last) = requests.iter().rev().find(|request| request.is_failed()) {
            let dropped = last.dropped.first();
            let dropped = dropped.map(|record| format!("{}: {}", record.field, record.message));
            let reason = last.error.clone().or(dropped).unwrap_or_default();
            message = format!("{message}, the last one because of: {reason}");
        }
        Error::new(ErrorKind::Timeout, message)
    }

    /// Forgets profiles, events, requests and faults, as if the emulator had just been started. Requests
    /// keep being numbered from where they were. Requests that [`Fault::ApplyLate`] has put off are never applied, and those
    /// that [`Fault::Delay`] holds get their reply. The page has a button for this.
    pub fn reset(&self) {
        self.service.reset();
    }

    /// Returns the imported events as they came, each once, the oldest first.
    #[must_use]
    pub fn events(&self) -> Vec<Value> {
        let events = self.service.memory().events.all();
        events.into_iter().map(Arc::unwrap_or_clone).collect()
    }

    /// Returns the events that are linked to a group: those with a property named like the group key,
    /// whose value is the group's id or a list that contains it.
    #[must_use]
    pub fn events_of(&self, key: &str, id: &str) -> Vec<Value> {
        let events = self.service.memory().events.all().into_iter();
        let linked = events.filter(|event| is_linked(event, key, id));
        linked.map(Arc::unwrap_or_clone).collect()
    }

    /// Writes the file to [`keep`](EmulatorBuilder::keep), if there is one and profiles or events have
    /// changed. The file is replaced in one step, so it is complete at any time. A file that is mounted by
    /// itself, as into a container, or whose folder cannot be written, cannot be replaced: it is written in
    /// place, and is damaged if the program is killed meanwhile. Mount its folder instead.
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
    /// they exceed 16 MiB together. A request is in the list before its reply is sent, also one that was
    /// refused, with the reason.
    #[must_use]
    pub fn requests(&self) -> Vec<ReceivedRequest> {
        let requests = self.service.memory().log.all();
        requests.into_iter().map(Arc::unwrap_or_clone).collect()
    }

    /// Returns the number of connections that clients and browsers have open. At 0, a request
    /// that its client has aborted was applied, or never will be.
    ///
    /// It waits until the connections that were opened before are accepted. If that takes more than 5 seconds, it
    /// returns at least 1. Where connections are open, it takes at least 10 ms, so it can be called in a loop.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.server.open_connections()
    }

    /// Injects a fault into one request. Faults queue up: the first is for the next request, on
    /// whichever connection that comes, the second for the one after it.
    pub fn fail_next(&self, fault: Fault) {
        self.service.memory().fail_next(fault);
    }

    /// Injects a fault into every request, once those of [`fail_next`](Self::fail_next) are used up,
    /// until [`recover`](Self::recover).
    pub fn fail_always(&self, fault: Fault) {
        self.service.memory().fail_always(fault);
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
        self.service.memory().recover();
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // What was replied to is in the memory. While the file is written, nothing more is replied to.
        self.server.stop();
        self.service.wake();
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
            .field("max_body", &self.settings.max_body)
            .finish_non_exhaustive()
    }
}

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use postgres::error::SqlState;
use postgres::tls::{MakeTlsConnect, TlsConnect};
use postgres::types::{ToSql, Type};
use postgres::{Client, Config, Socket};

use mixpanel_groups::{Error, ErrorKind};

/// A function that opens a connection.
pub(crate) type Connect = dyn Fn() -> Result<Client, postgres::Error> + Send + Sync;

/// The parameters of a statement, with their types.
pub(crate) type Params<'a> = [(&'a (dyn ToSql + Sync), Type)];

/// How long a connection is trusted after its last use before it is checked.
const TRUSTED: Duration = Duration::from_secs(1);

/// How long the server may take to answer a check.
const CHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// Returns the function that opens connections with this configuration. Timeouts that it does not set
/// are set here, so that a broken network is noticed.
pub(crate) fn connector<T>(mut config: Config, tls: T) -> Arc<Connect>
where
    T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
    T::TlsConnect: Send,
    T::Stream: Send,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(Duration::from_secs(5));
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(Duration::from_secs(5));
    }
    if config.get_application_name().is_none() {
        config.application_name("mixpanel-groups");
    }
    Arc::new(move || config.connect(tls.clone()))
}

/// A connection that is opened when it is needed, and again after it broke: the first time at once,
/// then after growing pauses.
pub(crate) struct ReconnectingClient {
    connect: Arc<Connect>,
    /// The SQL to run on each new connection.
    prepare: String,
    client: Option<Client>,
    last_used: Option<Instant>,
    /// The number of failed attempts since the last connection.
    failures: u32,
    /// The time of the next attempt, after a failed one.
    not_before: Option<Instant>,
}

impl ReconnectingClient {
    pub(crate) fn new(connect: &Arc<Connect>, prepare: impl Into<String>) -> Self {
        Self {
            connect: Arc::clone(connect),
            prepare: prepare.into(),
            client: None,
            last_used: None,
            failures: 0,
            not_before: None,
        }
    }

    /// Returns the connection, opening one if necessary.
    pub(crate) fn get(&mut self) -> Result<&mut Client, Error> {
        self.ensure_open()?;
        self.client()
    }

    /// Opens a connection unless there is one that works. Returns whether it is a new one.
    pub(crate) fn ensure_open(&mut self) -> Result<bool, Error> {
        if self.last_used.is_some_and(|then| then.elapsed() > TRUSTED) {
            self.close_if_dead();
        }
        let is_new = !self.is_open();
        if is_new {
            self.client = None;
            self.open()?;
        }
        self.last_used = Some(Instant::now());
        Ok(is_new)
    }

    /// Returns the connection, without opening one.
    pub(crate) fn client(&mut self) -> Result<&mut Client, Error> {
        self.client
            .as_mut()
            .ok_or_else(|| Error::new(ErrorKind::Io, "no connection to the outbox's database"))
    }

    fn open(&mut self) -> Result<(), Error> {
        if self.not_before.is_some_and(|time| Instant::now() < time) {
            let message = "no connection to the outbox's database: the next attempt is due soon";
            return Err(Error::new(ErrorKind::Io, message));
        }
        let opened = (self.connect)().and_then(|mut client| {
            client.batch_execute(&self.prepare)?;
            Ok(client)
        });
        match opened {
            Ok(client) => {
                (self.failures, self.not_before) = (0, None);
                self.client = Some(client);
                Ok(())
            }
            Err(error) => {
                self.not_before = Some(Instant::now() + pause(self.failures));
                self.failures += 1;
                Err(failed("connect to the outbox's database", error))
            }
        }
    }

    /// Returns whether there is a connection that is not known to be broken.
    pub(crate) fn is_open(&self) -> bool {
        self.client
            .as_ref()
            .is_some_and(|client| !client.is_closed())
    }

    /// Checks that the server answers, and closes the connection if it does not. Returns whether the
    /// connection was closed.
    pub(crate) fn close_if_dead(&mut self) -> bool {
        let Some(client) = &mut self.client else {
            return false;
        };
        let is_dead = client.is_valid(CHECK_TIMEOUT).is_err();
        if is_dead {
            self.client = None;
        }
        is_dead
    }
}

/// Returns the pause after so many failures: 100 ms, doubled with each one up to 5 s. Half of it is
/// random, so that many processes do not reconnect in step.
fn pause(failures: u32) -> Duration {
    let longest = Duration::from_millis(100 << failures.min(6)).min(Duration::from_secs(5));
    let half = longest / 2;
    let [part, ..] = random_bits().to_ne_bytes();
    half + half * part.into() / 255
}

/// Returns 64 bits that differ at each call and from process to process.
pub(crate) fn random_bits() -> u64 {
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    hasher.finish()
}

/// Returns the error of something that the database refused, with the database's error as its source.
pub(crate) fn failed(what: &str, error: postgres::Error) -> Error {
    let advice = match error.code() {
        Some(&SqlState::UNDEFINED_TABLE) => ": its tables are missing, run `migrate` first",
        _ => "",
    };
    Error::new(ErrorKind::Io, format!("cannot {what}{advice}")).with_source(error)
}

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use postgres::error::SqlState;
use postgres::tls::{MakeTlsConnect, TlsConnect};
use postgres::types::{ToSql, Type};
use postgres::{Client, Config, Socket};

use mixpanel_groups::{Error, ErrorKind};

/// Opens a connection.
pub(crate) type Connect = dyn Fn() -> Result<Client, postgres::Error> + Send + Sync;

/// Parameters of a statement, with their types.
pub(crate) type Params<'a> = [(&'a (dyn ToSql + Sync), Type)];

/// How a connection is opened with these settings, where they leave open what a broken network
/// needs.
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

/// How long a connection is trusted without asking, and how long the server may take to answer.
const TRUSTED: Duration = Duration::from_secs(1);
const ANSWERS_WITHIN: Duration = Duration::from_secs(3);

/// A connection that is opened when it is needed, and again when it broke: at once the first time,
/// then with growing pauses.
pub(crate) struct Connection {
    connect: Arc<Connect>,
    /// The SQL that prepares a new one.
    prepare: String,
    client: Option<Client>,
    used: Option<Instant>,
    failures: u32,
    not_before: Option<Instant>,
}

impl Connection {
    pub(crate) fn new(connect: &Arc<Connect>, prepare: impl Into<String>) -> Self {
        Self {
            connect: Arc::clone(connect),
            prepare: prepare.into(),
            client: None,
            used: None,
            failures: 0,
            not_before: None,
        }
    }

    /// The connection, a new one if need be.
    pub(crate) fn get(&mut self) -> Result<&mut Client, Error> {
        self.renew()?;
        self.client()
    }

    /// Opens a connection if there is none that works; whether it did.
    pub(crate) fn renew(&mut self) -> Result<bool, Error> {
        if self.used.is_some_and(|then| then.elapsed() > TRUSTED) {
            self.is_alive();
        }
        let is_new = !self.is_open();
        if is_new {
            self.client = None;
            self.open()?;
        }
        self.used = Some(Instant::now());
        Ok(is_new)
    }

    /// The connection that there is.
    pub(crate) fn client(&mut self) -> Result<&mut Client, Error> {
        self.client
            .as_mut()
            .ok_or_else(|| Error::new(ErrorKind::Io, "no connection to the outbox's database"))
    }

    fn open(&mut self) -> Result<(), Error> {
        if self.not_before.is_some_and(|time| Instant::now() < time) {
            let message = "no connection to the outbox's database; it is tried again soon";
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

    /// Whether there is one that is not known to be broken.
    pub(crate) fn is_open(&self) -> bool {
        self.client
            .as_ref()
            .is_some_and(|client| !client.is_closed())
    }

    /// Asks the server; whether it answers, or there was nothing to ask.
    pub(crate) fn is_alive(&mut self) -> bool {
        let Some(client) = &mut self.client else {
            return true;
        };
        let is_alive = client.is_valid(ANSWERS_WITHIN).is_ok();
        if !is_alive {
            self.client = None;
        }
        is_alive
    }
}

/// 100 ms, doubled with each failure up to 5 s; half of it by chance, so that many processes do not
/// connect in step.
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

/// Returns an error that says in our words what could not be done; the database's words are its source.
pub(crate) fn failed(what: &str, error: postgres::Error) -> Error {
    let hint = match error.code() {
        Some(&SqlState::UNDEFINED_TABLE) => " (has `migrate` been run?)",
        _ => "",
    };
    Error::new(ErrorKind::Io, format!("cannot {what}{hint}")).with_source(error)
}

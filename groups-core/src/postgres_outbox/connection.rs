use std::error::Error as _;
use std::time::{Duration, Instant};

use postgres::error::SqlState;
use postgres::tls::{MakeTlsConnect, TlsConnect};
use postgres::{Client, Config, Socket};

use crate::random::random;
use crate::{Error, ErrorKind};

/// Opens a connection.
pub(super) type Connect = dyn Fn() -> Result<Client, postgres::Error> + Send + Sync;

/// How a connection is opened with these settings, where they leave open what a broken network
/// needs.
pub(super) fn connector<T>(mut config: Config, tls: T) -> Box<Connect>
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
    Box::new(move || config.connect(tls.clone()))
}

/// How long a connection is trusted without asking, and how long the server may take to answer.
const TRUSTED: Duration = Duration::from_secs(1);
const ANSWERS_WITHIN: Duration = Duration::from_secs(3);

/// A connection that is opened when it is needed, and again when it broke: at once the first time,
/// then with growing pauses.
#[derive(Default)]
pub(super) struct Connection {
    client: Option<Client>,
    /// How often one was opened.
    opened: u64,
    used: Option<Instant>,
    failures: u32,
    not_before: Option<Instant>,
}

impl Connection {
    /// The connection; a new one is prepared by that SQL.
    pub(super) fn get(&mut self, connect: &Connect, prepare: &str) -> Result<&mut Client, Error> {
        if self.used.is_some_and(|then| then.elapsed() > TRUSTED) {
            self.is_alive();
        }
        if !self.is_open() {
            self.client = None;
            self.open(connect, prepare)?;
        }
        self.used = Some(Instant::now());
        self.client
            .as_mut()
            .ok_or_else(|| Error::new(ErrorKind::Io, "no connection to the outbox's database"))
    }

    fn open(&mut self, connect: &Connect, prepare: &str) -> Result<(), Error> {
        if self.not_before.is_some_and(|time| Instant::now() < time) {
            let message = "no connection to the outbox's database; it is tried again soon";
            return Err(Error::new(ErrorKind::Io, message));
        }
        let opened = connect().and_then(|mut client| {
            client.batch_execute(prepare)?;
            Ok(client)
        });
        match opened {
            Ok(client) => {
                (self.failures, self.not_before) = (0, None);
                self.opened += 1;
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
    pub(super) fn is_open(&self) -> bool {
        self.client
            .as_ref()
            .is_some_and(|client| !client.is_closed())
    }

    /// Which of the connections it is that were opened one after the other.
    pub(super) fn which(&self) -> u64 {
        self.opened
    }

    /// Asks the server; whether it answers, or there was nothing to ask.
    pub(super) fn is_alive(&mut self) -> bool {
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
    longest.mul_f64(0.5 + random() / 2.0)
}

/// An error of the database, in our words and its own.
pub(super) fn failed(what: &str, error: postgres::Error) -> Error {
    let why = match error.as_db_error() {
        Some(db) => format!("{} ({})", db.message(), db.code().code()),
        None => match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    };
    let hint = match error.code() {
        Some(&SqlState::UNDEFINED_TABLE) => "; has `migrate` been run?",
        _ => "",
    };
    Error::new(ErrorKind::Io, format!("cannot {what}: {why}{hint}")).with_source(error)
}

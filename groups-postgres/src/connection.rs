use std::future::{Future, poll_fn};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use postgres::Socket;
use postgres::tls::{MakeTlsConnect, TlsConnect};
use postgres::types::{ToSql, Type};
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, CancelToken, Client, Config, Row};

use crate::names::Names;
use mixpanel_groups::{Error, ErrorKind};

/// The parameters of a statement, with their types.
pub(crate) type Params<'a> = [(&'a (dyn ToSql + Sync), Type)];

/// A function to call when a notification arrives.
pub(crate) type Wake = Arc<dyn Fn() + Send + Sync>;

type Job<R> = Pin<Box<dyn Future<Output = Result<R, tokio_postgres::Error>> + Send>>;

/// How long the request to break off a statement may take.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens connections to a database.
pub(crate) trait Connect: Send + Sync {
    /// Opens a connection; each notification that it receives calls the function.
    fn connect(&self, wake: Option<Wake>) -> Job<Client>;

    /// Breaks off the statement that a connection runs.
    fn cancel(&self, token: CancelToken) -> Job<()>;
}

pub(crate) struct Connector<T> {
    config: Config,
    tls: T,
}

impl<T> Connector<T> {
    /// Timeouts that the configuration does not set are set here, so that a broken network is noticed.
    pub(crate) fn new(config: &postgres::Config, tls: T) -> Self {
        let mut config = copy(config);
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(Duration::from_secs(5));
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(Duration::from_secs(5));
        }
        if config.get_application_name().is_none() {
            config.application_name("mixpanel-groups");
        }
        Self { config, tls }
    }
}

/// Copies all settings. A function that the configuration calls with the server's notices cannot be copied.
fn copy(config: &postgres::Config) -> Config {
    let mut copy = Config::new();
    macro_rules! copy {
        ($value:ident as $copied:expr, $($get:ident $set:ident)+) => {$(
            if let Some($value) = config.$get() {
                copy.$set($copied);
            }
        )+};
    }
    copy!(value as value, get_application_name application_name get_dbname dbname
        get_keepalives_interval keepalives_interval get_keepalives_retries keepalives_retries
        get_options options get_password password get_user user);
    copy!(time as *time, get_connect_timeout connect_timeout get_tcp_user_timeout tcp_user_timeout);
    for host in config.get_hosts() {
        match host {
            postgres::config::Host::Tcp(host) => copy.host(host),
            #[cfg(unix)]
            postgres::config::Host::Unix(path) => copy.host_path(path),
        };
    }
    for address in config.get_hostaddrs() {
        copy.hostaddr(*address);
    }
    for port in config.get_ports() {
        copy.port(*port);
    }
    copy.keepalives(config.get_keepalives())
        .keepalives_idle(config.get_keepalives_idle())
        .ssl_mode(config.get_ssl_mode())
        .ssl_negotiation(config.get_ssl_negotiation())
        .target_session_attrs(config.get_target_session_attrs())
        .channel_binding(config.get_channel_binding())
        .load_balance_hosts(config.get_load_balance_hosts());
    copy
}

impl<T> Connect for Connector<T>
where
    T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
    T::TlsConnect: Send,
    T::Stream: Send,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    fn connect(&self, wake: Option<Wake>) -> Job<Client> {
        let (config, tls) = (self.config.clone(), self.tls.clone());
        Box::pin(async move {
            let (client, mut connection) = config.connect(tls).await?;
            tokio::spawn(async move {
                while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
                    if let (AsyncMessage::Notification(_), Some(wake)) = (message, &wake) {
                        wake();
                    }
                }
            });
            Ok(client)
        })
    }

    fn cancel(&self, token: CancelToken) -> Job<()> {
        let tls = self.tls.clone();
        Box::pin(async move { token.cancel_query(tls).await })
    }
}

/// A connection that is opened when it is needed, and again after it broke: the first time at once, then after growing
/// pauses. It keeps no state in the session, so that it may pass a pooler.
pub(crate) struct Connection {
    connect: Arc<dyn Connect>,
    names: Names,
    /// The statement to run on each new connection, and the function to call when a notification arrives.
    listen: Option<(String, Wake)>,
    client: Option<Client>,
    /// The number of failed attempts since the last connection.
    failures: u32,
    /// The time of the next attempt, after a failed one.
    not_before: Option<Instant>,
}

impl Connection {
    pub(crate) fn new(connect: &Arc<dyn Connect>, names: &Names) -> Self {
        Self {
            connect: Arc::clone(connect),
            names: names.clone(),
            listen: None,
            client: None,
            failures: 0,
            not_before: None,
        }
    }

    /// Listens from the next connection on.
    pub(crate) fn listen(&mut self, statement: String, wake: Wake) {
        (self.listen, self.client) = (Some((statement, wake)), None);
    }

    /// Runs one statement, which is a transaction of its own. It is written for the default names.
    pub(crate) async fn query(
        &mut self,
        what: &str,
        statement: &str,
        params: &Params<'_>,
    ) -> Result<Vec<Row>, Error> {
        let statement = &*self.names.apply_to(statement);
        let work = async |client: &Client| client.query_typed(statement, params).await;
        self.run(what, work).await
    }

    /// Runs several statements without parameters, in one transaction, as they are.
    pub(crate) async fn batch(&mut self, what: &str, statements: &str) -> Result<(), Error> {
        let work = async |client: &Client| client.batch_execute(statements).await;
        self.run(what, work).await
    }

    /// Runs statements on the connection. If this is dropped before its end, the connection is closed, and the server is
    /// requested to break off: a statement that waits for a lock would not notice otherwise.
    async fn run<R>(
        &mut self,
        what: &str,
        work: impl AsyncFnOnce(&Client) -> Result<R, tokio_postgres::Error>,
    ) -> Result<R, Error> {
        let client = self.open().await?;
        let mut cancel = CancelOnDrop {
            connect: Arc::clone(&self.connect),
            token: Some(client.cancel_token()),
        };
        let result = work(&client).await;
        cancel.token = None;
        if !client.is_closed() {
            self.client = Some(client);
        }
        result.map_err(|error| failed(what, error))
    }

    /// Opens a connection unless there is one.
    pub(crate) async fn ensure_open(&mut self) -> Result<(), Error> {
        self.client = Some(self.open().await?);
        Ok(())
    }

    /// Takes the connection, opening one if necessary.
    async fn open(&mut self) -> Result<Client, Error> {
        if let Some(client) = self.client.take().filter(|client| !client.is_closed()) {
            return Ok(client);
        }
        if self.not_before.is_some_and(|time| Instant::now() < time) {
            let message = "no connection to the outbox's database: the next attempt is due soon";
            return Err(Error::new(ErrorKind::Io, message));
        }
        // As long as an attempt has not succeeded, also when it is dropped, it counts as one that failed.
        self.not_before = Some(Instant::now() + pause(self.failures));
        self.failures += 1;
        let wake = self.listen.as_ref().map(|(_, wake)| Arc::clone(wake));
        let failed = |error| failed("connect to the outbox's database", error);
        let client = self.connect.connect(wake).await.map_err(failed)?;
        if let Some((listen, wake)) = &self.listen {
            if let Err(error) = client.batch_execute(listen).await {
                log::warn!("cannot listen to the outbox, so the sender polls it: {error}");
            }
            // No notification came for what was published before.
            wake();
        }
        (self.failures, self.not_before) = (0, None);
        Ok(client)
    }
}

struct CancelOnDrop {
    connect: Arc<dyn Connect>,
    token: Option<CancelToken>,
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        let (Some(token), Ok(runtime)) = (self.token.take(), Handle::try_current()) else {
            return;
        };
        let cancel = self.connect.cancel(token);
        runtime.spawn(timeout(CANCEL_TIMEOUT, cancel));
    }
}

/// Returns the pause after so many failures: 100 ms, doubled with each one up to 5 s. Half of it is random, so that many
/// processes do not reconnect in step.
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
pub(crate) fn failed(what: &str, error: tokio_postgres::Error) -> Error {
    let (kind, advice) = match error.code() {
        Some(&(SqlState::UNDEFINED_TABLE | SqlState::UNDEFINED_FUNCTION)) => (
            ErrorKind::Io,
            ": its tables are missing, run `migrate` first",
        ),
        Some(&SqlState::DATA_CORRUPTED) => (ErrorKind::Damaged, ": run `migrate` again"),
        _ => (ErrorKind::Io, ""),
    };
    Error::new(kind, format!("cannot {what}{advice}")).with_source(error)
}

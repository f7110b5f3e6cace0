use std::future::{Future, poll_fn};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use postgres::Socket;
use postgres::tls::{MakeTlsConnect, TlsConnect};
use postgres::types::{ToSql, Type};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, CancelToken, Client, Config, Row};

use crate::names::Names;
use mixpanel_groups::{Error, ErrorKind};

/// The parameters of a statement, with their types.
pub(crate) type Params<'a> = [(&'a (dyn ToSql + Sync), Type)];

/// A function to call when a notification arrives.
pub(crate) type Wake = Arc<dyn Fn() + Send + Sync>;

type Job<R> = Pin<Box<dyn Future<Output = R> + Send>>;

/// What opening a connection is called in errors.
const CONNECT: &str = "connect to the outbox's database";

/// How long the request to break off a statement may take.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens connections to a database.
pub(crate) trait Connect: Send + Sync {
    /// Opens a connection; each notification that it receives calls the function.
    fn connect(&self, wake: Option<Wake>) -> Job<Result<Client, Error>>;

    /// Breaks off the statement that a connection runs.
    fn cancel(&self, token: CancelToken) -> Job<()>;
}

pub(crate) struct Connector<T> {
    /// One for each host: `tokio_postgres` tries the hosts of a configuration one after the other too, but would wait for
    /// one that accepts a connection and says nothing without an end.
    configs: Vec<Config>,
    tls: T,
}

/// How many of its connect timeouts a host may take: for the look-up of its name, some addresses and the handshakes.
const TIMEOUTS_A_HOST: u32 = 3;

impl<T> Connector<T> {
    /// Timeouts that the configuration does not set are set here, so that a broken network is noticed.
    pub(crate) fn new(config: &postgres::Config, tls: T) -> Self {
        let mut common = copy(config);
        if common.get_connect_timeout().is_none() {
            common.connect_timeout(Duration::from_secs(5));
        }
        if common.get_tcp_user_timeout().is_none() {
            common.tcp_user_timeout(Duration::from_secs(5));
        }
        if common.get_application_name().is_none() {
            common.application_name("mixpanel-groups");
        }
        let configs = of_hosts(config, &common);
        Self { configs, tls }
    }
}

/// Returns the settings with each host alone. Where their numbers do not fit, it is one configuration with all, whose error
/// says so.
fn of_hosts(config: &postgres::Config, common: &Config) -> Vec<Config> {
    let (hosts, addresses) = (config.get_hosts(), config.get_hostaddrs());
    let ports = config.get_ports();
    let number = hosts.len().max(addresses.len());
    let fits = |length: usize| length == 0 || length == number;
    let set = |range: std::ops::Range<usize>| {
        let mut one = common.clone();
        for host in hosts.get(range.clone()).unwrap_or_default() {
            match host {
                postgres::config::Host::Tcp(host) => one.host(host),
                #[cfg(unix)]
                postgres::config::Host::Unix(path) => one.host_path(path),
            };
        }
        for address in addresses.get(range.clone()).unwrap_or_default() {
            one.hostaddr(*address);
        }
        for port in ports.get(range).unwrap_or(ports) {
            one.port(*port);
        }
        one
    };
    if fits(hosts.len()) && fits(addresses.len()) && (fits(ports.len()) || ports.len() == 1) {
        let mut configs: Vec<_> = (0..number.max(1)).map(|at| set(at..at + 1)).collect();
        if config.get_load_balance_hosts() == postgres::config::LoadBalanceHosts::Random {
            configs.sort_by_cached_key(|_| random_bits());
        }
        return configs;
    }
    vec![set(0..usize::MAX)]
}

/// Copies all settings but the hosts. A function that the configuration calls with the server's notices cannot be copied.
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
    fn connect(&self, wake: Option<Wake>) -> Job<Result<Client, Error>> {
        let (configs, tls) = (self.configs.clone(), self.tls.clone());
        Box::pin(async move {
            let mut failure = None;
            for config in configs {
                let time = config.get_connect_timeout().copied().unwrap_or_default();
                let time = time.saturating_mul(TIMEOUTS_A_HOST);
                let (client, mut connection) =
                    match timeout(time, config.connect(tls.clone())).await {
                        Ok(Ok(connected)) => connected,
                        Ok(Err(error)) => {
                            failure = Some(failed(CONNECT, error));
                            continue;
                        }
                        Err(_) => {
                            let message = format!("cannot {CONNECT} within {time:?}");
                            failure = Some(Error::new(ErrorKind::Io, message));
                            continue;
                        }
                    };
                tokio::spawn(async move {
                    while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
                        if let (AsyncMessage::Notification(_), Some(wake)) = (message, &wake) {
                            wake();
                        }
                    }
                });
                return Ok(client);
            }
            Err(failure.unwrap_or_else(|| Error::new(ErrorKind::Io, format!("cannot {CONNECT}"))))
        })
    }

    fn cancel(&self, token: CancelToken) -> Job<()> {
        let tls = self.tls.clone();
        Box::pin(async move { drop(token.cancel_query(tls).await) })
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
    /// An attempt in progress. It goes on when a call is given up: the first of several hosts may take all of its time.
    connecting: Option<Connecting>,
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
            connecting: None,
            failures: 0,
            not_before: None,
        }
    }

    /// Listens from the next connection on.
    pub(crate) fn listen(&mut self, statement: String, wake: Wake) {
        self.listen = Some((statement, wake));
        (self.client, self.connecting) = (None, None);
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

    /// Waits for the attempt in progress, or for a new one.
    async fn connected(&mut self) -> Result<Client, Error> {
        let attempt = if let Some(attempt) = &mut self.connecting {
            attempt
        } else {
            if self.not_before.is_some_and(|time| Instant::now() < time) {
                let message =
                    "no connection to the outbox's database: the next attempt is due soon";
                return Err(Error::new(ErrorKind::Io, message));
            }
            // As long as an attempt has not succeeded, it counts as one that failed.
            self.not_before = Some(Instant::now() + pause(self.failures));
            self.failures += 1;
            let wake = self.listen.as_ref().map(|(_, wake)| Arc::clone(wake));
            self.connecting
                .insert(tokio::spawn(self.connect.connect(wake)))
        };
        let attempted = attempt.await;
        self.connecting = None;
        attempted.unwrap_or_else(|_| Err(Error::new(ErrorKind::Io, format!("cannot {CONNECT}"))))
    }

    /// Takes the connection, opening one if necessary.
    async fn open(&mut self) -> Result<Client, Error> {
        if let Some(client) = self.client.take().filter(|client| !client.is_closed()) {
            return Ok(client);
        }
        let client = self.connected().await?;
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

type Connecting = JoinHandle<Result<Client, Error>>;

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

/// Returns whether the database refused something for one of these reasons.
pub(crate) fn has_code(error: &Error, codes: &[SqlState]) -> bool {
    let source = std::error::Error::source(error);
    let database = source.and_then(|source| source.downcast_ref::<tokio_postgres::Error>());
    let code = database.and_then(tokio_postgres::Error::code);
    code.is_some_and(|code| codes.contains(code))
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

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use postgres::types::{ToSql, Type};
use tokio::runtime::Handle;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::{CancelToken, Client, Row};

use crate::connector::{CONNECT, Connect, Wake};
use crate::names::Names;
use mixpanel_groups::{Error, ErrorKind};

/// The parameters of a statement, with their types.
pub(crate) type Params<'a> = [(&'a (dyn ToSql + Sync), Type)];

/// How long the request to break off a statement may take.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// The server has ended a transaction for the sake of another one.
const ROLLED_BACK: [SqlState; 2] = [
    SqlState::T_R_DEADLOCK_DETECTED,
    SqlState::T_R_SERIALIZATION_FAILURE,
];

/// A connection that is opened when it is needed, and again after it broke or became read-only: the first time at once,
/// then after growing pauses. It keeps no state in the session, so that it may pass a pooler.
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
    /// What the last attempt failed for.
    last_failure: Option<String>,
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
            last_failure: None,
        }
    }

    /// Listens from the next connection on.
    pub(crate) fn listen(&mut self, statement: String, wake: Wake) {
        self.listen = Some((statement, wake));
        (self.client, self.connecting) = (None, None);
    }

    /// Runs one statement, which is a transaction of its own, and repeats it if the server has ended it for the sake of
    /// another. The statement is written for the default names. The deadline of the call is that of all.
    pub(crate) async fn query(
        &mut self,
        what: &str,
        statement: &str,
        params: &Params<'_>,
    ) -> Result<Vec<Row>, Error> {
        let statement = &*self.names.apply_to(statement);
        loop {
            let work = async |client: &Client| client.query_typed(statement, params).await;
            match self.run(what, work).await {
                Err(error) if has_code(&error, &ROLLED_BACK) => log::debug!("{error:#}: again"),
                result => return result,
            }
        }
    }

    /// Runs several statements without parameters, in one transaction, as they are, and repeats them likewise.
    pub(crate) async fn batch(&mut self, what: &str, statements: &str) -> Result<(), Error> {
        loop {
            let work = async |client: &Client| client.batch_execute(statements).await;
            match self.run(what, work).await {
                Err(error) if has_code(&error, &ROLLED_BACK) => log::debug!("{error:#}: again"),
                result => return result,
            }
        }
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
        let code = result.as_ref().err().and_then(tokio_postgres::Error::code);
        // A primary that has become a standby: another host may be the primary now.
        let is_read_only = code == Some(&SqlState::READ_ONLY_SQL_TRANSACTION);
        if !client.is_closed() && !is_read_only {
            self.client = Some(client);
        }
        result.map_err(|error| failed(what, error))
    }

    /// Returns whether there is a connection.
    pub(crate) fn is_open(&self) -> bool {
        self.client
            .as_ref()
            .is_some_and(|client| !client.is_closed())
    }

    /// Closes the connection. The next statement opens another one.
    pub(crate) fn close(&mut self) {
        self.client = None;
    }

    /// Opens a connection unless there is one.
    pub(crate) async fn ensure_open(&mut self) -> Result<(), Error> {
        self.client = Some(self.open().await?);
        Ok(())
    }

    /// Waits for the attempt in progress, or for a new one. One that has ended since its call was given up is of use only if
    /// it succeeded: its error may be hours old, as its connection may.
    async fn connected(&mut self) -> Result<Client, Error> {
        if let Some(ended) = self.connecting.take_if(|attempt| attempt.is_finished())
            && let Ok(client) = self.ended(ended.await)
            && !client.is_closed()
        {
            return Ok(client);
        }
        let attempt = if let Some(attempt) = &mut self.connecting {
            attempt
        } else {
            if self.not_before.is_some_and(|time| Instant::now() < time) {
                let message =
                    "no connection to the outbox's database: the next attempt is due soon";
                let error = Error::new(ErrorKind::Io, message);
                return Err(match &self.last_failure {
                    Some(failure) => error.with_source(failure.clone()),
                    None => error,
                });
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
        self.ended(attempted)
    }

    /// Records what an attempt failed for.
    fn ended(
        &mut self,
        attempted: Result<Result<Client, Error>, JoinError>,
    ) -> Result<Client, Error> {
        let attempted = attempted
            .unwrap_or_else(|_| Err(Error::new(ErrorKind::Io, format!("cannot {CONNECT}"))));
        self.last_failure = attempted.as_ref().err().map(|error| format!("{error:#}"));
        attempted
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
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => (
            ErrorKind::Io,
            ": the role lacks a privilege, the documentation of `PostgresOutbox` lists them",
        ),
        Some(&SqlState::DATA_CORRUPTED) => (ErrorKind::Damaged, ": run `migrate` again"),
        _ => (ErrorKind::Io, ""),
    };
    Error::new(kind, format!("cannot {what}{advice}")).with_source(error)
}

/// Whether row-level security hides all rows of a table from one of these commands of this role, because there is no policy
/// for it. PostgreSQL reports nothing then: the table seems to be empty, or a command changes nothing. The commands are as
/// in `polcmd`.
macro_rules! is_hidden {
    ($table:literal, $commands:literal) => {
        concat!(
            "(pg_catalog.row_security_active('",
            $table,
            "') AND EXISTS (SELECT FROM pg_catalog.unnest('",
            $commands,
            "'::\"char\"[]) AS command WHERE NOT EXISTS (
                SELECT FROM pg_catalog.pg_policy WHERE polrelid = '",
            $table,
            "'::regclass AND polpermissive AND polcmd IN (command, '*') AND EXISTS (
                    SELECT FROM pg_catalog.unnest(polroles) AS role
                    WHERE role = 0 OR pg_catalog.pg_has_role(role, 'USAGE')))))"
        )
    };
}
pub(crate) use is_hidden;

/// Returns an error if the column of the first row says that rows are hidden.
pub(crate) fn check_hidden(what: &str, rows: &[Row], column: usize) -> Result<(), Error> {
    let hidden = rows.first().map(|row| row.try_get(column)).transpose();
    if hidden.map_err(|error| failed(what, error))? != Some(true) {
        return Ok(());
    }
    let message = format!(
        "cannot {what}: row-level security hides its rows from this role, connect as the owner of the tables or create a policy for all commands"
    );
    Err(Error::new(ErrorKind::Io, message))
}

/// Returns the numbers of the first row.
pub(crate) fn numbers<const N: usize>(what: &str, rows: &[Row]) -> Result<[i64; N], Error> {
    let Some(row) = rows.first() else {
        let message = format!("cannot {what}: the database returned no row");
        return Err(Error::new(ErrorKind::Io, message));
    };
    let mut numbers = [0; N];
    for (column, number) in numbers.iter_mut().enumerate() {
        *number = row.try_get(column).map_err(|error| failed(what, error))?;
    }
    Ok(numbers)
}

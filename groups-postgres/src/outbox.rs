use std::future::Future;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};
use std::{fmt, mem, process};

use postgres::tls::{MakeTlsConnect, TlsConnect};
use postgres::{Config, Socket};
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::{sleep, timeout};

use crate::builder::{OutboxSettings, PostgresOutboxBuilder};
use crate::connection::Connection;
use crate::connector::{Connect, Connector, Wake};
use crate::depth::measure_and_merge;
use crate::names::Names;
use crate::publish::{Encoding, PUBLISH, PublishIn, publish};
use crate::relay::Relay;
use crate::runtime::Runtime;
use crate::writer::{UNLIMITED, Writer};
use mixpanel_groups::outbox::{Capacity, Depth, OutboxEntry, OutboxRecord};
use mixpanel_groups::record::{EncodedEvent, EncodedRecord, IntoRecord, IntoRecords};
use mixpanel_groups::{EncodedUpdate, Error, ErrorKind, Outbox, Rejection};

/// The longest time for the depth, and for the release in a drop.
const SHORT: Duration = Duration::from_secs(1);

/// How often the connection that listens is opened again, if it was closed.
const CHECK_EVERY: Duration = Duration::from_millis(500);

/// An outbox in a PostgreSQL database (15 or newer), for applications on several machines.
///
/// Updates and events are published [inside the application's own transactions](Self::publish_in). Any number of
/// processes stand by to send them, and one at a time does: it is the *relay*. (One of the updates, and one of the
/// events, which need not be the same process.)
///
/// ```no_run
/// use mixpanel_groups::{Client, Group};
/// use mixpanel_groups_postgres::PostgresOutbox;
/// use serde_json::json;
///
/// # use std::time::Duration;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let config: postgres::Config = "host=db user=app dbname=app".parse()?;
/// let outbox = PostgresOutbox::new(config.clone(), postgres::NoTls)?;
/// outbox.migrate()?; // or run `PostgresOutbox::MIGRATION` with your own tool
///
/// // In the application: the row and the update are committed together, or neither is.
/// let mut database = config.connect(postgres::NoTls)?;
/// let mut transaction = database.transaction()?;
/// transaction.execute("UPDATE company SET plan = 'enterprise' WHERE id = 'acme'", &[])?;
/// let acme = Group::new("company", "acme");
/// outbox.publish_in(&mut transaction, acme.set(json!({"plan": "enterprise"})))?;
/// transaction.commit()?;
///
/// // In the same process or in others: a relay.
/// let relay = Client::from_env()?.buffered().outbox(outbox).start()?;
/// # relay.shutdown(Duration::from_secs(5));
/// # Ok(())
/// # }
/// ```
///
/// `config` and the TLS connector are those of the crate `postgres`, version 0.19: see [TLS](crate#tls). The
/// configuration's callback for notices, if it has one, is not called. The outbox opens a connection when it needs one:
/// none for `publish_in`, one to publish otherwise, one to relay, and as many for events; and one for the depth of both.
/// `migrate` opens another one while it runs, and breaking off a statement one for a moment. Clones share these, except those
/// to relay: each clone that a client has is a relay of its own, as that of another process is.
///
/// The connections keep no state in their sessions but `LISTEN`, so a pooler in transaction mode, such as PgBouncer, may
/// be in between. `NOTIFY` does not pass it: a relay behind it finds updates when it polls, once in a
/// [flush interval](mixpanel_groups::buffered::BufferedClientBuilder::flush_interval). With
/// [`notify(false)`](PostgresOutboxBuilder::notify) it does not `LISTEN` at all.
///
/// # Other drivers, and SQL
/// [`MIGRATION`](Self::MIGRATION) creates a function that publishes, for any driver, a trigger or `psql`. It takes one
/// update or event as text, or an array of them, as [`EncodedRecord::as_json`] returns them:
///
/// ```sql
/// SELECT mixpanel_outbox_publish('{"$group_key":"company","$group_id":"acme","$set":{"plan":"pro"}}');
/// GRANT EXECUTE ON FUNCTION mixpanel_outbox_publish(text, boolean), mixpanel_outbox_publish(text[], boolean) TO app;
/// ```
///
/// An event is one with `event` and `properties`, in which are `time` (an integer), `distinct_id` and `$insert_id`. What
/// is neither an update nor an event is an error. A second argument `false` leaves out `NOTIFY`, which
/// `PREPARE TRANSACTION` excludes. In a database whose encoding is not UTF-8, pass JSON that is ASCII, with escapes for
/// other characters, as `publish_in` does.
///
/// # In async programs
/// The outbox has a thread of its own for its connections. All methods may be called within any runtime: they wait for
/// the database, and block the thread that calls them meanwhile. [`publish_async`](Self::publish_async) does not.
///
/// A fork has neither that thread nor connections of its own. So an outbox belongs to the process that built it. In a child,
/// all calls that need the database fail with [`Closed`](mixpanel_groups::ErrorKind::Closed), except `publish_in`, which uses
/// the application's connection: build another outbox after the fork.
///
/// # Order
/// The updates of a group are sent in the order in which their transactions committed, also when transactions overlap;
/// those of one transaction in the order of publishing. Ids from a sequence do not ensure that by themselves: a
/// transaction may take its id first and commit last. So the function that publishes locks the group's slot until the
/// transaction ends, and only then takes an id. The argument is written at the function in
/// [`MIGRATION`](Self::MIGRATION).
///
/// One relay at a time sends, also of those in one process. It holds a lease: a row that says until when, by the database's
/// clock. Before each request it extends the lease by the time that the request can take, and starts none without. When it
/// ends, another takes over at once. When it was killed, another takes over after the time that
/// [a call may take](PostgresOutboxBuilder::timeout), or, if a request can still be under way, after the client's
/// [timeout](mixpanel_groups::ClientBuilder::timeout) and up to five seconds, or after an hour if that is longer. Then it sends
/// what was not settled again, in order, which leaves the profiles the same. So no timeout should be longer than an hour. What
/// no client can prevent is that Mixpanel applies a request, or PostgreSQL a statement that publishes, after its client gave it
/// up.
///
/// # What the application should do
/// - Change your own row before you publish, so that all transactions lock the row and the group in the same order.
/// - Publish shortly before the commit: other transactions that publish for the same group wait from then on. So do some that
///   publish for other groups, since a group's lock is one of 16,384 slots, which a hash of the group chooses. While a
///   transaction is open that has published for 1,000 groups, 6% of all groups have to wait for it; with 5,000 groups 26%,
///   with 20,000 70%. A `BufferedClient` writes the updates of many callers in one transaction, so all of them wait for one
///   locked group.
///   A session that idles after it has published can make them time out: `idle_in_transaction_session_timeout` ends it.
/// - Publish for several groups in one call of [`publish_all_in`](Self::publish_all_in), which locks them in one order
///   for all transactions, whatever their groups. (More than 64 MB of JSON are several calls.) A trigger for each row is a
///   call for each row, so two statements that change thousands of rows each deadlock, even if they share no row. The
///   [guide](https://docs.rs/mixpanel-groups/latest/mixpanel_groups/guide/with_diesel_sqlx_and_others/) has a trigger for each statement.
/// - Repeat a transaction that PostgreSQL ends with `40P01` (`deadlock_detected`), as for any deadlock. A transaction that
///   publishes for several groups in several calls may deadlock with any other, also with one of a single call. To sort the
///   groups yourself does not help: the locks are in the order of a hash.
///
/// # Replicas
/// A standby that takes over has what was committed with `synchronous_commit = remote_apply` (or `remote_write` and
/// `on`, with `synchronous_standby_names`). What was committed without it may be lost. If the lease was among it, two
/// relays may send at a time until the request of the first has ended. So they may if the clock of the new server is ahead, or
/// more than ten seconds behind, or if a server's clock is set so while a request is under way.
///
/// Create the tables of a *logical* replica with `pg_dump --schema-only`: two of those that `migrate` creates have rows, which
/// the first copy would not replace. After the switch, run [`migrate`](Self::migrate) there before anything is published:
/// such a replica does not have the state of the sequences, and new ids must be above those in use.
///
/// # Tables
/// [`MIGRATION`](Self::MIGRATION) has a comment on each table. `…_rejected` keeps what Mixpanel refused, with its message,
/// for 30 days by default. `…_accepted` keeps what it accepted, if
/// [that is set](PostgresOutboxBuilder::keep_accepted). The views `…_waiting` and `…_status` are for people and for
/// monitoring:
///
/// ```sql
/// SELECT kind, waiting, oldest, sender FROM mixpanel_outbox_status;
/// SELECT age, body FROM mixpanel_outbox_waiting WHERE group_id = 'acme';
/// SELECT rejected_at, message, body FROM mixpanel_outbox_rejected ORDER BY rejected_at DESC;
/// -- Try some of them once more:
/// WITH again AS (DELETE FROM mixpanel_outbox_rejected WHERE message LIKE 'too many%' RETURNING id, body)
///     SELECT mixpanel_outbox_publish(array_agg(body::text ORDER BY id)) FROM again;
/// ```
///
/// Those are sent after newer updates of the same groups, so they may set older values.
///
/// To publish, a role needs `EXECUTE` on the functions `…_publish`, and no right on the tables. A relay's role needs
/// `SELECT`, `INSERT`, `UPDATE` and `DELETE` on the tables, and one that monitors, `SELECT` on the views alone. In a schema
/// other than `public`, all need `USAGE` on it. To [`migrate`](Self::migrate), a role needs `CREATE` on the schema, and must
/// own the tables, functions and views that exist, also where there is nothing to do: the other roles cannot call it.
///
/// Row-level security, which some hosts turn on for all tables, hides rows from all roles but the owner of the tables. A
/// relay of another role then gets an error, unless the role has `BYPASSRLS` or the tables have a policy for it: one for all
/// commands and all rows, such as `CREATE POLICY relay ON mixpanel_outbox TO relay USING (true)`, on each of them.
///
/// Any transaction that stays open for hours keeps PostgreSQL from vacuuming the table, which slows relays down.
///
/// Triggers on the table of updates count what waits. Where they were disabled for a while, or a part of the tables was
/// restored, the depth is wrong until nothing waits: then a relay corrects it. [`migrate`](Self::migrate) corrects counts
/// below zero, which are an error of the depth.
pub struct PostgresOutbox<R: OutboxRecord = EncodedUpdate>(Arc<Handle<R>>);

/// Returns another one for the same tables, which publishes over the same connection. Each takes with a lease of its own: of
/// several clients, each with a clone, one at a time sends.
impl<R: OutboxRecord> Clone for PostgresOutbox<R> {
    fn clone(&self) -> Self {
        let shared = Arc::clone(&self.0.shared);
        Self(Arc::new(Handle::new(shared, self.0.events.clone())))
    }
}

/// What each clone has of its own: the settings of its client, and what this has taken.
struct Handle<R: OutboxRecord> {
    shared: Arc<Shared<R>>,
    /// Beside updates.
    events: Option<PostgresOutbox<EncodedEvent>>,
    /// How many nanoseconds a call may take.
    timeout: AtomicU64,
    /// Once it is needed: most clones only publish.
    relay: OnceLock<Arc<AsyncMutex<Relay>>>,
    /// The highest id that is taken.
    last_taken: Arc<AtomicI64>,
}

/// What the clones share: one queue.
struct Shared<R: OutboxRecord> {
    kind: PhantomData<fn(R)>,
    /// The process that built it. A fork has the same sockets and the name of the same relay, no thread of the connections,
    /// and locks that are perhaps never released.
    process: u32,
    connect: Arc<dyn Connect>,
    names: Names,
    settings: OutboxSettings,
    encoding: Arc<Encoding>,
    writer: Arc<Writer>,
    /// The connection that measures both queues.
    meter: Arc<AsyncMutex<Connection>>,
    /// The thread of the connections of both queues, once one is needed.
    runtime: Arc<Mutex<Option<Arc<Runtime>>>>,
}

/// A constant of its own, so that the documentation shows its name instead of its text.
const MIGRATION: &str = include_str!("migration.sql");

impl PostgresOutbox {
    /// The tables, functions and views as SQL, for the default names. [`migration`](Self::migration) returns it for
    /// others. It can be run again at any time. Two runs at a time may fail, and can be repeated; [`migrate`](Self::migrate)
    /// runs it once at a time.
    pub const MIGRATION: &'static str = MIGRATION;

    /// Returns an outbox with default settings. It does not connect yet.
    ///
    /// # Errors
    /// None: the default names are valid.
    pub fn new<T>(config: Config, tls: T) -> Result<Self, Error>
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::TlsConnect: Send,
        T::Stream: Send,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        Self::builder(config, tls).build()
    }

    /// Returns a builder, for other settings.
    ///
    /// Unless `config` sets them, the connect timeout and the TCP user timeout are 5 s, TCP keep-alives begin after 60 s
    /// without a packet (2 hours, the driver's default, count as not set), and the application name is `mixpanel-groups`.
    /// The connect timeout is that of each address of each host, the handshakes included; one that took longer comes after
    /// the others for a minute. Hosts that accept no writes, such as a standby, are skipped: `target_session_attrs` is
    /// `read-write` instead of `any`.
    #[allow(clippy::needless_pass_by_value)] // As it was always written.
    pub fn builder<T>(config: Config, tls: T) -> PostgresOutboxBuilder
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::TlsConnect: Send,
        T::Stream: Send,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        PostgresOutboxBuilder::new(Arc::new(Connector::new(&config, tls)))
    }

    pub(crate) fn from_parts(
        connect: &Arc<dyn Connect>,
        names: Names,
        settings: &OutboxSettings,
    ) -> Self {
        let runtime = Arc::default();
        let meter = Arc::new(AsyncMutex::new(Connection::new(connect, &names)));
        let of_events = names.clone().of_events();
        let events = PostgresOutbox::queue(connect, of_events, settings, &runtime, &meter, None);
        Self::queue(connect, names, settings, &runtime, &meter, Some(events))
    }

    /// Returns [`MIGRATION`](Self::MIGRATION) for this outbox's names.
    #[must_use]
    pub fn migration(&self) -> String {
        self.0.shared.names.apply_to(Self::MIGRATION)
    }

    /// Creates the tables, functions and views, if they do not exist. Several processes may call it at a time; it waits
    /// for up to a minute, such as for a transaction that has read a view. If they exist, neither publishers nor relays wait
    /// for it meanwhile.
    ///
    /// # Errors
    /// - [`Io`](mixpanel_groups::ErrorKind::Io) if they cannot be created, for instance because the schema does not exist or
    ///   the role lacks the privilege.
    /// - [`Timeout`](mixpanel_groups::ErrorKind::Timeout) after that minute.
    /// - [`Closed`](mixpanel_groups::ErrorKind::Closed) if this process is a fork of the one that built the outbox.
    pub fn migrate(&self) -> Result<(), Error> {
        const TIMEOUT: Duration = Duration::from_secs(60);
        // One process at a time.
        const LOCK: &str =
            "SELECT pg_advisory_xact_lock(hashtext('mixpanel-groups'), hashtext('migrate'));";
        let statements = [LOCK, &self.migration()].concat();
        let shared = &self.0.shared;
        let mut connection = Connection::new(&shared.connect, &shared.names);
        let migrate = async move {
            let what = "create the outbox's tables";
            connection.batch(what, &statements).await
        };
        shared.wait(TIMEOUT, migrate)
    }

    /// Publishes an update or an event as part of a transaction: it is sent once the transaction commits. An empty
    /// update, such as `set` without properties, is left out.
    ///
    /// The transaction is a [`postgres::Transaction`], or with the feature `diesel` any connection of Diesel 2 to
    /// PostgreSQL, pooled or not. Outside a transaction the update is published at once. No
    /// deadline of the outbox applies: set timeouts on the connection.
    ///
    /// [`before_send`](mixpanel_groups::buffered::BufferedClientBuilder::before_send) is not called: apply privacy rules before
    /// you publish.
    ///
    /// # Errors
    /// - [`InvalidUpdate`](mixpanel_groups::ErrorKind::InvalidUpdate) if the update cannot be sent. The
    ///   transaction is not affected.
    /// - [`Io`](mixpanel_groups::ErrorKind::Io) if the database fails. Its source is the driver's error: after `40P01`, a
    ///   deadlock, roll the transaction back and repeat it.
    /// - [`Damaged`](mixpanel_groups::ErrorKind::Damaged) if slots are missing: run [`migrate`](Self::migrate).
    pub fn publish_in<D>(
        &self,
        transaction: &mut impl PublishIn<D>,
        record: impl IntoRecord,
    ) -> Result<(), Error> {
        self.publish_all_in(transaction, [record]).map(drop)
    }

    /// Publishes many updates as part of a transaction, much faster than one by one, and with the locks of all groups taken
    /// in one order, so that two such transactions do not deadlock. Returns how many were published; empty ones are left
    /// out. As with [`publish_in`](Self::publish_in), `before_send` is not called.
    ///
    /// # Errors
    /// As [`publish_in`](Self::publish_in).
    pub fn publish_all_in<D>(
        &self,
        transaction: &mut impl PublishIn<D>,
        records: impl IntoRecords,
    ) -> Result<usize, Error> {
        let shared = &*self.0.shared;
        let encoded = encode(records)?;
        let notify = shared.settings.notify;
        publish(
            transaction,
            &shared.encoding,
            &shared.names.apply_to(PUBLISH),
            notify,
            &encoded,
        )?;
        Ok(encoded.len())
    }

    /// Publishes updates in a transaction of their own, and awaits the commit, in any async runtime. Calls that overlap
    /// share a transaction. No capacity applies. As with [`publish_in`](Self::publish_in), `before_send` is not called.
    ///
    /// If this is dropped before its end, the updates may be published or not.
    ///
    /// # Errors
    /// - [`InvalidUpdate`](mixpanel_groups::ErrorKind::InvalidUpdate) if an update cannot be sent. None is published.
    /// - [`Io`](mixpanel_groups::ErrorKind::Io) if the database fails, and [`Timeout`](mixpanel_groups::ErrorKind::Timeout)
    ///   if it does not respond in [time](PostgresOutboxBuilder::timeout). In either case they may be published all the same,
    ///   and after `Timeout` even after later ones of the same group.
    /// - [`Full`](mixpanel_groups::ErrorKind::Full) if 10,000 calls wait already.
    /// - [`Closed`](mixpanel_groups::ErrorKind::Closed) if this process is a fork of the one that built the outbox.
    pub async fn publish_async(&self, records: impl IntoRecords) -> Result<(), Error> {
        let records = encode(records)?;
        if records.is_empty() {
            return Ok(());
        }
        let shared = &*self.0.shared;
        let (runtime, time) = (shared.runtime()?, shared.settings.timeout);
        let writer = &shared.writer;
        let queued = writer.queue(runtime.handle(), records, UNLIMITED, time)?;
        runtime.join(time, Writer::written(queued)).await.map(drop)
    }
}

fn encode(records: impl IntoRecords) -> Result<Vec<EncodedRecord>, Error> {
    let records = records.into_records();
    let encoded = records.filter_map(|record| record.into_record().transpose());
    encoded.collect()
}

impl<R: OutboxRecord> PostgresOutbox<R> {
    fn queue(
        connect: &Arc<dyn Connect>,
        names: Names,
        settings: &OutboxSettings,
        runtime: &Arc<Mutex<Option<Arc<Runtime>>>>,
        meter: &Arc<AsyncMutex<Connection>>,
        events: Option<PostgresOutbox<EncodedEvent>>,
    ) -> Self {
        let encoding = Arc::default();
        let connection = Connection::new(connect, &names);
        let writer = Writer::new(connection, &encoding, names.kind(), settings.notify);
        let shared = Shared {
            kind: PhantomData,
            process: process::id(),
            connect: Arc::clone(connect),
            names,
            settings: settings.clone(),
            encoding,
            writer: Arc::new(writer),
            meter: Arc::clone(meter),
            runtime: Arc::clone(runtime),
        };
        Self(Arc::new(Handle::new(Arc::new(shared), events)))
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl<R: OutboxRecord> Handle<R> {
    fn new(shared: Arc<Shared<R>>, events: Option<PostgresOutbox<EncodedEvent>>) -> Self {
        Self {
            events,
            timeout: AtomicU64::new(nanos(shared.settings.timeout)),
            relay: OnceLock::new(),
            last_taken: Arc::default(),
            shared,
        }
    }

    fn timeout(&self) -> Duration {
        Duration::from_nanos(self.timeout.load(Ordering::Relaxed))
    }

    fn relay(&self) -> Result<Arc<AsyncMutex<Relay>>, Error> {
        let shared = &*self.shared;
        shared.check_process()?;
        let relay = self.relay.get_or_init(|| {
            let connection = Connection::new(&shared.connect, &shared.names);
            let relay = Relay::new(connection, &shared.settings, &self.last_taken);
            Arc::new(AsyncMutex::new(relay))
        });
        Ok(Arc::clone(relay))
    }
}

impl<R: OutboxRecord> Shared<R> {
    fn is_forked(&self) -> bool {
        self.process != process::id()
    }

    fn check_process(&self) -> Result<(), Error> {
        if self.is_forked() {
            let message = "the outbox belongs to the parent process: build one after the fork";
            return Err(Error::new(ErrorKind::Closed, message));
        }
        Ok(())
    }

    /// Returns the thread of the connections, starting it if necessary.
    fn runtime(&self) -> Result<Arc<Runtime>, Error> {
        self.check_process()?;
        let mut runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = &*runtime {
            return Ok(Arc::clone(runtime));
        }
        let started = Arc::new(Runtime::start()?);
        *runtime = Some(Arc::clone(&started));
        Ok(started)
    }

    fn wait<T: Send + 'static>(
        &self,
        time: Duration,
        job: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        self.runtime()?.wait(time, job)
    }
}

/// No call takes much longer than the [timeout](PostgresOutboxBuilder::timeout); then it returns
/// [`Timeout`](mixpanel_groups::ErrorKind::Timeout).
///
/// The capacity applies to a depth that is measured at most once a second, plus what this process has
/// appended since. So several processes together may exceed it. It does not apply to
/// [`publish_in`](Self::publish_in): no transaction of the application fails because Mixpanel cannot be
/// reached.
///
/// If the connection breaks during a commit, or the commit takes too long, `append` returns an error although the
/// updates may have been published. After [`Timeout`](mixpanel_groups::ErrorKind::Timeout) this may also happen later, after
/// newer updates of the same group: a server that was paused, or a network that held packets back, executes the statement
/// then, if the request to break it off does not come before. Where that matters, publish the latest values again.
///
/// A backlog that is too large to be read, settled or dropped in that time is handled in parts, so that what was sent is not
/// sent again in each round.
impl<R: OutboxRecord> Outbox<R> for PostgresOutbox<R> {
    /// Calls that overlap share a transaction.
    fn append(&self, updates: &[R], capacity: Capacity) -> Result<bool, Error> {
        if updates.is_empty() {
            return Ok(true);
        }
        let (runtime, time) = (self.0.shared.runtime()?, self.0.timeout());
        let records = updates.iter().cloned().map(Into::into).collect();
        let writer = &self.0.shared.writer;
        let queued = writer.queue(runtime.handle(), records, capacity, time)?;
        runtime.wait(time, Writer::written(queued))
    }

    fn take(&self, most: usize) -> Result<Vec<OutboxEntry<R>>, Error> {
        let (relay, time) = (self.0.relay()?, self.0.timeout());
        let start = Instant::now();
        let take = async move {
            let mut relay = relay.lock().await;
            relay.take(most, time.saturating_sub(start.elapsed())).await
        };
        self.0.shared.wait(time, take)
    }

    fn settle(&self, accepted: &[i64], rejected: &[(i64, &Rejection)]) -> Result<(), Error> {
        let (relay, accepted) = (self.0.relay()?, accepted.to_vec());
        let rejected = rejected
            .iter()
            .map(|(id, rejection)| (*id, message(rejection)));
        let rejected: Vec<_> = rejected.collect();
        let (start, time) = (Instant::now(), self.0.timeout());
        let settle = async move {
            let mut relay = relay.lock().await;
            let left = time.saturating_sub(start.elapsed());
            relay.settle(accepted, rejected, left).await
        };
        self.0.shared.wait(time, settle)
    }

    fn hold(&self, time: Duration) -> Result<bool, Error> {
        let relay = self.0.relay()?;
        let hold = async move { relay.lock().await.hold(time).await };
        self.0.shared.wait(self.0.timeout(), hold)
    }

    fn release(&self) -> Result<(), Error> {
        let relay = self.0.relay()?;
        let release = async move { relay.lock().await.release().await };
        self.0.shared.wait(self.0.timeout(), release)
    }

    /// Removes some more than necessary, a thousandth of the capacity. The removed updates may be among those that
    /// another process has taken, or that this one reads at that moment: these are sent all the same.
    ///
    /// Where more waits than twice the capacity, other processes have a larger one, or publish in
    /// transactions: then nothing is removed.
    fn drop_oldest(
        &self,
        updates: usize,
        bytes: usize,
        capacity: Capacity,
    ) -> Result<usize, Error> {
        let writer = Arc::clone(&self.0.shared.writer);
        let last_taken = Arc::clone(&self.0.last_taken);
        let time = self.0.timeout();
        let dropped = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&dropped);
        let drop = async move {
            let drop = writer.drop_oldest(&last_taken, updates, bytes, capacity, time, &count);
            drop.await
        };
        let outcome = self.0.shared.wait(time, drop);
        // What is gone counts, whatever became of the rest.
        match dropped.load(Ordering::Relaxed) {
            0 => outcome.map(|()| 0),
            dropped => Ok(dropped),
        }
    }

    fn depth(&self) -> Result<Depth, Error> {
        let shared = &self.0.shared;
        let (meter, kind) = (Arc::clone(&shared.meter), shared.names.kind());
        let relay = self.0.relay.get().cloned();
        let depth = async move {
            // A flush and a shutdown measure when the relay is idle: then they open no connection at the very end.
            if let Some(relay) = &relay
                && let Ok(mut relay) = relay.try_lock()
                && relay.is_idle()
            {
                return measure_and_merge(&mut relay.connection, kind).await;
            }
            measure_and_merge(&mut *meter.lock().await, kind).await
        };
        self.0.shared.wait(SHORT.min(self.0.timeout()), depth)
    }

    /// Returns `true`: no call takes longer, nor longer than the builder's timeout.
    fn set_timeout(&self, timeout: Duration) -> bool {
        let timeout = timeout.min(self.0.shared.settings.timeout);
        self.0.timeout.store(nanos(timeout), Ordering::Relaxed);
        true
    }

    fn events(&self) -> Option<Arc<dyn Outbox<EncodedEvent>>> {
        // Not a clone, which would take for itself.
        let events = Arc::clone(&self.0.events.as_ref()?.0);
        Some(Arc::new(PostgresOutbox(events)))
    }

    fn on_append(&self, wake: Arc<dyn Fn() + Send + Sync>) {
        let shared = &self.0.shared;
        if !shared.settings.notify {
            return;
        }
        let start = || {
            let (relay, statement) = (Arc::downgrade(&self.0.relay()?), shared.names.listen());
            shared.runtime()?.spawn(listen(relay, statement, wake));
            Ok::<_, Error>(())
        };
        if let Err(error) = start() {
            log::error!("cannot listen to the outbox, so the sender polls it: {error:#}");
        }
    }
}

/// Keeps a connection that listens, as long as there is the relay.
async fn listen(relay: Weak<AsyncMutex<Relay>>, statement: String, wake: Wake) {
    if let Some(relay) = relay.upgrade() {
        relay.lock().await.connection.listen(statement, wake);
    }
    while let Some(relay) = relay.upgrade() {
        // What uses the connection opens it.
        if let Ok(mut relay) = relay.try_lock() {
            let opened = timeout(SHORT, relay.connection.ensure_open()).await;
            if let Ok(Err(error)) = opened {
                log::debug!("cannot listen to the outbox, so the sender polls it: {error:#}");
            }
        }
        drop(relay);
        sleep(CHECK_EVERY).await;
    }
}

/// Lets another relay send at once.
impl<R: OutboxRecord> Drop for Handle<R> {
    fn drop(&mut self) {
        let relay = self.relay.take();
        if self.shared.is_forked() {
            // Dropping a connection would wake its thread, and take locks for that.
            return mem::forget((relay, Arc::clone(&self.shared)));
        }
        let runtime = self.shared.runtime.lock();
        let is_started = runtime.is_ok_and(|runtime| runtime.is_some());
        let Some(relay) = relay.filter(|_| is_started) else {
            return;
        };
        let release = async move { relay.lock().await.release().await };
        if let Err(error) = self.shared.wait(SHORT, release) {
            log::warn!("cannot release the lease, so another relay waits until it ends: {error:#}");
        }
    }
}

impl<R: OutboxRecord> fmt::Debug for PostgresOutbox<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresOutbox")
            .field("names", &self.0.shared.names)
            .field("settings", &self.0.shared.settings)
            .finish_non_exhaustive()
    }
}

/// Returns the message of a rejected update, as the table keeps it: PostgreSQL's text cannot contain NUL.
fn message(rejection: &Rejection) -> String {
    let message = match &rejection.field {
        Some(field) => format!("{field}: {}", rejection.message),
        None => rejection.message.clone(),
    };
    message.replace('\0', "\u{fffd}")
}

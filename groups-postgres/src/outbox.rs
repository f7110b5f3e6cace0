use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postgres::tls::{MakeTlsConnect, TlsConnect};
use postgres::{Config, GenericClient, Socket};

use crate::builder::{OutboxSettings, PostgresOutboxBuilder};
use crate::connection::{Connect, connector};
use crate::listener::Listener;
use crate::relay::{Relay, message};
use crate::sql::TableNames;
use crate::writer::Writer;
use mixpanel_groups::outbox::{Capacity, Depth, OutboxEntry};
use mixpanel_groups::{EncodedUpdate, Error, Outbox, Rejection, Update};

/// An outbox in a PostgreSQL database (15 or newer), for applications on several machines.
///
/// Updates are published [inside the application's own transactions](Self::publish_in). Any number of
/// processes send them: each process that drains the outbox is a *relay*.
///
/// ```no_run
/// # use std::time::Duration;
/// # use mixpanel_groups::{Client, Group};
/// # use mixpanel_groups_postgres::PostgresOutbox;
/// # use serde_json::json;
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
/// `config` and the TLS connector are those of the crate `postgres`, version 0.19. The outbox opens a
/// connection when it needs one: none for `publish_in`, one for [`append`](Outbox::append), two for a
/// relay. A relay's connections must keep their session, so they go to the server directly or through a
/// pooler in session mode; publishers may use any pooler.
///
/// # Order
/// The updates of a group are sent in the order in which their transactions committed, also when
/// transactions overlap; those of one transaction in the order of publishing. Ids from a sequence do not
/// ensure that by themselves: a transaction may take its id first and commit last. Hence:
///
/// 1. A publishing transaction locks a row of the table `…_slot` for each of its groups, and takes ids
///    only then. The row is chosen by a hash of group key and id, out of 16,384. PostgreSQL releases row
///    locks after the commit is visible to others. So of two transactions with updates of one group, the
///    second takes its ids after the first has committed: within a group, ids are in the order of
///    commits, and a relay that sees an update sees all earlier ones. A rollback, also one to a
///    savepoint, removes the rows and the lock; a prepared transaction keeps both.
/// 2. All updates of a group are in one of 64 partitions. A relay takes them from the lowest id on, and
///    its session holds an advisory lock on the partition until they are settled. So no two relays send
///    updates of one group at a time.
/// 3. A session can end while its relay still runs: a network fails, the server restarts. A relay checks
///    its session every half second, and stops the request under way if the session has ended. The next
///    relay sees in the table `…_partition` that the outcome of the partition's updates is not known,
///    and until when a request of that relay can be under way: before each request a relay writes that
///    down, and starts none if it has lost the partition. So the next relay waits until then, and at least
///    for a [grace period](PostgresOutboxBuilder::grace). Then it sends what was not settled again, in
///    order, which leaves the profiles the same. What no client can prevent is that Mixpanel applies a
///    request after its client gave it up.
///
/// # What the application should do
/// - Change your own row before you publish, so that all transactions lock the row and the slot in the
///   same order.
/// - Publish shortly before the commit: other transactions that publish for the same group wait from then
///   on.
/// - Publish for several groups in one call of [`publish_all_in`](Self::publish_all_in), which locks the
///   slots in the order of the groups' keys and ids.
///
/// Otherwise two transactions may deadlock; PostgreSQL then ends one of them, which can be repeated.
///
/// # Tables
/// [`MIGRATION`](Self::MIGRATION) has a comment on each table. `…_rejected` keeps what Mixpanel refused,
/// with its message, for 30 days by default. `…_accepted` keeps what it accepted, if
/// [that is set](PostgresOutboxBuilder::keep_accepted). The views `…_waiting` and `…_partitions` are for
/// people:
///
/// ```sql
/// SELECT age, body FROM mixpanel_outbox_waiting WHERE group_id = 'acme';
/// SELECT rejected_at, message, body FROM mixpanel_outbox_rejected ORDER BY rejected_at DESC;
/// ```
///
/// An application's role needs `SELECT`, `INSERT`, `UPDATE` and `DELETE` on the tables, and no other
/// privilege. Any transaction that stays open for hours keeps PostgreSQL from vacuuming the table, which
/// slows relays down.
pub struct PostgresOutbox {
    names: TableNames,
    settings: OutboxSettings,
    /// The statement that appends updates.
    publish: String,
    writer: Mutex<Writer>,
    relay: Arc<Mutex<Relay>>,
    listener: Arc<Listener>,
}

/// A constant of its own, so that the documentation shows its name instead of its text.
const MIGRATION: &str = include_str!("migration.sql");

impl PostgresOutbox {
    /// The tables and views as SQL, for the default names. [`migration`](Self::migration) returns it for
    /// others.
    pub const MIGRATION: &'static str = MIGRATION;

    /// Returns an outbox with default settings. It does not connect yet.
    ///
    /// # Errors
    /// None with the default settings.
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
    /// Unless `config` sets them, the connect timeout and the TCP user timeout are 5 s, and the application
    /// name is `mixpanel-groups`.
    pub fn builder<T>(config: Config, tls: T) -> PostgresOutboxBuilder
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::TlsConnect: Send,
        T::Stream: Send,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        PostgresOutboxBuilder::new(connector(config, tls))
    }

    pub(crate) fn from_parts(
        connect: &Arc<Connect>,
        names: TableNames,
        settings: OutboxSettings,
    ) -> Self {
        let relay = Arc::new(Mutex::new(Relay::new(connect, &names, &settings)));
        Self {
            publish: crate::publish::statement(&names, settings.notify),
            writer: Mutex::new(Writer::new(connect, &names)),
            listener: Listener::new(connect, &names, &relay),
            relay,
            names,
            settings,
        }
    }

    /// Returns [`MIGRATION`](Self::MIGRATION) for this outbox's names.
    #[must_use]
    pub fn migration(&self) -> String {
        self.names.apply_to(Self::MIGRATION)
    }

    /// Creates the tables and views, if they do not exist. Several processes may call it at a time.
    ///
    /// # Errors
    /// [`Io`](mixpanel_groups::ErrorKind::Io) if they cannot be created, for instance because the schema does
    /// not exist or the role lacks the privilege.
    pub fn migrate(&self) -> Result<(), Error> {
        self.writer().migrate(&self.migration())
    }

    /// Publishes an update as part of a transaction: it is sent once the transaction commits. An empty
    /// update, such as `set` without properties, is left out.
    ///
    /// With a [`postgres::Client`] in place of a transaction, the update is published at once.
    ///
    /// # Errors
    /// - [`InvalidUpdate`](mixpanel_groups::ErrorKind::InvalidUpdate) if the update cannot be sent. The
    ///   transaction is not affected.
    /// - [`Io`](mixpanel_groups::ErrorKind::Io) if the database fails.
    /// - [`Damaged`](mixpanel_groups::ErrorKind::Damaged) if slots are missing: run [`migrate`](Self::migrate).
    pub fn publish_in<'u>(
        &self,
        transaction: &mut impl GenericClient,
        update: impl Into<Update<'u>>,
    ) -> Result<(), Error> {
        self.publish_all_in(transaction, [update]).map(drop)
    }

    /// Publishes many updates as part of a transaction, much faster than one by one. Returns how many were
    /// published; empty ones are left out.
    ///
    /// # Errors
    /// As [`publish_in`](Self::publish_in).
    pub fn publish_all_in<'u, I>(
        &self,
        transaction: &mut impl GenericClient,
        updates: I,
    ) -> Result<usize, Error>
    where
        I: IntoIterator,
        I::Item: Into<Update<'u>>,
    {
        let encoded: Vec<_> = updates
            .into_iter()
            .filter_map(|update| EncodedUpdate::new(&update.into()).transpose())
            .collect::<Result<_, _>>()?;
        crate::publish::publish(transaction, &self.publish, &encoded)?;
        Ok(encoded.len())
    }

    fn relay(&self) -> MutexGuard<'_, Relay> {
        self.relay.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The capacity applies to a depth that is measured at most once a second, plus what this process has
/// appended since. So several processes together may exceed it. It does not apply to
/// [`publish_in`](Self::publish_in): no transaction of the application fails because Mixpanel cannot be
/// reached.
///
/// If the connection breaks during a commit, `append` returns an error although the updates may have
/// been published.
impl Outbox for PostgresOutbox {
    fn append(&self, updates: &[EncodedUpdate], capacity: Capacity) -> Result<bool, Error> {
        self.writer().append(&self.publish, updates, capacity)
    }

    fn take(&self, most: usize) -> Result<Vec<OutboxEntry>, Error> {
        self.relay().take(most)
    }

    fn settle(&self, accepted: &[i64], rejected: &[(i64, &Rejection)]) -> Result<(), Error> {
        let rejected: Vec<_> = rejected
            .iter()
            .map(|(id, rejection)| (*id, message(rejection)))
            .collect();
        self.relay().settle(accepted, &rejected)
    }

    fn hold(&self, time: Duration) -> Result<bool, Error> {
        self.relay().hold(time)
    }

    fn release(&self) -> Result<(), Error> {
        self.relay().release()
    }

    /// The removed updates may be among those that other processes have taken; these are sent all the same.
    fn drop_oldest(
        &self,
        updates: usize,
        bytes: usize,
        capacity: Capacity,
    ) -> Result<usize, Error> {
        let taken = self.relay().taken();
        self.writer().drop_oldest(&taken, updates, bytes, capacity)
    }

    /// Reads the whole table.
    fn depth(&self) -> Result<Depth, Error> {
        self.writer().measure()
    }

    fn on_append(&self, wake: Arc<dyn Fn() + Send + Sync>) {
        self.listener.register(|hooks| hooks.wake = Some(wake));
    }

    fn on_loss(&self, stop: Arc<dyn Fn() + Send + Sync>) {
        self.listener.register(|hooks| hooks.stop = Some(stop));
    }
}

impl fmt::Debug for PostgresOutbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresOutbox")
            .field("names", &self.names)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

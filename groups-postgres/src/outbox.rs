//! An outbox in PostgreSQL.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postgres::tls::{MakeTlsConnect, TlsConnect};
use postgres::{Config, GenericClient, Socket};

use crate::connection::{Connect, connector};
use crate::listener::Listener;
use crate::names::Names;
use crate::relay::{Relay, message};
use crate::settings::Settings;
use crate::writer::Writer;
use mixpanel_groups::outbox::{Capacity, Depth, OutboxEntry};
use mixpanel_groups::{EncodedUpdate, Error, Outbox, Rejection, Update};

/// The outbox in a PostgreSQL database (15 or newer), for applications on several machines: updates
/// are published [inside the application's own transactions](Self::publish_in), and any number of
/// processes send them.
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
/// `config` and the TLS connector are of the crate `postgres`, version 0.19. An outbox opens no
/// connection before it needs one: none for `publish_in`, one for [`append`](Outbox::append), two
/// for a relay. Relays need a connection of their own to the server, or through a pooler that
/// leaves them a session; publishers can go through any.
///
/// # Order
/// The updates of a group are sent in the order in which their transactions committed (those of
/// one transaction in the order of publishing), also when transactions overlap. An id from a
/// sequence does not say that by itself: a transaction may take its id first and commit last, and
/// ids are visible only then. Hence:
///
/// 1. A transaction that publishes locks a row of the table `…_slot` for each of its groups (chosen
///    by a hash of key and id, 16,384 rows in all), and only then takes ids. PostgreSQL releases
///    row locks after the commit is visible to others. So of two transactions with updates of one
///    group, the second takes its ids after the first has committed: within a group, the order of
///    ids is the order of commits, and who sees an update sees all earlier ones of its group.
///    A rollback, also one to a savepoint, removes rows and lock alike; a prepared transaction
///    keeps both.
/// 2. All updates of a group are in one of 64 partitions, and a relay takes them from the lowest id
///    on, under an advisory lock on the partition that its session holds until it has settled them.
///    So no two relays have updates of one group at a time.
/// 3. A session can end while its relay lives: a cut cable, a server that restarts. The relay looks
///    every half second whether its session is alive, and breaks off what it is sending if not.
///    Whoever gets a partition next sees from the table `…_partition` that the fate of its updates
///    is not known, and leaves it alone for a [time of grace](PostgresOutboxBuilder::grace). What
///    was sent and not settled is sent once more, from there on and in order, which makes the same
///    of the profiles.
///
/// What it asks of the application: publish after changing your own row, so that two transactions
/// lock the row and the slot in the same order; best as the last thing before the commit, since
/// others who publish of the same group wait from then on. One that publishes for several groups
/// should do it in one call ([`publish_all_in`](Self::publish_all_in)), which locks in the order of
/// the groups' keys and ids, or keep to that order itself. Otherwise PostgreSQL may find a deadlock
/// and end one of the transactions, which can be repeated like any other.
///
/// # Tables
/// [`MIGRATION`](Self::MIGRATION) is to be read. `…_rejected` has what Mixpanel refused, with its
/// message, for 30 days by default; `…_accepted` has what it accepted, if it is
/// [kept](PostgresOutboxBuilder::keep_accepted). The views `…_waiting` and `…_partitions` are for
/// people to look at:
///
/// ```sql
/// SELECT age, body FROM mixpanel_outbox_waiting WHERE group_id = 'acme';
/// SELECT rejected_at, message, body FROM mixpanel_outbox_rejected ORDER BY rejected_at DESC;
/// ```
///
/// An application's role needs `SELECT`, `INSERT`, `UPDATE` and `DELETE` on the tables, and
/// nothing else. A transaction that stays open for hours, whichever it is, keeps PostgreSQL from
/// cleaning the table, and slows relays down.
pub struct PostgresOutbox {
    names: Names,
    settings: Settings,
    publish: String,
    writer: Mutex<Writer>,
    relay: Arc<Mutex<Relay>>,
    listener: Arc<Listener>,
}

/// The settings of a [`PostgresOutbox`]: see [`PostgresOutbox::builder`].
#[must_use = "a builder does nothing before `build`"]
pub struct PostgresOutboxBuilder {
    connect: Arc<Connect>,
    names: Names,
    settings: Settings,
}

impl PostgresOutboxBuilder {
    /// The schema of the tables, which must exist; default `public`. Up to 30 lower-case letters,
    /// digits and underscores, and no reserved word.
    pub fn schema(mut self, schema: impl Into<String>) -> Self {
        self.names.schema = schema.into();
        self
    }

    /// The table's name, with which the names of the others begin; default `mixpanel_outbox`. The
    /// same rules as for the schema.
    pub fn table(mut self, table: impl Into<String>) -> Self {
        self.names.table = table.into();
        self
    }

    /// How long accepted updates are kept in `…_accepted`; by default, or with zero, they are
    /// deleted.
    pub fn keep_accepted(mut self, time: Duration) -> Self {
        self.settings.keep_accepted = time;
        self
    }

    /// How long rejected updates are kept in `…_rejected`; default 30 days.
    pub fn keep_rejected(mut self, time: Duration) -> Self {
        self.settings.keep_rejected = time;
        self
    }

    /// How long updates are left alone after another relay was lost that had taken them; default
    /// 2 s. A relay that lost its connection but lives notices and stops sending within this time.
    pub fn grace(mut self, time: Duration) -> Self {
        self.settings.grace = time;
        self
    }

    /// Whether relays are told at once when something was published (`NOTIFY`); default yes. If
    /// not, they look once in a [flush interval](mixpanel_groups::buffered::BufferedClientBuilder::flush_interval).
    ///
    /// PostgreSQL lets transactions that notify commit one after the other only. Where thousands a
    /// second publish, that is felt; there, look more often instead.
    pub fn notify(mut self, notify: bool) -> Self {
        self.settings.notify = notify;
        self
    }

    /// The outbox. It does not connect yet.
    ///
    /// # Errors
    /// If schema or table cannot be called so.
    pub fn build(self) -> Result<PostgresOutbox, Error> {
        let Self {
            connect,
            names,
            settings,
        } = self;
        names.check()?;
        let relay = Arc::new(Mutex::new(Relay::new(&connect, &names, &settings)));
        Ok(PostgresOutbox {
            publish: crate::publish::statement(&names, settings.notify),
            writer: Mutex::new(Writer::new(&connect, &names)),
            listener: Listener::new(&connect, &names, &relay),
            relay,
            names,
            settings,
        })
    }
}

/// A constant of its own, so that the documentation shows its name instead of all its lines.
const MIGRATION: &str = include_str!("migration.sql");

impl PostgresOutbox {
    /// The tables and views, as SQL for the default schema and name; see
    /// [`migration`](Self::migration) for others.
    pub const MIGRATION: &'static str = MIGRATION;

    /// An outbox with every setting at its default.
    ///
    /// # Errors
    /// None with the default names.
    pub fn new<T>(config: Config, tls: T) -> Result<Self, Error>
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::TlsConnect: Send,
        T::Stream: Send,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        Self::builder(config, tls).build()
    }

    /// An outbox with other settings.
    ///
    /// Where `config` does not say otherwise, connecting may take 5 s, and a connection on which
    /// the server does not answer for as long counts as broken.
    pub fn builder<T>(config: Config, tls: T) -> PostgresOutboxBuilder
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::TlsConnect: Send,
        T::Stream: Send,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        PostgresOutboxBuilder {
            connect: connector(config, tls),
            names: Names::default(),
            settings: Settings::default(),
        }
    }

    /// [`MIGRATION`](Self::MIGRATION) for this outbox's schema and name.
    #[must_use]
    pub fn migration(&self) -> String {
        self.names.put_into(Self::MIGRATION)
    }

    /// Creates the tables and views, if they are not there. Several processes may do so at a time.
    ///
    /// # Errors
    /// If they cannot be created: the schema does not exist, the role may not.
    pub fn migrate(&self) -> Result<(), Error> {
        self.writer().migrate(&self.migration())
    }

    /// Publishes an update as part of a transaction: it will be sent if and when that commits.
    ///
    /// With a [`postgres::Client`] in place of a transaction it is published at once.
    ///
    /// # Errors
    /// If the update cannot be sent (it names group, property and cause), with which nothing has
    /// happened to the transaction; or if the database fails.
    pub fn publish_in<'u>(
        &self,
        transaction: &mut impl GenericClient,
        update: impl Into<Update<'u>>,
    ) -> Result<(), Error> {
        self.publish_all_in(transaction, [update]).map(drop)
    }

    /// Publishes many updates as part of a transaction, much faster than one by one; how many had
    /// something to say.
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
        let stored: Vec<_> = updates
            .into_iter()
            .filter_map(|update| EncodedUpdate::new(&update.into()).transpose())
            .collect::<Result<_, _>>()?;
        crate::publish::publish(transaction, &self.publish, &stored)?;
        Ok(stored.len())
    }

    fn relay(&self) -> MutexGuard<'_, Relay> {
        self.relay.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The capacity is measured by a count that is up to a second old, and by what this process has
/// appended since; what others append meanwhile may exceed it. [`publish_in`](Self::publish_in)
/// does not look at it: no transaction of the application fails because Mixpanel cannot be reached.
///
/// An error of `append` after the connection broke may mean that the updates are there all the
/// same, if it broke while they were committed.
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

    fn release(&self) -> Result<(), Error> {
        self.relay().release()
    }

    /// What other processes have taken may be among the removed; it is sent all the same.
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
        self.writer().count()
    }

    fn on_append(&self, wake: Arc<dyn Fn() + Send + Sync>) {
        self.listener.call(|hooks| hooks.wake = Some(wake));
    }

    fn on_loss(&self, stop: Arc<dyn Fn() + Send + Sync>) {
        self.listener.call(|hooks| hooks.stop = Some(stop));
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

impl fmt::Debug for PostgresOutboxBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresOutboxBuilder")
            .field("names", &self.names)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

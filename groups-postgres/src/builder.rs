use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::connector::Connect;
use crate::names::Names;
use crate::outbox::PostgresOutbox;
use mixpanel_groups::{Error, ErrorKind};

/// The settings of a [`PostgresOutbox`], from [`PostgresOutbox::builder`].
#[must_use = "a builder does nothing before `build`"]
pub struct PostgresOutboxBuilder {
    connect: Arc<dyn Connect>,
    names: Names,
    settings: OutboxSettings,
}

#[derive(Clone, Debug)]
pub(crate) struct OutboxSettings {
    pub(crate) keep_accepted: Duration,
    pub(crate) keep_rejected: Duration,
    pub(crate) timeout: Duration,
    pub(crate) notify: bool,
}

impl Default for OutboxSettings {
    fn default() -> Self {
        Self {
            keep_accepted: Duration::ZERO,
            keep_rejected: Duration::from_secs(30 * 24 * 60 * 60),
            timeout: Duration::from_secs(5),
            notify: true,
        }
    }
}

impl PostgresOutboxBuilder {
    pub(crate) fn new(connect: Arc<dyn Connect>) -> Self {
        Self {
            connect,
            names: Names::default(),
            settings: OutboxSettings::default(),
        }
    }

    /// Sets the schema of the tables, which must exist. The default is `public`.
    ///
    /// A name has 1 to 30 lower-case letters, digits and underscores, and does not start with a digit.
    pub fn schema(mut self, schema: impl Into<String>) -> Self {
        self.names.schema = schema.into();
        self
    }

    /// Sets the name of the table, with which the names of the other tables begin. The default is
    /// `mixpanel_outbox`.
    ///
    /// A name has 1 to 30 lower-case letters, digits and underscores, and does not start with a digit.
    pub fn table(mut self, table: impl Into<String>) -> Self {
        self.names.table = table.into();
        self
    }

    /// Sets how long accepted updates are kept in `…_accepted`. By default, and with zero, they are
    /// deleted at once. [`Duration::MAX`] keeps them forever. The time of the process that sends counts.
    pub fn keep_accepted(mut self, time: Duration) -> Self {
        self.settings.keep_accepted = time;
        self
    }

    /// Sets how long rejected updates are kept in `…_rejected`. The default is 30 days. With zero, a
    /// relay deletes them within a minute. [`Duration::MAX`] keeps them forever. The time of the process that sends counts;
    /// after a restart, it deletes nothing before it has sent something.
    pub fn keep_rejected(mut self, time: Duration) -> Self {
        self.settings.keep_rejected = time;
        self
    }

    /// Sets how long a call may wait for the database; the default is 5 s. Then it fails with
    /// [`Timeout`](mixpanel_groups::ErrorKind::Timeout). The depth,
    /// which [`stats`](mixpanel_groups::BufferedClient::stats), `flush` and `shutdown` read at their end, gets a second
    /// at most. Publishing waits for transactions that have published for the same group, or for
    /// [another one with the same slot](PostgresOutbox#what-the-application-should-do), and not ended yet, so the time should
    /// be longer than these.
    ///
    /// In a [`BufferedClient`](mixpanel_groups::BufferedClient), the smaller counts of this and its
    /// [`outbox_timeout`](mixpanel_groups::buffered::BufferedClientBuilder::outbox_timeout), which is 5 s by default: for more
    /// time, set both. [`publish_async`](PostgresOutbox::publish_async) has this one.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = timeout;
        self
    }

    /// Sets whether publishing wakes relays at once, by `NOTIFY` and `LISTEN`. The default is `true`: an update is sent some
    /// milliseconds after its commit, and under a steady load one delivery follows the other. Without it, a relay polls once
    /// in a [flush interval](mixpanel_groups::buffered::BufferedClientBuilder::flush_interval), so that more updates share a
    /// request.
    ///
    /// PostgreSQL commits transactions that notify one after the other. With thousands of publishing
    /// transactions a second that costs throughput: turn it off there, and shorten the flush interval. Turn it
    /// off, too, if transactions in which you publish end with `PREPARE TRANSACTION`, which `NOTIFY` excludes.
    pub fn notify(mut self, notify: bool) -> Self {
        self.settings.notify = notify;
        self
    }

    /// Returns the outbox. It does not connect yet.
    ///
    /// # Errors
    /// [`Config`](mixpanel_groups::ErrorKind::Config) if the name of the schema or the table is not of the
    /// form above, or the timeout is zero.
    pub fn build(self) -> Result<PostgresOutbox, Error> {
        self.names.check()?;
        if self.settings.timeout.is_zero() {
            return Err(Error::new(ErrorKind::Config, "invalid timeout: it is zero"));
        }
        let (connect, names) = (&self.connect, self.names);
        Ok(PostgresOutbox::from_parts(connect, names, &self.settings))
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

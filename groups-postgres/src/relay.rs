use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use postgres::Client;
use postgres::types::Type;

use crate::builder::OutboxSettings;
use crate::connection::{Connect, Params, ReconnectingClient, failed, random_bits};
use crate::publish::PARTITIONS;
use crate::sql::{RelayStatements, TableNames};
use mixpanel_groups::outbox::{HeldUntil, OutboxEntry};
use mixpanel_groups::{Error, Rejection};

/// The most bytes of JSON that a `take` reads. A single update may exceed it.
const MAX_BYTES: i64 = 32 << 20;

/// How often the relays are counted.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// How often old rows of `rejected` and `accepted` are removed.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// What this process has taken to send it, and the connection whose advisory locks are its lease.
pub(crate) struct Relay {
    connection: ReconnectingClient,
    statements: RelayStatements,
    settings: OutboxSettings,
    /// The locked partitions.
    held: Vec<i16>,
    /// The ids of the taken updates that are not settled, with their partitions.
    taken: HashMap<i64, i16>,
    /// Until when no other relay takes over, as far as is known.
    until: Option<HeldUntil>,
    /// The random id under which it claims partitions, a new one for each connection.
    claim_id: i64,
    /// The number of relays, this one included.
    relays: usize,
    counted: Option<Instant>,
    swept: Option<Instant>,
}

impl Relay {
    pub(crate) fn new(
        connect: &Arc<Connect>,
        names: &TableNames,
        settings: &OutboxSettings,
    ) -> Self {
        let statements = RelayStatements::new(names, settings);
        Self {
            connection: ReconnectingClient::new(connect, &statements.prepare),
            statements,
            settings: settings.clone(),
            held: Vec::new(),
            taken: HashMap::new(),
            until: None,
            claim_id: 0,
            relays: 0,
            counted: None,
            swept: None,
        }
    }

    /// Returns the connection, opening one if necessary, and its statements. A new connection holds no
    /// locks.
    fn client(&mut self) -> Result<(&mut Client, &RelayStatements), Error> {
        if self.connection.ensure_open()? {
            self.claim_id = i64::from_ne_bytes(random_bits().to_ne_bytes());
            self.counted = None;
            self.held.clear();
        }
        Ok((self.connection.client()?, &self.statements))
    }

    /// Takes a share of the partitions in which something waits, and reads them.
    pub(crate) fn take(&mut self, most: usize) -> Result<Vec<OutboxEntry>, Error> {
        self.release()?;
        self.until = None;
        let failed = |error| failed("read the outbox", error);
        self.client()?;
        self.count_relays()?;
        self.sweep()?;
        self.lock_share()?;
        if self.held.is_empty() {
            return Ok(Vec::new());
        }
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let each = most / i64::try_from(self.held.len()).unwrap_or(1) + 1;
        let held = self.held.clone();
        let params: &Params<'_> = &[
            (&held, Type::INT2_ARRAY),
            (&each, Type::INT8),
            (&most, Type::INT8),
            (&MAX_BYTES, Type::INT8),
        ];
        // The connection that has the locks: a new one would read without them.
        let client = self.connection.client()?;
        let rows = client
            .query_typed(&self.statements.read, params)
            .map_err(failed)?;
        let mut entries = Vec::with_capacity(rows.len());
        for row in rows {
            let id = row.try_get(0).map_err(failed)?;
            let partition = row.try_get(1).map_err(failed)?;
            self.taken.insert(id, partition);
            entries.push(OutboxEntry::read(id, row.try_get(2).map_err(failed)?));
        }
        Ok(entries)
    }

    /// Keeps other relays from what is held for the time of a request, also when this one is lost. Returns whether it is
    /// still held.
    pub(crate) fn hold(&mut self, time: Duration) -> Result<bool, Error> {
        if self.until.is_some_and(|until| until.covers(time)) {
            return Ok(true);
        }
        if self.held.is_empty() || !self.connection.is_open() {
            return Ok(false);
        }
        let lease = HeldUntil::lease(time);
        let until = HeldUntil::after(lease);
        let is_held = self.write_hold(lease)?;
        self.until = is_held.then_some(until);
        Ok(is_held)
    }

    fn write_hold(&mut self, lease: Duration) -> Result<bool, Error> {
        let (held, claim_id, lease) = (self.held.clone(), self.claim_id, seconds(lease));
        let params: &Params<'_> = &[
            (&held, Type::INT2_ARRAY),
            (&claim_id, Type::INT8),
            (&lease, Type::FLOAT8),
        ];
        // The connection that has the locks: after another one was opened, others may have taken over.
        let client = self.connection.client()?;
        let updated = client.execute_typed(&self.statements.hold, params);
        let updated = updated.map_err(|error| failed("hold partitions of the outbox", error))?;
        Ok(u64::try_from(held.len()) == Ok(updated))
    }

    /// Counts the relays, this one included, if the last count is too old.
    fn count_relays(&mut self) -> Result<(), Error> {
        if self
            .counted
            .is_some_and(|then| then.elapsed() < COUNT_EVERY)
        {
            return Ok(());
        }
        let (client, statements) = self.client()?;
        let count = client
            .query_typed_one(&statements.count, &[])
            .and_then(|row| row.try_get::<_, i64>(0))
            .map_err(|error| failed("count the relays of the outbox", error))?;
        self.relays = usize::try_from(count).unwrap_or_default().max(1);
        self.counted = Some(Instant::now());
        Ok(())
    }

    /// Locks a share of the partitions that have updates, and claims them under the relay's random id.
    /// Those whose updates a lost relay may still be sending are unlocked again.
    fn lock_share(&mut self) -> Result<(), Error> {
        let failed = |error| failed("lock partitions of the outbox", error);
        let mut all: Vec<i16> = (0..PARTITIONS).collect();
        let share = i64::try_from(all.len().div_ceil(self.relays)).unwrap_or(1);
        // Relays start at random partitions, so that they seldom compete for one.
        let start = usize::try_from(random_bits() >> 32).unwrap_or_default() % all.len();
        all.rotate_left(start);
        let params: &Params<'_> = &[(&all, Type::INT2_ARRAY), (&share, Type::INT8)];
        let (client, statements) = self.client()?;
        let rows = client.query_typed(&statements.lock, params);
        for row in rows.map_err(failed)? {
            let partition = row.try_get(0).map_err(failed)?;
            self.held.push(partition);
        }
        if self.held.is_empty() {
            return Ok(());
        }
        let (locked, claim_id) = (self.held.clone(), self.claim_id);
        let grace = seconds(self.settings.grace);
        let params: &Params<'_> = &[
            (&locked, Type::INT2_ARRAY),
            (&claim_id, Type::INT8),
            (&grace, Type::FLOAT8),
        ];
        let (client, statements) = self.client()?;
        let rows = client.query_typed(&statements.claim, params);
        let mut claimed: Vec<i16> = Vec::new();
        for row in rows.map_err(failed)? {
            claimed.extend(row.try_get::<_, Option<i16>>(0).map_err(failed)?);
        }
        let unclaimed = locked.iter().filter(|one| !claimed.contains(one));
        let unclaimed: Vec<i16> = unclaimed.copied().collect();
        self.unlock(&unclaimed)
    }

    fn unlock(&mut self, partitions: &[i16]) -> Result<(), Error> {
        if partitions.is_empty() {
            return Ok(());
        }
        self.held.retain(|held| !partitions.contains(held));
        let (client, statements) = self.client()?;
        client
            .query_typed(&statements.unlock, &[(&partitions, Type::INT2_ARRAY)])
            .map(drop)
            .map_err(|error| failed("unlock partitions of the outbox", error))
    }

    /// Deletes rows of `rejected` and `accepted` that have been kept long enough, once in a while.
    fn sweep(&mut self) -> Result<(), Error> {
        if self.swept.is_some_and(|then| then.elapsed() < SWEEP_EVERY) {
            return Ok(());
        }
        let rejected = seconds(self.settings.keep_rejected);
        let accepted = seconds(self.settings.keep_accepted);
        let params: &Params<'_> = &[(&rejected, Type::FLOAT8), (&accepted, Type::FLOAT8)];
        let (client, statements) = self.client()?;
        client
            .execute_typed(&statements.sweep, params)
            .map_err(|error| {
                failed(
                    "delete old rejected and accepted updates of the outbox",
                    error,
                )
            })?;
        self.swept = Some(Instant::now());
        Ok(())
    }

    /// Removes settled updates, and gives up the claim on partitions whose taken updates are all settled.
    pub(crate) fn settle(
        &mut self,
        accepted: &[i64],
        rejected: &[(i64, String)],
    ) -> Result<(), Error> {
        // PostgreSQL's text cannot contain NUL.
        let storable = |text: &String| text.replace('\0', "\u{fffd}");
        let (ids, messages): (Vec<i64>, Vec<String>) = rejected
            .iter()
            .map(|(id, message)| (*id, storable(message)))
            .unzip();
        let mut taken = self.taken.clone();
        for id in accepted.iter().chain(&ids) {
            taken.remove(id);
        }
        let unsettled: HashSet<i16> = taken.values().copied().collect();
        let mut settled = self.held.clone();
        settled.retain(|held| !unsettled.contains(held));
        let claim_id = self.claim_id;
        let run = |(client, statements): (&mut Client, &RelayStatements)| {
            let mut transaction = client.transaction()?;
            // If a crash of the server undoes this, the updates are sent again, which is harmless.
            transaction.batch_execute("SET LOCAL synchronous_commit = off")?;
            if !accepted.is_empty() {
                transaction.execute_typed(&statements.accept, &[(&accepted, Type::INT8_ARRAY)])?;
            }
            if !ids.is_empty() {
                let params: &Params<'_> =
                    &[(&ids, Type::INT8_ARRAY), (&messages, Type::TEXT_ARRAY)];
                transaction.execute_typed(&statements.reject, params)?;
            }
            transaction.execute_typed(
                &statements.forget,
                &[(&settled, Type::INT2_ARRAY), (&claim_id, Type::INT8)],
            )?;
            transaction.commit()
        };
        let mut result = run(self.client()?);
        if result.is_err() && !self.connection.is_open() {
            result = run(self.client()?);
        }
        result.map_err(|error| failed("settle updates in the outbox", error))?;
        self.taken = taken;
        Ok(())
    }

    /// Unlocks the partitions for other relays. The claim stays on those with updates that are not settled,
    /// because their outcome is not known.
    pub(crate) fn release(&mut self) -> Result<(), Error> {
        if !self.connection.is_open() {
            self.held.clear();
        }
        if self.until.take().is_some() && !self.taken.is_empty() && !self.held.is_empty() {
            // No request is under way any more.
            self.write_hold(Duration::ZERO)?;
        }
        self.unlock(&self.held.clone())?;
        self.taken.clear();
        Ok(())
    }

    /// Checks the connection that holds the lease, and closes it if it is dead. Returns whether the lease
    /// was lost.
    pub(crate) fn close_if_lease_lost(&mut self) -> bool {
        self.connection.close_if_dead()
    }

    /// Returns the ids of the taken updates that are not settled.
    pub(crate) fn taken(&self) -> Vec<i64> {
        self.taken.keys().copied().collect()
    }
}

/// Converts a time for SQL, where a thousand years stand for forever: longer ones overflow.
fn seconds(time: Duration) -> f64 {
    const FOREVER: Duration = Duration::from_secs(1_000 * 365 * 24 * 60 * 60);
    time.min(FOREVER).as_secs_f64()
}

/// Returns the message of a rejected update, as the table keeps it.
pub(crate) fn message(rejection: &Rejection) -> String {
    match &rejection.field {
        Some(field) => format!("{field}: {}", rejection.message),
        None => rejection.message.clone(),
    }
}

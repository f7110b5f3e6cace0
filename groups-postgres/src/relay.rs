use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use postgres::Client;
use postgres::types::Type;

use crate::connection::random_bits;
use crate::connection::{Connect, Connection, Params, failed};
use crate::names::Names;
use crate::settings::{Settings, seconds};
use crate::slot::PARTITIONS;
use crate::statements::Statements;
use mixpanel_groups::outbox::OutboxEntry;
use mixpanel_groups::{Error, Rejection};

/// How much a `take` reads at most, in bytes of JSON; one update more, if it is larger.
const MAX_BYTES: i64 = 32 << 20;

/// How often the relays are counted.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// How often old rows of `rejected` and `accepted` are removed.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// What a process that sends has taken, and the connection whose locks say so.
pub(crate) struct Relay {
    connection: Connection,
    statements: Statements,
    settings: Settings,
    /// The locked partitions.
    held: Vec<i16>,
    /// The updates that are not settled, and their partitions.
    taken: HashMap<i64, i16>,
    /// What it calls itself, a new name for each connection.
    name: i64,
    relays: usize,
    counted: Option<Instant>,
    swept: Option<Instant>,
}

impl Relay {
    pub(crate) fn new(connect: &Arc<Connect>, names: &Names, settings: &Settings) -> Self {
        let statements = Statements::new(names, settings);
        Self {
            connection: Connection::new(connect, &statements.prepare),
            statements,
            settings: settings.clone(),
            held: Vec::new(),
            taken: HashMap::new(),
            name: 0,
            relays: 0,
            counted: None,
            swept: None,
        }
    }

    /// The connection, and the SQL for it. A new one has no locks, and another name.
    fn client(&mut self) -> Result<(&mut Client, &Statements), Error> {
        if self.connection.renew()? {
            self.name = i64::from_ne_bytes(random_bits().to_ne_bytes());
            self.counted = None;
            self.held.clear();
        }
        Ok((self.connection.client()?, &self.statements))
    }

    /// Takes a share of the partitions in which something waits, and reads them.
    pub(crate) fn take(&mut self, most: usize) -> Result<Vec<OutboxEntry>, Error> {
        self.release()?;
        let failed = |error| failed("read the outbox", error);
        self.client()?;
        self.count()?;
        self.sweep()?;
        self.lock()?;
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

    /// Counts the relays, this one among them.
    fn count(&mut self) -> Result<(), Error> {
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
            .map_err(|error| failed("count the outbox's relays", error))?;
        self.relays = usize::try_from(count).unwrap_or_default().max(1);
        self.counted = Some(Instant::now());
        Ok(())
    }

    /// Locks a share of the partitions in which something waits, and writes its name to them.
    fn lock(&mut self) -> Result<(), Error> {
        let failed = |error| failed("lock partitions of the outbox", error);
        let mut all: Vec<i16> = (0..PARTITIONS).collect();
        let share = i64::try_from(all.len().div_ceil(self.relays)).unwrap_or(1);
        // Each relay begins somewhere else each time.
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
        let (locked, name) = (self.held.clone(), self.name);
        let grace = seconds(self.settings.grace);
        let params: &Params<'_> = &[
            (&locked, Type::INT2_ARRAY),
            (&name, Type::INT8),
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

    /// Removes old rows of `rejected` and `accepted`.
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
            .map_err(|error| failed("remove what the outbox has kept long enough", error))?;
        self.swept = Some(Instant::now());
        Ok(())
    }

    /// Removes updates whose fate is known, and its name from the partitions of which it knows all.
    pub(crate) fn settle(
        &mut self,
        accepted: &[i64],
        rejected: &[(i64, String)],
    ) -> Result<(), Error> {
        // PostgreSQL has no such character.
        let readable = |text: &String| text.replace('\0', "\u{fffd}");
        let (ids, messages): (Vec<i64>, Vec<String>) = rejected
            .iter()
            .map(|(id, message)| (*id, readable(message)))
            .unzip();
        let mut taken = self.taken.clone();
        for id in accepted.iter().chain(&ids) {
            taken.remove(id);
        }
        let unknown: HashSet<i16> = taken.values().copied().collect();
        let mut known = self.held.clone();
        known.retain(|held| !unknown.contains(held));
        let name = self.name;
        let run = |(client, statements): (&mut Client, &Statements)| {
            let mut transaction = client.transaction()?;
            // Should the server forget it in a crash, it is sent again.
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
                &[(&known, Type::INT2_ARRAY), (&name, Type::INT8)],
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

    /// Lets other relays have what it has locked. Its name stays where it does not know all.
    pub(crate) fn release(&mut self) -> Result<(), Error> {
        if !self.connection.is_open() {
            self.held.clear();
        }
        self.unlock(&self.held.clone())?;
        self.taken.clear();
        Ok(())
    }

    /// Whether it still has what it has taken; if not, it knows from now on.
    pub(crate) fn has_kept(&mut self) -> bool {
        self.connection.is_alive()
    }

    /// The updates that are not settled.
    pub(crate) fn taken(&self) -> Vec<i64> {
        self.taken.keys().copied().collect()
    }
}

/// What a person reads in `rejected`.
pub(crate) fn message(rejection: &Rejection) -> String {
    match &rejection.field {
        Some(field) => format!("{field}: {}", rejection.message),
        None => rejection.message.clone(),
    }
}

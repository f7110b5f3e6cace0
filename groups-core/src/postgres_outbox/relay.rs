use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use postgres::Client;
use postgres::types::Type;

use super::connection::{Connect, Connection, failed};
use super::names::Names;
use super::{PARTITIONS, Params, Settings};
use crate::random::random_bits;
use crate::{Error, Rejection, StoredUpdate, Waiting};

/// How much a `take` reads at most, in bytes of JSON; one update more, if it is larger.
const MAX_BYTES: i64 = 32 << 20;

/// How often the relays are counted.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// How often old rows of `rejected` and `accepted` are removed.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// What a process that sends has taken, and the connection whose locks say so.
#[derive(Default)]
pub(super) struct Relay {
    connection: Connection,
    /// Which connection that was, the last time it was used.
    session: u64,
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

/// The SQL of a relay, for its tables.
pub(super) struct Statements {
    prepare: String,
    count: String,
    lock: String,
    claim: String,
    read: String,
    unlock: String,
    accept: String,
    reject: String,
    forget: String,
    sweep: String,
}

impl Statements {
    pub(super) fn new(names: &Names, settings: &Settings) -> Self {
        let sql = |text: &str| {
            let class = "'public.mixpanel_outbox'::regclass::oid::integer";
            names.put_into(&text.replace("{class}", class))
        };
        let accept = if settings.keep_accepted.is_zero() {
            "DELETE FROM public.mixpanel_outbox WHERE id = ANY ($1)"
        } else {
            "WITH gone AS (
                 DELETE FROM public.mixpanel_outbox WHERE id = ANY ($1) RETURNING id, since, body
             ) INSERT INTO public.mixpanel_outbox_accepted (id, since, body) SELECT * FROM gone"
        };
        Self {
            // The server finds out within 11 s that a relay's machine is gone, and what the tables'
            // statistics say is always out of date. The shared lock is there to be counted.
            prepare: sql("SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2;
                 SET tcp_keepalives_count = 3; SET enable_seqscan = off;
                 SELECT pg_advisory_lock_shared({class}, -1)"),
            count: sql("SELECT count(*) FROM pg_locks
                 WHERE locktype = 'advisory' AND mode = 'ShareLock' AND granted
                   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                   AND classid = 'public.mixpanel_outbox'::regclass AND objid = (-1)::oid"),
            lock: sql("SELECT partition FROM (
                     SELECT partition FROM unnest($1::smallint[]) AS of (partition)
                     WHERE (SELECT o.id FROM public.mixpanel_outbox AS o
                            WHERE o.partition = of.partition
                            ORDER BY o.partition, o.id LIMIT 1) IS NOT NULL
                       AND (SELECT p.not_before <= now() FROM public.mixpanel_outbox_partition AS p
                            WHERE p.partition = of.partition)
                     OFFSET 0
                 ) AS busy WHERE pg_try_advisory_lock({class}, partition) LIMIT $2"),
            claim: sql("UPDATE public.mixpanel_outbox_partition
                 SET relay = CASE WHEN relay IS NULL OR relay = $2 OR $3 = 0 THEN $2 END,
                     not_before = CASE WHEN relay IS NULL OR relay = $2 OR $3 = 0 THEN not_before
                                       ELSE now() + $3 * interval '1 second' END
                 WHERE partition = ANY ($1) AND not_before <= now()
                 RETURNING CASE WHEN relay = $2 THEN partition END"),
            read: sql("SELECT id, partition, body::text FROM (
                     SELECT first.*, sum(first.bytes) OVER (ORDER BY first.id) AS total FROM (
                         SELECT o.* FROM unnest($1::smallint[]) AS of (partition)
                         CROSS JOIN LATERAL (
                             SELECT o.* FROM public.mixpanel_outbox AS o
                             WHERE o.partition = of.partition
                             ORDER BY o.partition, o.id LIMIT $2
                         ) AS o
                         ORDER BY o.id LIMIT $3
                     ) AS first
                 ) AS summed WHERE total - bytes < $4 ORDER BY id"),
            unlock: sql("SELECT count(pg_advisory_unlock({class}, partition))
                 FROM unnest($1::smallint[]) AS of (partition)"),
            accept: sql(accept),
            reject: sql("WITH gone AS (
                     DELETE FROM public.mixpanel_outbox WHERE id = ANY ($1) RETURNING id, since, body
                 ) INSERT INTO public.mixpanel_outbox_rejected (id, since, message, body)
                 SELECT id, since, message, body
                 FROM gone JOIN unnest($1::bigint[], $2::text[]) AS why (id, message) USING (id)"),
            forget: sql("UPDATE public.mixpanel_outbox_partition SET relay = NULL
                 WHERE partition = ANY ($1) AND relay = $2"),
            sweep: sql("WITH rejected AS (
                     DELETE FROM public.mixpanel_outbox_rejected
                     WHERE rejected_at < now() - $1 * interval '1 second'
                 ) DELETE FROM public.mixpanel_outbox_accepted
                 WHERE accepted_at < now() - $2 * interval '1 second'"),
        }
    }
}

/// What a relay works with.
pub(super) struct Context<'a> {
    pub(super) connect: &'a Connect,
    pub(super) statements: &'a Statements,
    pub(super) settings: &'a Settings,
}

impl Relay {
    /// The connection. A new one has no locks, and another name.
    fn client(&mut self, context: &Context<'_>) -> Result<&mut Client, Error> {
        let prepare = &context.statements.prepare;
        self.connection.get(context.connect, prepare)?;
        if self.connection.which() != self.session {
            self.session = self.connection.which();
            self.name = i64::from_ne_bytes(random_bits().to_ne_bytes());
            self.counted = None;
            self.held.clear();
        }
        self.connection.get(context.connect, prepare)
    }

    /// Takes a share of the partitions in which something waits, and reads them.
    pub(super) fn take(
        &mut self,
        most: usize,
        context: &Context<'_>,
    ) -> Result<Vec<Waiting>, Error> {
        self.release(context)?;
        self.taken.clear();
        let read = |error| failed("read the outbox", error);
        self.client(context)?;
        self.count(context)?;
        self.sweep(context)?;
        self.lock(context)?;
        if self.held.is_empty() {
            return Ok(Vec::new());
        }
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let each = most / i64::try_from(self.held.len()).unwrap_or(1) + 1;
        let held = self.held.clone();
        let rows = self
            .client(context)?
            .query_typed(
                &context.statements.read,
                &[
                    (&held, Type::INT2_ARRAY),
                    (&each, Type::INT8),
                    (&most, Type::INT8),
                    (&MAX_BYTES, Type::INT8),
                ],
            )
            .map_err(read)?;
        let (mut waiting, mut unreadable) = (Vec::with_capacity(rows.len()), Vec::new());
        for row in rows {
            let id = row.try_get(0).map_err(read)?;
            let partition = row.try_get(1).map_err(read)?;
            self.taken.insert(id, partition);
            match StoredUpdate::from_json(row.try_get(2).map_err(read)?) {
                Ok(update) => waiting.push(Waiting::new(id, update)),
                Err(error) => unreadable.push((id, error.to_string())),
            }
        }
        if !unreadable.is_empty() {
            log::error!("{} rows of the outbox are no updates", unreadable.len());
            self.settle(&[], &unreadable, context)?;
        }
        Ok(waiting)
    }

    /// Counts the relays, this one among them.
    fn count(&mut self, context: &Context<'_>) -> Result<(), Error> {
        if self
            .counted
            .is_some_and(|then| then.elapsed() < COUNT_EVERY)
        {
            return Ok(());
        }
        let count = self
            .client(context)?
            .query_typed_one(&context.statements.count, &[])
            .and_then(|row| row.try_get::<_, i64>(0))
            .map_err(|error| failed("count the outbox's relays", error))?;
        self.relays = usize::try_from(count).unwrap_or_default().max(1);
        self.counted = Some(Instant::now());
        Ok(())
    }

    /// Locks a share of the partitions in which something waits, and writes its name to them.
    fn lock(&mut self, context: &Context<'_>) -> Result<(), Error> {
        let failed = |error| failed("lock partitions of the outbox", error);
        let mut all: Vec<i16> = (0..PARTITIONS).collect();
        let share = i64::try_from(all.len().div_ceil(self.relays)).unwrap_or(1);
        // Each relay begins somewhere else each time.
        let start = usize::try_from(random_bits() >> 32).unwrap_or_default() % all.len();
        all.rotate_left(start);
        let params: &Params<'_> = &[(&all, Type::INT2_ARRAY), (&share, Type::INT8)];
        let client = self.client(context)?;
        let rows = client.query_typed(&context.statements.lock, params);
        for row in rows.map_err(failed)? {
            let partition = row.try_get(0).map_err(failed)?;
            self.held.push(partition);
        }
        if self.held.is_empty() {
            return Ok(());
        }
        let (locked, name) = (self.held.clone(), self.name);
        let grace = context.settings.grace.as_secs_f64();
        let params: &Params<'_> = &[
            (&locked, Type::INT2_ARRAY),
            (&name, Type::INT8),
            (&grace, Type::FLOAT8),
        ];
        let rows = self
            .client(context)?
            .query_typed(&context.statements.claim, params);
        let mut claimed: Vec<i16> = Vec::new();
        for row in rows.map_err(failed)? {
            claimed.extend(row.try_get::<_, Option<i16>>(0).map_err(failed)?);
        }
        let unclaimed = locked.iter().filter(|one| !claimed.contains(one));
        let unclaimed: Vec<i16> = unclaimed.copied().collect();
        self.unlock(&unclaimed, context)
    }

    fn unlock(&mut self, partitions: &[i16], context: &Context<'_>) -> Result<(), Error> {
        if partitions.is_empty() {
            return Ok(());
        }
        self.held.retain(|held| !partitions.contains(held));
        self.client(context)?
            .query_typed(
                &context.statements.unlock,
                &[(&partitions, Type::INT2_ARRAY)],
            )
            .map(drop)
            .map_err(|error| failed("unlock partitions of the outbox", error))
    }

    /// Removes old rows of `rejected` and `accepted`.
    fn sweep(&mut self, context: &Context<'_>) -> Result<(), Error> {
        if self.swept.is_some_and(|then| then.elapsed() < SWEEP_EVERY) {
            return Ok(());
        }
        let rejected = context.settings.keep_rejected.as_secs_f64();
        let accepted = context.settings.keep_accepted.as_secs_f64();
        self.client(context)?
            .execute_typed(
                &context.statements.sweep,
                &[(&rejected, Type::FLOAT8), (&accepted, Type::FLOAT8)],
            )
            .map_err(|error| failed("remove what the outbox has kept long enough", error))?;
        self.swept = Some(Instant::now());
        Ok(())
    }

    /// Removes updates whose fate is known, and its name from the partitions of which it knows all.
    pub(super) fn settle(
        &mut self,
        accepted: &[i64],
        rejected: &[(i64, String)],
        context: &Context<'_>,
    ) -> Result<(), Error> {
        let (ids, messages): (Vec<i64>, Vec<&str>) = rejected
            .iter()
            .map(|(id, message)| (*id, message.as_str()))
            .unzip();
        let mut taken = self.taken.clone();
        for id in accepted.iter().chain(&ids) {
            taken.remove(id);
        }
        let unknown: HashSet<i16> = taken.values().copied().collect();
        let mut known = self.held.clone();
        known.retain(|held| !unknown.contains(held));
        let name = self.name;
        let run = |client: &mut Client| {
            let mut transaction = client.transaction()?;
            // Should the server forget it in a crash, it is sent again.
            transaction.batch_execute("SET LOCAL synchronous_commit = off")?;
            let statements = context.statements;
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
        let mut result = run(self.client(context)?);
        if result.is_err() && !self.connection.is_open() {
            result = run(self.client(context)?);
        }
        result.map_err(|error| failed("settle updates in the outbox", error))?;
        self.taken = taken;
        Ok(())
    }

    /// Lets other relays have what it has locked. Its name stays where it does not know all.
    pub(super) fn release(&mut self, context: &Context<'_>) -> Result<(), Error> {
        if !self.connection.is_open() {
            self.held.clear();
        }
        self.unlock(&self.held.clone(), context)?;
        self.taken.clear();
        Ok(())
    }

    /// Whether it still has what it has taken; if not, it knows from now on.
    pub(super) fn has_kept(&mut self) -> bool {
        self.connection.is_alive()
    }

    /// The updates that are not settled.
    pub(super) fn taken(&self) -> Vec<i64> {
        self.taken.keys().copied().collect()
    }
}

/// What a person reads in `rejected`.
pub(super) fn message(rejection: &Rejection) -> String {
    let message = match &rejection.field {
        Some(field) => format!("{field}: {}", rejection.message),
        None => rejection.message.clone(),
    };
    // PostgreSQL has no such character.
    message.replace('\0', "\u{fffd}")
}

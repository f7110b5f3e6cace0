use std::sync::Arc;
use std::time::{Duration, Instant};

use postgres::types::Type;

use crate::connection::{Connect, Connection, Params, failed};
use crate::names::Names;
use crate::publish::publish;

use mixpanel_groups::outbox::{Capacity, Depth};
use mixpanel_groups::{EncodedUpdate, Error, ErrorKind};

/// For how long a count of what waits is good enough.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// The connection of those who append, and what they know of the depth.
pub(crate) struct Writer {
    connection: Connection,
    names: Names,
    depth: Depth,
    counted: Option<Instant>,
}

impl Writer {
    pub(crate) fn new(connect: &Arc<Connect>, names: &Names) -> Self {
        Self {
            connection: Connection::new(connect, ""),
            names: names.clone(),
            depth: Depth::default(),
            counted: None,
        }
    }

    pub(crate) fn migrate(&mut self, migration: &str) -> Result<(), Error> {
        let client = self.connection.get()?;
        let mut run = || {
            let mut transaction = client.transaction()?;
            transaction.batch_execute(
                "SELECT pg_advisory_xact_lock(hashtext('mixpanel-groups'), hashtext('migrate'))",
            )?;
            transaction.batch_execute(migration)?;
            transaction.commit()
        };
        run().map_err(|error| failed("create the outbox's tables", error))
    }

    pub(crate) fn append(
        &mut self,
        statement: &str,
        updates: &[EncodedUpdate],
        capacity: Capacity,
    ) -> Result<bool, Error> {
        let bytes = updates.iter().map(EncodedUpdate::len).sum();
        if !self.has_room(updates.len(), bytes, capacity)? {
            return Ok(false);
        }
        let client = self.connection.get()?;
        let failed = |error| failed("publish to the outbox", error);
        let mut transaction = client.transaction().map_err(failed)?;
        publish(&mut transaction, statement, updates)?;
        transaction.commit().map_err(failed)?;
        self.depth.updates += updates.len();
        self.depth.bytes += bytes;
        Ok(true)
    }

    /// Counts what waits.
    pub(crate) fn count(&mut self) -> Result<Depth, Error> {
        let failed = |error| failed("count what waits in the outbox", error);
        let sql = self.names.put_into(
            "SELECT count(*), coalesce(sum(bytes), 0)::bigint,
                    extract(epoch FROM clock_timestamp() - min(since))::float8
             FROM public.mixpanel_outbox",
        );
        let client = self.connection.get()?;
        let row = client.query_typed_one(&sql, &[]).map_err(failed)?;
        let number = |column| -> Result<usize, Error> {
            let number: i64 = row.try_get(column).map_err(failed)?;
            Ok(usize::try_from(number).unwrap_or_default())
        };
        let oldest: Option<f64> = row.try_get(2).map_err(failed)?;
        let oldest = oldest.map(|age| Duration::try_from_secs_f64(age).unwrap_or_default());
        let depth = Depth::new(number(0)?, number(1)?).with_oldest(oldest);
        (self.depth, self.counted) = (depth, Some(Instant::now()));
        Ok(depth)
    }

    /// Whether there is room, by a count that is a second old at most; by a new one, if it seems
    /// that there is not.
    fn has_room(
        &mut self,
        updates: usize,
        bytes: usize,
        capacity: Capacity,
    ) -> Result<bool, Error> {
        let is_recent = self
            .counted
            .is_some_and(|then| then.elapsed() < COUNT_EVERY);
        let has_room = |depth: Depth| depth.has_room(updates, bytes, capacity);
        Ok((is_recent && has_room(self.depth)) || has_room(self.count()?))
    }

    /// Removes the oldest that are not among the taken.
    pub(crate) fn drop_oldest(
        &mut self,
        taken: &[i64],
        updates: usize,
        bytes: usize,
        capacity: Capacity,
    ) -> Result<usize, Error> {
        let depth = self.count()?;
        let over = |depth: usize, more: usize, most: usize| -> i64 {
            let over = depth.saturating_add(more).saturating_sub(most);
            i64::try_from(over).unwrap_or(i64::MAX)
        };
        let sql = self.names.put_into(
            "DELETE FROM public.mixpanel_outbox WHERE id IN (
                 SELECT id FROM (
                     SELECT id, row_number() OVER oldest AS n,
                            sum(bytes) OVER oldest - bytes AS before
                     FROM public.mixpanel_outbox WHERE id <> ALL ($1)
                     WINDOW oldest AS (ORDER BY id)
                 ) AS untaken WHERE n <= $2 OR before < $3
             )",
        );
        let params: &Params<'_> = &[
            (&taken, Type::INT8_ARRAY),
            (&over(depth.updates, updates, capacity.updates), Type::INT8),
            (&over(depth.bytes, bytes, capacity.bytes), Type::INT8),
        ];
        let client = self.connection.get()?;
        let dropped = client
            .execute_typed(&sql, params)
            .map_err(|error| failed("drop updates from the outbox", error))?;
        self.counted = None;
        usize::try_from(dropped).map_err(|error| Error::new(ErrorKind::Io, error.to_string()))
    }
}

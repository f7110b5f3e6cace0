use std::sync::Arc;
use std::time::{Duration, Instant};

use postgres::types::Type;

use crate::connection::{Connect, Params, ReconnectingClient, failed};
use crate::publish::publish;
use crate::sql::TableNames;
use mixpanel_groups::outbox::{Capacity, Depth};
use mixpanel_groups::{EncodedUpdate, Error};

/// How long a measured depth is good enough.
const MEASURE_EVERY: Duration = Duration::from_secs(1);

/// The connection of `append`, `migrate` and the counts, with the depth as it was measured last.
pub(crate) struct Writer {
    connection: ReconnectingClient,
    names: TableNames,
    /// The measured depth, and what this process has appended since.
    depth: Depth,
    measured: Option<Instant>,
}

impl Writer {
    pub(crate) fn new(connect: &Arc<Connect>, names: &TableNames) -> Self {
        Self {
            connection: ReconnectingClient::new(connect, ""),
            names: names.clone(),
            depth: Depth::default(),
            measured: None,
        }
    }

    /// Runs the migration in a transaction, one process at a time.
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

    /// Appends updates in one transaction. Returns `false` if there is no room for them.
    pub(crate) fn append(
        &mut self,
        statement: &str,
        updates: &[EncodedUpdate],
        capacity: Capacity,
    ) -> Result<bool, Error> {
        let bytes = updates.iter().map(EncodedUpdate::len).sum();
        if !self.measure_room(updates.len(), bytes, capacity)? {
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

    /// Measures the depth, which reads the whole table.
    pub(crate) fn measure(&mut self) -> Result<Depth, Error> {
        let failed = |error| failed("measure the depth of the outbox", error);
        let sql = self.names.apply_to(
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
        (self.depth, self.measured) = (depth, Some(Instant::now()));
        Ok(depth)
    }

    /// Returns whether there is room, by a depth that is at most a second old. If there seems to be none,
    /// the depth is measured again.
    fn measure_room(
        &mut self,
        updates: usize,
        bytes: usize,
        capacity: Capacity,
    ) -> Result<bool, Error> {
        let is_recent = self
            .measured
            .is_some_and(|then| then.elapsed() < MEASURE_EVERY);
        let has_room = |depth: Depth| depth.has_room(updates, bytes, capacity);
        Ok((is_recent && has_room(self.depth)) || has_room(self.measure()?))
    }

    /// Removes the oldest updates that are not taken, until there is room. Returns how many were removed.
    pub(crate) fn drop_oldest(
        &mut self,
        taken: &[i64],
        updates: usize,
        bytes: usize,
        capacity: Capacity,
    ) -> Result<usize, Error> {
        let depth = self.measure()?;
        let over = |depth: usize, more: usize, most: usize| -> i64 {
            let over = depth.saturating_add(more).saturating_sub(most);
            i64::try_from(over).unwrap_or(i64::MAX)
        };
        let sql = self.names.apply_to(
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
        self.measured = None;
        Ok(usize::try_from(dropped).unwrap_or(usize::MAX))
    }
}

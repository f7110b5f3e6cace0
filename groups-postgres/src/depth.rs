//! Measuring how much waits, by the rows that count it, and keeping these few and right.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::types::Type;

use crate::connection::{Connection, Params, check_hidden, failed, is_hidden, numbers};
use mixpanel_groups::outbox::Depth;
use mixpanel_groups::{Error, ErrorKind};

/// How long merging the counts may take.
const MERGE_TIMEOUT: Duration = Duration::from_millis(250);

/// How many rows of counts are left to add up.
const MAX_COUNTS: i64 = 100;

const WHAT: &str = "measure the depth of the outbox";

/// Returns how much waits of a kind of records, and the number of rows that count.
pub(crate) async fn measure(
    connection: &mut Connection,
    kind: &str,
) -> Result<(Depth, i64), Error> {
    let (depth, counts, is_read_only) = measure_once(connection, kind).await?;
    if !is_read_only {
        return Ok((depth, counts));
    }
    // It may be a standby now, which lags behind. A new connection is to a server that the settings allow.
    connection.close();
    let (depth, counts, _) = measure_once(connection, kind).await?;
    Ok((depth, counts))
}

/// Measures, and merges the rows that count if there are many.
pub(crate) async fn measure_and_merge(
    connection: &mut Connection,
    kind: &str,
) -> Result<Depth, Error> {
    let (depth, counts) = measure(connection, kind).await?;
    merge_if_many(connection, counts).await;
    Ok(depth)
}

/// Returns how much waits, the number of rows that count, and whether the server is read-only.
async fn measure_once(
    connection: &mut Connection,
    kind: &str,
) -> Result<(Depth, i64, bool), Error> {
    let params: &Params<'_> = &[(&kind, Type::TEXT)];
    let rows = connection.query(WHAT, DEPTH, params).await?;
    let [updates, bytes, counts] = numbers(WHAT, &rows)?;
    check_hidden(WHAT, &rows, 5)?;
    let is_read_only = rows.first().map(|row| row.try_get(4)).transpose();
    let is_read_only = is_read_only.map_err(|error| failed(WHAT, error))?;
    let oldest = rows.first().map(|row| row.try_get::<_, Option<f64>>(3));
    let oldest = oldest.transpose().map_err(|error| failed(WHAT, error))?;
    let (Ok(updates), Ok(bytes)) = (usize::try_from(updates), usize::try_from(bytes)) else {
        let message = "the counts of the outbox are below zero: run `migrate` again";
        return Err(Error::new(ErrorKind::Damaged, message));
    };
    // Below zero it is not known: the clock was set back.
    let oldest = oldest.flatten().map(Duration::try_from_secs_f64);
    let oldest = oldest.and_then(Result::ok);
    let depth = Depth::new(updates, bytes).with_oldest(oldest);
    Ok((depth, counts, is_read_only == Some(true)))
}

/// Merges the rows that count, if there are so many. Where that waits for a lock, it is done another time.
pub(crate) async fn merge_if_many(connection: &mut Connection, counts: i64) {
    if counts > MAX_COUNTS {
        drop(timeout(MERGE_TIMEOUT, merge_counts(connection)).await);
    }
}

/// Merges the rows that count, if they are many. What fails is done later: the sum is the same.
pub(crate) async fn merge_counts(connection: &mut Connection) {
    let merged = connection.query("merge the counts of the outbox", MERGE, &[]);
    if let Err(error) = merged.await {
        log::warn!("{error:#}");
    }
}

/// Sets the counts to zero if nothing waits: a flush would wait for that. What fails is done later.
pub(crate) async fn correct_counts(connection: &mut Connection) {
    let corrected = connection.query("correct the counts of the outbox", CORRECT, &[]);
    if let Err(error) = corrected.await {
        log::warn!("{error:#}");
    }
}

const DEPTH: &str = concat!(
    "SELECT coalesce(pg_catalog.sum(updates), 0)::bigint, coalesce(pg_catalog.sum(bytes), 0)::bigint, pg_catalog.count(*),
        (SELECT extract(epoch FROM pg_catalog.clock_timestamp() - since)::float8
         FROM public.mixpanel_outbox WHERE kind = $1 ORDER BY id LIMIT 1),
        pg_catalog.current_setting('transaction_read_only')::boolean, ",
    is_hidden!("public.mixpanel_outbox_count", "{r}"),
    " FROM public.mixpanel_outbox_count WHERE kind = $1"
);

/// One more row corrects the sum, and waits for no transaction that publishes: of each, a snapshot has both the rows and
/// their counts, or neither. The lock is that of the migration, which corrects too, and each statement of the block sees
/// what was committed before it. Where row-level security may hide rows, nothing is corrected. (At a stricter isolation level than PostgreSQL's default, two at a time may correct twice;
/// the next one corrects that.)
const CORRECT: &str = "DO $do$ BEGIN
         IF NOT pg_catalog.row_security_active('public.mixpanel_outbox')
             AND (SELECT pg_catalog.sum(updates) <> 0 OR pg_catalog.sum(bytes) <> 0 FROM public.mixpanel_outbox_count
             WHERE kind = 'update') AND NOT EXISTS (SELECT FROM public.mixpanel_outbox WHERE kind = 'update') THEN
             PERFORM pg_catalog.pg_advisory_xact_lock('public.mixpanel_outbox'::regclass::oid::integer, 0);
             INSERT INTO public.mixpanel_outbox_count (kind, updates, bytes)
             SELECT kind, -pg_catalog.sum(updates), -pg_catalog.sum(bytes) FROM public.mixpanel_outbox_count
             WHERE kind = 'update' AND NOT EXISTS (SELECT FROM public.mixpanel_outbox WHERE kind = 'update')
             GROUP BY kind HAVING pg_catalog.sum(updates) <> 0 OR pg_catalog.sum(bytes) <> 0;
         END IF;
     END $do$";

/// Some at a time.
const MERGE: &str = "WITH gone AS (
         DELETE FROM public.mixpanel_outbox_count WHERE id IN (
             SELECT id FROM public.mixpanel_outbox_count
             WHERE (SELECT pg_catalog.count(*) FROM (SELECT FROM public.mixpanel_outbox_count LIMIT 101) AS first) > 100
             ORDER BY id LIMIT 10000 FOR UPDATE SKIP LOCKED
         ) RETURNING kind, updates, bytes
     ) INSERT INTO public.mixpanel_outbox_count (kind, updates, bytes)
     SELECT kind, pg_catalog.sum(updates), pg_catalog.sum(bytes) FROM gone GROUP BY kind";

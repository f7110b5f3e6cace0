//! Measuring how much waits, by the rows that count it.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::types::Type;

use crate::connection::{Connection, Params, failed};
use crate::relay::{counts, merge_counts};
use mixpanel_groups::outbox::Depth;
use mixpanel_groups::{Error, ErrorKind};

/// How long merging the counts may take.
const MERGE_TIMEOUT: Duration = Duration::from_millis(250);

/// How many rows of counts are left to add up.
const MAX_COUNTS: i64 = 100;

/// Returns how much waits of a kind of records, and the number of rows that count.
pub(crate) async fn measure(
    connection: &mut Connection,
    kind: &str,
) -> Result<(Depth, i64), Error> {
    const WHAT: &str = "measure the depth of the outbox";
    let params: &Params<'_> = &[(&kind, Type::TEXT)];
    let rows = connection.query(WHAT, DEPTH, params).await?;
    let [updates, bytes, counts] = counts(WHAT, &rows)?;
    let oldest = rows.first().map(|row| row.try_get::<_, Option<f64>>(3));
    let oldest = oldest.transpose().map_err(|error| failed(WHAT, error))?;
    let (Ok(updates), Ok(bytes)) = (usize::try_from(updates), usize::try_from(bytes)) else {
        let message = "the counts of the outbox are below zero: run `migrate` again";
        return Err(Error::new(ErrorKind::Damaged, message));
    };
    // Below zero it is not known: the clock was set back.
    let oldest = oldest.flatten().map(Duration::try_from_secs_f64);
    let oldest = oldest.and_then(Result::ok);
    Ok((Depth::new(updates, bytes).with_oldest(oldest), counts))
}

/// Merges the rows that count, if there are so many. Where that waits for a lock, it is done another time.
pub(crate) async fn merge_if_many(connection: &mut Connection, counts: i64) {
    if counts > MAX_COUNTS {
        drop(timeout(MERGE_TIMEOUT, merge_counts(connection)).await);
    }
}

const DEPTH: &str =
    "SELECT coalesce(pg_catalog.sum(updates), 0)::bigint, coalesce(pg_catalog.sum(bytes), 0)::bigint, pg_catalog.count(*),
        (SELECT extract(epoch FROM pg_catalog.clock_timestamp() - since)::float8
         FROM public.mixpanel_outbox WHERE kind = $1 ORDER BY id LIMIT 1)
     FROM public.mixpanel_outbox_count WHERE kind = $1";

//! The statement that appends updates, in a transaction of the application or of the writer.

use std::collections::{BTreeMap, HashSet};

use postgres::GenericClient;
use postgres::types::Type;

use crate::connection::{Params, failed};
use crate::sql::TableNames;
use mixpanel_groups::{EncodedUpdate, Error, ErrorKind};

/// The number of partitions: relays divide the work by them.
pub(crate) const PARTITIONS: i16 = 64;

/// The number of slots in a partition: publishers lock a slot for each of their groups.
const SLOTS_PER_PARTITION: i16 = 256;

/// The most updates, and the most bytes of them, in one statement.
const MAX_UPDATES: usize = 10_000;
const MAX_BYTES: usize = 16 << 20;

/// Returns the statement that appends updates. It takes ids only after it has locked all slots, in the
/// order in which they are given.
pub(crate) fn statement(names: &TableNames, notify: bool) -> String {
    let mut sql = names.apply_to(
        "WITH locked AS MATERIALIZED (
             SELECT slot
             FROM unnest($1::smallint[]) WITH ORDINALITY AS wanted (slot, n)
             JOIN public.mixpanel_outbox_slot AS o USING (slot)
             ORDER BY wanted.n FOR UPDATE OF o
         ), written AS (
             INSERT INTO public.mixpanel_outbox (partition, body)
             SELECT new.partition, new.body::json
             FROM (SELECT count(*) FROM locked) AS after_locking,
                  unnest($2::smallint[], $3::text[]) WITH ORDINALITY AS new (partition, body, n)
             ORDER BY new.n
         )
         SELECT count(*) FROM locked",
    );
    if notify {
        // PostgreSQL delivers the notification when the transaction commits.
        let channel = names.channel();
        sql.push_str(&[", (SELECT pg_notify('", &channel, "', '')) AS notified"].concat());
    }
    sql
}

/// Appends updates in order.
///
/// The slots of all groups are locked first, in the order of the groups, so two calls with some of the
/// same groups cannot deadlock.
pub(crate) fn publish(
    client: &mut impl GenericClient,
    statement: &str,
    updates: &[EncodedUpdate],
) -> Result<(), Error> {
    let groups: BTreeMap<&[u8], i16> = updates
        .iter()
        .map(|update| (update.group_bytes(), slot(update)))
        .collect();
    let mut seen = HashSet::new();
    let mut locks: Vec<i16> = groups.into_values().collect();
    locks.retain(|slot| seen.insert(*slot));
    let mut rest = updates;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fit = rest.iter().take(MAX_UPDATES).take_while(|update| {
            bytes += update.as_json().len();
            bytes <= MAX_BYTES
        });
        let (now, later) = rest.split_at(fit.count().max(1));
        // The first statement takes all locks; the transaction holds them to its end.
        publish_chunk(client, statement, &std::mem::take(&mut locks), now)?;
        rest = later;
    }
    Ok(())
}

fn publish_chunk(
    client: &mut impl GenericClient,
    statement: &str,
    locks: &[i16],
    updates: &[EncodedUpdate],
) -> Result<(), Error> {
    let failed = |error| failed("publish to the outbox", error);
    let slots = updates.iter().map(slot);
    let partitions: Vec<i16> = slots.map(|slot| slot / SLOTS_PER_PARTITION).collect();
    let bodies: Vec<&str> = updates.iter().map(EncodedUpdate::as_json).collect();
    let params: &Params<'_> = &[
        (&locks, Type::INT2_ARRAY),
        (&partitions, Type::INT2_ARRAY),
        (&bodies, Type::TEXT_ARRAY),
    ];
    let rows = client.query_typed(statement, params).map_err(failed)?;
    let locked = rows.first().map(|row| row.try_get::<_, i64>(0));
    let locked = locked.transpose().map_err(failed)?;
    if locked == i64::try_from(locks.len()).ok() {
        Ok(())
    } else {
        let message = "rows are missing in the outbox's table of slots: run `migrate` to add them";
        Err(Error::new(ErrorKind::Damaged, message))
    }
}

/// Returns the slot that a publisher of this group locks.
fn slot(update: &EncodedUpdate) -> i16 {
    let group = String::from_utf8_lossy(update.group_bytes());
    let slots = u64::from((PARTITIONS * SLOTS_PER_PARTITION).unsigned_abs());
    i16::try_from(fnv_1a(&group) % slots).unwrap_or_default()
}

/// Hashes a text by FNV-1a. Processes with different versions of this crate must agree on it.
fn fnv_1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

use std::collections::{BTreeMap, HashSet};

use postgres::GenericClient;
use postgres::types::Type;

use crate::connection::{Params, failed};
use crate::names::Names;
use crate::slot::{SLOTS_A_PARTITION, slot};
use mixpanel_groups::{EncodedUpdate, Error, ErrorKind};

/// How many updates, and bytes of them, go into one statement.
const MAX_UPDATES: usize = 10_000;
const MAX_BYTES: usize = 16 << 20;

/// The statement that appends updates: first the locks, in their order; then, and not before, the ids.
pub(crate) fn statement(names: &Names, notify: bool) -> String {
    let mut sql = names.put_into(
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
        // Told to the relays when the transaction commits.
        let channel = names.put_into("public.mixpanel_outbox");
        sql.push_str(&[", (SELECT pg_notify('", &channel, "', '')) AS told"].concat());
    }
    sql
}

/// Appends updates in order. Two that append some of the same groups do not wait for each other in a
/// circle, since all slots are locked first, and in the groups' order.
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
        publish_some(client, statement, &std::mem::take(&mut locks), now)?;
        rest = later;
    }
    Ok(())
}

fn publish_some(
    client: &mut impl GenericClient,
    statement: &str,
    locks: &[i16],
    updates: &[EncodedUpdate],
) -> Result<(), Error> {
    let failed = |error| failed("publish to the outbox", error);
    let slots = updates.iter().map(slot);
    let partitions: Vec<i16> = slots.map(|slot| slot / SLOTS_A_PARTITION).collect();
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
        let message = "the outbox's table of slots is not complete; `migrate` completes it";
        Err(Error::new(ErrorKind::Damaged, message))
    }
}

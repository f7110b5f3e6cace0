//! The names of the tables, and the statements of a relay.

use crate::builder::OutboxSettings;
use mixpanel_groups::{Error, ErrorKind};

/// The names of the schema and of the main table, with which the names of the other tables begin.
#[derive(Clone, Debug)]
pub(crate) struct TableNames {
    pub(crate) schema: String,
    pub(crate) table: String,
}

impl Default for TableNames {
    fn default() -> Self {
        Self {
            schema: "public".to_owned(),
            table: "mixpanel_outbox".to_owned(),
        }
    }
}

impl TableNames {
    /// Checks that the names need no escapes, and stay below PostgreSQL's 63 bytes with every suffix.
    pub(crate) fn check(&self) -> Result<(), Error> {
        for (what, name) in [("schema", &self.schema), ("table", &self.table)] {
            let is_letter = |c: char| c.is_ascii_lowercase() || c == '_';
            let is_valid = name.len() <= 30
                && name.starts_with(is_letter)
                && name.chars().all(|c| is_letter(c) || c.is_ascii_digit());
            if !is_valid {
                let message = format!(
                    "invalid {what} name {name:?}: expected 1 to 30 lower-case letters, digits and \
                     underscores, not starting with a digit"
                );
                return Err(Error::new(ErrorKind::Config, message));
            }
        }
        Ok(())
    }

    /// Returns SQL that is written for the default names, with these names in it. The schema is quoted,
    /// because it may be a reserved word; behind its dot, the table may be one too.
    pub(crate) fn apply_to(&self, sql: &str) -> String {
        sql.replace("mixpanel_outbox", &self.table)
            .replace("public.", &format!("\"{}\".", self.schema))
    }

    /// Returns the channel on which publishers notify relays.
    pub(crate) fn channel(&self) -> String {
        format!("{}.{}", self.schema, self.table)
    }
}

/// The statements of a relay.
pub(crate) struct RelayStatements {
    pub(crate) prepare: String,
    pub(crate) count: String,
    pub(crate) lock: String,
    pub(crate) claim: String,
    pub(crate) hold: String,
    pub(crate) read: String,
    pub(crate) unlock: String,
    pub(crate) accept: String,
    pub(crate) reject: String,
    pub(crate) forget: String,
    pub(crate) sweep: String,
}

impl RelayStatements {
    pub(crate) fn new(names: &TableNames, settings: &OutboxSettings) -> Self {
        let sql = |text: &str| {
            let class = "'public.mixpanel_outbox'::regclass::oid::integer";
            names.apply_to(&text.replace("{class}", class))
        };
        let accept = if settings.keep_accepted.is_zero() {
            "DELETE FROM public.mixpanel_outbox WHERE id = ANY ($1)"
        } else {
            "WITH gone AS (
                 DELETE FROM public.mixpanel_outbox WHERE id = ANY ($1) RETURNING id, since, body
             ) INSERT INTO public.mixpanel_outbox_accepted (id, since, body) SELECT * FROM gone"
        };
        Self {
            // The keepalives let the server notice within 11 s that a relay's machine is gone. The
            // tables' statistics are always out of date, so sequential scans are off. The shared lock
            // exists to be counted.
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
            // A clock that was set back since holds nobody up.
            claim: sql("UPDATE public.mixpanel_outbox_partition AS p
                 SET relay = CASE WHEN is_free THEN $2 END,
                     not_before = CASE WHEN is_free THEN not_before
                                       ELSE greatest(now() + $3 * interval '1 second', until) END
                 FROM (SELECT partition AS of, until, relay IS NULL OR relay = $2
                              OR ($3 = 0 AND until <= now()) AS is_free
                       FROM (SELECT partition, relay,
                                    CASE WHEN held_since <= now() THEN held_until
                                         ELSE '-infinity' END AS until
                             FROM public.mixpanel_outbox_partition) AS held) AS state
                 WHERE of = partition AND partition = ANY ($1) AND not_before <= now()
                 RETURNING CASE WHEN p.relay = $2 THEN partition END"),
            hold: sql("UPDATE public.mixpanel_outbox_partition
                 SET held_since = clock_timestamp(),
                     held_until = clock_timestamp() + $3 * interval '1 second'
                 WHERE partition = ANY ($1) AND relay = $2"),
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

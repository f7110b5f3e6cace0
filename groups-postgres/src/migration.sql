-- Tables for updates that wait to be sent to Mixpanel. This can be run again at any time.

-- Updates that wait. Within a group, ids are in the order of commits; for that, the sequence must keep
-- its CACHE of 1.
CREATE TABLE IF NOT EXISTS public.mixpanel_outbox (
    id        bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- Relays divide the work by partition. All updates of a group are in one.
    partition smallint    NOT NULL CHECK (partition BETWEEN 0 AND 63),
    since     timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- The update as it is sent, without the token.
    body      json        NOT NULL,
    bytes     integer     NOT NULL GENERATED ALWAYS AS (octet_length(body::text)) STORED
) WITH (
    -- Rows come and go all the time, so vacuum by their number, not by their share of the table.
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000,
    autovacuum_vacuum_insert_threshold = -1
);
CREATE UNIQUE INDEX IF NOT EXISTS mixpanel_outbox_by_partition
    ON public.mixpanel_outbox (partition, id);

-- A publishing transaction locks the row of each of its groups until it ends. The row is chosen by a
-- hash of group key and id; 256 slots make a partition.
CREATE TABLE IF NOT EXISTS public.mixpanel_outbox_slot (
    slot smallint PRIMARY KEY
);
INSERT INTO public.mixpanel_outbox_slot
    SELECT generate_series(0, 64 * 256 - 1) ON CONFLICT DO NOTHING;

-- A relay that takes updates of a partition writes its random id here, and removes it when they are
-- settled. An id without its relay's lock means that the relay may still be sending.
CREATE TABLE IF NOT EXISTS public.mixpanel_outbox_partition (
    partition  smallint    PRIMARY KEY,
    relay      bigint,
    not_before timestamptz NOT NULL DEFAULT '-infinity',
    -- No request of that relay is under way after this time; held_since is when that was said.
    held_since timestamptz NOT NULL DEFAULT '-infinity',
    held_until timestamptz NOT NULL DEFAULT '-infinity'
) WITH (fillfactor = 10);
INSERT INTO public.mixpanel_outbox_partition (partition)
    SELECT generate_series(0, 63) ON CONFLICT DO NOTHING;

-- Updates that Mixpanel refused, with its message.
CREATE TABLE IF NOT EXISTS public.mixpanel_outbox_rejected (
    id          bigint      PRIMARY KEY,
    since       timestamptz NOT NULL,
    rejected_at timestamptz NOT NULL DEFAULT now(),
    message     text        NOT NULL,
    body        json        NOT NULL
);
CREATE INDEX IF NOT EXISTS mixpanel_outbox_rejected_at
    ON public.mixpanel_outbox_rejected (rejected_at);

-- Updates that Mixpanel accepted, if the outbox is set to keep them.
CREATE TABLE IF NOT EXISTS public.mixpanel_outbox_accepted (
    id          bigint      PRIMARY KEY,
    since       timestamptz NOT NULL,
    accepted_at timestamptz NOT NULL DEFAULT now(),
    body        json        NOT NULL
);
CREATE INDEX IF NOT EXISTS mixpanel_outbox_accepted_at
    ON public.mixpanel_outbox_accepted (accepted_at);

-- For people: the updates that wait, with their groups. Key and id are NULL where the JSON has an
-- escape that PostgreSQL cannot read.
CREATE OR REPLACE VIEW public.mixpanel_outbox_waiting AS
    SELECT id, partition, since, clock_timestamp() - since AS age,
           CASE WHEN readable THEN body ->> '$group_key' END AS group_key,
           CASE WHEN readable THEN body ->> '$group_id' END AS group_id,
           body
    FROM (SELECT *, body::text !~* '\\u(0000|d[89a-f])' AS readable FROM public.mixpanel_outbox) AS o
    ORDER BY id;

-- For people: how much waits in each partition, and the server process of the relay that holds it.
CREATE OR REPLACE VIEW public.mixpanel_outbox_partitions AS
    SELECT p.partition, count(o.id) AS waiting, coalesce(sum(o.bytes), 0) AS bytes,
           clock_timestamp() - min(o.since) AS oldest,
           (SELECT min(l.pid) FROM pg_locks AS l
            WHERE l.locktype = 'advisory' AND l.granted
              AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
              AND l.classid = 'public.mixpanel_outbox'::regclass
              AND l.objid = p.partition::integer::oid) AS pid
    FROM public.mixpanel_outbox_partition AS p
    LEFT JOIN public.mixpanel_outbox AS o USING (partition)
    GROUP BY p.partition ORDER BY p.partition;

-- Updates that wait to be sent to Mixpanel, and what belongs to them. Can be run again at any time.

-- What waits. Within a group, the order of the ids is the order of the commits: the sequence must
-- keep its CACHE of 1.
CREATE TABLE IF NOT EXISTS public.mixpanel_outbox (
    id        bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- Which relay sends it is decided by partition; all updates of a group are in one.
    partition smallint    NOT NULL CHECK (partition BETWEEN 0 AND 63),
    since     timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- The update as it goes over the wire, without the token.
    body      json        NOT NULL,
    bytes     integer     NOT NULL GENERATED ALWAYS AS (octet_length(body::text)) STORED
) WITH (
    -- It turns over all the time: clean it by the number of rows, not by a share of them.
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000,
    autovacuum_vacuum_insert_threshold = -1
);
CREATE UNIQUE INDEX IF NOT EXISTS mixpanel_outbox_by_partition
    ON public.mixpanel_outbox (partition, id);

-- A transaction that publishes locks the rows of its groups here (a hash of key and id) until it
-- ends. 256 slots make a partition.
CREATE TABLE IF NOT EXISTS public.mixpanel_outbox_slot (
    slot smallint PRIMARY KEY
);
INSERT INTO public.mixpanel_outbox_slot
    SELECT generate_series(0, 64 * 256 - 1) ON CONFLICT DO NOTHING;

-- A relay that takes updates of a partition writes its name here, and removes it when it knows
-- what became of them. A name that is still there says that the relay may be sending still.
CREATE TABLE IF NOT EXISTS public.mixpanel_outbox_partition (
    partition  smallint    PRIMARY KEY,
    relay      bigint,
    not_before timestamptz NOT NULL DEFAULT '-infinity'
) WITH (fillfactor = 10);
INSERT INTO public.mixpanel_outbox_partition (partition)
    SELECT generate_series(0, 63) ON CONFLICT DO NOTHING;

-- What Mixpanel refused, and why.
CREATE TABLE IF NOT EXISTS public.mixpanel_outbox_rejected (
    id          bigint      PRIMARY KEY,
    since       timestamptz NOT NULL,
    rejected_at timestamptz NOT NULL DEFAULT now(),
    message     text        NOT NULL,
    body        json        NOT NULL
);
CREATE INDEX IF NOT EXISTS mixpanel_outbox_rejected_at
    ON public.mixpanel_outbox_rejected (rejected_at);

-- What Mixpanel accepted, if that is to be kept for some time.
CREATE TABLE IF NOT EXISTS public.mixpanel_outbox_accepted (
    id          bigint      PRIMARY KEY,
    since       timestamptz NOT NULL,
    accepted_at timestamptz NOT NULL DEFAULT now(),
    body        json        NOT NULL
);
CREATE INDEX IF NOT EXISTS mixpanel_outbox_accepted_at
    ON public.mixpanel_outbox_accepted (accepted_at);

-- For people: what waits, by group. A text with an escape that PostgreSQL cannot read shows no
-- names.
CREATE OR REPLACE VIEW public.mixpanel_outbox_waiting AS
    SELECT id, partition, since, clock_timestamp() - since AS age,
           CASE WHEN readable THEN body ->> '$group_key' END AS group_key,
           CASE WHEN readable THEN body ->> '$group_id' END AS group_id,
           body
    FROM (SELECT *, body::text !~* '\\u(0000|d[89a-f])' AS readable FROM public.mixpanel_outbox) AS o
    ORDER BY id;

-- For people: what waits in each partition, and the process of the server that sends it now.
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

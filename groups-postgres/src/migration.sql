-- The tables and functions of an outbox for updates and events that wait to be sent to Mixpanel. This can be run again at any time.
-- Two runs at a time may fail, where PostgreSQL does not let one wait for the other: run it again then.
-- Whatever standard_conforming_strings is, it means the same: a text with a backslash is an E''.

-- Updates and events that wait. Within a group, ids of updates are in the order of commits; for that, the sequence must
-- keep its CACHE of 1.
CREATE TABLE IF NOT EXISTS public.mixpanel_outbox (
    id    bigint      GENERATED ALWAYS AS IDENTITY,
    kind  text        COLLATE "C" NOT NULL DEFAULT 'update' CHECK (kind IN ('update', 'event')),
    since timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    -- The JSON as it is sent, without the token.
    body  json        NOT NULL,
    bytes integer     NOT NULL GENERATED ALWAYS AS (pg_catalog.octet_length(body::text)) STORED,
    -- Either kind is found without a look at the other.
    PRIMARY KEY (kind, id)
) WITH (
    -- Rows come and go all the time, so vacuum by their number, not by their share of the table.
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000,
    autovacuum_vacuum_insert_threshold = -1
);

-- A publishing transaction locks the row of each of its groups until it ends. A hash of group key and id chooses the row. So many
-- rows that few groups share one, and so few (some 600 kB) that they stay in memory, although each lock changes its row. The
-- locks are in the rows: max_locks_per_transaction does not limit them.
CREATE TABLE IF NOT EXISTS public.mixpanel_outbox_slot (
    slot smallint PRIMARY KEY
);
INSERT INTO public.mixpanel_outbox_slot
    SELECT pg_catalog.generate_series(0, 16383) ON CONFLICT DO NOTHING;

-- Who may send updates, who events, and until when: two rows. After that time the holder has no request under way.
CREATE TABLE IF NOT EXISTS public.mixpanel_outbox_lease (
    kind   text        COLLATE "C" PRIMARY KEY,
    holder text,
    since  timestamptz NOT NULL DEFAULT '-infinity',
    until  timestamptz NOT NULL DEFAULT '-infinity'
) WITH (fillfactor = 10);
INSERT INTO public.mixpanel_outbox_lease (kind) VALUES ('update'), ('event') ON CONFLICT DO NOTHING;

-- Updates that Mixpanel refused, with its message.
CREATE TABLE IF NOT EXISTS public.mixpanel_outbox_rejected (
    id          bigint      PRIMARY KEY,
    kind        text        NOT NULL,
    since       timestamptz NOT NULL,
    rejected_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    message     text        NOT NULL,
    body        json        NOT NULL
);

-- Updates that Mixpanel accepted, if the outbox is set to keep them.
CREATE TABLE IF NOT EXISTS public.mixpanel_outbox_accepted (
    id          bigint      PRIMARY KEY,
    kind        text        NOT NULL,
    since       timestamptz NOT NULL,
    accepted_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    body        json        NOT NULL
);

-- Only if they are missing: CREATE INDEX locks the table before it looks, until the migration ends, and all relays would wait.
DO $do$ BEGIN
    IF pg_catalog.to_regclass('public.mixpanel_outbox_rejected_kind_at') IS NULL THEN
        CREATE INDEX IF NOT EXISTS mixpanel_outbox_rejected_kind_at
            ON public.mixpanel_outbox_rejected (kind, rejected_at);
    END IF;
    IF pg_catalog.to_regclass('public.mixpanel_outbox_accepted_kind_at') IS NULL THEN
        CREATE INDEX IF NOT EXISTS mixpanel_outbox_accepted_kind_at
            ON public.mixpanel_outbox_accepted (kind, accepted_at);
    END IF;
END $do$;

-- How much waits of each kind is the sum of these rows. Each statement on mixpanel_outbox adds one, so no two wait for each other;
-- relays and publishers merge them.
CREATE TABLE IF NOT EXISTS public.mixpanel_outbox_count (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind    text   COLLATE "C" NOT NULL,
    updates bigint NOT NULL, -- or events
    bytes   bigint NOT NULL
) WITH (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_insert_threshold = -1
);

-- Ids must not start again below those in use or kept, as they would after a switch to a logical replica, which has the rows
-- but not the state of the sequences. One at a time, so that a sequence never goes back.
DO $do$ BEGIN
    PERFORM pg_catalog.pg_advisory_xact_lock('public.mixpanel_outbox'::regclass::oid::integer, 0);
    PERFORM pg_catalog.setval('public.mixpanel_outbox_id_seq', used.last)
    FROM (SELECT GREATEST((SELECT pg_catalog.max(id) FROM public.mixpanel_outbox WHERE kind = 'update'),
                          (SELECT pg_catalog.max(id) FROM public.mixpanel_outbox WHERE kind = 'event'),
                          (SELECT pg_catalog.max(id) FROM public.mixpanel_outbox_rejected),
                          (SELECT pg_catalog.max(id) FROM public.mixpanel_outbox_accepted)) AS last) AS used
    WHERE used.last > (SELECT last_value - (NOT is_called)::integer FROM public.mixpanel_outbox_id_seq);
    PERFORM pg_catalog.setval('public.mixpanel_outbox_count_id_seq', used.last)
    FROM (SELECT pg_catalog.max(id) AS last FROM public.mixpanel_outbox_count) AS used
    WHERE used.last > (SELECT last_value - (NOT is_called)::integer FROM public.mixpanel_outbox_count_id_seq);
    -- Counts below zero are wrong, as a statement on them by hand may leave them. One more row corrects the sum, and waits
    -- for no transaction that publishes: of each, a snapshot has both the rows and their counts, or neither.
    INSERT INTO public.mixpanel_outbox_count (kind, updates, bytes)
    SELECT kind, waiting.updates - counted.updates, waiting.bytes - counted.bytes
    FROM (SELECT kind, pg_catalog.sum(updates) AS updates, pg_catalog.sum(bytes) AS bytes
          FROM public.mixpanel_outbox_count GROUP BY kind) AS counted,
        LATERAL (SELECT pg_catalog.count(*) AS updates, coalesce(pg_catalog.sum(o.bytes), 0) AS bytes
                 FROM public.mixpanel_outbox AS o WHERE o.kind = counted.kind) AS waiting
    WHERE counted.updates < 0 OR counted.bytes < 0;
END $do$;

CREATE OR REPLACE FUNCTION public.mixpanel_outbox_count_change() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        INSERT INTO public.mixpanel_outbox_count (kind, updates, bytes)
            SELECT kind, -count(*), -sum(bytes) FROM gone GROUP BY kind;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO public.mixpanel_outbox_count (kind, updates, bytes)
            SELECT kind, count(*), sum(bytes) FROM added GROUP BY kind;
    END IF;
    RETURN NULL;
END $function$;

CREATE OR REPLACE FUNCTION public.mixpanel_outbox_count_truncate() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
    DELETE FROM public.mixpanel_outbox_count;
    -- With RESTART IDENTITY, ids come again: who was sending must not settle what was published since. With a name that no
    -- lease has, it settles no more. Its process may take again at once, others when its requests have ended.
    UPDATE public.mixpanel_outbox_lease SET holder = split_part(holder, '/', 1);
    RETURN NULL;
END $function$;

-- Only if they are missing: to create one again would wait for every transaction that has published.
DO $do$ BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_trigger
               WHERE tgrelid = 'public.mixpanel_outbox'::regclass AND tgname = 'mixpanel_outbox_truncated') THEN
        RETURN;
    END IF;
    CREATE TRIGGER mixpanel_outbox_inserted AFTER INSERT ON public.mixpanel_outbox
        REFERENCING NEW TABLE AS added
        FOR EACH STATEMENT EXECUTE FUNCTION public.mixpanel_outbox_count_change();
    CREATE TRIGGER mixpanel_outbox_deleted AFTER DELETE ON public.mixpanel_outbox
        REFERENCING OLD TABLE AS gone
        FOR EACH STATEMENT EXECUTE FUNCTION public.mixpanel_outbox_count_change();
    CREATE TRIGGER mixpanel_outbox_updated AFTER UPDATE ON public.mixpanel_outbox
        REFERENCING OLD TABLE AS gone NEW TABLE AS added
        FOR EACH STATEMENT EXECUTE FUNCTION public.mixpanel_outbox_count_change();
    CREATE TRIGGER mixpanel_outbox_truncated AFTER TRUNCATE ON public.mixpanel_outbox
        FOR EACH STATEMENT EXECUTE FUNCTION public.mixpanel_outbox_count_truncate();
END $do$;

-- Text of a JSON string in which backslashes are form feeds, and those of Unicode escapes are backspaces: with each escape
-- that this database's encoding has a character for as that character. The others stay, in lower case, so the same text is
-- the same group however it was written.
CREATE OR REPLACE FUNCTION public.mixpanel_outbox_text(marked text) RETURNS text
LANGUAGE plpgsql AS $function$
DECLARE
    parts text[];
BEGIN
    RETURN replace(replace(to_json(marked)::text, E'\\f', E'\\\\'), E'\\b', E'\\')::json #>> '{}';
EXCEPTION WHEN data_exception OR feature_not_supported THEN
    -- Each escape by itself, and what is between them.
    SELECT array_agg(part[1]) INTO parts
    FROM regexp_matches(marked, E'[^\b]+|\bu[dD][89abAB]..\bu[dD][c-fC-F]..|\bu....|.', 'g') AS found (part);
    IF cardinality(parts) = 1 THEN
        RETURN lower(marked);
    END IF;
    RETURN (SELECT string_agg(public.mixpanel_outbox_text(part), '' ORDER BY n)
            FROM unnest(parts) WITH ORDINALITY AS part_of_text (part, n));
END $function$;

-- Checks that a text is an update or an event. Returns the group of an update, key and id, and NULL for an event. The
-- settings are those of the function that calls it. What its own errors show of the text ends before a token. (That of
-- PostgreSQL for text that is not JSON shows what is around the mistake.)
CREATE OR REPLACE FUNCTION public.mixpanel_outbox_group_of(body text) RETURNS text
LANGUAGE plpgsql AS $function$
DECLARE
    object     json;
    group_key  text;
    group_id   text;
    operations integer;
    properties json;
BEGIN
    -- PostgreSQL reads no member of an object that has, anywhere, an escape of NUL or of a character that the database's
    -- encoding lacks. So the escapes are marked first: in valid JSON, backslashes come in pairs, from the left.
    IF strpos(body, E'\\') = 0 THEN
        object := body;
    ELSE
        object := replace(replace(body, E'\\\\', E'\\f'), E'\\u', E'\\bu');
        -- Below, names are found as they are written.
        IF strpos(body, E'\\u') > 0 AND json_typeof(object) = 'object' AND EXISTS (
            SELECT FROM json_object_keys(object) AS name
            WHERE strpos(name, E'\b') > 0 AND public.mixpanel_outbox_text(name) = '$token'
        ) THEN
            RAISE invalid_parameter_value USING MESSAGE = 'not an update for the outbox: it has $token, with escapes';
        END IF;
    END IF;
    -- Nine readings of a small text are faster than one query.
    group_key := object ->> '$group_key';
    group_id := object ->> '$group_id';
    operations := (object -> '$set' IS NOT NULL)::integer + (object -> '$set_once' IS NOT NULL)::integer
        + (object -> '$union' IS NOT NULL)::integer + (object -> '$unset' IS NOT NULL)::integer
        + (object -> '$remove' IS NOT NULL)::integer + (object -> '$delete' IS NOT NULL)::integer;
    IF coalesce(group_key, '') = '' OR json_typeof(object -> '$group_key') <> 'string'
        OR coalesce(group_id, '') = '' OR json_typeof(object -> '$group_id') <> 'string'
        OR operations <> 1 OR object -> '$token' IS NOT NULL THEN
        IF object -> 'event' IS NOT NULL THEN
            properties := object -> 'properties';
            IF object ->> 'event' <> '' AND json_typeof(object -> 'event') = 'string'
                AND properties ->> '$insert_id' <> '' AND json_typeof(properties -> '$insert_id') = 'string'
                AND json_typeof(properties -> 'distinct_id') = 'string'
                AND json_typeof(properties -> 'time') = 'number' AND properties ->> 'time' !~ '[.eE]' THEN
                RETURN NULL;
            END IF;
            RAISE invalid_parameter_value USING
                MESSAGE = 'not an event for the outbox: ' || left(split_part(body, 'token', 1), 200),
                HINT = 'Expected an object with event as text that is not empty, and properties with time as an integer, '
                    || 'distinct_id as text, and $insert_id as text that is not empty, by which Mixpanel keeps an event '
                    || 'once that is sent twice.';
        END IF;
        RAISE invalid_parameter_value USING
            MESSAGE = 'not an update for the outbox: ' || coalesce(left(split_part(body, 'token', 1), 200), 'NULL'),
            HINT = 'Expected an object with $group_key and $group_id as text that is not empty, exactly one of $set, '
                || '$set_once, $union, $unset, $remove and $delete, and no $token.';
    END IF;
    IF group_key ~ E'[\b\f]' THEN
        group_key := public.mixpanel_outbox_text(group_key);
    END IF;
    IF group_id ~ E'[\b\f]' THEN
        group_id := public.mixpanel_outbox_text(group_id);
    END IF;
    RETURN group_key || ' ' || group_id;
END $function$;

-- Only the owner may publish, and roles that were granted EXECUTE. But PUBLIC may execute a new function. So each that is
-- missing is created first as one that fails, for the owner alone. Replacing it below keeps its grants, as it keeps those
-- of one that was there, also to PUBLIC.
DO $do$ BEGIN
    IF pg_catalog.to_regprocedure('public.mixpanel_outbox_publish(text[], boolean)') IS NULL THEN
        CREATE FUNCTION public.mixpanel_outbox_publish(bodies text[], notify boolean DEFAULT true) RETURNS void
        LANGUAGE plpgsql AS $function$ BEGIN RAISE 'run the migration again'; END $function$;
        REVOKE EXECUTE ON FUNCTION public.mixpanel_outbox_publish(text[], boolean) FROM PUBLIC;
    END IF;
    IF pg_catalog.to_regprocedure('public.mixpanel_outbox_publish(text, boolean)') IS NULL THEN
        CREATE FUNCTION public.mixpanel_outbox_publish(body text, notify boolean DEFAULT true) RETURNS void
        LANGUAGE plpgsql AS $function$ BEGIN RAISE 'run the migration again'; END $function$;
        REVOKE EXECUTE ON FUNCTION public.mixpanel_outbox_publish(text, boolean) FROM PUBLIC;
    END IF;
END $do$;

-- Publishes updates and events, updates in order, as part of the transaction: each a JSON object as it goes over the wire,
-- without $token.
-- Without `notify`, relays find them at their next look: for PREPARE TRANSACTION, which NOTIFY excludes, and for thousands
-- of transactions a second, which NOTIFY commits one after the other.
--
-- First it locks the slots of all groups of updates, in the order of the slots, and only then it takes ids. So two
-- transactions that call it once each do not deadlock, whatever their groups. PostgreSQL releases row locks when
-- others see the commit. So of two transactions with updates of one group, the second takes its ids after it can see what
-- the first has committed: in a group, ids are in the order of commits, and a transaction that sees an update sees all earlier ones.
-- A rollback, also one to a savepoint, removes rows and locks; a prepared transaction keeps both.
CREATE OR REPLACE FUNCTION public.mixpanel_outbox_publish(bodies text[], notify boolean DEFAULT true) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    groups text[];
    slots  smallint[];
    locked bigint;
BEGIN
    SELECT array_agg(public.mixpanel_outbox_group_of(new.body) ORDER BY new.n) INTO groups
    FROM unnest(bodies) WITH ORDINALITY AS new (body, n);
    IF groups IS NULL THEN
        RETURN;
    END IF;
    SELECT coalesce(array_agg(DISTINCT hashtextextended(of_group, 0) & 16383), '{}') INTO slots
    FROM unnest(groups) AS of_update (of_group) WHERE of_group IS NOT NULL;
    PERFORM FROM public.mixpanel_outbox_slot WHERE slot = ANY (slots) ORDER BY slot FOR UPDATE;
    GET DIAGNOSTICS locked = ROW_COUNT;
    IF locked < cardinality(slots) THEN
        RAISE data_corrupted USING MESSAGE = 'rows are missing in the table of slots of the outbox: run the migration again';
    END IF;
    INSERT INTO public.mixpanel_outbox (kind, body)
        SELECT CASE WHEN new.of_group IS NULL THEN 'event' ELSE 'update' END, new.body::json
        FROM unnest(bodies, groups) WITH ORDINALITY AS new (body, of_group, n) ORDER BY new.n;
    IF notify THEN
        PERFORM pg_notify('public/mixpanel_outbox', '');
    END IF;
END $function$;

-- The same for one update or event.
CREATE OR REPLACE FUNCTION public.mixpanel_outbox_publish(body text, notify boolean DEFAULT true) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
    -- Psycopg 3 passes a list so, and PostgreSQL takes it for one text.
    IF starts_with(body, '{"{') THEN
        RAISE invalid_parameter_value USING
            MESSAGE = 'not an update for the outbox: an array, as text',
            HINT = 'Pass an array with its type: mixpanel_outbox_publish($1::text[]).';
    END IF;
    PERFORM public.mixpanel_outbox_publish(ARRAY[body], notify);
END $function$;

-- These are for the functions and triggers above alone.
REVOKE EXECUTE ON FUNCTION public.mixpanel_outbox_group_of(text), public.mixpanel_outbox_text(text),
    public.mixpanel_outbox_count_change(), public.mixpanel_outbox_count_truncate() FROM PUBLIC;

-- For people: the updates that wait, with their groups, and the events. Key and id are NULL for an event, and where the
-- JSON has an escape that PostgreSQL cannot read.
CREATE OR REPLACE VIEW public.mixpanel_outbox_waiting AS
    SELECT id, kind, since, pg_catalog.clock_timestamp() - since AS age,
           CASE WHEN readable THEN body ->> '$group_key' END AS group_key,
           CASE WHEN readable THEN body ->> '$group_id' END AS group_id,
           body
    FROM (SELECT *, body::text !~* CASE pg_catalog.getdatabaseencoding() WHEN 'UTF8' THEN E'[\\\\]u(0000|d[89a-f])'
                                        ELSE E'[\\\\]u' END AS readable
          FROM public.mixpanel_outbox) AS o
    ORDER BY id;

-- For people and for monitoring: how much waits of each kind, for how long, and who sends it.
CREATE OR REPLACE VIEW public.mixpanel_outbox_status AS
    SELECT kind,
           (SELECT coalesce(pg_catalog.sum(updates), 0)::bigint FROM public.mixpanel_outbox_count AS c
            WHERE c.kind = l.kind) AS waiting,
           (SELECT coalesce(pg_catalog.sum(bytes), 0)::bigint FROM public.mixpanel_outbox_count AS c
            WHERE c.kind = l.kind) AS waiting_bytes,
           (SELECT pg_catalog.clock_timestamp() - o.since FROM public.mixpanel_outbox AS o
            WHERE o.kind = l.kind ORDER BY id LIMIT 1) AS oldest,
           (SELECT pg_catalog.count(*) FROM public.mixpanel_outbox_rejected AS r
            WHERE r.kind = l.kind) AS rejected,
           CASE WHEN until > pg_catalog.clock_timestamp() THEN holder END AS sender,
           NULLIF(until, '-infinity') - pg_catalog.clock_timestamp() AS sender_for
    FROM public.mixpanel_outbox_lease AS l;

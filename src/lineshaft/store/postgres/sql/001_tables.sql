-- The tables. "@." stands for the schema. Rows are MessagePack with the few columns beside them that are looked
-- up, filtered, sorted or pruned by; tenant and spec (queue, name, settings) are kept once for all tasks alike.
--
-- Open and ended tasks have tables of their own: no index of task_open is on anything that a change of state
-- touches, so each change is a heap-only update in the room that the fillfactor leaves; a load reads open
-- tasks only; and ended ones, which nobody changes any more, lie densely.

CREATE TABLE @.meta (key text PRIMARY KEY, value text NOT NULL);

CREATE TABLE @.roster (
    version int8 NOT NULL, only_one bool PRIMARY KEY DEFAULT true CHECK (only_one), data bytea NOT NULL
) WITH (fillfactor = 50);
INSERT INTO @.roster (version, data) VALUES (0, '');

CREATE TABLE @.shard (
    epoch int8 NOT NULL DEFAULT 0,
    position int8 NOT NULL DEFAULT 0,
    earliest int8 NOT NULL DEFAULT 1,
    id int2 PRIMARY KEY,
    slot int2 NOT NULL DEFAULT 0,
    owner bytea,
    nonce bytea NOT NULL DEFAULT '',
    counters bytea NOT NULL DEFAULT '',
    history text NOT NULL DEFAULT '',
    prune_nonce bytea NOT NULL DEFAULT '',
    pruned jsonb NOT NULL DEFAULT '[]'
) WITH (fillfactor = 10, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);

CREATE TABLE @.spec (
    shard int2 NOT NULL,
    id int4 NOT NULL,
    priority int4 NOT NULL,
    tenant text NOT NULL,
    queue text NOT NULL,
    name text NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (shard, id)
);

CREATE TABLE @.task_open (
    seq int8 NOT NULL,
    key int8 NOT NULL,
    run_at int8 NOT NULL,
    finished_at int8,
    spec int4 NOT NULL,
    shard int2 NOT NULL,
    state int2 NOT NULL,
    id text NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (shard, seq)
) WITH (fillfactor = 35, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000,
    autovacuum_analyze_scale_factor = 0.2);
CREATE INDEX task_open_key ON @.task_open (key);

CREATE TABLE @.task_ended (
    seq int8 NOT NULL,
    key int8 NOT NULL,
    run_at int8 NOT NULL,
    finished_at int8,
    prune_at int8,
    result_expires_at int8,
    spec int4 NOT NULL,
    shard int2 NOT NULL,
    state int2 NOT NULL,
    id text NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (shard, seq)
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 5000);
CREATE INDEX task_ended_key ON @.task_ended (key);
CREATE INDEX task_ended_prune ON @.task_ended (shard, prune_at) WHERE prune_at IS NOT NULL;
CREATE INDEX task_ended_result ON @.task_ended (shard, result_expires_at) WHERE result_expires_at IS NOT NULL;

-- How many ended tasks there are, so that a load need not count a week of them.
CREATE TABLE @.census (
    tasks int8 NOT NULL,
    spec int4 NOT NULL,
    shard int2 NOT NULL,
    state int2 NOT NULL,
    PRIMARY KEY (shard, spec, state)
) WITH (fillfactor = 20, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0.1);

CREATE TABLE @.blob (
    seq int8 NOT NULL,
    shard int2 NOT NULL,
    kind int2 NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (shard, seq, kind)
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 5000);
ALTER TABLE @.blob ALTER COLUMN data SET STORAGE EXTERNAL;

CREATE TABLE @.record (
    shard int2 NOT NULL,
    kind text NOT NULL,
    tenant text NOT NULL,
    key text NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (shard, kind, tenant, key)
);

-- The log goes by whole slots: new records are written to one of eight until it is large enough, then to the
-- next that is empty; a slot of which no record is needed any more is truncated. No row of it is ever deleted.
CREATE TABLE @.log (
    position int8 NOT NULL,
    at int8 NOT NULL,
    shard int2 NOT NULL,
    slot int2 NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (shard, position, slot)
) PARTITION BY LIST (slot);
CREATE TABLE @.log_0 PARTITION OF @.log FOR VALUES IN (0);
CREATE TABLE @.log_1 PARTITION OF @.log FOR VALUES IN (1);
CREATE TABLE @.log_2 PARTITION OF @.log FOR VALUES IN (2);
CREATE TABLE @.log_3 PARTITION OF @.log FOR VALUES IN (3);
CREATE TABLE @.log_4 PARTITION OF @.log FOR VALUES IN (4);
CREATE TABLE @.log_5 PARTITION OF @.log FOR VALUES IN (5);
CREATE TABLE @.log_6 PARTITION OF @.log FOR VALUES IN (6);
CREATE TABLE @.log_7 PARTITION OF @.log FOR VALUES IN (7);

-- What users' own transactions have enqueued and no shard has taken yet. Instants and durations in ms.
CREATE TABLE @.inbox (
    id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_at int8,
    expires_at int8,
    lease int8,
    timeout int8,
    retention int8,
    result_ttl int8,
    priority int4 NOT NULL,
    max_retries int4 NOT NULL,
    shard int2 NOT NULL,
    given bool NOT NULL,
    tenant text NOT NULL,
    task_id text NOT NULL,
    name text NOT NULL,
    queue text NOT NULL,
    tags text[] NOT NULL,
    capability text[] NOT NULL,
    metadata bytea,
    traceparent text,
    payload bytea NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
CREATE INDEX inbox_shard ON @.inbox (shard, id);

CREATE VIEW @.tasks AS
    SELECT s.tenant, t.id, s.name, s.queue, s.priority,
        (ARRAY['scheduled', 'waiting', 'queued', 'claimed', 'running', 'completed', 'failed', 'cancelled'])[t.state + 1]
            AS state,
        to_timestamp(t.run_at / 1000.0) AS run_at, to_timestamp(t.finished_at / 1000.0) AS finished_at,
        to_timestamp(t.prune_at / 1000.0) AS prune_at, t.shard, t.seq
    FROM (
        SELECT shard, seq, spec, state, id, run_at, finished_at, NULL::int8 AS prune_at FROM @.task_open
        UNION ALL
        SELECT shard, seq, spec, state, id, run_at, finished_at, prune_at FROM @.task_ended
    ) AS t JOIN @.spec AS s ON s.shard = t.shard AND s.id = t.spec;
COMMENT ON VIEW @.tasks IS 'The tasks of all tenants, for people who look. Read only.';

-- Where the server knows lz4: the changes of a commit become an eighth, in a fraction of the time of pglz.
DO $$ BEGIN
    ALTER TABLE @.log ALTER COLUMN data SET COMPRESSION lz4;
    FOR n IN 0 .. 7 LOOP
        EXECUTE format('ALTER TABLE %s ALTER COLUMN data SET COMPRESSION lz4', '@.log_' || n);
    END LOOP;
EXCEPTION WHEN feature_not_supported THEN
    NULL;
END $$;

-- What a store asks of the database, as functions: their plans are kept by the server's own session, so a call
-- is one round trip also through a pooler that knows no prepared statements.
--
-- A plan is made when a table is small, and still used when it is large. So no statement leaves the planner a choice:
-- arrays of keys are never joined with a table (which it would read whole for each key), but looked up one by one,
-- behind an OFFSET 0 that it does not see through, and rows are then deleted by their place (ctid). Nobody moves
-- them meanwhile, for whoever writes or deletes rows of a shard has locked the shard.
--
-- SQLSTATE LS001: the shard is another owner's, or the batch is not the next.

CREATE FUNCTION @.require_owned(p_shard int2, p_epoch int8, p_owner bytea) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    found_epoch int8;
    found_owner bytea;
BEGIN
    SELECT s.epoch, s.owner INTO found_epoch, found_owner FROM @.shard AS s WHERE s.id = p_shard;
    IF found_epoch IS DISTINCT FROM p_epoch OR found_owner IS DISTINCT FROM p_owner THEN
        RAISE EXCEPTION 'shard % is at epoch %, not % of this owner', p_shard, found_epoch, p_epoch
            USING ERRCODE = 'LS001';
    END IF;
END $$;

CREATE FUNCTION @.acquire(p_shard int2, p_owner bytea) RETURNS int8
LANGUAGE plpgsql AS $$
DECLARE
    new_epoch int8;
BEGIN
    -- Who owns a shard is never as easily lost as what is written with synchronous_commit=off.
    PERFORM set_config('synchronous_commit', 'on', true)
        WHERE current_setting('synchronous_commit') = 'off';
    UPDATE @.shard SET epoch = epoch + 1, owner = p_owner WHERE id = p_shard RETURNING epoch INTO new_epoch;
    RETURN new_epoch;
END $$;

-- Name the history of this database: another system, another timeline, or, where commits are not waited for,
-- another start of the server, may lack the end of what was acknowledged.
CREATE FUNCTION @.history(p_synchronous text) RETURNS text
LANGUAGE sql AS $$
    SELECT (SELECT c.system_identifier FROM pg_control_system() AS c)
        || '/' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)
        || CASE p_synchronous WHEN 'off' THEN '/' || extract(epoch FROM pg_postmaster_start_time()) ELSE '' END
$$;

CREATE FUNCTION @.swap_roster(p_expected int8, p_data bytea, OUT version int8, OUT data bytea)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    PERFORM set_config('synchronous_commit', 'on', true)
        WHERE current_setting('synchronous_commit') = 'off';
    UPDATE @.roster AS r SET version = p_expected + 1, data = p_data WHERE r.version = p_expected;
    -- A statement of its own: it sees what others committed while the one above waited for them.
    SELECT r.version, r.data INTO swap_roster.version, swap_roster.data FROM @.roster AS r;
END $$;

-- These three are called by functions that leave the planner nothing but indexes.
CREATE FUNCTION @.forget_ended(p_shard int2, p_seqs int8[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    WITH gone AS (
        DELETE FROM @.task_ended WHERE ctid = ANY (ARRAY(
            SELECT x.ctid FROM unnest(p_seqs) AS u (seq) CROSS JOIN LATERAL (
                SELECT t.ctid FROM @.task_ended AS t WHERE t.shard = p_shard AND t.seq = u.seq OFFSET 0
            ) AS x
        )) RETURNING spec, state
    ), counted AS (
        SELECT spec, state, count(*) AS tasks FROM gone GROUP BY spec, state
    )
    UPDATE @.census AS c SET tasks = c.tasks - n.tasks FROM counted AS n
        WHERE c.shard = p_shard AND c.spec = n.spec AND c.state = n.state;
END $$;

CREATE FUNCTION @.forget_open(p_shard int2, p_seqs int8[]) RETURNS int8
LANGUAGE plpgsql AS $$
DECLARE
    hit int8;
BEGIN
    DELETE FROM @.task_open WHERE ctid = ANY (ARRAY(
        SELECT x.ctid FROM unnest(p_seqs) AS u (seq) CROSS JOIN LATERAL (
            SELECT t.ctid FROM @.task_open AS t WHERE t.shard = p_shard AND t.seq = u.seq OFFSET 0
        ) AS x
    ));
    GET DIAGNOSTICS hit = ROW_COUNT;
    RETURN hit;
END $$;

CREATE FUNCTION @.forget_blobs(p_shard int2, p_seqs int8[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM @.blob WHERE ctid = ANY (ARRAY(
        SELECT x.ctid FROM unnest(p_seqs) AS u (seq) CROSS JOIN LATERAL (
            SELECT b.ctid FROM @.blob AS b WHERE b.shard = p_shard AND b.seq = u.seq OFFSET 0
        ) AS x
    ));
END $$;

CREATE FUNCTION @.put_blobs(p_shard int2, p_seq int8[], p_kind int8[], p_data bytea[]) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO @.blob (shard, seq, kind, data)
        SELECT p_shard, u.* FROM unnest(p_seq, p_kind::int2[], p_data) AS u
        ON CONFLICT (shard, seq, kind) DO UPDATE SET data = excluded.data
$$;

-- Null stands for an empty array, and the smallest integer for null. The arrays new_… are tasks that have no row
-- yet, old_… those that have one, ended_… those that are over. first_… are blobs that probably have no row yet.
CREATE FUNCTION @.commit_batch(
    p_shard int2, p_epoch int8, p_owner bytea, p_position int8, p_nonce bytea, p_counters bytea,
    p_at int8, p_changes bytea, p_synchronous text,
    spec_id int8[] = NULL, spec_tenant text[] = NULL, spec_queue text[] = NULL, spec_name text[] = NULL,
    spec_priority int8[] = NULL, spec_data bytea[] = NULL, gone int8[] = NULL, new_seq int8[] = NULL,
    new_spec int8[] = NULL, new_state int8[] = NULL, new_run_at int8[] = NULL,
    new_finished_at int8[] = NULL, new_key int8[] = NULL, new_id text[] = NULL, new_data bytea[] = NULL,
    old_seq int8[] = NULL, old_spec int8[] = NULL, old_state int8[] = NULL, old_run_at int8[] = NULL,
    old_finished_at int8[] = NULL, old_key int8[] = NULL, old_id text[] = NULL, old_data bytea[] = NULL,
    ended_seq int8[] = NULL, ended_spec int8[] = NULL, ended_state int8[] = NULL,
    ended_run_at int8[] = NULL, ended_finished_at int8[] = NULL, ended_key int8[] = NULL,
    ended_id text[] = NULL, ended_data bytea[] = NULL, ended_prune_at int8[] = NULL,
    ended_result_expires_at int8[] = NULL, first_seq int8[] = NULL, first_kind int8[] = NULL,
    first_data bytea[] = NULL, blob_seq int8[] = NULL, blob_kind int8[] = NULL, blob_data bytea[] = NULL,
    lost_seq int8[] = NULL, lost_kind int8[] = NULL, record_kind text[] = NULL, record_tenant text[] = NULL,
    record_key text[] = NULL, record_data bytea[] = NULL, lost_record_kind text[] = NULL,
    lost_record_tenant text[] = NULL, lost_record_key text[] = NULL, taken int8[] = NULL
) RETURNS void
LANGUAGE plpgsql
SET enable_seqscan = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    nothing CONSTANT int8 := -9223372036854775808;
    log_slot int2;
    found_position int8;
    found_nonce bytea;
    again int8[];
BEGIN
    UPDATE @.shard AS s SET position = p_position, nonce = p_nonce, counters = p_counters
        WHERE s.id = p_shard AND s.epoch = p_epoch AND s.owner = p_owner AND s.position = p_position - 1
        RETURNING s.slot INTO log_slot;
    IF NOT FOUND THEN
        PERFORM @.require_owned(p_shard, p_epoch, p_owner);
        SELECT s.position, s.nonce INTO found_position, found_nonce FROM @.shard AS s WHERE s.id = p_shard;
        IF found_position = p_position AND found_nonce = p_nonce THEN
            RETURN;
        END IF;
        RAISE EXCEPTION 'the store is at position %, so % is not the next', found_position, p_position
            USING ERRCODE = 'LS001';
    END IF;
    PERFORM set_config('synchronous_commit', p_synchronous, true);

    IF spec_id IS NOT NULL THEN
        INSERT INTO @.spec (shard, id, tenant, queue, name, priority, data)
            SELECT p_shard, u.* FROM unnest(
                spec_id::int4[], spec_tenant, spec_queue, spec_name, spec_priority::int4[], spec_data
            ) AS u;
    END IF;

    IF gone IS NOT NULL THEN
        PERFORM @.forget_open(p_shard, gone);
        PERFORM @.forget_ended(p_shard, gone);
        PERFORM @.forget_blobs(p_shard, gone);
    END IF;

    IF new_seq IS NOT NULL THEN
        INSERT INTO @.task_open (shard, seq, spec, state, run_at, finished_at, key, id, data)
            SELECT p_shard, u.seq, u.spec, u.state, u.run_at, nullif(u.finished_at, nothing), u.key, u.id, u.data
            FROM unnest(
                new_seq, new_spec::int4[], new_state::int2[], new_run_at, new_finished_at, new_key, new_id, new_data
            ) AS u (seq, spec, state, run_at, finished_at, key, id, data);
    END IF;

    IF old_seq IS NOT NULL THEN
        WITH written AS (
            INSERT INTO @.task_open AS t (shard, seq, spec, state, run_at, finished_at, key, id, data)
                SELECT p_shard, u.seq, u.spec, u.state, u.run_at, nullif(u.finished_at, nothing), u.key, u.id, u.data
                FROM unnest(
                    old_seq, old_spec::int4[], old_state::int2[], old_run_at, old_finished_at, old_key, old_id,
                    old_data
                ) AS u (seq, spec, state, run_at, finished_at, key, id, data)
                ON CONFLICT (shard, seq) DO UPDATE SET spec = excluded.spec, state = excluded.state,
                    run_at = excluded.run_at, finished_at = excluded.finished_at, data = excluded.data
                RETURNING t.seq, t.xmax = 0 AS is_new
        )
        SELECT array_agg(w.seq) FROM written AS w WHERE w.is_new INTO again;
        IF again IS NOT NULL THEN
            -- They had ended and run again, or were lost.
            PERFORM @.forget_ended(p_shard, again);
        END IF;
    END IF;

    IF ended_seq IS NOT NULL THEN
        IF @.forget_open(p_shard, ended_seq) < cardinality(ended_seq) THEN
            PERFORM @.forget_ended(p_shard, ended_seq);
        END IF;
        INSERT INTO @.task_ended
                (shard, seq, spec, state, run_at, finished_at, key, id, data, prune_at, result_expires_at)
            SELECT p_shard, u.seq, u.spec, u.state, u.run_at, nullif(u.finished_at, nothing), u.key, u.id, u.data,
                nullif(u.prune_at, nothing), nullif(u.result_expires_at, nothing)
            FROM unnest(
                ended_seq, ended_spec::int4[], ended_state::int2[], ended_run_at, ended_finished_at, ended_key,
                ended_id, ended_data, ended_prune_at, ended_result_expires_at
            ) AS u (seq, spec, state, run_at, finished_at, key, id, data, prune_at, result_expires_at);
        INSERT INTO @.census AS c (shard, spec, state, tasks)
            SELECT p_shard, u.spec, u.state, count(*)
            FROM unnest(ended_spec::int4[], ended_state::int2[]) AS u (spec, state) GROUP BY u.spec, u.state
            ON CONFLICT (shard, spec, state) DO UPDATE SET tasks = c.tasks + excluded.tasks;
    END IF;

    IF first_seq IS NOT NULL THEN
        BEGIN
            INSERT INTO @.blob (shard, seq, kind, data)
                SELECT p_shard, u.* FROM unnest(first_seq, first_kind::int2[], first_data) AS u;
        EXCEPTION WHEN unique_violation THEN
            PERFORM @.put_blobs(p_shard, first_seq, first_kind, first_data);
        END;
    END IF;
    IF blob_seq IS NOT NULL THEN
        PERFORM @.put_blobs(p_shard, blob_seq, blob_kind, blob_data);
    END IF;
    IF lost_seq IS NOT NULL THEN
        DELETE FROM @.blob WHERE ctid = ANY (ARRAY(
            SELECT x.ctid FROM unnest(lost_seq, lost_kind::int2[]) AS u (seq, kind) CROSS JOIN LATERAL (
                SELECT b.ctid FROM @.blob AS b WHERE b.shard = p_shard AND b.seq = u.seq AND b.kind = u.kind OFFSET 0
            ) AS x
        ));
    END IF;

    IF record_kind IS NOT NULL THEN
        INSERT INTO @.record (shard, kind, tenant, key, data)
            SELECT p_shard, u.* FROM unnest(record_kind, record_tenant, record_key, record_data) AS u
            ON CONFLICT (shard, kind, tenant, key) DO UPDATE SET data = excluded.data;
    END IF;
    IF lost_record_kind IS NOT NULL THEN
        DELETE FROM @.record AS r
            USING unnest(lost_record_kind, lost_record_tenant, lost_record_key) AS u (kind, tenant, key)
            WHERE r.shard = p_shard AND r.kind = u.kind AND r.tenant = u.tenant AND r.key = u.key;
    END IF;

    IF taken IS NOT NULL THEN
        DELETE FROM @.inbox AS i WHERE i.id = ANY (taken);
    END IF;

    INSERT INTO @.log (shard, slot, position, at, data)
        VALUES (p_shard, log_slot, p_position, p_at, p_changes);
END $$;

CREATE FUNCTION @.find_tasks(p_shard int2, p_keys int8[]) RETURNS TABLE (spec int4, id text, data bytea)
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
        SELECT x.spec, x.id, x.data FROM unnest(p_keys) AS u (key) CROSS JOIN LATERAL (
            SELECT t.shard, t.spec, t.id, t.data FROM @.task_open AS t WHERE t.key = u.key OFFSET 0
        ) AS x WHERE x.shard = p_shard
        UNION ALL
        SELECT x.spec, x.id, x.data FROM unnest(p_keys) AS u (key) CROSS JOIN LATERAL (
            SELECT t.shard, t.spec, t.id, t.data FROM @.task_ended AS t WHERE t.key = u.key OFFSET 0
        ) AS x WHERE x.shard = p_shard;
END $$;

CREATE FUNCTION @.read_blobs(p_shard int2, p_kind int8[], p_seq int8[])
RETURNS TABLE (kind int2, seq int8, data bytea)
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
        SELECT u.kind, u.seq, x.data FROM unnest(p_kind::int2[], p_seq) AS u (kind, seq) CROSS JOIN LATERAL (
            SELECT b.data FROM @.blob AS b WHERE b.shard = p_shard AND b.seq = u.seq AND b.kind = u.kind OFFSET 0
        ) AS x;
END $$;

CREATE FUNCTION @.read_log(p_shard int2, p_after int8, p_limit int8)
RETURNS TABLE (earliest int8, "position" int8, at int8, data bytea)
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
        SELECT s.earliest, l.position, l.at, l.data FROM @.shard AS s LEFT JOIN LATERAL (
            SELECT x.position, x.at, x.data FROM @.log AS x
            WHERE x.shard = p_shard AND x.position > p_after AND x.position >= s.earliest
            ORDER BY x.position LIMIT p_limit
        ) AS l ON true
        WHERE s.id = p_shard ORDER BY l.position;
END $$;

-- Pruning holds up commits of its shard, and an acquisition, for as long as a portion takes.
-- With the nonce of the portion that was pruned last it is told again what that was: whoever counts what is left
-- may have missed the answer.
CREATE FUNCTION @.prune_tasks(
    p_shard int2, p_epoch int8, p_owner bytea, p_before int8, p_limit int8, p_nonce bytea
)
RETURNS TABLE (tenant text, queue text, state int2, tasks int8)
LANGUAGE plpgsql
SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    due int8[];
    result jsonb;
    last_nonce bytea;
BEGIN
    SELECT s.prune_nonce, s.pruned INTO last_nonce, result FROM @.shard AS s
        WHERE s.id = p_shard FOR NO KEY UPDATE;
    PERFORM @.require_owned(p_shard, p_epoch, p_owner);
    IF last_nonce <> p_nonce THEN
        SELECT array_agg(d.seq) INTO due FROM (
            SELECT t.seq FROM @.task_ended AS t WHERE t.shard = p_shard AND t.prune_at <= p_before
            ORDER BY t.prune_at, t.seq LIMIT p_limit
        ) AS d;
        IF due IS NULL THEN
            RETURN;
        END IF;
        PERFORM @.forget_blobs(p_shard, due);
        WITH gone AS (
            DELETE FROM @.task_ended WHERE ctid = ANY (ARRAY(
                SELECT x.ctid FROM unnest(due) AS u (seq) CROSS JOIN LATERAL (
                    SELECT t.ctid FROM @.task_ended AS t WHERE t.shard = p_shard AND t.seq = u.seq OFFSET 0
                ) AS x
            )) RETURNING spec, state
        ), counted AS (
            SELECT g.spec, g.state, count(*) AS tasks FROM gone AS g GROUP BY g.spec, g.state
        ), told AS (
            UPDATE @.census AS c SET tasks = c.tasks - n.tasks FROM counted AS n
            WHERE c.shard = p_shard AND c.spec = n.spec AND c.state = n.state
        ), summed AS (
            SELECT s.tenant, s.queue, n.state, sum(n.tasks)::int8 AS tasks FROM counted AS n
            JOIN @.spec AS s ON s.shard = p_shard AND s.id = n.spec GROUP BY s.tenant, s.queue, n.state
        )
        SELECT jsonb_agg(m) INTO result FROM summed AS m;
        UPDATE @.shard AS s SET prune_nonce = p_nonce, pruned = result WHERE s.id = p_shard;
    END IF;
    RETURN QUERY
        SELECT r.* FROM jsonb_to_recordset(result) AS r (tenant text, queue text, state int2, tasks int8);
END $$;

CREATE FUNCTION @.expire_results(p_shard int2, p_epoch int8, p_owner bytea, p_before int8, p_limit int8)
RETURNS int8
LANGUAGE plpgsql
SET enable_seqscan = off SET jit = off AS $$
DECLARE
    places tid[];
    due int8[];
BEGIN
    PERFORM FROM @.shard AS s WHERE s.id = p_shard FOR SHARE;
    PERFORM @.require_owned(p_shard, p_epoch, p_owner);
    SELECT array_agg(d.place), array_agg(d.seq) INTO places, due FROM (
        SELECT t.ctid AS place, t.seq FROM @.task_ended AS t WHERE t.shard = p_shard AND t.result_expires_at <= p_before
        ORDER BY t.result_expires_at, t.seq LIMIT p_limit
    ) AS d;
    DELETE FROM @.blob WHERE ctid = ANY (ARRAY(
        SELECT x.ctid FROM unnest(due) AS u (seq) CROSS JOIN LATERAL (
            SELECT b.ctid FROM @.blob AS b WHERE b.shard = p_shard AND b.seq = u.seq AND b.kind = 1 OFFSET 0
        ) AS x
    ));
    UPDATE @.task_ended SET result_expires_at = NULL WHERE ctid = ANY (places);
    RETURN coalesce(cardinality(due), 0);
END $$;

-- Let the log of a shard begin later; what is before goes with its slot.
CREATE FUNCTION @.truncate_log(p_shard int2, p_epoch int8, p_owner bytea, p_before int8, p_limit int8)
RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
DECLARE
    begins int8;
    kept int8;
BEGIN
    SELECT s.earliest INTO begins FROM @.shard AS s WHERE s.id = p_shard FOR NO KEY UPDATE;
    PERFORM @.require_owned(p_shard, p_epoch, p_owner);
    SELECT coalesce(min(l.position) FILTER (WHERE l.at >= p_before), max(l.position) + 1) INTO kept
        FROM (
            SELECT x.position, x.at FROM @.log AS x WHERE x.shard = p_shard AND x.position >= begins
            ORDER BY x.position LIMIT p_limit
        ) AS l;
    IF kept > begins THEN
        UPDATE @.shard SET earliest = kept WHERE id = p_shard;
    END IF;
END $$;

CREATE FUNCTION @.slot_size(p_slot int4) RETURNS int8
LANGUAGE sql AS $$ SELECT pg_table_size(('@.log_' || p_slot)::regclass) $$;

-- Truncate one slot of the log that nobody needs, and write to the next where this one is large.
CREATE FUNCTION @.turn_log() RETURNS void
LANGUAGE plpgsql
SET lock_timeout = '1s' SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
DECLARE
    slots CONSTANT int4 := 8;
    smallest CONSTANT int8 := 16 * 1024 * 1024;
    present int2;
    sizes int8[];
    following int2;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('@. log')) THEN
        RETURN;
    END IF;
    SELECT array_agg(@.slot_size(n.slot) ORDER BY n.slot) INTO sizes
        FROM generate_series(0, slots - 1) AS n (slot);
    SELECT s.slot INTO present FROM @.shard AS s WHERE s.id = 0;
    FOR n IN 0 .. slots - 1 LOOP
        CONTINUE WHEN sizes[n + 1] <= 65536 OR EXISTS (SELECT FROM @.shard AS s WHERE s.slot = n);
        CONTINUE WHEN EXISTS (
            SELECT FROM @.shard AS s WHERE EXISTS (
                SELECT FROM @.log AS l WHERE l.shard = s.id AND l.slot = n AND l.position >= s.earliest
            )
        );
        EXECUTE format('TRUNCATE %s', '@.log_' || n);
        RETURN;
    END LOOP;
    following := (present + 1) % slots;
    IF sizes[following + 1] <= 65536
        AND sizes[present + 1] > greatest(smallest, (SELECT sum(x) / 6 FROM unnest(sizes) AS x)) THEN
        UPDATE @.shard SET slot = following;
    END IF;
END $$;

-- Transactional enqueue: what a user's own transaction calls. A task exists exactly if that transaction commits.

CREATE FUNCTION @.crc32(p_text text) RETURNS int8
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    bytes CONSTANT bytea := convert_to(p_text, 'UTF8');
    crc int8 := 4294967295;
BEGIN
    FOR i IN 0 .. octet_length(bytes) - 1 LOOP
        crc := crc # get_byte(bytes, i);
        FOR bit IN 1 .. 8 LOOP
            crc := CASE WHEN crc & 1 = 1 THEN (crc >> 1) # 3988292384 ELSE crc >> 1 END;
        END LOOP;
    END LOOP;
    RETURN crc # 4294967295;
END $$;

-- How many partitions a tenant has: the end of a row of the system tenant, [name, number] in MessagePack.
CREATE FUNCTION @.partitions_of(p_tenant text, p_shards int8) RETURNS int4
LANGUAGE plpgsql STABLE AS $$
DECLARE
    stored bytea;
    place int4;
BEGIN
    SELECT r.data INTO stored FROM @.record AS r
        WHERE r.shard = (@.crc32('_system') % p_shards)::int2 AND r.kind = 'tenant' AND r.tenant = '_system'
            AND r.key = p_tenant;
    IF stored IS NULL THEN
        RETURN 1;
    END IF;
    place := CASE WHEN octet_length(p_tenant) < 32 THEN 2 ELSE 3 END + octet_length(p_tenant);
    RETURN CASE get_byte(stored, place)
        WHEN 204 THEN get_byte(stored, place + 1)
        WHEN 205 THEN get_byte(stored, place + 1) * 256 + get_byte(stored, place + 2)
        ELSE get_byte(stored, place)
    END;
END $$;

-- The name inside of the tenant, or of its partition that has the task, and the shard in which that lives.
CREATE FUNCTION @.place_of(p_tenant text, p_task_id text, OUT name text, OUT shard int2)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    shards CONSTANT int8 := (SELECT count(*) FROM @.shard);
    partitions int4;
    partition int8 := 0;
BEGIN
    name := p_tenant;
    shard := 0;
    IF shards > 1 THEN
        partitions := @.partitions_of(p_tenant, shards);
        IF partitions > 1 THEN
            partition := @.crc32(p_task_id) % partitions;
            name := p_tenant || '#' || partition;
        END IF;
        shard := (@.crc32(p_tenant) + partition) % shards;
    END IF;
END $$;

CREATE FUNCTION @.refuse(p_field text, p_reason text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'lineshaft.enqueue: %: %', p_field, p_reason
        USING ERRCODE = 'invalid_parameter_value', COLUMN = p_field;
END $$;

CREATE FUNCTION @.duration(p_field text, p_value interval, p_least int8, p_most int8) RETURNS int8
LANGUAGE plpgsql AS $$
DECLARE
    ms numeric;
BEGIN
    IF p_value IS NULL THEN
        RETURN NULL;
    END IF;
    ms := round(extract(epoch FROM p_value) * 1000);
    IF ms < p_least OR ms > p_most THEN
        PERFORM @.refuse(p_field, format('%s is not between %s and %s', p_value,
            p_least * interval '1 ms', justify_interval(p_most * interval '1 ms')));
    END IF;
    RETURN ms;
END $$;

CREATE FUNCTION @.instant(p_field text, p_value timestamptz) RETURNS int8
LANGUAGE plpgsql AS $$
DECLARE
    ms numeric;
BEGIN
    IF p_value IS NULL THEN
        RETURN NULL;
    END IF;
    IF NOT isfinite(p_value) THEN
        PERFORM @.refuse(p_field, 'an instant must be finite');
    END IF;
    ms := ceil(extract(epoch FROM p_value) * 1000);
    IF ms < 0 OR ms > 253402300799999 THEN
        PERFORM @.refuse(p_field, 'an instant must lie in the years 1970 to 9999');
    END IF;
    RETURN ms;
END $$;

-- What PostgreSQL takes for JSON and no client could read: lone surrogates, and nesting beyond 64.
CREATE FUNCTION @.check_json(p_field text, p_text text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    -- So that every backslash left begins an escape.
    escapes CONSTANT text := CASE WHEN position('\' IN p_text) > 0 THEN replace(p_text, '\\', '_') ELSE p_text END;
    brackets text;
BEGIN
    IF position('\u' IN escapes) > 0 AND regexp_replace(
        escapes, '\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}', '', 'g'
    ) ~ '\\u[dD][89a-fA-F]' THEN
        PERFORM @.refuse(p_field, 'a string holds a lone surrogate');
    END IF;
    IF length(p_text) - length(translate(p_text, '[{', '')) > 64 THEN
        SELECT translate(regexp_replace(string_agg(part, ''), '[^][{}]+', '', 'g'), '{}', '[]') INTO brackets
            FROM unnest(string_to_array(replace(escapes, '\"', ''), '"')) WITH ORDINALITY AS split (part, place)
            WHERE place % 2 = 1;  -- outside of strings
        FOR depth IN 1 .. 64 LOOP
            EXIT WHEN brackets = '';
            brackets := replace(brackets, '[]', '');
        END LOOP;
        IF brackets <> '' THEN
            PERFORM @.refuse(p_field, 'nested deeper than 64');
        END IF;
    END IF;
END $$;

CREATE FUNCTION @.enqueue(
    name text,
    payload text DEFAULT 'null',
    task_id text DEFAULT NULL,
    queue text DEFAULT 'default',
    priority int DEFAULT 0,
    run_at timestamptz DEFAULT NULL,
    delay interval DEFAULT NULL,
    expires_at timestamptz DEFAULT NULL,
    tenant text DEFAULT 'default',
    tags text[] DEFAULT NULL,
    max_retries int DEFAULT 3,
    lease interval DEFAULT NULL,
    timeout interval DEFAULT NULL,
    retention interval DEFAULT NULL,
    result_ttl interval DEFAULT NULL,
    capability text[] DEFAULT NULL,
    metadata json DEFAULT NULL,
    traceparent text DEFAULT NULL
) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    a_century CONSTANT int8 := 36500::int8 * 86400000;
    is_name CONSTANT text := '^[A-Za-z0-9._:/-]{1,128}$';
    place record;
    due int8;
    text_of_metadata text := btrim(metadata::text, E' \t\r\n');
    bytes bytea;
    given CONSTANT bool := task_id IS NOT NULL;
BEGIN
    IF name IS NULL OR name !~ is_name THEN
        PERFORM @.refuse('name', 'a name is 1 to 128 of the letters, digits and . _ - : /');
    END IF;
    IF queue IS NULL OR queue !~ is_name THEN
        PERFORM @.refuse('queue', 'a name is 1 to 128 of the letters, digits and . _ - : /');
    END IF;
    IF tenant IS NULL OR tenant !~ is_name OR tenant LIKE '\_%' THEN
        PERFORM @.refuse('tenant', 'a tenant is 1 to 128 of the letters, digits and . _ - : /, no _ first');
    END IF;
    IF given AND task_id !~ '^[A-Za-z0-9.:/@+=-][A-Za-z0-9._:/@+=-]{0,255}$' THEN
        PERFORM @.refuse('task_id', 'a task id is 1 to 256 of the letters, digits and . _ - : / @ + =, no _ first');
    END IF;
    IF priority IS NULL THEN
        PERFORM @.refuse('priority', 'expected an integer');
    END IF;
    IF max_retries IS NULL OR max_retries < 0 THEN
        PERFORM @.refuse('max_retries', 'expected an integer of 0 or more');
    END IF;
    IF run_at IS NOT NULL AND delay IS NOT NULL THEN
        PERFORM @.refuse('delay', 'say run_at or delay, not both');
    END IF;
    IF cardinality(tags) > 100 OR EXISTS (
        SELECT FROM unnest(tags) AS tag
        WHERE tag IS NULL OR length(tag) NOT BETWEEN 1 AND 256 OR tag ~ E'[\\x01-\\x1f\\x7f-\\x9f]'
    ) THEN
        PERFORM @.refuse('tags', 'at most 100 tags of 1 to 256 characters, none of them control characters');
    END IF;
    IF cardinality(capability) > 1000 OR EXISTS (
        SELECT FROM unnest(capability) AS word WHERE word IS NULL OR word !~ is_name
    ) THEN
        PERFORM @.refuse('capability', 'each is 1 to 128 of the letters, digits and . _ - : /');
    END IF;
    IF traceparent !~ '^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]{0,200})?$' THEN
        PERFORM @.refuse('traceparent', 'expected a W3C trace context');
    END IF;
    IF timeout <= interval '0' THEN
        PERFORM @.refuse('timeout', 'a timeout must be more than 0');
    END IF;
    IF text_of_metadata = 'null' THEN
        text_of_metadata := NULL;
    ELSIF json_typeof(metadata) <> 'object' THEN
        PERFORM @.refuse('metadata', 'expected an object');
    ELSIF octet_length(convert_to(text_of_metadata, 'UTF8')) > 16384 THEN
        PERFORM @.refuse('metadata', 'at most 16 KiB');
    END IF;
    PERFORM @.check_json('metadata', text_of_metadata);
    BEGIN
        PERFORM payload::json;
    EXCEPTION WHEN invalid_text_representation THEN
        PERFORM @.refuse('payload', 'not JSON: ' || SQLERRM);
    END;
    bytes := convert_to(coalesce(btrim(payload, E' \t\r\n'), 'null'), 'UTF8');
    IF octet_length(bytes) > (SELECT m.value::int8 FROM @.meta AS m WHERE m.key = 'max_payload') THEN
        PERFORM @.refuse('payload', format('%s bytes are more than the limit (max_payload in @.meta)',
            octet_length(bytes)));
    END IF;
    PERFORM @.check_json('payload', payload);
    due := @.instant('run_at', run_at);
    IF delay IS NOT NULL THEN
        due := ceil(extract(epoch FROM clock_timestamp()) * 1000) + @.duration('delay', delay, 0, a_century);
    END IF;
    IF NOT given THEN
        -- As the coordinator makes them: 48 bits of milliseconds, 56 bits of chance, so that they sort by time.
        task_id := lpad(to_hex((extract(epoch FROM clock_timestamp()) * 1000)::int8), 12, '0')
            || substr(replace(gen_random_uuid()::text, '-', ''), 19, 14);
    END IF;
    place := @.place_of(tenant, task_id);
    IF EXISTS (
        SELECT FROM @.record AS r
        WHERE r.shard = place.shard AND r.kind = 'queue' AND r.tenant = place.name AND r.key = enqueue.queue
            AND position('c'::bytea IN r.data) > 0
    ) THEN
        PERFORM @.refuse('queue', format('queue %L is closed', queue));
    END IF;
    INSERT INTO @.inbox (
        shard, tenant, task_id, given, name, queue, priority, max_retries, run_at, expires_at, lease, timeout,
        retention, result_ttl, tags, capability, metadata, traceparent, payload
    ) VALUES (
        place.shard, place.name, task_id, given, name, queue, priority, max_retries, due,
        @.instant('expires_at', expires_at), @.duration('lease', lease, 1000, 86400000),
        @.duration('timeout', timeout, 1, a_century), @.duration('retention', retention, 0, a_century),
        @.duration('result_ttl', result_ttl, 0, a_century), coalesce(tags, '{}'), coalesce(capability, '{}'),
        convert_to(text_of_metadata, 'UTF8'), traceparent, bytes
    );
    PERFORM pg_notify('@channel@', place.shard::text);
    RETURN task_id;
END $$;

-- The same with a payload of another type: json stays as it is spelled, jsonb as PostgreSQL spells it.
CREATE FUNCTION @.enqueue(
    name text, payload json, task_id text DEFAULT NULL, queue text DEFAULT 'default', priority int DEFAULT 0,
    run_at timestamptz DEFAULT NULL, delay interval DEFAULT NULL, expires_at timestamptz DEFAULT NULL,
    tenant text DEFAULT 'default', tags text[] DEFAULT NULL, max_retries int DEFAULT 3, lease interval DEFAULT NULL,
    timeout interval DEFAULT NULL, retention interval DEFAULT NULL, result_ttl interval DEFAULT NULL,
    capability text[] DEFAULT NULL, metadata json DEFAULT NULL, traceparent text DEFAULT NULL
) RETURNS text
LANGUAGE sql AS $$
    SELECT @.enqueue(
        name, payload::text, task_id, queue, priority, run_at, delay, expires_at, tenant, tags, max_retries, lease,
        timeout, retention, result_ttl, capability, metadata, traceparent
    )
$$;
CREATE FUNCTION @.enqueue(
    name text, payload jsonb, task_id text DEFAULT NULL, queue text DEFAULT 'default', priority int DEFAULT 0,
    run_at timestamptz DEFAULT NULL, delay interval DEFAULT NULL, expires_at timestamptz DEFAULT NULL,
    tenant text DEFAULT 'default', tags text[] DEFAULT NULL, max_retries int DEFAULT 3, lease interval DEFAULT NULL,
    timeout interval DEFAULT NULL, retention interval DEFAULT NULL, result_ttl interval DEFAULT NULL,
    capability text[] DEFAULT NULL, metadata json DEFAULT NULL, traceparent text DEFAULT NULL
) RETURNS text
LANGUAGE sql AS $$
    SELECT @.enqueue(
        name, payload::text, task_id, queue, priority, run_at, delay, expires_at, tenant, tags, max_retries, lease,
        timeout, retention, result_ttl, capability, metadata, traceparent
    )
$$;

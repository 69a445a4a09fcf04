-- All that writes, as functions, so that a group of turns is one round trip and one transaction.
-- They decide what the contract of a store says and nothing else. A job is a JSON object; its
-- payloads are not in it: it names places in `_texts` and `_blobs`, which arrive as they are.
-- A function refuses before it writes, by answering {"error": ...}; then the rest of the group goes
-- on. Every statement of them has a snapshot of its own (READ COMMITTED), so what is read after a
-- lock was got is what the lock protects.

-- A new run, unless its id or key is taken: its number, or NULL.
CREATE FUNCTION insert_run(
    _new jsonb, _status text, _seq bigint, _fence bigint, _owner text, _due float8, _at float8,
    _detail text, _texts text[]
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    _n bigint;
BEGIN
    INSERT INTO runs (
        id, workflow, version, status, seq, fence, owner, due, created, updated, ended,
        key, correlation, parent, priority, detail
    ) VALUES (
        _new->>'id', _new->>'workflow', _new->>'version', _status, _seq, _fence, _owner, _due,
        (_new->>'at')::float8, _at,
        CASE WHEN _status IN ('completed', 'failed', 'cancelled', 'timed_out') THEN _at END,
        _new->>'key', _new->>'correlation', _new->>'parent', (_new->>'priority')::bigint, _detail
    ) ON CONFLICT DO NOTHING RETURNING n INTO _n;
    IF _n IS NOT NULL AND _new ? 'start' THEN
        PERFORM deliver(
            jsonb_build_object(
                'run', _new->'id', 'kind', 'start', 'data', _new->'start', 'at', _new->'at'
            ),
            _texts
        );
    END IF;
    RETURN _n;
END $$;

-- A message into an inbox; false when the run is not there, is over, or has had its dedupe value.
CREATE FUNCTION deliver(_message jsonb, _texts text[]) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    _run record;
    _at float8 := (_message->>'at')::float8;
BEGIN
    SELECT n, due INTO _run FROM runs
    WHERE id = _message->>'run'
        AND status NOT IN ('completed', 'failed', 'cancelled', 'timed_out')
    FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    IF _message ? 'dedupe' THEN
        INSERT INTO dedupe (run, value) VALUES (_run.n, _message->>'dedupe') ON CONFLICT DO NOTHING;
        IF NOT FOUND THEN
            RETURN false;
        END IF;
    END IF;
    INSERT INTO messages (run, kind, data, at)
    VALUES (_run.n, _message->>'kind', _texts[(_message->>'data')::int], _at);
    IF _run.due IS NULL OR _run.due > _at THEN
        UPDATE runs SET due = _at WHERE n = _run.n;
    END IF;
    RETURN true;
END $$;

-- The run that has this one's idempotency key.
CREATE FUNCTION find_key(_new jsonb) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT id FROM runs WHERE workflow = _new->>'workflow' AND key = _new->>'key'
$$;

-- An unclaimed run: NULL, {"id": of the run that has its key} or {"error": "exists"}.
CREATE FUNCTION create_run(_new jsonb, _texts text[]) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    _existing text;
BEGIN
    IF _new ? 'key' THEN
        _existing := find_key(_new);
    END IF;
    IF _existing IS NULL THEN
        IF insert_run(
            _new, _new->>'status', 0, 0, NULL, (_new->>'due')::float8, (_new->>'at')::float8,
            NULL, _texts
        ) IS NOT NULL THEN
            RETURN NULL;
        END IF;
        _existing := find_key(_new);  -- it may have been created while the insert waited
    END IF;
    IF _existing IS NULL THEN
        RETURN '{"error": "exists"}';
    END IF;
    RETURN jsonb_build_object('id', _existing);
END $$;

-- A big payload, and the runs that refer to it from now on. The lock on one that is there already
-- keeps `delete_runs` from taking it for unused.
CREATE FUNCTION keep_blob(_digest text, _data bytea, _run bigint, _others text[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    LOOP
        INSERT INTO blobs (digest, size, data) VALUES (_digest, length(_data), _data)
        ON CONFLICT DO NOTHING;
        EXIT WHEN FOUND;
        PERFORM 1 FROM blobs WHERE digest = _digest FOR KEY SHARE;
        EXIT WHEN FOUND;
    END LOOP;
    INSERT INTO blob_refs (run, digest) VALUES (_run, _digest) ON CONFLICT DO NOTHING;
    INSERT INTO blob_refs (run, digest)
    SELECT n, _digest
    FROM (SELECT n FROM runs WHERE id = ANY (_others) ORDER BY id FOR KEY SHARE) AS other
    ON CONFLICT DO NOTHING;
END $$;

-- The row of a run whose creator claims it at once: {"n": its number}, or an answer to give.
CREATE FUNCTION begin_run(_commit jsonb, _texts text[]) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    _new jsonb := _commit->'create';
    _existing text;
    _n bigint;
BEGIN
    IF _new ? 'key' THEN
        _existing := find_key(_new);
    END IF;
    IF _existing IS NULL THEN
        IF _commit ? 'consumed' THEN
            RETURN jsonb_build_object(
                'error', 'consumed', 'missing', jsonb_array_length(_commit->'consumed')
            );
        END IF;
        _n := insert_run(
            _new, _commit->>'status', (_commit->>'rows')::bigint, 1,
            CASE WHEN NOT _commit ? 'release' THEN _commit->>'worker' END,
            (_commit->>'due')::float8, (_commit->>'at')::float8,
            _texts[(_commit->>'detail')::int], _texts
        );
        IF _n IS NOT NULL THEN
            RETURN jsonb_build_object('n', _n);
        END IF;
        _existing := find_key(_new);
    END IF;
    IF _existing IS NULL THEN
        RETURN '{"error": "exists"}';
    END IF;
    RETURN jsonb_build_object('id', _existing);
END $$;

-- Checks the fence and moves a run's row on: {"n": its number, "seq": the seq it had}, or a refusal.
CREATE FUNCTION advance_run(_commit jsonb, _texts text[]) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    _at float8 := (_commit->>'at')::float8;
    _status text := _commit->>'status';
    _due float8 := (_commit->>'due')::float8;
    _rows bigint := (_commit->>'rows')::bigint;
    _over boolean := _status IN ('completed', 'failed', 'cancelled', 'timed_out');
    _consumed bigint[];
    _missing bigint;
    _was record;
BEGIN
    IF NOT _commit ?| '{consumed,release,detail}' THEN
        -- The usual commit: nothing that an index knows changes.
        UPDATE runs SET seq = seq + _rows, updated = _at
        WHERE id = _commit->>'run' AND fence = (_commit->>'fence')::bigint AND owner IS NOT NULL
            AND status = _status AND due IS NOT DISTINCT FROM _due
        RETURNING n, seq - _rows AS seq INTO _was;
        IF FOUND THEN
            RETURN jsonb_build_object('n', _was.n, 'seq', _was.seq);
        END IF;
    END IF;
    SELECT n, seq, status INTO _was FROM runs
    WHERE id = _commit->>'run' AND fence = (_commit->>'fence')::bigint AND owner IS NOT NULL
    FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN '{"error": "lost"}';
    END IF;
    IF _status <> _was.status
        AND _was.status IN ('completed', 'failed', 'cancelled', 'timed_out') THEN
        RETURN jsonb_build_object('error', 'ended', 'status', _was.status);
    END IF;
    IF _commit ? 'consumed' THEN
        -- A message is consumed once: taking it in again means that a turn is being repeated.
        _consumed := ARRAY(SELECT jsonb_array_elements(_commit->'consumed')::bigint);
        SELECT cardinality(_consumed) - count(*) INTO _missing
        FROM messages WHERE run = _was.n AND id = ANY (_consumed);
        IF _missing <> 0 THEN
            RETURN jsonb_build_object('error', 'consumed', 'missing', _missing);
        END IF;
        DELETE FROM messages WHERE run = _was.n AND id = ANY (_consumed);
    END IF;
    IF NOT _over AND (_due IS NULL OR _due > _at)
        AND EXISTS (SELECT 1 FROM messages WHERE run = _was.n) THEN
        _due := _at;  -- a message that is left keeps its run due
    END IF;
    UPDATE runs SET
        seq = seq + _rows, updated = _at, status = _status, due = _due,
        ended = CASE WHEN _over THEN coalesce(ended, _at) END,
        detail = CASE WHEN _commit ? 'detail' THEN _texts[(_commit->>'detail')::int] ELSE detail END,
        owner = CASE WHEN _commit ? 'release' THEN NULL ELSE owner END
    WHERE n = _was.n;
    RETURN jsonb_build_object('n', _was.n, 'seq', _was.seq);
END $$;

-- One turn of a run: NULL when it was kept, or what to say instead.
CREATE FUNCTION keep_commit(_commit jsonb, _texts text[], _blobs bytea[]) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    _at float8 := (_commit->>'at')::float8;
    _rows int := (_commit->>'rows')::int;
    _first int := (_commit->>'first')::int;
    _moved jsonb;
    _n bigint;
    _seq bigint := 0;
    _tags text[];
    _others text[];
    _each jsonb;
BEGIN
    IF _commit ? 'create' THEN
        _moved := begin_run(_commit, _texts);
    ELSE
        _moved := advance_run(_commit, _texts);
        _seq := (_moved->>'seq')::bigint;
    END IF;
    IF NOT _moved ? 'n' THEN
        RETURN _moved;
    END IF;
    _n := (_moved->>'n')::bigint;
    IF _rows = 1 THEN
        INSERT INTO journal (run, seq, at, data) VALUES (_n, _seq + 1, _at, _texts[_first]);
    ELSIF _rows > 1 THEN
        INSERT INTO journal (run, seq, at, data)
        SELECT _n, _seq + i, _at, _texts[_first + i - 1] FROM generate_series(1, _rows) AS i;
    END IF;
    IF _commit ? 'over' THEN
        DELETE FROM waits WHERE run = _n;
    ELSIF _commit ? 'waits' THEN
        _tags := ARRAY(SELECT jsonb_array_elements_text(_commit->'waits'));
        DELETE FROM waits WHERE run = _n AND tag <> ALL (_tags);
        INSERT INTO waits (tag, created, id, run)
        SELECT DISTINCT tag, created, id, n FROM runs, unnest(_tags) AS tag WHERE n = _n
        ON CONFLICT DO NOTHING;
    END IF;
    IF _commit ? 'snapshot' THEN
        INSERT INTO snapshots (run, seq, data)
        VALUES (
            _n, (_commit->'snapshot'->>0)::bigint, _texts[(_commit->'snapshot'->>1)::int]
        ) ON CONFLICT (run) DO UPDATE SET seq = excluded.seq, data = excluded.data;
    END IF;
    IF _commit ? 'children' THEN
        FOR _each IN SELECT value FROM jsonb_array_elements(_commit->'children') LOOP
            PERFORM create_run(_each, _texts);  -- one that is there already is left alone
        END LOOP;
    END IF;
    IF _commit ? 'messages' THEN
        FOR _each IN SELECT value FROM jsonb_array_elements(_commit->'messages') LOOP
            PERFORM deliver(_each, _texts);
        END LOOP;
    END IF;
    IF _commit ? 'blobs' THEN
        -- Messages and start inputs may name them, and the run that sent them may be deleted first.
        _others := ARRAY(SELECT jsonb_array_elements_text(_commit->'others'));
        FOR _each IN SELECT value FROM jsonb_array_elements(_commit->'blobs') LOOP
            PERFORM keep_blob(_each->>0, _blobs[(_each->>1)::int], _n, _others);
        END LOOP;
    END IF;
    RETURN NULL;
END $$;

-- Owners without a lease, and '' for nobody.
CREATE FUNCTION gone_owners(_now float8, _dead text[], _but text) RETURNS SETOF text
LANGUAGE plpgsql STABLE AS $$
DECLARE
    _owner text := '';
BEGIN
    RETURN NEXT '';
    LOOP
        SELECT min(owner) INTO _owner FROM runs WHERE owner > _owner;
        EXIT WHEN _owner IS NULL;
        IF _owner IS DISTINCT FROM _but AND (
            _owner = ANY (_dead)
            OR NOT EXISTS (SELECT 1 FROM workers WHERE id = _owner AND until > _now)
        ) THEN
            RETURN NEXT _owner;
        END IF;
    END LOOP;
END $$;

-- The highest priority below this one among what this owner ('': nobody) has to be advanced.
CREATE FUNCTION next_priority(_owner text, _below bigint) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT max(priority) FROM runs
    WHERE due IS NOT NULL AND status IN ('queued', 'running', 'waiting')
        AND coalesce(owner, '') = _owner AND priority < _below
$$;

-- Gives a run to a worker; the fence shuts the one before out. Its row, as an array.
CREATE FUNCTION take_run(_worker text, _n bigint) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    _row jsonb;
BEGIN
    IF current_setting('synchronous_commit') = 'off' THEN
        -- A fence that a crash of the server took back could be given twice.
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    UPDATE runs SET owner = _worker, fence = fence + 1 WHERE n = _n
    RETURNING jsonb_build_array(
        id, workflow, version, status, seq, fence, owner, due, created, updated, ended,
        key, correlation, parent, priority, detail
    ) INTO _row;
    RETURN _row;
END $$;

-- What is due, at most so many: highest priority first, then by due time. What others are claiming
-- or committing at this moment is passed over.
CREATE FUNCTION claim_runs(
    _worker text, _workflows text[], _now float8, _limit bigint, _dead text[]
) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    _owner text;
    _priority bigint;
    _left bigint;
    _due record;
    _found bigint[] := '{}';
    _rows jsonb[] := '{}';
    _n bigint;
BEGIN
    FOR _owner IN SELECT * FROM gone_owners(_now, _dead, _worker) LOOP
        _left := _limit;
        _priority := 9223372036854775807;
        WHILE _left > 0 LOOP
            _priority := next_priority(_owner, _priority);
            EXIT WHEN _priority IS NULL;
            FOR _due IN
                SELECT n FROM runs
                WHERE due IS NOT NULL AND status IN ('queued', 'running', 'waiting')
                    AND coalesce(owner, '') = _owner AND priority = _priority
                    AND due <= _now AND workflow = ANY (_workflows)
                ORDER BY due LIMIT _left FOR NO KEY UPDATE SKIP LOCKED
            LOOP
                _found := _found || _due.n;
                _left := _left - 1;
            END LOOP;
        END LOOP;
    END LOOP;
    FOR _n IN
        SELECT n FROM runs WHERE n = ANY (_found) ORDER BY priority DESC, due, n LIMIT _limit
    LOOP
        _rows := _rows || take_run(_worker, _n);
    END LOOP;
    RETURN to_jsonb(_rows);
END $$;

-- This run, whatever its due time or status, unless a live worker or this one owns it.
CREATE FUNCTION claim_run(_worker text, _id text, _now float8, _dead text[]) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    _run record;
BEGIN
    SELECT n, owner INTO _run FROM runs WHERE id = _id FOR NO KEY UPDATE;
    IF NOT FOUND OR _run.owner = _worker THEN
        RETURN '[]';
    END IF;
    IF _run.owner IS NOT NULL AND _run.owner <> ALL (_dead)
        AND EXISTS (SELECT 1 FROM workers WHERE id = _run.owner AND until > _now) THEN
        RETURN '[]';
    END IF;
    RETURN jsonb_build_array(take_run(_worker, _run.n));
END $$;

-- When the first run that nobody with a lease owns is due.
CREATE FUNCTION next_due(_workflows text[], _now float8) RETURNS float8
LANGUAGE plpgsql STABLE AS $$
DECLARE
    _owner text;
    _priority bigint;
    _first float8;
    _due float8;
BEGIN
    FOR _owner IN SELECT * FROM gone_owners(_now, '{}', NULL) LOOP
        _priority := 9223372036854775807;
        LOOP
            _priority := next_priority(_owner, _priority);
            EXIT WHEN _priority IS NULL;
            SELECT due INTO _due FROM runs
            WHERE due IS NOT NULL AND status IN ('queued', 'running', 'waiting')
                AND coalesce(owner, '') = _owner AND priority = _priority
                AND workflow = ANY (_workflows)
            ORDER BY due LIMIT 1;
            IF FOUND AND (_first IS NULL OR _due < _first) THEN
                _first := _due;
            END IF;
        END LOOP;
    END LOOP;
    RETURN _first;
END $$;

-- Whole runs that are over, with all that belongs to them; how many.
CREATE FUNCTION delete_runs(_ids text[]) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    _gone bigint[];
    _digests text[];
BEGIN
    _gone := ARRAY(
        SELECT n FROM runs
        WHERE id = ANY (_ids) AND status IN ('completed', 'failed', 'cancelled', 'timed_out')
        ORDER BY id FOR UPDATE
    );
    _digests := ARRAY(SELECT DISTINCT digest FROM blob_refs WHERE run = ANY (_gone));
    DELETE FROM journal WHERE run = ANY (_gone);
    DELETE FROM messages WHERE run = ANY (_gone);
    DELETE FROM dedupe WHERE run = ANY (_gone);
    DELETE FROM waits WHERE run = ANY (_gone);
    DELETE FROM snapshots WHERE run = ANY (_gone);
    DELETE FROM blob_refs WHERE run = ANY (_gone);
    DELETE FROM runs WHERE n = ANY (_gone);
    -- First the locks, then, with a newer snapshot, the look at who refers to them.
    PERFORM 1 FROM blobs WHERE digest = ANY (_digests) ORDER BY digest FOR UPDATE;
    DELETE FROM blobs WHERE digest = ANY (_digests)
        AND NOT EXISTS (SELECT 1 FROM blob_refs WHERE blob_refs.digest = blobs.digest);
    RETURN cardinality(_gone);
END $$;

-- One job of a group: NULL for "done as asked", or its answer.
CREATE FUNCTION do_job(_job jsonb, _texts text[], _blobs bytea[]) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    _told boolean[] := '{}';
    _each jsonb;
BEGIN
    CASE _job->>'do'
    WHEN 'commit' THEN
        RETURN keep_commit(_job, _texts, _blobs);
    WHEN 'create' THEN
        RETURN create_run(_job, _texts);
    WHEN 'send' THEN
        FOR _each IN SELECT value FROM jsonb_array_elements(_job->'messages') LOOP
            _told := _told || deliver(_each, _texts);
        END LOOP;
        RETURN to_jsonb(_told);
    WHEN 'claim' THEN
        RETURN claim_runs(
            _job->>'worker', ARRAY(SELECT jsonb_array_elements_text(_job->'workflows')),
            (_job->>'now')::float8, (_job->>'limit')::bigint,
            ARRAY(SELECT jsonb_array_elements_text(_job->'dead'))
        );
    WHEN 'claim_one' THEN
        RETURN claim_run(
            _job->>'worker', _job->>'run', (_job->>'now')::float8,
            ARRAY(SELECT jsonb_array_elements_text(_job->'dead'))
        );
    WHEN 'register' THEN
        INSERT INTO workers (id, host, pid, until, workflows)
        VALUES (
            _job->>'worker', _job->>'host', (_job->>'pid')::bigint, (_job->>'until')::float8,
            _job->>'workflows'
        ) ON CONFLICT (id) DO UPDATE SET
            host = excluded.host, pid = excluded.pid, until = excluded.until,
            workflows = excluded.workflows;
        RETURN NULL;
    WHEN 'unregister' THEN
        DELETE FROM workers WHERE id = _job->>'worker';
        UPDATE runs SET owner = NULL WHERE owner = _job->>'worker';
        RETURN NULL;
    WHEN 'delete' THEN
        RETURN jsonb_build_array(
            delete_runs(ARRAY(SELECT jsonb_array_elements_text(_job->'runs')))
        );
    END CASE;
END $$;

-- A group of jobs in one transaction, once: a group that was kept before is answered as it was then.
-- `_lock` names the runs to lock first, in one order for everyone, when the group writes for several.
CREATE FUNCTION write_group(
    _writer text, _number bigint, _lock text[], _jobs jsonb, _texts text[], _blobs bytea[]
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    _last record;
    _job jsonb;
    _answer jsonb;
    _answers jsonb[] := '{}';
    _kept boolean := false;
    _said text;
BEGIN
    -- The same group may still be at work on a connection that its sender has lost sight of.
    PERFORM pg_advisory_xact_lock(hashtextextended(_writer, 0));
    SELECT number, answer INTO _last FROM writers WHERE id = _writer;
    IF _last.number = _number THEN
        RETURN _last.answer;
    ELSIF _last.number IS DISTINCT FROM _number - 1 THEN
        RAISE EXCEPTION 'group % does not follow group % of this store', _number, _last.number
            USING ERRCODE = 'SW001';
    END IF;
    IF cardinality(_lock) > 0 THEN
        PERFORM 1 FROM runs WHERE id = ANY (_lock) ORDER BY id FOR NO KEY UPDATE;
    END IF;
    FOR _job IN SELECT value FROM jsonb_array_elements(_jobs) LOOP
        _answer := do_job(_job, _texts, _blobs);
        _kept := _kept OR _answer IS NULL
            OR NOT (_answer IN ('[]', '[0]') OR _answer ?| '{error,id}');
        _answers := _answers || coalesce(_answer, 'null');
    END LOOP;
    _said := jsonb_build_object('kept', _kept, 'answers', to_jsonb(_answers))::text;
    IF _kept THEN
        UPDATE writers SET number = _number, answer = _said, at = now() WHERE id = _writer;
    END IF;
    RETURN _said;
END $$;

-- An open store says how far it has come. Answers how far this database knows it has come: less, when
-- the server has lost what it had acknowledged; then all that these workers own is let go of, so that
-- nobody goes on from what is not there any more.
CREATE FUNCTION announce_writer(_writer text, _number bigint, _workers text[]) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    _known bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(_writer, 0));
    SELECT number INTO _known FROM writers WHERE id = _writer;
    IF _known IS NULL THEN
        INSERT INTO writers (id, number, answer, at) VALUES (_writer, _number, '', now());
        IF _number = 0 THEN
            RETURN 0;
        END IF;
        _known := 0;
    END IF;
    IF _known < _number THEN
        UPDATE writers SET number = _number WHERE id = _writer;
        UPDATE runs SET owner = NULL WHERE owner = ANY (_workers);
    END IF;
    RETURN _known;
END $$;

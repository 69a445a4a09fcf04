-- Runs that are due at the same time are claimed in the order in which they were created.

DROP INDEX runs_due;
-- Claims: for one owner ('': nobody) and one priority, what is due is a range of this index.
CREATE INDEX runs_due ON runs (coalesce(owner, ''), priority, due, n)
    WHERE due IS NOT NULL AND status IN ('queued', 'running', 'waiting');

-- What is due, at most so many: highest priority first, then by due time, then in order of creation.
-- What others are claiming or committing at this moment is passed over.
CREATE OR REPLACE FUNCTION claim_runs(
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
                ORDER BY due, n LIMIT _left FOR NO KEY UPDATE SKIP LOCKED
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

-- Which runs wait for which messages from outside, by the tag of the message. `created` and `id` are
-- those of the run, so that a page of them, newest first, is a range of the primary key.
CREATE TABLE waits (
    tag TEXT NOT NULL,
    created REAL NOT NULL,
    id TEXT NOT NULL,
    run INTEGER NOT NULL REFERENCES runs (n),
    PRIMARY KEY (tag, created, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX waits_run ON waits (run);

-- What waits already is listed as its row says. That shows 20 waits at most, and none while other
-- steps of the run are at work; such runs are listed whole from their next commit on.
INSERT INTO waits (tag, created, id, run)
SELECT DISTINCT json_extract(wait.value, '$.event'), runs.created, runs.id, runs.n
FROM runs, json_each(CASE WHEN json_valid(runs.detail) THEN runs.detail END, '$.waits') AS wait
WHERE runs.status = 'waiting' AND wait.type = 'object'
    AND json_type(wait.value, '$.event') = 'text';

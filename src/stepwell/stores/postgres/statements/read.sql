-- name: get_run
-- A run by its id.
SELECT id, workflow, version, status, seq, fence, owner, due, created, updated, ended,
    key, correlation, parent, priority, detail
FROM runs WHERE id = %s;

-- name: load_runs
-- Runs by their ids, with the numbers that stand for them in the other tables.
SELECT id, workflow, version, status, seq, fence, owner, due, created, updated, ended,
    key, correlation, parent, priority, detail, n
FROM runs WHERE id = ANY (%s);

-- name: load_snapshots
-- The snapshots of runs.
SELECT run, seq, convert_to(data, 'UTF8') FROM snapshots WHERE run = ANY (%s);

-- name: load_journals
-- The journal rows of runs, each from one row on.
SELECT journal.run, journal.seq, journal.at, convert_to(journal.data, 'UTF8')
FROM unnest(%s::bigint[], %s::bigint[]) AS wanted (run, after)
    JOIN journal ON journal.run = wanted.run AND journal.seq > wanted.after
ORDER BY journal.run, journal.seq;

-- name: load_messages
-- The unread messages of runs, in order.
SELECT run, id, kind, convert_to(data, 'UTF8'), at
FROM messages WHERE run = ANY (%s) ORDER BY run, id;

-- name: journal_after
-- Journal rows of a run after one, in order.
SELECT journal.seq, journal.at, convert_to(journal.data, 'UTF8')
FROM runs JOIN journal ON journal.run = runs.n
WHERE runs.id = %s AND journal.seq > %s ORDER BY journal.seq LIMIT %s;

-- name: messages_after
-- Unread messages of a run after one, in order.
SELECT messages.id, messages.kind, convert_to(messages.data, 'UTF8'), messages.at
FROM runs JOIN messages ON messages.run = runs.n
WHERE runs.id = %s AND messages.id > %s ORDER BY messages.id;

-- name: owned_with_messages
-- Runs of one owner that have unread messages.
SELECT id FROM runs
WHERE owner = %s AND EXISTS (SELECT 1 FROM messages WHERE messages.run = runs.n)
ORDER BY id;

-- name: find_key
-- The run with this idempotency key.
SELECT id FROM runs WHERE workflow = %s AND key = %s;

-- name: next_due
-- When the next run that nobody with a lease owns is due.
SELECT next_due(%s::text[], %s::float8);

-- name: all_workers
-- Every announced worker.
SELECT id, host, pid, until, workflows FROM workers ORDER BY id;

-- name: list_runs
-- Runs newest first, by what the filter names.
SELECT id, workflow, version, status, seq, fence, owner, due, created, updated, ended,
    key, correlation, parent, priority, detail
FROM runs WHERE {where} ORDER BY created DESC, id DESC LIMIT %(limit)s;

-- name: list_waiting
-- Runs that wait for a message with one tag, newest first, by what the filter names beside it.
SELECT runs.id, workflow, version, status, seq, fence, owner, due, runs.created, updated, ended,
    key, correlation, parent, priority, detail
FROM (
    SELECT tag, created AS since, id AS name, run FROM waits
    WHERE tag = %(waiting)s AND (created, id) < (%(created)s, %(id)s) AND created >= %(since)s
) AS wait JOIN runs ON runs.n = wait.run
WHERE {where} ORDER BY wait.since DESC, wait.name DESC LIMIT %(limit)s;

-- name: counts
-- How many runs there are of each workflow and status.
SELECT workflow, status, count(*) FROM runs GROUP BY status, workflow;

-- name: find_blob
-- The size of a big payload.
SELECT length(data) FROM blobs WHERE digest = %s;

-- name: get_blob
-- A piece of a big payload.
SELECT substring(data FROM %s::int FOR %s::int) FROM blobs WHERE digest = %s;

-- name: expired
-- Runs that ended before a time, oldest first. `ended` is set for terminal runs only.
SELECT id FROM runs WHERE ended < %s ORDER BY ended LIMIT %s;

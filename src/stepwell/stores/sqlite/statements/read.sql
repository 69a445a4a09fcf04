-- name: get_run
-- A run by its id, with the number that stands for it in the other tables.
SELECT id, workflow, version, status, seq, fence, owner, due, created, updated, ended,
    key, correlation, parent, priority, detail, n
FROM runs WHERE id = ?;

-- name: load_runs
-- Runs by their ids, with the numbers that stand for them in the other tables.
SELECT id, workflow, version, status, seq, fence, owner, due, created, updated, ended,
    key, correlation, parent, priority, detail, n
FROM runs WHERE id IN (SELECT value FROM json_each(?));

-- name: load_snapshots
-- The snapshots of runs.
SELECT run, seq, data FROM snapshots WHERE run IN (SELECT value FROM json_each(?));

-- name: load_journals
-- The journal rows of runs, each from one row on; asked for as [[run, after], ...].
SELECT journal.run, journal.seq, journal.at, journal.data
FROM json_each(?) AS wanted CROSS JOIN journal
    ON journal.run = json_extract(wanted.value, '$[0]')
    AND journal.seq > json_extract(wanted.value, '$[1]')
ORDER BY journal.run, journal.seq;

-- name: load_messages
-- The unread messages of runs, in order.
SELECT run, id, kind, data, at FROM messages
WHERE run IN (SELECT value FROM json_each(?)) ORDER BY run, id;

-- name: journal_after
-- Journal rows of a run after one, in order.
SELECT seq, at, data FROM journal WHERE run = ? AND seq > ? ORDER BY seq LIMIT ?;

-- name: messages_after
-- Unread messages of a run after one, in order.
SELECT id, kind, data, at FROM messages WHERE run = ? AND id > ? ORDER BY id;

-- name: find_number
-- The number that stands for a run.
SELECT n FROM runs WHERE id = ?;

-- name: owned_with_messages
-- Runs of one owner that have unread messages.
SELECT id FROM runs
WHERE owner = ? AND EXISTS (SELECT 1 FROM messages WHERE messages.run = runs.n)
ORDER BY id;

-- name: list_by_created
-- Runs newest first.
SELECT id, workflow, version, status, seq, fence, owner, due, created, updated, ended,
    key, correlation, parent, priority, detail
FROM runs INDEXED BY runs_created
WHERE (created, id) < (:created, :id) AND created >= :since
    AND (:workflow IS NULL OR workflow = :workflow)
ORDER BY created DESC, id DESC LIMIT :limit;

-- name: list_by_status
-- Runs of one status, newest first.
SELECT id, workflow, version, status, seq, fence, owner, due, created, updated, ended,
    key, correlation, parent, priority, detail
FROM runs INDEXED BY runs_status
WHERE status = :status AND (created, id) < (:created, :id) AND created >= :since
    AND (:workflow IS NULL OR workflow = :workflow)
ORDER BY created DESC, id DESC LIMIT :limit;

-- name: list_by_parent
-- Children of one run, newest first.
SELECT id, workflow, version, status, seq, fence, owner, due, created, updated, ended,
    key, correlation, parent, priority, detail
FROM runs INDEXED BY runs_parent
WHERE parent = :parent AND (created, id) < (:created, :id) AND created >= :since
    AND (:workflow IS NULL OR workflow = :workflow)
    AND (:correlation IS NULL OR correlation = :correlation)
    AND (:statuses IS NULL OR status IN (SELECT value FROM json_each(:statuses)))
ORDER BY created DESC, id DESC LIMIT :limit;

-- name: list_by_correlation
-- Runs that share a correlation id, newest first.
SELECT id, workflow, version, status, seq, fence, owner, due, created, updated, ended,
    key, correlation, parent, priority, detail
FROM runs INDEXED BY runs_correlation
WHERE correlation = :correlation AND (created, id) < (:created, :id) AND created >= :since
    AND (:workflow IS NULL OR workflow = :workflow)
    AND (:statuses IS NULL OR status IN (SELECT value FROM json_each(:statuses)))
ORDER BY created DESC, id DESC LIMIT :limit;

-- name: list_by_waiting
-- Runs that wait for a message with one tag, newest first.
SELECT runs.id, workflow, version, status, seq, fence, owner, due, runs.created, updated, ended,
    key, correlation, parent, priority, detail
FROM waits CROSS JOIN runs ON runs.n = waits.run
WHERE waits.tag = :waiting AND (waits.created, waits.id) < (:created, :id)
    AND waits.created >= :since
    AND (:workflow IS NULL OR workflow = :workflow)
    AND (:parent IS NULL OR parent = :parent)
    AND (:correlation IS NULL OR correlation = :correlation)
    AND (:statuses IS NULL OR status IN (SELECT value FROM json_each(:statuses)))
ORDER BY waits.created DESC, waits.id DESC LIMIT :limit;

-- name: counts
-- How many runs there are of each workflow and status.
SELECT workflow, status, count(*) FROM runs INDEXED BY runs_status GROUP BY status, workflow;

-- name: find_blob
-- The number of a big payload.
SELECT n FROM blobs WHERE digest = ?;

-- name: expired
-- Runs that ended before a time, oldest first. `ended` is set for terminal runs only.
SELECT id FROM runs WHERE ended < ? ORDER BY ended LIMIT ?;

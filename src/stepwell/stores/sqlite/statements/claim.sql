-- name: next_owner
-- The owner that follows this one in the alphabet: with "" first, a walk over all owners.
SELECT min(owner) FROM runs WHERE owner > ?;

-- name: live_workers
-- Workers whose lease is not over.
SELECT id FROM workers WHERE until > ?;

-- name: next_priority
-- The highest priority below this one among what this owner (NULL: nobody) has to be advanced.
SELECT max(priority) FROM runs INDEXED BY runs_due
WHERE due IS NOT NULL AND status IN ('queued', 'running', 'waiting')
    AND owner IS ? AND priority < ?;

-- name: due_runs
-- What is due of one owner and one priority, earliest first.
SELECT due, n FROM runs INDEXED BY runs_due
WHERE due IS NOT NULL AND status IN ('queued', 'running', 'waiting')
    AND owner IS ? AND priority = ? AND due <= ?
    AND workflow IN (SELECT value FROM json_each(?))
ORDER BY due, n LIMIT ?;

-- name: first_due
-- When the first run of one owner and one priority is due.
SELECT due FROM runs INDEXED BY runs_due
WHERE due IS NOT NULL AND status IN ('queued', 'running', 'waiting')
    AND owner IS ? AND priority = ?
    AND workflow IN (SELECT value FROM json_each(?))
ORDER BY due LIMIT 1;

-- name: take
-- Gives a run to a worker; the fence shuts the one before out.
UPDATE runs SET owner = ?, fence = fence + 1 WHERE n = ?
RETURNING id, workflow, version, status, seq, fence, owner, due, created, updated, ended,
    key, correlation, parent, priority, detail;

-- name: find_owner
-- Who owns this run.
SELECT n, owner FROM runs WHERE id = ?;

-- name: find_worker
-- Whether this worker's lease is not over.
SELECT 1 FROM workers WHERE id = ? AND until > ?;

-- name: register
-- Announces a worker or renews its lease.
INSERT INTO workers (id, host, pid, until, workflows) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET
    host = excluded.host, pid = excluded.pid, until = excluded.until,
    workflows = excluded.workflows;

-- name: unregister
-- Forgets a worker.
DELETE FROM workers WHERE id = ?;

-- name: release_all
-- Releases all that a worker owns.
UPDATE runs SET owner = NULL WHERE owner = ?;

-- name: all_workers
-- Every announced worker.
SELECT id, host, pid, until, workflows FROM workers ORDER BY id;

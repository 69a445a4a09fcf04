-- name: find_terminal
-- A run that may be deleted.
SELECT n FROM runs
WHERE id = ? AND status IN ('completed', 'failed', 'cancelled', 'timed_out');

-- name: blobs_of
-- The big payloads a run refers to.
SELECT digest FROM blob_refs WHERE run = ?;

-- name: delete_journal
-- The journal of a run.
DELETE FROM journal WHERE run = ?;

-- name: delete_messages
-- The inbox of a run.
DELETE FROM messages WHERE run = ?;

-- name: delete_dedupe
-- The dedupe values of a run.
DELETE FROM dedupe WHERE run = ?;

-- name: delete_snapshot
-- The snapshot of a run.
DELETE FROM snapshots WHERE run = ?;

-- name: delete_blob_refs
-- What a run refers to.
DELETE FROM blob_refs WHERE run = ?;

-- name: delete_waits
-- What a run waits for.
DELETE FROM waits WHERE run = ?;

-- name: delete_run
-- The run itself, after all that belongs to it.
DELETE FROM runs WHERE n = ?;

-- name: delete_blob
-- A big payload that nobody refers to any more.
DELETE FROM blobs
WHERE digest = ? AND digest NOT IN (SELECT digest FROM blob_refs);

-- name: blob_rows
-- Every big payload, to compare it with its digest.
SELECT digest, size, data FROM blobs;

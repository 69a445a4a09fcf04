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

-- name: journal_faults
-- Runs whose journal is not numbered 1, 2, ... up to what the run's row says.
SELECT runs.id, runs.seq, count(journal.seq), max(journal.seq)
FROM runs LEFT JOIN journal ON journal.run = runs.n
GROUP BY runs.n
HAVING count(journal.seq) <> runs.seq OR coalesce(max(journal.seq), 0) <> runs.seq
    OR coalesce(min(journal.seq), 1) <> 1;

-- name: snapshot_faults
-- Snapshots of a journal row that is not there.
SELECT runs.id, runs.seq, snapshots.seq
FROM snapshots JOIN runs ON runs.n = snapshots.run WHERE snapshots.seq > runs.seq;

-- name: end_faults
-- Runs that are over without an end, or have an end and are not over.
SELECT id, status FROM runs
WHERE (status IN ('completed', 'failed', 'cancelled', 'timed_out')) <> (ended IS NOT NULL);

-- name: wait_faults
-- Runs that are listed by what they wait for, and are over, or are listed in the wrong place.
SELECT runs.id, waits.tag FROM waits JOIN runs ON runs.n = waits.run
WHERE runs.ended IS NOT NULL OR waits.created <> runs.created OR waits.id <> runs.id;

-- name: blob_rows
-- Every big payload, to compare it with its digest.
SELECT digest, size, data FROM blobs;

-- name: unused_blobs
-- Big payloads that nobody refers to.
SELECT digest FROM blobs WHERE digest NOT IN (SELECT digest FROM blob_refs);

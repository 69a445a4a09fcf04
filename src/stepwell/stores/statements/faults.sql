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

-- name: unused_blobs
-- Big payloads that nobody refers to.
SELECT digest FROM blobs
WHERE NOT EXISTS (SELECT 1 FROM blob_refs WHERE blob_refs.digest = blobs.digest);

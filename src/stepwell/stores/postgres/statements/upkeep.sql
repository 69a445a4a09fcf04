-- name: orphans
-- Rows that belong to a run or a payload that is not there, by table.
SELECT part, count(*) FROM (
    SELECT 'journal' AS part, run FROM journal
    UNION ALL SELECT 'messages', run FROM messages
    UNION ALL SELECT 'dedupe', run FROM dedupe
    UNION ALL SELECT 'waits', run FROM waits
    UNION ALL SELECT 'snapshots', run FROM snapshots
    UNION ALL SELECT 'blob_refs', run FROM blob_refs
) AS parts
WHERE NOT EXISTS (SELECT 1 FROM runs WHERE runs.n = parts.run)
GROUP BY part ORDER BY part;

-- name: missing_blobs
-- Big payloads that are referred to and not there.
SELECT DISTINCT digest FROM blob_refs
WHERE NOT EXISTS (SELECT 1 FROM blobs WHERE blobs.digest = blob_refs.digest);

-- name: blob_faults
-- Big payloads that are not what their digest says.
SELECT digest FROM blobs
WHERE length(data) <> size OR encode(sha256(data), 'hex') <> digest;

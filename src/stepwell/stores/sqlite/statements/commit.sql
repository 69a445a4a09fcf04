-- name: find_claimed
-- What a commit must know about its run, if the committer's fence is still the run's, and the run
-- was not let go of since.
SELECT n, seq, status, due FROM runs WHERE id = ? AND fence = ? AND owner IS NOT NULL;

-- name: advance
-- A commit that changes nothing an index knows: the usual one.
UPDATE runs SET seq = ?, updated = ?
WHERE n = ? AND id = ? AND fence = ? AND seq = ? AND owner IS NOT NULL;

-- name: settle
-- A commit that changes the status, the due time or the detail.
UPDATE runs SET
    seq = ?, updated = ?, status = ?, due = ?,
    ended = CASE WHEN ? THEN coalesce(ended, ?) END,
    detail = coalesce(?, detail)
WHERE n = ? AND id = ? AND fence = ? AND seq = ? AND owner IS NOT NULL;

-- name: release
-- As settle, and the claim is given up.
UPDATE runs SET
    seq = ?, updated = ?, status = ?, due = ?,
    ended = CASE WHEN ? THEN coalesce(ended, ?) END,
    detail = coalesce(?, detail),
    owner = NULL
WHERE n = ? AND id = ? AND fence = ? AND seq = ? AND owner IS NOT NULL;

-- name: waited_for
-- The tags that a run waits for.
SELECT tag FROM waits WHERE run = ?;

-- name: wait_for
-- A tag that a run waits for from now on, where listings find it.
INSERT INTO waits (tag, created, id, run) SELECT ?, created, id, n FROM runs WHERE n = ?;

-- name: wait_no_more
-- A tag that a run does not wait for any more.
DELETE FROM waits WHERE run = ? AND tag = ?;

-- name: wait_for_nothing
-- All that a run waited for.
DELETE FROM waits WHERE run = ?;

-- name: append_journal
-- One journal row.
INSERT INTO journal (run, seq, at, data) VALUES (?, ?, ?, ?);

-- name: consume
-- A message that a turn took in.
DELETE FROM messages WHERE id = ? AND run = ?;

-- name: unread
-- The unread messages of a run.
SELECT id FROM messages WHERE run = ?;

-- name: keep_snapshot
-- The run's snapshot, replacing the one before.
INSERT INTO snapshots (run, seq, data) VALUES (?, ?, ?)
ON CONFLICT (run) DO UPDATE SET seq = excluded.seq, data = excluded.data;

-- name: keep_blob
-- A big payload, unless it is there already.
INSERT INTO blobs (digest, size, data) VALUES (?, ?, ?) ON CONFLICT (digest) DO NOTHING;

-- name: refer_to_blob
-- Says that a run refers to a big payload.
INSERT INTO blob_refs (run, digest) VALUES (?, ?) ON CONFLICT DO NOTHING;

-- name: insert_run
-- A new run, unless its id or its key is taken.
INSERT INTO runs (
    id, workflow, version, status, seq, fence, owner, due, created, updated, ended,
    key, correlation, parent, priority, detail
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING;

-- name: find_key
-- The run with this idempotency key.
SELECT id FROM runs WHERE workflow = ? AND key = ?;

-- name: find_inbox
-- What the sender of a message must know about the run.
SELECT n, status, due FROM runs WHERE id = ?;

-- name: remember_dedupe
-- Remembers a dedupe value for ever; changes nothing when the run has had it before.
INSERT INTO dedupe (run, value) VALUES (?, ?) ON CONFLICT DO NOTHING;

-- name: insert_message
-- A message in a run's inbox.
INSERT INTO messages (run, kind, data, at) VALUES (?, ?, ?, ?);

-- name: wake
-- Makes a run due earlier.
UPDATE runs SET due = ? WHERE n = ?;

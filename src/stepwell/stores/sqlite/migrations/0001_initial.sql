-- The first schema. Times are seconds since the epoch, UTC; `data` and `detail` are JSON text.

-- Facts about this file: schema (the number of the last migration), created_by.
CREATE TABLE meta (
    key TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- One row per run. `n` stands for the run in the other tables: an id is 16 bytes or more, and a
-- journal row would carry it twice.
CREATE TABLE runs (
    n INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    workflow TEXT NOT NULL,
    version TEXT NOT NULL,
    status TEXT NOT NULL,
    seq INTEGER NOT NULL,
    fence INTEGER NOT NULL,
    owner TEXT,
    due REAL,
    created REAL NOT NULL,
    updated REAL NOT NULL,
    ended REAL,
    key TEXT,
    correlation TEXT,
    parent TEXT,
    priority INTEGER NOT NULL,
    detail TEXT
) STRICT;

-- Claims: for one owner (NULL: nobody) and one priority, what is due is a range of this index.
CREATE INDEX runs_due ON runs (owner, priority, due, workflow)
    WHERE due IS NOT NULL AND status IN ('queued', 'running', 'waiting');
-- Who owns anything, and what.
CREATE INDEX runs_owner ON runs (owner) WHERE owner IS NOT NULL;
-- Idempotency keys.
CREATE UNIQUE INDEX runs_key ON runs (workflow, key) WHERE key IS NOT NULL;
-- Listings, newest first; `workflow` at the end lets counts and filters stay inside the index.
CREATE INDEX runs_created ON runs (created, id);
CREATE INDEX runs_status ON runs (status, created, id, workflow);
CREATE INDEX runs_parent ON runs (parent, created, id) WHERE parent IS NOT NULL;
CREATE INDEX runs_correlation ON runs (correlation, created, id) WHERE correlation IS NOT NULL;
-- Retention.
CREATE INDEX runs_ended ON runs (ended) WHERE ended IS NOT NULL;

-- Rows are appended, whichever run they belong to, so that pages fill up and a group of commits
-- writes few of them; the index finds those of one run. (Clustered by run, pages would split in
-- the middle and stay half empty, and rows over a kilobyte would take an overflow page each.)
CREATE TABLE journal (
    n INTEGER PRIMARY KEY,
    run INTEGER NOT NULL REFERENCES runs (n),
    seq INTEGER NOT NULL,
    at REAL NOT NULL,
    data TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX journal_run ON journal (run, seq);

-- Messages nobody has consumed. AUTOINCREMENT: an id is never given twice.
CREATE TABLE messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    run INTEGER NOT NULL REFERENCES runs (n),
    kind TEXT NOT NULL,
    data TEXT NOT NULL,
    at REAL NOT NULL
) STRICT;
CREATE INDEX messages_run ON messages (run);

-- Dedupe values a run has had, also those of messages that were consumed.
CREATE TABLE dedupe (
    run INTEGER NOT NULL REFERENCES runs (n),
    value TEXT NOT NULL,
    PRIMARY KEY (run, value)
) STRICT, WITHOUT ROWID;

-- Announced workers; `workflows` is a JSON array of names.
CREATE TABLE workers (
    id TEXT NOT NULL PRIMARY KEY,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    until REAL NOT NULL,
    workflows TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The latest cached fold of each run's journal.
CREATE TABLE snapshots (
    run INTEGER PRIMARY KEY REFERENCES runs (n),
    seq INTEGER NOT NULL,
    data TEXT NOT NULL
) STRICT;

-- Big payloads by content hash, and who refers to them.
CREATE TABLE blobs (
    n INTEGER PRIMARY KEY,
    digest TEXT NOT NULL UNIQUE,
    size INTEGER NOT NULL,
    data BLOB NOT NULL
) STRICT;
CREATE TABLE blob_refs (
    run INTEGER NOT NULL REFERENCES runs (n),
    digest TEXT NOT NULL REFERENCES blobs (digest),
    PRIMARY KEY (run, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX blob_refs_digest ON blob_refs (digest);

-- The tables. Times are seconds since the epoch, UTC; `data` and `detail` are JSON text, kept as text
-- so that bytes come back as they were given (jsonb would put them in an order of its own).
-- There are no foreign keys: every row is written by the functions of the next migration, which hold
-- the lock of the run they write for, and a check of the reference would cost as much as the row.
-- Text that is compared is compared by bytes (COLLATE "C"): the order that cursors were made for.

-- Facts about this schema: schema (the number of the last migration), created_by.
CREATE TABLE meta (
    key text COLLATE "C" PRIMARY KEY,
    value text NOT NULL
);

-- One row per run. `n` stands for the run in the other tables. The free space keeps a step's UPDATE
-- on its page and away from the indexes.
CREATE TABLE runs (
    n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id text COLLATE "C" NOT NULL UNIQUE,
    workflow text COLLATE "C" NOT NULL,
    version text NOT NULL,
    status text COLLATE "C" NOT NULL,
    seq bigint NOT NULL,
    fence bigint NOT NULL,
    owner text COLLATE "C",
    due double precision,
    created double precision NOT NULL,
    updated double precision NOT NULL,
    ended double precision,
    key text COLLATE "C",
    correlation text COLLATE "C",
    parent text COLLATE "C",
    priority bigint NOT NULL,
    detail text
) WITH (fillfactor = 70);

-- Claims: for one owner ('': nobody) and one priority, what is due is a range of this index.
CREATE INDEX runs_due ON runs (coalesce(owner, ''), priority, due)
    WHERE due IS NOT NULL AND status IN ('queued', 'running', 'waiting');
-- Who owns anything, and what.
CREATE INDEX runs_owner ON runs (owner) WHERE owner IS NOT NULL;
-- Idempotency keys.
CREATE UNIQUE INDEX runs_key ON runs (workflow, key) WHERE key IS NOT NULL;
-- Listings, newest first.
CREATE INDEX runs_created ON runs (created, id);
CREATE INDEX runs_status ON runs (status, created, id, workflow);
CREATE INDEX runs_parent ON runs (parent, created, id) WHERE parent IS NOT NULL;
CREATE INDEX runs_correlation ON runs (correlation, created, id) WHERE correlation IS NOT NULL;
-- Retention.
CREATE INDEX runs_ended ON runs (ended) WHERE ended IS NOT NULL;

CREATE TABLE journal (
    run bigint NOT NULL,
    seq bigint NOT NULL,
    at double precision NOT NULL,
    data text NOT NULL,
    PRIMARY KEY (run, seq)
);

-- Messages nobody has consumed. An id is taken while the run's row is locked, so within a run ids
-- grow in the order of acceptance.
CREATE TABLE messages (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run bigint NOT NULL,
    kind text NOT NULL,
    data text NOT NULL,
    at double precision NOT NULL
);
CREATE INDEX messages_run ON messages (run, id);

-- Dedupe values a run has had, also those of messages that were consumed.
CREATE TABLE dedupe (
    run bigint NOT NULL,
    value text COLLATE "C" NOT NULL,
    PRIMARY KEY (run, value)
);

-- Which runs wait for which messages from outside, by the tag of the message. `created` and `id` are
-- those of the run, so that a page of them, newest first, is a range of the primary key.
CREATE TABLE waits (
    tag text COLLATE "C" NOT NULL,
    created double precision NOT NULL,
    id text COLLATE "C" NOT NULL,
    run bigint NOT NULL,
    PRIMARY KEY (tag, created, id)
);
CREATE INDEX waits_run ON waits (run);

-- Announced workers; `workflows` is a JSON array of names.
CREATE TABLE workers (
    id text COLLATE "C" PRIMARY KEY,
    host text NOT NULL,
    pid bigint NOT NULL,
    until double precision NOT NULL,
    workflows text NOT NULL
);

-- The latest cached fold of each run's journal.
CREATE TABLE snapshots (
    run bigint PRIMARY KEY,
    seq bigint NOT NULL,
    data text NOT NULL
);

-- Big payloads by content hash, and who refers to them. What is this big is often packed already.
CREATE TABLE blobs (
    digest text COLLATE "C" PRIMARY KEY,
    size bigint NOT NULL,
    data bytea NOT NULL
);
ALTER TABLE blobs ALTER COLUMN data SET STORAGE EXTERNAL;
CREATE TABLE blob_refs (
    run bigint NOT NULL,
    digest text COLLATE "C" NOT NULL,
    PRIMARY KEY (run, digest)
);
CREATE INDEX blob_refs_digest ON blob_refs (digest);

-- The open stores: which group of writes each had kept last, and what the answer was. Written in the
-- transaction of the group, so a store whose connection broke learns whether the group was kept.
CREATE TABLE writers (
    id text COLLATE "C" PRIMARY KEY,
    number bigint NOT NULL,
    answer text NOT NULL,
    at timestamptz NOT NULL
) WITH (fillfactor = 50);

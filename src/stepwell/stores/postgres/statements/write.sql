-- name: write_group
-- A group of jobs.
SELECT write_group(%s, %s, %s::text[], %s, %b::text[], %b::bytea[]);

-- name: hold_pieces
-- Where big payloads of a group are gathered that is not sent whole.
CREATE TEMPORARY TABLE pieces (
    is_text boolean NOT NULL, place bigint NOT NULL, n bigint NOT NULL, data bytea NOT NULL
) ON COMMIT DELETE ROWS;

-- name: hold_as_they_are
-- To squeeze what is read again at once is a waste.
ALTER TABLE pg_temp.pieces ALTER COLUMN data SET STORAGE EXTERNAL;

-- name: add_piece
-- One of them.
INSERT INTO pg_temp.pieces (is_text, place, n, data) VALUES (%s, %s, %s, %b);

-- name: write_group_in_pieces
-- A group of jobs, some of whose payloads were gathered before, in the same transaction.
SELECT write_group(
    %s, %s, %s::text[], %s,
    ARRAY(
        SELECT coalesce(
            (
                SELECT convert_from(string_agg(data, ''::bytea ORDER BY n), 'UTF8')
                FROM pg_temp.pieces WHERE is_text AND pieces.place = given.place
            ),
            given.value
        ) FROM unnest(%b::text[]) WITH ORDINALITY AS given (value, place) ORDER BY given.place
    ),
    ARRAY(
        SELECT coalesce(
            (
                SELECT string_agg(data, ''::bytea ORDER BY n)
                FROM pg_temp.pieces WHERE NOT is_text AND pieces.place = given.place
            ),
            given.value
        ) FROM unnest(%b::bytea[]) WITH ORDINALITY AS given (value, place) ORDER BY given.place
    )
);

-- name: announce
-- Says who writes and how far it has come. (Behind a pooler the client does not know the process.)
SELECT announce_writer(%s, %s, %s::text[]), pg_backend_pid();

-- name: sign_off
-- A store that is closed needs no place in the list; nor do those of processes long dead.
DELETE FROM writers WHERE id = %s OR at < now() - interval '30 days';

-- name: notify
-- Tells other processes to look. This transaction need not wait for the disk.
SELECT set_config('synchronous_commit', 'off', true), pg_notify(%s, '');

-- name: write_group
-- A group of jobs.
SELECT write_group(%s, %s, %s::text[], %s, %b::text[], %b::bytea[]);

-- name: announce
-- Says who writes and how far it has come. (Behind a pooler the client does not know the process.)
SELECT announce_writer(%s, %s, %s::text[]), pg_backend_pid();

-- name: sign_off
-- A store that is closed needs no place in the list; nor do those of processes long dead.
DELETE FROM writers WHERE id = %s OR at < now() - interval '30 days';

-- name: notify
-- Tells other processes to look. This transaction need not wait for the disk.
SELECT set_config('synchronous_commit', 'off', true), pg_notify(%s, '');

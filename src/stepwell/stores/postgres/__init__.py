"""The shared store: one schema of a PostgreSQL database, for any number of machines.

Layers, each a file, from the bottom: `statements` (the SQL by name), `errors` (what PostgreSQL's
errors mean), `place` (which database, connecting, migrating), `jobs` (the verbs that write, as data
for the functions of `migrations/0002_writing.sql`, and what their answers mean), `writer` (the one
thread that writes, in groups), `listener` (the thread that hears of others' changes), `reads` and
`upkeep` (the verbs that read, as functions of a connection), and `store` (the async face).

Connections are driven by threads of their own, as SQLite's files are, and not by the caller's event
loop: a store may be used from any loop, on every platform, and never holds one up.

Needs `pip install 'stepwell[postgres]'`.
"""

from __future__ import annotations

from stepwell.stores.postgres.store import Durability, PostgresStore

__all__ = ["Durability", "PostgresStore"]

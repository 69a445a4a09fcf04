"""The embedded store: one SQLite file, durable, shared by the processes of one machine.

Layers, each a file, from the bottom: `statements` (the SQL by name), `errors` (what SQLite's
errors mean), `connection` (opening a file and migrating it), `writer` (the one thread that writes,
in groups), `commits`, `claims`, `reads` and `upkeep` (the verbs, as functions of a connection), and
`store` (the async face that sends each verb to the right thread).
"""

from __future__ import annotations

from stepwell.stores.sqlite.store import Durability, SQLiteStore

__all__ = ["Durability", "SQLiteStore"]

"""The SQL of this store by name, read once. A name that is not there fails at import."""

from __future__ import annotations

from stepwell.stores.sql import load_statements

SQL = {
    **load_statements("stepwell.stores", "faults"),
    **load_statements("stepwell.stores.sqlite", "commit", "claim", "read", "upkeep"),
}

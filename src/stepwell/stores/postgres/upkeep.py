"""Keeping house: checking the data. Copying it is PostgreSQL's business (pg_dump)."""

from __future__ import annotations

import psycopg

from stepwell.errors import StoreCorrupt
from stepwell.stores.postgres.errors import translate
from stepwell.stores.postgres.place import Connection
from stepwell.stores.postgres.reads import ask
from stepwell.stores.rows import faults_of


def verify(db: Connection, url: str) -> list[str]:
    """See `Store.verify`. Damage that stops the check is a fault like the others."""
    try:
        with db.transaction():
            return _faults(db)
    except psycopg.Error as error:
        said = translate(error, url)
        if isinstance(said, StoreCorrupt):
            return [said.message]
        raise


def _faults(db: Connection) -> list[str]:
    faults = [
        f"{part}: {n} row(s) belong to a run that is not there" for part, n in ask(db, "orphans")
    ]
    faults += faults_of(lambda name: ask(db, name))
    faults += [f"the payload {digest} is not there" for (digest,) in ask(db, "missing_blobs")]
    faults += [
        f"the payload {digest} is not what was written" for (digest,) in ask(db, "blob_faults")
    ]
    return faults

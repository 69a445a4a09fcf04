"""Keeping house: checking the data. Copying it is PostgreSQL's business (pg_dump)."""

from __future__ import annotations

import psycopg

from stepwell.errors import StoreCorrupt
from stepwell.stores.postgres.errors import translate
from stepwell.stores.postgres.place import Connection
from stepwell.stores.postgres.reads import ask


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
    for run, seq, n, last in ask(db, "journal_faults"):
        faults.append(f"run {run}: it should have {seq} journal rows; it has {n}, up to {last}")
    for run, seq, of in ask(db, "snapshot_faults"):
        faults.append(f"run {run}: its snapshot is of journal row {of}, after its last, {seq}")
    for run, status in ask(db, "end_faults"):
        faults.append(f"run {run}: it is {status}, which does not fit the end it has or lacks")
    for run, tag in ask(db, "wait_faults"):
        faults.append(f"run {run}: it is listed as waiting for {tag!r}, which does not fit it")
    faults += [f"the payload {digest} is not there" for (digest,) in ask(db, "missing_blobs")]
    faults += [
        f"the payload {digest} is not what was written" for (digest,) in ask(db, "blob_faults")
    ]
    faults += [f"nobody refers to the payload {digest}" for (digest,) in ask(db, "unused_blobs")]
    return faults

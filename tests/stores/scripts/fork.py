"""A process that forks with an open store; parent and child say what they may do with it."""

from __future__ import annotations

import asyncio
import os
import sys

from stepwell.errors import StoreError
from stepwell.stores.conformance import new
from stepwell.stores.sqlite import SQLiteStore


def refused(store: SQLiteStore, verb: str) -> None:
    coroutine = store.open() if verb == "open" else store.create(new("a"))
    try:
        coroutine.send(None)
    except StoreError as error:
        os.write(1, b"refused\n" if "fork" in error.message else b"other\n")
    finally:
        coroutine.close()


async def main(path: str) -> None:
    store = SQLiteStore(path)
    await store.open()
    child = os.fork()
    if child == 0:
        refused(store, "create")
        refused(SQLiteStore(path), "open")
        os._exit(0)
    await asyncio.to_thread(os.waitpid, child, 0)
    await store.create(new("b"))
    if await store.verify() == [] and await store.get("a") is None:
        os.write(1, b"kept\n")
    await store.close()


asyncio.run(main(sys.argv[1]))

"""Opens a SQLite file as a user who is not allowed everything, and says what came of it.

Arguments: the file. Root may write whatever it likes, so it becomes nobody first.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from stepwell.errors import StoreError
from stepwell.stores.sqlite import SQLiteStore

NOBODY = 65534


async def main(path: Path) -> str:
    store = SQLiteStore(path)
    try:
        await store.open()
    except StoreError as error:
        return f"{type(error).__name__}: {error}"
    await store.close()
    return "opened"


if hasattr(os, "geteuid") and os.geteuid() == 0:
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
sys.stdout.write(asyncio.run(main(Path(sys.argv[1]))))

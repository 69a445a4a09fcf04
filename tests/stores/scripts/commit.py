"""A process that commits to eight runs at once, says what was acknowledged, and may be killed.

Usage: commit.py PATH DURABILITY before|after|never NUMBER STEPS. It kills itself with SIGKILL just
before or just after its transaction NUMBER. A line "RUN SEQ" on stdout means: acknowledged.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from stepwell.stores.conformance import begin, turn
from stepwell.stores.sqlite import SQLiteStore


async def main(path: str, durability: str, when: str, number: str, steps: str) -> None:
    def kill(moment: str, n: int) -> None:
        if (moment, n) == (when, int(number)):
            os.kill(os.getpid(), signal.SIGKILL)

    store = SQLiteStore(path, durability="power" if durability == "power" else "process",
                        on_write=kill)  # fmt: skip
    await store.open()

    async def live(run: str) -> None:
        for seq in range(1, int(steps) + 1):
            data = f'{{"run":"{run}","seq":{seq}}}'.encode()
            if seq == 1:
                await begin(store, run, data)
            else:
                await store.commit(turn(run, data))
            os.write(1, f"{run} {seq}\n".encode())

    await asyncio.gather(*(live(f"run{n}") for n in range(8)))
    await store.close()


asyncio.run(main(*sys.argv[1:]))

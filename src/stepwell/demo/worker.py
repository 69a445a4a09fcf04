"""A worker process: an engine that knows the workflow, until its standard input is closed.

python -m stepwell.demo.worker sqlite:////path/to/demo.db
"""

from __future__ import annotations

import asyncio
import sys

from stepwell import Engine
from stepwell.demo.research import Research


async def serve(url: str) -> None:
    """Advance runs of `Research` until whoever started this process closes the pipe, or is gone."""
    async with Engine(url, [Research()], name="demo", poll=0.05):
        await asyncio.to_thread(sys.stdin.buffer.read)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))

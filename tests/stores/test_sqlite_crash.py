"""A process that is killed loses nothing it had acknowledged, and leaves no half of a commit."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

import stepwell
from stepwell.stores.conformance import turn
from stepwell.stores.sqlite import SQLiteStore

SCRIPT = Path(__file__).parent / "scripts" / "commit.py"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(stepwell.__file__).parent.parent)}

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")


@pytest.mark.parametrize("durability", ["power", "process"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", [1, 2, 9])
async def test_nothing_acknowledged_is_lost(
    tmp_path: Path, durability: str, when: str, number: int
) -> None:
    path = tmp_path / "runs.db"
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SCRIPT), str(path), durability, when, str(number), "40",
        env=ENVIRONMENT, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    assert process.returncode == -signal.SIGKILL
    acknowledged = [line.split() for line in out.decode().splitlines()]

    store = SQLiteStore(path)
    await store.open()
    kept = {run: await store.read(run) for run in (f"run{n}" for n in range(8))}
    for run, seq in acknowledged:
        assert len(kept[run]) >= int(seq)
    unacknowledged = sum(map(len, kept.values())) - len(acknowledged)
    # What was kept and not said: at most the group before (its tasks may not have had their turn
    # when the thread went on), and the group that was killed if that was after its commit.
    if when == "before":
        assert unacknowledged <= (8 if number > 1 else 0)
    else:
        assert 1 <= unacknowledged <= 16
    assert await store.verify() == []

    for run, rows in kept.items():
        assert [row.data for row in rows] == [
            f'{{"run":"{run}","seq":{seq}}}'.encode() for seq in range(1, len(rows) + 1)
        ]
        if rows:
            await store.commit(turn(run, b"0"))  # and life goes on
    await store.close()

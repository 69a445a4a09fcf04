"""Make one virtual environment per peer, so that no peer's pins can bend another's.

    python benchmarks/setup.py            # all peers
    python benchmarks/setup.py dbos burr  # these only

Each lands in ``benchmarks/.venvs/<peer>`` (ignored by git). The lower bounds are the versions
the scripts in ``peers/`` were written and checked against; newer ones are welcome, because a
benchmark that freezes its peers in the past flatters its author.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
VENVS = HERE / ".venvs"

PEERS: dict[str, list[str]] = {
    "llama_index": ["llama-index-workflows>=2.26.1"],
    "langgraph": ["langgraph>=1.2.22", "langgraph-checkpoint-sqlite>=3.1.2"],
    "pydantic_graph": ["pydantic-graph>=2.68.0"],
    # Burr's parallelism imports its tracking extra, and its async persister aiosqlite.
    "burr": ["apache-burr[tracking]>=0.43.0", "aiosqlite>=0.22.1"],
    "dbos": ["dbos>=3.4.0"],
}

SERVERS: dict[str, list[str]] = {"llama_agents": ["llama-agents-server>=0.8.0"]}
"""Peers that are servers: `service.py` starts and asks them, no other bench does."""

ALL = {**PEERS, **SERVERS}


def python_of(peer: str) -> Path:
    """The interpreter of `peer`'s environment (it need not exist yet)."""
    return VENVS / peer / "bin" / "python"


def make(peer: str) -> None:
    """Create or upgrade the environment of `peer`; raises CalledProcessError when pip fails."""
    if not python_of(peer).exists():
        venv.create(VENVS / peer, with_pip=True)
    subprocess.run(
        [str(python_of(peer)), "-m", "pip", "install", "-q", "--upgrade", *ALL[peer]],
        check=True,
    )


if __name__ == "__main__":
    unknown = [name for name in sys.argv[1:] if name not in ALL]
    if unknown:
        raise SystemExit(f"unknown peers: {', '.join(unknown)}; known: {', '.join(ALL)}")
    for name in sys.argv[1:] or ALL:
        print(f"{name}: {' '.join(ALL[name])}", flush=True)
        make(name)

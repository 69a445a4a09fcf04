"""Every example runs, as a user would run it, and says what it should say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))

LAST_LINES = {
    "events_approval": "bought a lathe for 1000, approved by Ada",
    "events_children": "page 3, translated",
    "events_in_process": "[wells] what wells are, why they matter",
    "events_research": "what the library says; what the archive says; what the web says",
    "events_resilient": "untitled",
    "pipelines_cancel": "cancelled: changed my mind, {}",
    "pipelines_dependencies": "pretended to charge 100",
    "pipelines_durable": "a contract, approved by Ada",
    "pipelines_orders": "order_002: failed, ['told', 'sent']",
}
"""How the output of an example ends; one that is not named here has to run without an error."""


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_example_runs(path: Path, tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "error", str(path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        timeout=200,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stderr == ""
    last = LAST_LINES.get(path.stem)
    if last is not None:
        assert ran.stdout.splitlines()[-1] == last


def test_the_table_names_examples_that_are_there() -> None:
    assert set(LAST_LINES) <= {path.stem for path in EXAMPLES}

"""An engine whose runs go on within the calls, in virtual time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from stepwell.machine import WorkflowEngine
from stepwell.testing import SynchronousExecutor

BEGIN = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
"""When the executor's time begins."""


@pytest.fixture
def executor() -> SynchronousExecutor:
    """Where the engine runs."""
    return SynchronousExecutor(start=BEGIN)


@pytest.fixture
def engine(executor: SynchronousExecutor) -> Iterator[WorkflowEngine]:
    """An engine in memory and in virtual time."""
    made = WorkflowEngine()
    made.set_executor(executor)
    yield made
    made.stop()

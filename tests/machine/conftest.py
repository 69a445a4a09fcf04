"""An engine whose runs go on within the calls, in virtual time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from stepwell.authoring.machine import define
from stepwell.machine import WorkflowEngine
from stepwell.testing import SynchronousExecutor

BEGIN = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
"""When the executor's time begins."""


@pytest.fixture(autouse=True)
def _definitions_end_with_their_test() -> Iterator[None]:
    """An engine knows all that is defined in this process: classes of earlier tests, which nobody
    has any more but the collector, would be among them, with their schedules."""
    before = dict(define._machines)
    yield
    define._machines.clear()
    define._machines.update(before)


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

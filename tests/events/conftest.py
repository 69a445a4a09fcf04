"""Time for the tests of runs without an engine: they ask the system's clock, and know no other."""

from __future__ import annotations

import pytest

from stepwell.runtime.clock import SYSTEM, SystemClock
from stepwell.testing import VirtualClock


@pytest.fixture
def virtual_time(virtual_clock: VirtualClock, monkeypatch: pytest.MonkeyPatch) -> VirtualClock:
    """Time passes only when nothing else can be done, however slow or halted the machine is: what
    a run does before a limit of milliseconds, it does before it."""
    monkeypatch.setattr(SystemClock, "now", lambda _clock: virtual_clock.now())
    monkeypatch.setattr(
        SystemClock, "call_at", lambda _clock, when, call: virtual_clock.call_at(when, call)
    )
    assert virtual_clock.now() == SYSTEM.now()
    return virtual_clock

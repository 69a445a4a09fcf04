"""Testing workflows: virtual time, crash points, histories, and a pytest plugin.

    WorkflowTestRunner     run a workflow in memory, collect what it showed
    run_virtual            run code in virtual time: days pass in milliseconds
    VirtualClock           the clock behind it; `clock.engine()` makes durable engines
    crash_points           kill a workflow at each of its store writes, and compare
    History                assertions on what a run did

With pytest, the fixtures `virtual_clock`, `stepwell_engine` and `sqlite_engine` are there without
an import; an async test that uses one of them runs in virtual time.
"""

from __future__ import annotations

from stepwell.testing.clock import DEFAULT_START, NothingLeft, VirtualClock, run_virtual
from stepwell.testing.crash import CrashReport, Life, Repeated, crash_points
from stepwell.testing.engines import Bodies, HookedEngine, Hooks
from stepwell.testing.history import History, StepHistory, assert_history
from stepwell.testing.runner import WorkflowTestResult, WorkflowTestRunner
from stepwell.testing.stores import Dying, Failing, Hook, hooked

__all__ = [
    "DEFAULT_START",
    "Bodies",
    "CrashReport",
    "Dying",
    "Failing",
    "History",
    "Hook",
    "HookedEngine",
    "Hooks",
    "Life",
    "NothingLeft",
    "Repeated",
    "StepHistory",
    "VirtualClock",
    "WorkflowTestResult",
    "WorkflowTestRunner",
    "assert_history",
    "crash_points",
    "hooked",
    "run_virtual",
]

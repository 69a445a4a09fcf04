"""Testing workflows: virtual time, crash points, histories, and a pytest plugin.

    WorkflowTestRunner     run a workflow in memory, collect what it showed
    run_virtual            run code in virtual time: days pass in milliseconds
    SynchronousExecutor    state machines within the calls, in virtual time
    VirtualClock           the clock behind it; `clock.engine()` makes durable engines
    crash_points           kill a workflow at each of its store writes, and compare
    History                assertions on what a run did

With pytest, the fixtures `virtual_clock`, `stepwell_engine` and `sqlite_engine` are there without
an import; an async test that uses one of them runs in virtual time.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stepwell.testing.clock import DEFAULT_START, NothingLeft, VirtualClock, run_virtual
    from stepwell.testing.crash import CrashReport, Life, Repeated, crash_points
    from stepwell.testing.engines import Bodies, HookedEngine, Hooks
    from stepwell.testing.executor import SynchronousExecutor
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
    "SynchronousExecutor",
    "VirtualClock",
    "WorkflowTestResult",
    "WorkflowTestRunner",
    "assert_history",
    "crash_points",
    "hooked",
    "run_virtual",
]

# A name is imported from its module when it is first used: the pytest plugin is part of this
# package, and every pytest session of whoever has stepwell installed loads it.
_MODULE_OF = {
    "Bodies": "stepwell.testing.engines",
    "CrashReport": "stepwell.testing.crash",
    "DEFAULT_START": "stepwell.testing.clock",
    "Dying": "stepwell.testing.stores",
    "Failing": "stepwell.testing.stores",
    "History": "stepwell.testing.history",
    "Hook": "stepwell.testing.stores",
    "HookedEngine": "stepwell.testing.engines",
    "Hooks": "stepwell.testing.engines",
    "Life": "stepwell.testing.crash",
    "NothingLeft": "stepwell.testing.clock",
    "Repeated": "stepwell.testing.crash",
    "SynchronousExecutor": "stepwell.testing.executor",
    "StepHistory": "stepwell.testing.history",
    "VirtualClock": "stepwell.testing.clock",
    "WorkflowTestResult": "stepwell.testing.runner",
    "WorkflowTestRunner": "stepwell.testing.runner",
    "assert_history": "stepwell.testing.history",
    "crash_points": "stepwell.testing.crash",
    "hooked": "stepwell.testing.stores",
    "run_virtual": "stepwell.testing.clock",
}

# Hidden from type checkers: seeing it, they would take every misspelt name for a public one.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        module = _MODULE_OF.get(name)
        if module is None:
            raise AttributeError(f"module 'stepwell.testing' has no attribute {name!r}")
        value = getattr(importlib.import_module(module), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

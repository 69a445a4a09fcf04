"""Typed, durable workflows for Python: the public names, and nothing else.

    from stepwell import Context, StartEvent, StopEvent, Workflow, step

A name is imported from its module when it is first used, so `import stepwell` itself costs next
to nothing and loads neither pydantic nor asyncio. The table below is the whole mechanism: it maps
each name to the one module that defines it. Modules are looked up in that constant table only,
never by a name that comes from data.

Submodules (`stepwell.retry_policy`, `stepwell.pipeline`, `stepwell.testing`, ...) are imported by
their own path and have no entry here; no public name may be spelled like one of them.
"""

import importlib

from stepwell._version import __version__

# Type checkers take this for True, as they do `typing.TYPE_CHECKING`; importing `typing` for it
# would be most of what `import stepwell` costs.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from stepwell.collect import All, Collect, Take
    from stepwell.context import Context
    from stepwell.decorators import catch_error, step
    from stepwell.events import (
        Event,
        HumanResponseEvent,
        InputRequiredEvent,
        StartEvent,
        StopEvent,
        WorkflowErrorEvent,
    )
    from stepwell.resource import Resource, ResourceConfig
    from stepwell.runtime.engine import Engine
    from stepwell.runtime.sync import run_sync
    from stepwell.server.app import asgi
    from stepwell.workflow import Workflow

__all__ = [
    "All",
    "Collect",
    "Context",
    "Engine",
    "Event",
    "HumanResponseEvent",
    "InputRequiredEvent",
    "Resource",
    "ResourceConfig",
    "StartEvent",
    "StopEvent",
    "Take",
    "Workflow",
    "WorkflowErrorEvent",
    "__version__",
    "asgi",
    "catch_error",
    "run_sync",
    "step",
]

_MODULE_OF = {
    "All": "stepwell.collect",
    "Collect": "stepwell.collect",
    "Context": "stepwell.context",
    "Engine": "stepwell.runtime.engine",
    "Event": "stepwell.events",
    "HumanResponseEvent": "stepwell.events",
    "InputRequiredEvent": "stepwell.events",
    "Resource": "stepwell.resource",
    "ResourceConfig": "stepwell.resource",
    "StartEvent": "stepwell.events",
    "StopEvent": "stepwell.events",
    "Take": "stepwell.collect",
    "Workflow": "stepwell.workflow",
    "WorkflowErrorEvent": "stepwell.events",
    "asgi": "stepwell.server.app",
    "catch_error": "stepwell.decorators",
    "run_sync": "stepwell.runtime.sync",
    "step": "stepwell.decorators",
}

# Hidden from type checkers: seeing it, they would take every misspelt name for a public one.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        module = _MODULE_OF.get(name)
        if module is None:
            raise AttributeError(f"module 'stepwell' has no attribute {name!r}")
        value = getattr(importlib.import_module(module), name)
        globals()[name] = value  # the next look-up does not come here
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

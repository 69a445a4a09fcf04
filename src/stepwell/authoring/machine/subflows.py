"""Which other state machines a state machine runs, as far as its code names them.

A class is looked up where the step is defined, by the name that the code uses, when it is asked
for: subflows may well be defined below the class that runs them. Classes that are imported inside
of a step, or chosen when it runs, are not found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from stepwell.authoring.machine.define import Machine
from stepwell.authoring.machine.scan import known_names


def find_subflow(written: str, func: Callable[..., Any]) -> Machine | None:
    """The state machine that the code of `func` calls by this name."""
    first, *rest = written.split(".")
    found: object = known_names(func).get(first)
    for name in rest:
        found = vars(found).get(name) if hasattr(found, "__dict__") else None
    machine = vars(found).get("__stepwell__") if isinstance(found, type) else None
    return machine if isinstance(machine, Machine) else None


def subflows(machine: Machine) -> Iterator[Machine]:
    """The state machines that runs of `machine` may start, and those that these may start."""
    seen = {machine}
    open_ones = [machine]
    while open_ones:
        current = open_ones.pop()
        for name, reach in current.reach.items():
            for written in reach.subflows:
                child = find_subflow(written, current.steps[name].func)
                if child is not None and child not in seen:
                    seen.add(child)
                    open_ones.append(child)
                    yield child

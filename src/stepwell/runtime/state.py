"""The state of a run while it is in memory: whose edits they are.

What a step changes is noted with its attempt, and is committed with its result or taken back with
its failure. What is changed from outside the steps is the run's own, and journaled at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from stepwell.authoring.events.state_data import DictState
from stepwell.authoring.events.state_edit import StateEdit
from stepwell.authoring.events.state_store import InMemoryStateStore
from stepwell.authoring.program import Program
from stepwell.kernel.inputs import Edited
from stepwell.runtime.attempt import current
from stepwell.values import Json

if TYPE_CHECKING:
    from stepwell.runtime.turn import ActiveRun


def new_store(program: Program) -> InMemoryStateStore[Any]:
    """An empty state of the type that the program declares."""
    kind = program.state_type or DictState
    return InMemoryStateStore(kind())


def state_of(active: ActiveRun) -> InMemoryStateStore[Any]:
    """The state of a run; its edits are noted with the attempt that makes them."""
    store = active.store
    if store is None:
        store = active.store = new_store(active.program)
    if not active.observes:
        active.observes = True

        def observed(edit: StateEdit) -> None:
            attempt = current.get(None)
            if attempt is not None and attempt.active is active:
                if not attempt.dead:
                    if attempt.edits is None:
                        attempt.edits = []
                    attempt.edits.append(edit)
            elif active.durable:
                patch = cast("list[Json]", edit.patch(active.program.serializer))
                active.feed(Edited(active.clock.now(), patch))

        store.observer = observed
    return store

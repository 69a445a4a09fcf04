"""The state of a run while it is in memory: whose edits they are.

What a step changes is noted with its attempt, and is committed with its result or taken back with
its failure. What is changed from outside the steps is the run's own, and journaled at once.

What one step has changed others see at once, and may build upon. When what they made of it is
journaled, the first step's change is in it; so it is journaled as made, field by field, and an
attempt of that step that starts again goes without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from stepwell.authoring.events.state_data import DictState
from stepwell.authoring.events.state_edit import StateEdit
from stepwell.authoring.events.state_store import InMemoryStateStore
from stepwell.authoring.program import Program
from stepwell.kernel.inputs import Edited
from stepwell.runtime.attempt import Attempt, current
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
                    attempt.note(edit)
            elif active.durable:
                patch, upon = patch_of(active, [edit])
                active.feed(Edited(active.clock.now(), patch, upon))

        def made(field: str) -> bool:
            attempt = current.get(None)
            return attempt is not None and attempt.active is active and attempt.has_written(field)

        store.observer = observed
        if active.durable:
            store.made = made
    return store


def patch_of(
    active: ActiveRun, edits: Sequence[StateEdit]
) -> tuple[list[Json], dict[int, dict[str, int]]]:
    """The writes of one attempt, or of nobody, as a JSON patch that is journaled now; and which
    writes of other attempts, that go on, it contains: how many of each field, by their work."""
    upon: list[tuple[StateEdit, str]] = []
    store = cast("InMemoryStateStore[Any]", active.store)
    patch = store.patch(edits, active.program.serializer, upon)
    found: dict[int, dict[str, int]] = {}
    for edit, field in upon:
        owner = edit.owner
        if isinstance(owner, Attempt) and not owner.dead and edit not in edits:
            found.setdefault(owner.id, {})[field] = edit.numbers[field]
    return cast("list[Json]", patch), found

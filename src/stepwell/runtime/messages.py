"""Events of users as messages of a run, and back.

An event goes by its tag; that a class stands for the classes it is a kind of is found out here, so
the kernel compares nothing but tags. What no step could take is refused before it is sent.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from stepwell.authoring.events.model import Event
from stepwell.authoring.program import TypeRegistry, Undecoded
from stepwell.errors import WorkflowRuntimeError
from stepwell.kernel.definition import Definition
from stepwell.kernel.outcomes import Message

if TYPE_CHECKING:
    from stepwell.runtime.turn import ActiveRun


def decoded(message: Message, types: TypeRegistry) -> object:
    """The payload as a live object: one that was read before its type was known is read now."""
    payload = message.payload
    if isinstance(payload, Undecoded):
        return types.load(payload.tag, payload.raw)
    return payload


def message_for(
    definition: Definition, types: TypeRegistry, event: Event, step: str | None
) -> Message:
    """`event` as a message, checked against the steps that may take it."""
    kind = type(event)
    tag = types.add(kind)
    routes = definition.routes.get(tag, ())
    kinds: tuple[str, ...] = ()
    if definition.by_kind or not (routes or tag in definition.marked):
        # A class that the workflow does not name may still be a kind of one that it does.
        kinds = tuple(types.tags[b] for b in kind.__mro__[1:] if b in types.tags)
        routes = (*routes, *(r for k in kinds for r in definition.by_kind.get(k, ())))
    if step is not None:
        if step not in definition.by_name:
            raise WorkflowRuntimeError(f"Step {step} does not exist")
        to = [route for route in routes if route.step.name == step]
        if not to:
            raise WorkflowRuntimeError(f"Step {step} does not accept event of type {kind}")
        if to[0].step.join is not None and to[0].step.join.kind == "collect":
            raise WorkflowRuntimeError(
                f"Step {step} collects a stream; ctx.send_event can't add to one. Return a list of "
                "events instead."
            )
    return Message(tag, event, step, kinds)


def warn_of_loss(active: ActiveRun, message: Message) -> None:
    """Say so when nobody can take a message but steps that collect a stream."""
    routes = active.definition.routes.get(message.tag)
    if (
        routes
        and not message.kinds
        and message.tag not in (active.run.by_tag or ())
        and all(r.step.join and r.step.join.kind == "collect" for r in routes)
    ):
        warnings.warn(
            f"{message.tag} is only taken by steps that collect a stream, which ctx.send_event "
            "can't add to; return a list of events instead",
            UserWarning,
            stacklevel=3,
        )

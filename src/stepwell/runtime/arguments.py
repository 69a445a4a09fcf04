"""What callers hand to an engine, looked at before anything is kept: what a store could not file
under a name, and what nobody could run or take in, is refused where it is said.

It knows shapes only; whether a run is there, and what it waits for, is the engine's business.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any, cast

from stepwell.authoring.events.model import Event
from stepwell.authoring.program import Program
from stepwell.errors import InvalidArgument

LONGEST = 512
"""Characters that an id, a key or another word of a run may have."""


def word(value: object, what: str) -> None:
    """Check a name that a run is filed under. Raises `InvalidArgument` for what is no text, is
    empty, too long, or has characters that can't be shown."""
    if not isinstance(value, str):
        raise InvalidArgument(f"{what} must be a text, not {type(value).__name__}")
    if not value:
        raise InvalidArgument(f"{what} is empty")
    if len(value) > LONGEST:
        raise InvalidArgument(f"{what} has {len(value)} characters; it may have {LONGEST}")
    for character in value:
        if unicodedata.category(character) in ("Cc", "Cs"):
            raise InvalidArgument(f"{what} has the control character {character!r}: {value!r:.60}")


def words(**named: object) -> None:
    """`word` for each that is not None."""
    for what, value in named.items():
        if value is not None:
            word(value, what)


def whole(value: object, what: str) -> None:
    """Check a whole number that a store can keep."""
    if not isinstance(value, int) or isinstance(value, bool) or not -(2**63) < value < 2**63 - 1:
        raise InvalidArgument(f"{what} must be a whole number of 64 bits, not {value!r:.60}")


def instance_of(workflow: object) -> Any:
    """The workflow's instance: itself, or one made of a class that needs nothing. Raises
    `InvalidArgument` for what is neither."""
    workflow = getattr(workflow, "__stepwell__", workflow)  # what a decorated function is made into
    if not callable(getattr(workflow, "compiled", None)):
        raise InvalidArgument(f"a workflow was expected here, not {_named(workflow)}")
    if not isinstance(workflow, type):
        return workflow
    try:
        return cast("type[Any]", workflow)()
    except TypeError as error:
        raise InvalidArgument(
            f"{workflow.__name__} can't be made without arguments ({error}); give an instance"
        ) from error


def an_event(value: object) -> None:
    """Check what is sent to a run."""
    if not isinstance(value, Event):
        raise InvalidArgument(f"an event was expected here, not {_named(value)}")


def an_answer(value: object) -> None:
    """Check what a question is answered with."""
    if not isinstance(value, Event | Mapping | str):
        raise InvalidArgument(
            f"an answer is an event, the fields of one, or a text, not {_named(value)}"
        )


def _named(value: object) -> str:
    if isinstance(value, type):
        return f"the class {value.__qualname__}"
    return f"{value!r:.60} ({type(value).__name__})"


def difference(program: Program, owner: object, known: Program, known_owner: object) -> str | None:
    """In what two workflows of one name are not the same; None when one can stand for the other."""
    if owner is known_owner:
        return None
    mine, theirs = type(owner), type(known_owner)
    if mine is not theirs:
        return f"{_where(theirs)} and {_where(mine)} are two classes"
    options = {
        name: (getattr(known_owner, name, None), getattr(owner, name, None))
        for name in ("timeout", "num_concurrent_runs", "verbose", "serializer")
    }
    for name, (before, now) in options.items():
        if before != now:
            return f"one {_where(mine)} has {name}={before!r}, the other {name}={now!r}"
    if program is not known and program.definition != known.definition:
        return f"two instances of {_where(mine)} have different steps"
    return None


def _where(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"

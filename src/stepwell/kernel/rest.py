"""Why a run rests: what it waits for, what came in vain, and whether anything can still move it.

A run that owes no work and waits for nothing goes on only when something comes from outside. Some
workflows are made that way: a step takes an answer of a person that no step emits. All others have
lost their thread: a step returned nothing, or an event that no step takes. The two are told apart
by the definition alone (`Definition.outside`), so nothing has to be noted while a run is at work.

This module refuses to know what is to be done about it; it finds words for those who ask: the error
of a run whose time is over, the log, `why`. It is never consulted while a run has work to do.
"""

from __future__ import annotations

from collections import Counter

from stepwell.kernel.definition import Definition
from stepwell.kernel.outcomes import Complete, Emit, Fail, Outcome
from stepwell.kernel.run import Run

_NAMED = 5
"""How many of a kind are named; the others are counted."""


def at_rest(run: Run) -> bool:
    """Whether the run has begun, goes on, and owes nothing: no work, no wait, no child."""
    return (
        run.begun
        and run.ended is None
        and run.parked is None
        and not run.work
        and not run.waits
        and not run.orphans
    )


def stalled(d: Definition, run: Run) -> bool:
    """Whether the run owes nothing and no step takes what only the outside could bring."""
    return not d.outside and at_rest(run)


def held_up(d: Definition, run: Run) -> list[str]:
    """What the run waits for and what came in vain, a clause each; may be empty."""
    return [*_waits(run), *_joins(d, run), *_buffers(run), *in_vain(run)]


def in_vain(run: Run) -> list[str]:
    """The events that came and that nobody took, as a clause; none without such."""
    tags = [*run.untaken, *(slot for slot in run.inbox or () if not slot.startswith("wait:"))]
    found = tuple(dict.fromkeys(tags))
    return [f"no step took {_names(found)}"] if found else []


def returned(outcome: Outcome) -> str:
    """What an attempt returned, in words."""
    match outcome:
        case Emit((), stream=True):
            return "returned an empty list"
        case Emit(()):
            return "returned None"
        case Emit(messages):
            return f"returned {_counted(Counter(m.tag for m in messages))}"
        case Complete(result):
            return f"returned {result.tag}"
        case Fail(error):
            return f"failed with {error.type.rpartition('.')[2]}"
        case _:
            return f"ended with {type(outcome).__name__}"


def _waits(run: Run) -> list[str]:
    found: list[str] = []
    for wait in (run.waits or {}).values():
        work = run.work.get(wait.work)
        where = "" if work is None else f" in step {work.step!r}"
        what = "time to pass" if wait.tag is None else wait.tag
        found.append(f"waiting for {what if wait.child is None else f'child {wait.child}'}{where}")
    return _some(found)


def _joins(d: Definition, run: Run) -> list[str]:
    found: list[str] = []
    for (name, _), state in (run.joins or {}).items():
        step = d.by_name.get(name)
        if step is None or step.join is None or step.join.kind != "all_of":
            continue
        slots = [(" or ".join(tags), state.slots.get(n)) for n, tags in enumerate(step.join.slots)]
        has = [tags for tags, members in slots if members]
        lacks = [tags for tags, members in slots if not members]
        if has and lacks:
            found.append(f"step {name!r} has {', '.join(has)} and waits for {', '.join(lacks)}")
    return _some(found)


def _buffers(run: Run) -> list[str]:
    return _some(
        [
            f"step {step!r} has collected {_counted(Counter(m.tag for m in b.members.values()))} "
            "and waits for more"
            for (step, _), b in (run.buffers or {}).items()
            if b.members
        ]
    )


def _some(found: list[str]) -> list[str]:
    more = len(found) - _NAMED
    return found if more <= 0 else [*found[:_NAMED], f"and {more} more"]


def _names(tags: tuple[str, ...]) -> str:
    return ", ".join(_some(list(tags)))


def _counted(tags: Counter[str]) -> str:
    return _names(tuple(tag if n == 1 else f"{n} {tag}" for tag, n in tags.items()))

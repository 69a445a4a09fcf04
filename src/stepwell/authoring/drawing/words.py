"""What is said of a step beside its name: badges, details, durations.

This module refuses to know where a word goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

from stepwell.kernel.definition import StepDef
from stepwell.values import Json


def named_by(step: StepDef) -> tuple[str, ...]:
    """The tags that a step names as its input."""
    if step.join is None:
        return step.accepts
    return tuple(dict.fromkeys(tag for slot in step.join.slots for tag in slot))


USUAL_WORKERS = 4
"""What event steps have when nothing is said; not worth a badge."""


def badges(step: StepDef) -> Iterable[str]:
    join = step.join
    if join is not None and join.kind == "all_of":
        yield f"joins {len(join.slots)}"
    if step.retry is not None:
        tries = _attempts(step.retry)
        yield f"{tries} tries" if tries else "retries"
    if step.timeout is not None:
        yield f"\u2264 {seconds(step.timeout)}"
    if step.workers not in (0, USUAL_WORKERS):
        yield "1 at a time" if step.workers == 1 else f"{step.workers} at once"


def details_of(step: StepDef) -> Iterable[str]:
    if step.title and step.title != step.name:
        yield f"step {step.name}"
    join = step.join
    if join is not None and join.kind == "all_of":
        slots = " + ".join(" or ".join(slot) for slot in join.slots)
        yield f"waits for one of each: {slots}"
    elif join is not None:
        members = " or ".join(join.slots[0])
        much = "all" if join.take is None else f"the first {join.take}"
        yield f"collects {much} of the list of {members}"
    elif step.accepts:
        yield "takes " + ", ".join(step.accepts) + (" and subclasses" if step.subclasses else "")
    if step.emits:
        yield "emits " + ", ".join(step.emits)
    if step.opens:
        yield "emits a list of " + ", ".join(step.opens)
    if step.retry is not None:
        yield "retries: " + _said(step.retry)
    if step.timeout is not None:
        yield f"an attempt may take {seconds(step.timeout)}"
    yield "any number at once" if not step.workers else f"at most {step.workers} at once in a run"
    if step.on_error is not None:
        yield f"its failures go to {step.on_error}"


def _attempts(policy: Json) -> int | None:
    """How many attempts a policy allows at most, if its data says so."""
    if not isinstance(policy, Mapping):
        return None
    for key in ("max_attempt_number", "maximum_attempts", "max_attempts", "attempts"):
        found = policy.get(key)
        if isinstance(found, int) and not isinstance(found, bool):
            return found
    stop = policy.get("stop")
    if isinstance(stop, Mapping):
        if stop.get("kind") == "stop_any" and isinstance(stop.get("stops"), list | tuple):
            stops = cast("list[Json]", stop["stops"])
            found_all = [n for n in map(_attempts, stops) if n is not None]
            return min(found_all, default=None)
        return _attempts(stop)
    return None


def _said(value: Json) -> str:
    """Described data in one line: `kind(a, b=c)`."""
    if isinstance(value, Mapping):
        inner = ", ".join(f"{k}={_said(v)}" for k, v in value.items() if k != "kind")
        return f"{value.get('kind', '')}({inner})"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_said(v) for v in cast("list[Json]", value)) + "]"
    return str(value)


def seconds(value: float) -> str:
    """A duration as people say it: `24 ms`, `45 s`, `5 min`, `2 h`, `3 d`."""
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if value >= 2 * size or value == size:
            return f"{value / size:.3g} {unit}"
    if 0 < value < 0.9995:
        ms = value * 1000
        return f"{ms:.0f} ms" if ms >= 9.5 else f"{ms:.2g} ms"
    return f"{value:.3g} s"

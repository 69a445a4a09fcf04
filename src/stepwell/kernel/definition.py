"""What a workflow is, as plain data: steps, what each accepts, joins, limits, error and exit steps.

Every authoring style compiles to a `Definition`. It holds names and numbers only, no functions and
no classes, so it can be written as JSON, drawn, served, compared with an older one, and checked
against live runs without the user's code. Messages are told apart by their *tag* (the name of
their type); what is inside a message is never looked at here.

The routing tables are computed once, when the definition is made, so that routing a message costs
the same in a workflow of three steps and of three thousand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal, cast

from stepwell.values import Json


@dataclass(frozen=True, slots=True)
class Join:
    """How a step waits for several messages before it runs once with all of them.

    Args:
        slots: for each slot the tags it takes. With `kind="all_of"` the step runs when every slot
            has a message at the same stream level (an AND-join) and gets one of each, in order.
            With `kind="collect"` there is one slot, and the step runs once per stream with what
            the stream brought.
        take: for "collect": run at the n-th arrival with the first n; None waits for the end of
            the stream.
        order: for "collect": members by "arrival", or by "input" (the position of the event that
            they descend from in the list that opened the stream).
    """

    kind: Literal["all_of", "collect"]
    slots: tuple[tuple[str, ...], ...]
    take: int | None = None
    order: Literal["arrival", "input"] = "arrival"


@dataclass(frozen=True, slots=True)
class StepDef:
    """One step.

    Args:
        name: unique in the definition.
        accepts: tags of the messages that start the step, one run of it per message.
        subclasses: also take messages whose `kinds` name one of `accepts`.
        join: given instead of `accepts` when the step waits for several messages.
        emits: tags it may emit; for drawings and checks only, never consulted when running.
        workers: how many of this step may be running at once in one run; 0 means no limit.
        timeout: seconds one attempt may be busy; None means no limit.
        on_error: the step that receives its failure after the last attempt.
        recoveries: of a step that others name as `on_error`: how many failures of one lineage of
            messages it may receive.
        collectors: the "collect" joins that are released when a stream opened by this step closes.
        opens: tags of the members when the step may open a stream; for drawings and checks.
        retry: the retry policy described as data; for drawings. What to do after a failure is
            computed by the policy's owner and reaches the kernel as a fact (`Fail.retry_after`).
        title: what to call the step when shown to people.
        kinds: with `subclasses`: the tags of those subclasses that steps emit; for drawings and
            checks. Routing goes by the `kinds` of the message itself.
    """

    name: str
    accepts: tuple[str, ...] = ()
    subclasses: bool = False
    join: Join | None = None
    emits: tuple[str, ...] = ()
    workers: int = 0
    timeout: float | None = None
    on_error: str | None = None
    recoveries: int = 1
    collectors: tuple[str, ...] = ()
    opens: tuple[str, ...] = ()
    retry: Json = None
    title: str = ""
    kinds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Route:
    """One way a message may go: into `step`, and there into `slot` of its join (-1: no join)."""

    step: StepDef
    slot: int


@dataclass(frozen=True)
class Definition:
    """A workflow as data.

    Args:
        name: what runs of it are filed under.
        steps: all steps.
        version: free text; shown, and kept with each run.
        start: tag of the start message when it is routed by tag, for checks and drawings.
        entry: the step the start message goes to; None routes it by its tag.
        ends: a message with one of these tags ends the run as completed, with it as the result.
        publishes: messages with these tags are shown to readers of the run's stream when emitted.
        timeout: seconds a run may be alive; None means no limit.
        on_error: the entry of the error scope: runs once when a step has failed for good and no
            handler took it.
        on_exit: the entry of the exit scope: runs before the run ends, however it ends.

    >>> d = Definition("d", (StepDef("a", accepts=("Start",), emits=("Stop",)),), ends=("Stop",))
    >>> Definition.from_json(d.to_json()) == d
    True
    """

    name: str
    steps: tuple[StepDef, ...]
    version: str = ""
    start: str = ""
    entry: str | None = None
    ends: tuple[str, ...] = ()
    publishes: tuple[str, ...] = ()
    timeout: float | None = None
    on_error: str | None = None
    on_exit: str | None = None
    by_name: Mapping[str, StepDef] = field(init=False, repr=False, compare=False)
    routes: Mapping[str, tuple[Route, ...]] = field(init=False, repr=False, compare=False)
    by_kind: Mapping[str, tuple[Route, ...]] = field(init=False, repr=False, compare=False)
    marked: frozenset[str] = field(init=False, repr=False, compare=False)
    outside: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_name = {step.name: step for step in self.steps}
        if len(by_name) != len(self.steps):
            raise ValueError(f"definition {self.name!r} names a step twice")
        routes: dict[str, list[Route]] = {}
        by_kind: dict[str, list[Route]] = {}
        for step in self.steps:
            for route, tags in _routes_of(step):
                for tag in tags:
                    routes.setdefault(tag, []).append(route)
                    if step.subclasses:
                        by_kind.setdefault(tag, []).append(route)
        for step in self.steps:
            for name in (step.on_error, *step.collectors):
                if name is not None and name not in by_name:
                    raise ValueError(f"step {step.name!r} names the unknown step {name!r}")
        for name in (self.entry, self.on_error, self.on_exit):
            if name is not None and name not in by_name:
                raise ValueError(f"definition {self.name!r} names the unknown step {name!r}")
        frozen = object.__setattr__
        frozen(self, "by_name", by_name)
        frozen(self, "routes", {tag: tuple(found) for tag, found in routes.items()})
        frozen(self, "by_kind", {tag: tuple(found) for tag, found in by_kind.items()})
        frozen(self, "marked", frozenset((*self.ends, *self.publishes)))
        frozen(self, "outside", _outside(self))

    def to_json(self) -> dict[str, Json]:
        """The definition as JSON values; fields that have their default are left out."""
        return cast("dict[str, Json]", _plain(self))

    @classmethod
    def from_json(cls, data: Mapping[str, Json]) -> Definition:
        """The definition that `to_json` wrote. Raises TypeError for unknown or missing fields."""
        fields: dict[str, object] = {k: _tuples(v) for k, v in data.items() if k != "steps"}
        rows = cast("list[Mapping[str, Json]]", data.get("steps", []))
        steps = tuple(_step_from_json(row) for row in rows)
        return cls(steps=steps, **fields)  # pyright: ignore[reportArgumentType]


def _outside(d: Definition) -> frozenset[str]:
    """The tags that steps take and none emits: only the outside can bring them."""
    given = {d.on_error, d.on_exit, d.entry, *(step.on_error for step in d.steps)}
    taken = {
        tag
        for step in d.steps
        if step.name not in given and not step.kinds
        for _, tags in _routes_of(step)
        for tag in tags
    }
    made = {tag for step in d.steps for tag in (*step.emits, *step.opens)}
    return frozenset(taken - made - {d.start})


def _routes_of(step: StepDef) -> list[tuple[Route, tuple[str, ...]]]:
    if step.join is None:
        return [(Route(step, -1), step.accepts)]
    return [(Route(step, slot), tags) for slot, tags in enumerate(step.join.slots)]


def _step_from_json(row: Mapping[str, Json]) -> StepDef:
    fields: dict[str, object] = {
        k: v if k == "retry" else _tuples(v) for k, v in row.items() if k != "join"
    }
    join = cast("Mapping[str, Json] | None", row.get("join"))
    if join is not None:
        fields["join"] = Join(**{k: _tuples(v) for k, v in join.items()})  # pyright: ignore[reportArgumentType]
    return StepDef(**fields)  # pyright: ignore[reportArgumentType]


def _tuples(value: Json) -> object:
    """JSON lists as the tuples that the frozen dataclasses hold."""
    if isinstance(value, list | tuple):
        return tuple(_tuples(item) for item in value)
    return value


def _plain(value: object) -> object:
    """A part of a definition as JSON values; `retry` is JSON already."""
    if isinstance(value, Definition | StepDef | Join):
        rows: dict[str, object] = {}
        for f in fields(value):
            if not f.init:
                continue  # routing tables, computed from the rest
            part: object = getattr(value, f.name)
            # 0 and False are equal, but they are not the same setting.
            if part != f.default or type(part) is not type(f.default):
                rows[f.name] = part if f.name == "retry" else _plain(part)
        return rows
    if isinstance(value, tuple):
        return [_plain(item) for item in cast("tuple[object, ...]", value)]
    return value

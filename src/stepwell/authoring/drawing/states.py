"""State machines as pictures: states are boxes, and what leads from one to the next are arrows.

The theory: a definition says which steps a step goes to, and that is drawn. The class says more:
what each way on waits for, which steps are not for people to see, which other workflows are run.
Hidden steps are never drawn as such: those that wait for a run's time are its start, the one that
ends it is its end.

With a `RunView` the arrows bear what the run took. What is not known (a target that is computed) is
drawn as a dashed arrow to a question mark, never left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, cast

from stepwell.authoring.drawing.picture import Edge, EdgeKind, Node, Picture, step_id
from stepwell.authoring.drawing.run import OUTSIDE, RunView
from stepwell.authoring.drawing.words import badges, details_of
from stepwell.authoring.machine.define import Machine
from stepwell.authoring.machine.subflows import find_subflow
from stepwell.authoring.words import END, FAIL, FIRE, ON_FAIL, PLAN, SAID_FAIL, START
from stepwell.kernel.decide import CHILD, FAILURE
from stepwell.kernel.definition import Definition, StepDef
from stepwell.kernel.journal import (
    AttemptFailed,
    Entry,
    RunEnded,
    WaitEnded,
    WaitOpened,
    WorkAdded,
    WorkDone,
)
from stepwell.kernel.outcomes import Message
from stepwell.values import RunStatus

_START = "event:start"
_COMPLETE = "event:complete"
_FAIL = "event:fail"
_UNKNOWN = "unknown:?"
_ON_FAIL = "step:on_fail"
_BEGINNING = (OUTSIDE, PLAN, FIRE)


def is_machine(definition: Definition) -> bool:
    """Whether a definition is that of a state machine."""
    return END in definition.by_name


def machine_picture(
    definition: Definition, run: RunView | None = None, machine: Machine | None = None
) -> Picture:
    """The boxes and arrows of a state machine; `machine` is what is known of its class."""
    draft = _Draft(definition, run, machine)
    draft.build()
    return draft.picture


class _Draft:
    def __init__(
        self, definition: Definition, run: RunView | None, machine: Machine | None
    ) -> None:
        self.definition = definition
        self.run = run
        self.machine = machine
        self.picture = Picture(definition.name)
        self.taken = _taken(run)

    def build(self) -> None:
        """Everything, in the order of the class."""
        d = self.definition
        plan = d.by_name.get(PLAN)
        label = "start" if plan is None or not plan.title else plan.title
        self.picture.add(Node(_START, "start", label, details=("starts the run",)))
        shown = [step for step in d.steps if step.name not in (END, PLAN, FIRE, ON_FAIL)]
        for first in d.by_name[FIRE].emits if FIRE in d.by_name else ():
            self.connect(_START, step_id(first))
        for step in shown:
            self.picture.add(self.node(step))
        for step in shown:
            self.ways(step)
        if d.on_error is not None:
            self.scope(d.by_name[d.on_error])
        if self.run is not None:
            self.untold(self.run)
            self.grey(self.run)

    def node(self, step: StepDef) -> Node:
        """The box of a step."""
        view = None if self.run is None else self.run.steps.get(step.name)
        info = None if self.machine is None else self.machine.steps.get(step.name)
        hidden = info is not None and not info.options.visible
        plain = [
            line for line in details_of(step) if not line.startswith(("emits", "any number at"))
        ]
        goes = ", ".join(dict.fromkeys(map(_target_said, step.emits)))
        if goes:
            plain.append(f"goes to {goes}")
        if hidden:
            plain.append("not shown to people")
        label = step.title or step.name
        return Node(
            step_id(step.name),
            "step",
            label,
            tuple(badges(step)),
            tuple(plain),
            view,
            dashed=hidden,
        )

    # --- arrows ---

    def ways(self, step: StepDef) -> None:
        """The arrows from a step."""
        source = step_id(step.name)
        reach = None if self.machine is None else self.machine.reach.get(step.name)
        if self.machine is None or reach is None:
            for target in dict.fromkeys(step.emits):
                self.connect(source, self.target(target))
            return
        for target, word in reach.labels:
            self.connect(source, self.target(target), "" if word == "goto" else word)
        for word in reach.again_words:
            self.connect(source, source, word)
        for word in reach.next_words:
            self.connect(source, self.target(self.machine.after(step.name) or END), word)
        if "complete" in reach.ends:
            self.connect(source, self.target(END))
        if "fail" in reach.ends:
            self.connect(source, self.target(FAIL))
        if reach.unknown:
            box = Node(_UNKNOWN, "unknown", "?", details=("what the code does not say",))
            self.connect(source, self.picture.add(box), "", "unknown")
        for name in reach.subflows:
            self.subflow(source, name, self.machine.steps[step.name].func)

    def target(self, name: str) -> str:
        """The box that a way leads to."""
        if name == END:
            return self.picture.add(Node(_COMPLETE, "stop", "complete", details=("ends the run",)))
        if name == FAIL:
            return self.picture.add(Node(_FAIL, "stop", "fail", details=("the run has failed",)))
        return step_id(name)

    def subflow(self, source: str, written: str, func: Callable[..., Any]) -> None:
        """The workflow that a step runs, if the class is to be found where the step is defined."""
        child = find_subflow(written, func)
        name = written.rpartition(".")[2] if child is None else child.name
        box = self.picture.add(Node(f"child:{name}", "child", name))
        self.connect(source, box, "runs", "child")
        known = {self.picture.title, *(found.title for found in self.picture.children)}
        if child is not None and child.name not in known and self.run is None:
            drawn = machine_picture(child.compiled().definition, None, child)
            drawn.children.clear()
            self.picture.children.append(drawn)

    def scope(self, step: StepDef) -> None:
        """What runs when the run fails."""
        box = Node("scope:fails", "scope", "the run fails", details=("however it fails",))
        node = self.node(step)
        node = replace(node, id=_ON_FAIL, details=("runs when the run has failed",))
        self.picture.add(box)
        self.picture.add(node)
        self.connect(box.id, node.id, "", "scope")

    def connect(self, source: str, target: str, label: str = "", kind: EdgeKind = "flow") -> None:
        """An arrow."""
        count = None if self.run is None else self.count(source, target, kind)
        self.picture.connect(Edge(source, target, kind, label, count))

    # --- a run ---

    def count(self, source: str, target: str, kind: EdgeKind) -> int:
        """How often the run took an arrow."""
        run = cast(RunView, self.run)
        if kind == "child":
            return self.taken.get((source, _CHILD), 0)
        if kind == "scope":
            view = run.steps.get(ON_FAIL)
            return 0 if view is None else view.count
        if target == _FAIL:
            view = run.steps.get(source.removeprefix("step:"))
            said_so = run.error.startswith(SAID_FAIL)
            return int(view is not None and view.status == "failed" and said_so)
        return self.taken.get((source, target), 0)

    def untold(self, run: RunView) -> None:
        """The ways that the run took and the code does not show."""
        for (source, target), count in self.taken.items():
            first = source in self.picture.nodes
            if target == _COMPLETE:
                self.target(END)
            if (source, target) in self.picture.edges or not first or target == _CHILD:
                continue
            if target in self.picture.nodes:
                self.picture.connect(Edge(source, target, "dynamic", "", count))

    def grey(self, run: RunView) -> None:
        """Boxes that the run did not come to."""
        alive = {step_id(name) for name, view in run.steps.items() if view.count} | {_START}
        self.picture.grey(alive | ({_ON_FAIL} if ON_FAIL in run.steps else set()))


_CHILD = "child"


def _taken(run: RunView | None) -> dict[tuple[str, str], int]:
    """How often a run went from one box to another."""
    found: dict[tuple[str, str], int] = {}
    for (source, tag, target), count in () if run is None else run.visited.items():
        if target in (PLAN, FIRE) or tag == FAILURE or source == END:
            continue
        first = _START if source in _BEGINNING else step_id(source)
        last = _COMPLETE if target in (OUTSIDE, END) else step_id(target)
        if first == _START and last == _COMPLETE:
            continue
        found[first, last] = found.get((first, last), 0) + count
        if tag == CHILD:
            found[first, _CHILD] = found.get((first, _CHILD), 0) + count
    return found


def _target_said(name: str) -> str:
    return {END: "the end", FAIL: "failure"}.get(name, name)


# --- from a journal ------------------------------------------------------------------------------


def machine_seen(name: str, batches: Sequence[Sequence[Entry]]) -> Definition | None:
    """What a run shows of its state machine, without its code; None when it is a run of none.

    Args:
        name: what to call it.
        batches: the journal from its beginning, a batch for each decision.
    """
    first = next((e for batch in batches for e in batch if isinstance(e, WorkAdded)), None)
    message = None if first is None else first.message
    if not isinstance(message, Message) or message.tag != START:
        return None
    ways: dict[str, dict[str, None]] = {}
    work: dict[int, str] = {}
    waits: dict[str, str] = {}
    entry: str | None = None
    for batch in batches:
        source = ""
        for e in batch:
            match e:
                case WorkAdded(id=id, step=step):
                    work[id] = step
                    ways.setdefault(step, {})
                    if source and step != ON_FAIL:
                        ways[source][step] = None
                    if entry is None and step not in (PLAN, FIRE):
                        entry = step
                case WorkDone(id=id):
                    source = work.pop(id, "")
                case WaitOpened(id=id, work=0):
                    waits[id] = source
                case WaitEnded(id=id, work=0):
                    source = waits.pop(id, "")
                case AttemptFailed(id=id, retry_at=None, error=error) if id in work:
                    if error.type == SAID_FAIL:
                        ways[work[id]][FAIL] = None
                case RunEnded(status=RunStatus.COMPLETED) if source:
                    ways[source][END] = None
                case _:
                    pass
    ways.setdefault(END, {})
    ways[FIRE] = {} if entry is None else {entry: None}
    titles = {ON_FAIL: "@on_fail"}
    steps = [StepDef(s, emits=tuple(to), title=titles.get(s, "")) for s, to in ways.items()]
    return Definition(
        name,
        tuple(steps),
        start=START,
        on_error=ON_FAIL if ON_FAIL in ways else None,
    )


def unknown_steps(machine: Machine) -> Iterable[str]:
    """The steps whose ways on can't all be read from the code."""
    return (name for name, reach in machine.reach.items() if reach.unknown)

"""What a run does, as it does it: the numbers (`Progress`) and two ways to show them.

`Progress` hears what telemetry tells and counts; it neither prints nor reads a clock. `Lines` says
what is worth saying, a line each, for logs and pipes; `Picture` redraws a few lines on a terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from stepwell.authoring.words import MOVED, ON_FAIL, is_hidden, step_said, wanted
from stepwell.cli import output


@dataclass(slots=True)
class StepCount:
    """How the work of one step stands.

    Attributes:
        label: what to call it.
        seen: all its work so far, by number.
        running: work whose body runs.
        waiting: work that waits, and for what.
        retrying: work that is to be tried again: when, and why.
        sleeping: work that is to begin later, and when.
        held: what the run waits for since a work of this step is done.
        done, failed: how much ended so.
        tries: how many attempts began.
        first, last: when it was first and last heard of.
    """

    label: str
    seen: set[int] = field(default_factory=set[int])
    running: set[int] = field(default_factory=set[int])
    waiting: dict[int, dict[str, str]] = field(default_factory=dict[int, dict[str, str]])
    retrying: dict[int, tuple[float, str]] = field(default_factory=dict[int, tuple[float, str]])
    sleeping: dict[int, float] = field(default_factory=dict[int, float])
    held: dict[str, str] = field(default_factory=dict[str, str])
    done: int = 0
    failed: int = 0
    tries: int = 0
    first: float = 0.0
    last: float = 0.0

    @property
    def over(self) -> bool:
        """Whether all its work has ended, and nothing is waited for that came of it."""
        return self.done + self.failed == len(self.seen) and not self.held

    @property
    def queued(self) -> int:
        """How much of its work waits for its turn."""
        busy = len(self.running) + len(self.waiting) + len(self.retrying) + len(self.sleeping)
        return max(0, len(self.seen) - self.done - self.failed - busy)

    @property
    def word(self) -> str:
        """How it stands, in a word."""
        if self.over:
            return "failed" if self.failed else "done"
        for word in ("running", "retrying", "waiting"):
            if getattr(self, word):
                return word
        return "waiting" if self.held or self.sleeping else "queued"


Say = Callable[[float, str], None]


class Progress:
    """Counts what the steps of a run, and of its children, do.

    Args:
        run: the run's id.
        say: called with the time and a sentence for each thing worth telling.
    """

    def __init__(self, run: str, say: Say | None = None) -> None:
        self.run = run
        self.steps: dict[tuple[str, str], StepCount] = {}
        self.parked: str | None = None
        self.on_parked: Callable[[], None] | None = None
        self._say: Say = say or (lambda _at, _text: None)
        self._runs: dict[str, str] = {run: ""}
        self._step_of: dict[tuple[str, int], StepCount] = {}
        self._waits: dict[tuple[str, str], int] = {}
        self._held: dict[tuple[str, str], StepCount] = {}

    def hear(self, name: str, fields: Mapping[str, Any]) -> None:
        """Take in one telemetry event."""
        run = fields["run"]
        if run not in self._runs:
            return
        at: float = fields["at"]
        kind = name.partition(".")[0]
        if kind == "step":
            self._step(name, run, at, fields)
        elif kind == "wait":
            self._wait(name, run, at, fields)
        elif name == "child.started":
            short = str(fields["child_workflow"]).rpartition(".")[2]
            self._runs[fields["child"]] = f"{self._runs[run]}{short}."
            self._say(at, f"child {fields['child']} of {fields['child_workflow']} started")
        elif name == "run.parked" and run == self.run:
            self.parked = str(fields["reason"])
            if self.on_parked is not None:
                self.on_parked()

    def mute(self) -> None:
        """Tell nothing more, but go on counting."""
        self._say = lambda _at, _text: None

    # --- steps -----------------------------------------------------------------------------------

    def _step(self, name: str, run: str, at: float, fields: Mapping[str, Any]) -> None:
        work: int = fields["work"]
        error = _plain(str(fields.get("error", "")))
        count = self._count(run, work, fields.get("step"), at)
        if count is None:
            return
        count.last = at
        count.running.discard(work)
        count.retrying.pop(work, None)
        count.sleeping.pop(work, None)
        match name:
            case "step.queued" if "until" in fields:
                count.sleeping[work] = fields["until"]
                self._say(at, f"sleeps until {output.local(fields['until'])}, then {count.label}")
            case "step.started":
                self._started(count, work, at, int(fields.get("attempt") or 1))
            case "step.finished":
                count.waiting.pop(work, None)
                count.done += 1
                self._ended(count, at)
            case "step.retrying":
                count.waiting.pop(work, None)
                count.retrying[work] = (fields["retry_at"], error)
                which = f" #{work}" if len(count.seen) > 1 else ""
                again = output.span(fields["retry_at"] - at)
                self._say(at, f"{count.label}{which} failed, again in {again}: {error}")
            case "step.failed":
                count.waiting.pop(work, None)
                count.failed += 1
                self._say(at, f"{count.label} failed for good: {error}")
            case _:
                pass

    def _count(self, run: str, work: int, step: str | None, at: float) -> StepCount | None:
        count = self._step_of.get((run, work))
        if count is None and step is not None:
            if is_hidden(step) and step != ON_FAIL:
                return None
            key = (run, step)
            if key not in self.steps:
                self.steps[key] = StepCount(self._runs[run] + step_said(step), first=at)
            count = self._step_of[run, work] = self.steps[key]
            count.seen.add(work)
        return count

    def _started(self, count: StepCount, work: int, at: float, attempt: int) -> None:
        count.running.add(work)
        if count.waiting.pop(work, None) is not None:
            self._say(at, f"{count.label} goes on")
            return
        count.tries += 1
        if count.tries == 1:
            self._say(at, f"{count.label} started")

    def _ended(self, count: StepCount, at: float) -> None:
        if count.over:
            many = f"{len(count.seen)} times, " if len(count.seen) > 1 else ""
            self._say(at, f"{count.label} done ({many}{output.span(at - count.first)})")

    def _wait(self, name: str, run: str, at: float, fields: Mapping[str, Any]) -> None:
        id = fields["wait"]
        if not fields.get("work"):
            self._hold(name, run, at, fields)
            return
        if name == "wait.opened":
            work = fields.get("work", 0)
            count = self._step_of.get((run, work))
            if count is None:
                return
            event = str(fields.get("event") or "")
            self._waits[run, id] = work
            count.running.discard(work)
            count.waiting.setdefault(work, {})[id] = event or "time"
            self._say(at, f"{count.label} waits for {event or 'time to pass'} ({id})")
            return
        work = self._waits.pop((run, id), 0)
        count = self._step_of.get((run, work))
        if count is not None and count.waiting.get(work) is not None:
            count.waiting[work].pop(id, None)
            if fields.get("timed_out"):
                self._say(at, f"{count.label} has waited long enough for {id}")

    def _hold(self, name: str, run: str, at: float, fields: Mapping[str, Any]) -> None:
        """A wait of the run itself, after a step is done."""
        key = (run, fields["wait"])
        if name == "wait.ended":
            held = self._held.pop(key, None)
            what = "" if held is None else held.held.pop(key[1], "")
            if held is not None and fields.get("timed_out"):
                self._say(at, f"{held.label} has waited long enough for {what}")
            return
        event = fields.get("event")
        due = output.local(fields["until"]) if "until" in fields else ""
        if event == MOVED:
            self._say(at, f"is to begin at {due}" if due else "is paused")
            return
        count = self.steps.get((run, str(fields.get("step"))))
        if count is None:
            return
        what = f"subflow {key[1]}" if event is None else wanted(str(event))
        self._held[key] = count
        count.held[key[1]] = what
        if event is not None:
            self._say(at, f"{count.label} waits for {what}" + (f" until {due}" if due else ""))


def _plain(error: str) -> str:
    return error.removeprefix("builtins.").removeprefix("stepwell.errors.")


# --- lines ---------------------------------------------------------------------------------------


class Lines:
    """Says what happens, a line each."""

    def __init__(self, console: Console, began: float) -> None:
        self.console = console
        self.began = began

    def say(self, at: float, text: str) -> None:
        """One line, with the time since the beginning."""
        since = output.span(max(0.0, at - self.began)).rjust(9)
        self.console.print(Text.assemble((since, "dim"), "  ", text), soft_wrap=True)


# --- a picture -----------------------------------------------------------------------------------

_BAR = 20
_TIME = 8


class Picture:
    """The steps of a run as they stand, for a terminal that is redrawn."""

    def __init__(self, progress: Progress, began: float, now: Callable[[], float]) -> None:
        self.progress = progress
        self.began = began
        self.now = now
        self.whole = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        now = self.now()
        steps = list(self.progress.steps.values())
        room = max(3, console.height - 4)
        left_out = 0
        if not self.whole and len(steps) > room:
            busy = [s for s in steps if not s.over]
            ended = [s for s in steps if s.over]
            kept = {id(s) for s in (busy + ended[::-1])[:room]}
            left_out = len(steps) - len(kept)
            steps = [s for s in steps if id(s) in kept]
        grid = Table.grid(padding=(0, 2, 0, 0))
        names = min(24, max((len(s.label) for s in steps), default=0))
        rest = max(10, options.max_width - names - _BAR - _TIME - 8)
        # rich would shrink the first columns to make room for a long last one.
        for width in (names, _BAR, _TIME, rest):
            grid.add_column(min_width=width, max_width=width, no_wrap=True)
        for step in steps:
            words = output.cut(_words(step, now), rest)
            time = _time(step, now).rjust(_TIME)
            grid.add_row(output.cut(step.label, names), _state(step), Text(time, "dim"), words)
        foot = f"{left_out} more steps  " if left_out else ""
        parts: list[RenderableType] = [grid] if steps else []
        if not self.whole:
            parts.append(Text(f"{foot}{output.span(now - self.began)}", "dim"))
        yield Group(*parts)


def _state(step: StepCount) -> RenderableType:
    if len(step.seen) > 1 and not step.over:
        ended = step.done + step.failed
        return ProgressBar(len(step.seen), ended, _BAR)
    many = f" x{len(step.seen)}" if len(step.seen) > 1 else ""
    return Text(f"{step.word}{many}", output.STYLES.get(step.word, ""))


def _time(step: StepCount, now: float) -> str:
    return output.span((step.last if step.over else now) - step.first)


def _words(step: StepCount, now: float) -> str:
    parts: list[str] = []
    total = len(step.seen)
    if total > 1 and not step.over:
        parts.append(f"{step.done + step.failed}/{total}")
    if total > 1 and step.running:
        parts.append(f"{len(step.running)} running")
    if step.failed and total > 1:
        parts.append(f"{step.failed} failed")
    if step.waiting:
        events = dict.fromkeys(e for waits in step.waiting.values() for e in waits.values())
        parts.append(f"for {', '.join(events)}" if events else "goes on")
    if step.held:
        parts.append(f"for {', '.join(step.held.values())}")
    if step.sleeping:
        parts.append(f"begins {output.ago(min(step.sleeping.values()), now)}")
    if step.tries > total:
        parts.append(f"{step.tries} tries")
    if step.retrying:
        at, error = min(step.retrying.values())
        many = f"{len(step.retrying)} " if len(step.retrying) > 1 else ""
        parts.append(f"{many}again in {output.span(max(0.0, at - now))}: {error}")
    return ", ".join(parts)

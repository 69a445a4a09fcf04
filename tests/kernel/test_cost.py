"""What one input costs does not depend on how large the run is. Calls are counted, not seconds."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable

import pytest
from tests.kernel.playing import START, message

from stepwell.kernel.decide import advance
from stepwell.kernel.definition import Definition, Join, StepDef
from stepwell.kernel.inputs import (
    Arrived,
    Asked,
    Attempted,
    ChildAsked,
    ChildEnded,
    Due,
    Gathered,
    Input,
    Sent,
    Start,
)
from stepwell.kernel.outcomes import ChildResult, Emit, Fail, Goto, Message, Sleep
from stepwell.kernel.run import Run
from stepwell.values import ErrorInfo, RunStatus

D = Definition(
    "cost",
    (
        StepDef("s", accepts=("Start",), collectors=("j",)),
        StepDef("w", accepts=("A",)),
        StepDef("one", accepts=("One",), workers=1),
        StepDef("timed", accepts=("Timed",), timeout=60.0),
        StepDef("j", join=Join("collect", (("B",),))),
        StepDef("both", join=Join("all_of", (("X",), ("Y",)))),
    ),
    ends=("Stop",),
)


def started() -> Run:
    run = Run("r")
    advance(D, run, Start(0.0, START))
    return run


def sent(run: Run, *messages: Message) -> None:
    advance(D, run, Sent(0.0, 1, messages))


def first(run: Run, step: str) -> int:
    return next(w.id for w in run.work.values() if w.step == step)


def many_run(run: Run, n: int) -> Input:
    sent(run, *[message("A")] * n)
    return Attempted(1.0, first(run, "w"), Emit((message("A"),)))


def many_wait_in_a_queue(run: Run, n: int) -> Input:
    sent(run, *[message("One")] * n)
    return Attempted(1.0, first(run, "one"), Emit((message("One"),)))


def many_are_late(run: Run, n: int) -> Input:
    sent(run, *[message("A")] * n)
    for number, work in enumerate([w.id for w in run.work.values() if w.step == "w"]):
        advance(D, run, Attempted(1.0, work, Fail(ErrorInfo("E", ""), 50.0 + number)))
    return Due(51.0)


def many_sleep(run: Run, n: int) -> Input:
    sent(run, *[message("A")] * n)
    for work in [w.id for w in run.work.values() if w.step == "w"]:
        advance(D, run, Attempted(1.0, work, Sleep(9.0 + work, "w", START)))
    return Attempted(1.0, 1, Goto("w", START))


def many_have_time_limits(run: Run, n: int) -> Input:
    sent(run, *[message("Timed")] * n)
    return Attempted(1.0, first(run, "timed"), Emit((message("Timed"),)))


def waiting(run: Run, n: int, tag: str | None) -> None:
    sent(run, *[message("A")] * n)
    for work in [w.id for w in run.work.values() if w.step == "w"]:
        advance(D, run, Asked(1.0, work, "k", f"w{work}", tag or f"T{work}", None, 90.0))


def many_wait_for_the_same(run: Run, n: int) -> Input:
    waiting(run, n, "Go")
    return Arrived(2.0, message("Go"))


def many_wait_for_others(run: Run, n: int) -> Input:
    waiting(run, n, None)
    return Arrived(2.0, message(f"T{next(iter(run.waits or ()))[1:]}"))


def many_wait_and_one_is_answered_by_id(run: Run, n: int) -> Input:
    waiting(run, n, "Go")
    return Arrived(2.0, message("Go"), list(run.waits or ())[-1])


def many_children(run: Run, n: int) -> Input:
    sent(run, *[message("A")] * n)
    for work in [w.id for w in run.work.values() if w.step == "w"]:
        advance(D, run, ChildAsked(1.0, work, "k", f"c{work}", "W", START))
    return ChildEnded(2.0, ChildResult(run.children()[-1], RunStatus.COMPLETED))


def many_early_messages(run: Run, n: int) -> Input:
    for number in range(n):
        advance(D, run, Arrived(1.0, message("Go", number)))
    return Asked(2.0, 1, "k", "w", "Go")


def a_large_stream(run: Run, n: int) -> Input:
    advance(D, run, Attempted(1.0, 1, Emit((message("A"),) * n, stream=True)))
    return Attempted(2.0, first(run, "w"), Emit((message("B"),)))


def many_streams(run: Run, n: int) -> Input:
    sent(run, *[START] * n)
    for work in [w.id for w in run.work.values() if w.step == "s"]:
        advance(D, run, Attempted(1.0, work, Emit((message("A"),), stream=True)))
    return Attempted(2.0, first(run, "w"), Emit((message("B"),)))


def half_filled_joins(run: Run, n: int) -> Input:
    sent(run, *[message("X")] * n)
    return Arrived(2.0, message("Y"))


def a_full_buffer(run: Run, n: int) -> Input:
    for number in range(n):
        advance(D, run, Gathered(1.0, 1, f"k{number}", "b", message("A"), ("A", "B")))
    return Gathered(2.0, 1, "last", "b", message("B"), ("A", "B"))


SCENES = [
    many_run,
    many_wait_in_a_queue,
    many_are_late,
    many_sleep,
    many_have_time_limits,
    many_wait_for_the_same,
    many_wait_for_others,
    many_wait_and_one_is_answered_by_id,
    many_children,
    many_early_messages,
    a_large_stream,
    many_streams,
    half_filled_joins,
    a_full_buffer,
]


def calls(scene: Callable[[Run, int], Input], n: int) -> tuple[int, int]:
    """How many calls (and how many entries) the input of a scene takes."""
    run = started()
    input = scene(run, n)
    count = 0

    def see(_frame: object, event: str, _arg: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    gc.collect()
    gc.disable()  # what others left behind is not to be swept up, and counted, just now
    sys.setprofile(see)
    try:
        entries = advance(D, run, input)
    finally:
        sys.setprofile(None)
        gc.enable()
    assert entries
    return count, len(entries)


@pytest.mark.parametrize("scene", SCENES)
def test_an_input_costs_the_same_in_a_run_of_a_hundred_and_of_ten_thousand(
    scene: Callable[[Run, int], Input],
) -> None:
    assert calls(scene, 10_000) == calls(scene, 100)


def test_a_stream_costs_what_it_has_members() -> None:
    def opening(n: int) -> int:
        run = started()
        return len(advance(D, run, Attempted(1.0, 1, Emit((message("A"),) * n, stream=True))))

    assert opening(1000) - opening(100) == 900


def size(run: Run) -> int:
    """How many things all containers of a run hold together."""
    parts = (
        run.work,
        run.steps,
        run.waits,
        run.by_tag,
        run.joins,
        run.streams,
        run.buffers,
        run.inbox,
        run.timers,
        run.orphans,
    )
    return sum(len(part or ()) for part in parts)


def a_long_loop(turns: int) -> list[int]:
    """A run that does a bit of everything in each of its turns, and goes on."""
    d = Definition(
        "loop",
        (
            StepDef("s", accepts=("Start",), collectors=("j",), on_error="h", timeout=60.0),
            StepDef("w", accepts=("A",), workers=2, timeout=60.0),
            StepDef("j", join=Join("collect", (("B",),), take=2)),
            StepDef("both", join=Join("all_of", (("X",), ("Y",)))),
            StepDef("h"),
        ),
        timeout=1e9,
    )
    run = Run("r")
    at = 0.0
    sizes: list[int] = []
    advance(d, run, Start(at, START))
    for _ in range(turns):
        at += 1.0
        advance(d, run, Asked(at, first(run, "s"), "k", "w", "Go", None, 30.0))
        advance(d, run, Arrived(at, message("Go")))
        advance(d, run, Gathered(at, first(run, "s"), "g", "b", message("A"), ("A",)))
        advance(d, run, ChildAsked(at, first(run, "s"), "c", "child", "W", START))
        advance(d, run, ChildEnded(at, ChildResult("child", RunStatus.FAILED)))
        advance(d, run, Attempted(at, first(run, "s"), Fail(ErrorInfo("E", ""), 0.0)))
        members = (message("A"), message("A"), message("A"))
        advance(d, run, Attempted(at, first(run, "s"), Emit(members, stream=True)))
        for sends in (("B", "X"), ("B",), ("B",)):
            out = tuple(message(tag) for tag in sends)
            advance(d, run, Attempted(at, first(run, "w"), Emit(out)))
        advance(d, run, Attempted(at, first(run, "j"), Sleep(0.5, "s", START)))
        at += 1.0
        advance(d, run, Due(at))
        sizes.append(size(run))
    return sizes


def test_a_long_loop_has_the_memory_of_a_short_one() -> None:
    sizes = a_long_loop(1000)
    assert max(sizes) <= 30
    assert max(sizes[500:]) <= max(sizes[:100])

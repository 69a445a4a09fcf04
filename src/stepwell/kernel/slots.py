"""Work takes worker slots: of new work, of queued work, of work whose time has come.

The one rule: work begins when its step has a slot free and nothing stands in the queue before it.
This module refuses to know why the work is owed and what becomes of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from stepwell.kernel.definition import Definition, StepDef
from stepwell.kernel.journal import Entry, WorkAdded, WorkBegun, WorkQueued
from stepwell.kernel.outcomes import Message
from stepwell.kernel.run import Run, Work

Entries = Iterator[Entry]


def add_work(
    d: Definition,
    run: Run,
    step: StepDef,
    m: Message | tuple[Message, ...] | None,
    at: float,
    stream: int = 0,
    index: int = 0,
    recoveries: Mapping[str, int] | None = None,
) -> Entries:
    """`step` owes one run with this input; it begins at once when a worker slot is free."""
    state = run.steps.get(step.name)
    if run.parked is None and (
        state is None or not step.workers or (state.running < step.workers and not state.queue)
    ):
        deadline = None if step.timeout is None else at + step.timeout
        yield WorkAdded(
            run.counter + 1, step.name, m, True, at, deadline, stream, index, recoveries
        )
    else:
        yield WorkAdded(run.counter + 1, step.name, m, False, at, None, stream, index, recoveries)


def begin_next(d: Definition, run: Run, name: str, at: float) -> Entries:
    """Give the step's free worker slots to what is queued."""
    if run.parked is not None:
        return
    step = d.by_name[name]
    while True:
        state = run.steps.get(name)
        if state is None or not state.queue or (step.workers and state.running >= step.workers):
            return
        deadline = None if step.timeout is None else at + step.timeout
        yield WorkBegun(state.queue[0], at, deadline)


def begin_again(d: Definition, run: Run, work: Work, at: float) -> Entries:
    """Delayed work is due: it takes a worker slot or gets in the queue for one."""
    step = d.by_name[work.step]
    state = run.steps.get(work.step)
    if state is None or not step.workers or (state.running < step.workers and not state.queue):
        yield WorkBegun(work.id, at, None if step.timeout is None else at + step.timeout)
    else:
        yield WorkQueued(work.id, at)

"""What a run did, as plain data that drawings and programs read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from stepwell.values import RunStatus

OUTSIDE = ""
"""In place of a step: where start messages and signals come from, and where results go."""

Way: TypeAlias = tuple[str, str, str]
"""From which step, with which tag, to which step."""

StepStatus: TypeAlias = Literal[
    "done", "running", "queued", "waiting", "retrying", "failed", "stopped"
]


@dataclass(frozen=True, slots=True)
class StepView:
    """How one step fared in a run.

    Attributes:
        status: of its newest unfinished work, or how its work ended. "stopped": the run ended
            while the step was at work.
        attempts: how many attempts began, over all its work.
        count: how many pieces of work it was given.
        seconds: how long its finished work took, from the first attempt to the end; None while the
            journal does not say.
        error: the last error, as `type: message`; "" when there was none.
    """

    status: StepStatus
    attempts: int = 0
    count: int = 0
    seconds: float | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class RunView:
    """What a run did.

    Attributes:
        visited: how often a message with a tag went from one step to another. "" stands for the
            outside: where a run is started and signalled from, and where its result goes.
        steps: how each step fared that was given work.
        emitted: how often a step emitted a tag; less than the sum of `visited` when several steps
            take it.
        status: where the run is.
        error: what it failed with, as `type: message`.
    """

    visited: Mapping[Way, int]
    steps: Mapping[str, StepView]
    emitted: Mapping[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])
    status: RunStatus = RunStatus.QUEUED
    error: str = ""

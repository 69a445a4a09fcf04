"""Failures: every one passes here, is noted, and leads to where it should; and the error steps of
single steps, after which all goes on as without them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from stepwell.authoring.pipeline.build import PipelineBase
from stepwell.authoring.pipeline.context import (
    OWN,
)
from stepwell.authoring.pipeline.handlers import (
    GO,
    PipelineAttempt,
    PipelineHandler,
    Place,
    member_of,
    place_of,
    record_of,
    shared_name,
)
from stepwell.authoring.pipeline.steps import Scope, Step
from stepwell.authoring.program import TypeRegistry
from stepwell.kernel.outcomes import Failure, Goto, Message, Outcome

logger = logging.getLogger("stepwell")


class FailedHandler(PipelineHandler):
    """Notes that a step failed for good, and says what now."""

    __slots__ = ("places",)

    def __init__(self, pipeline: PipelineBase, places: Mapping[str, Place]) -> None:
        super().__init__(pipeline, Place(Scope.NORMAL, None))
        self.places = places

    async def body(
        self, owner: PipelineBase, message: Message, attempt: PipelineAttempt
    ) -> Outcome:
        """To the step's own error step, if it has one; or see `after_failure`."""
        failure = cast(Failure, message.payload)
        place = self.places[failure.step]
        if place.group is not None and failure.step == shared_name(place.group):
            place = replace(place, step=member_of(place, cast(Message, failure.input)))
        step = place.step
        name = failure.step if step is None else step.name
        if step is None and place.group is not None:
            name = place.group.name
        info = failure.error
        record = record_of(owner, attempt.run_id)
        if record is not None:
            record.errors[name] = TypeRegistry(()).exception(info)
        own = dict(cast("Mapping[str, Any]", attempt.values().get(OWN) or {}))
        noted: dict[str, Any] = {
            "scope": place.scope.value,
            "step": name,
            **info.to_json(),
            "attempts": failure.attempts,
            "elapsed": failure.elapsed,
        }
        if step is not None and place.waits_for_all and not step.cont_on_err:
            noted["part"] = True  # its group will say so
        own["failures"] = [*cast("list[Any]", own.get("failures") or []), noted]
        attempt.put({OWN: own})
        level = logging.INFO  # it is raised, or its error steps deal with it
        if place.scope is not Scope.NORMAL:
            level = logging.ERROR
        elif step is not None and step.cont_on_err:
            level = logging.WARNING
        logger.log(
            level,
            "pipeline %s, run %s: %s step %r failed: %s: %s",
            owner.name,
            attempt.run_id,
            place.scope.value,
            name,
            info.type.rpartition(".")[2],
            info.message,
        )
        handler = owner.handlers_of.get(name)
        if handler is not None:
            return Goto(handler.name, Message(GO, None))
        covered = next((c for c, by in owner.handlers_of.items() if by is step), None)
        if covered is None:
            return self.after_failure(owner, attempt, place, name)
        # The error step of one step failed: what it was for has not been dealt with.
        at = place_of(self.places, covered)
        if cast(Step, at.step).cont_on_err:
            return self.after_failure(owner, attempt, replace(place, scope=Scope.NORMAL), name)
        return self.after_failure(owner, attempt, at, covered)


class OwnErrorHandler(PipelineHandler):
    """The error step of one step: afterwards the run goes on, or fails, as without it."""

    __slots__ = ("covered",)

    def __init__(self, pipeline: PipelineBase, place: Place, covered: Place) -> None:
        super().__init__(pipeline, place)
        self.covered = covered

    async def body(
        self, owner: PipelineBase, message: Message, attempt: PipelineAttempt
    ) -> Outcome:
        """Call it; then do what the failed step would have led to."""
        await self.do(owner, attempt)
        covered = cast(Step, self.covered.step)
        return self.after_failure(owner, attempt, self.covered, covered.name)

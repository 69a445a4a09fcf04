"""Steps that run side by side: their beginning, each of them, and the join that brings together
what they gave. Nothing of it is kept before all of them are there."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from typing import Any, cast

from stepwell.authoring.pipeline.build import PipelineBase
from stepwell.authoring.pipeline.handlers import (
    GO,
    PipelineAttempt,
    PipelineHandler,
    Place,
    Record,
    member_of,
    note,
    part_of,
    record_of,
)
from stepwell.authoring.pipeline.steps import Parallel
from stepwell.authoring.program import StepAttempt, TypeRegistry
from stepwell.errors import WorkflowRuntimeError
from stepwell.kernel.outcomes import Emit, Message, Outcome
from stepwell.policy import SeedlessRetryPolicy
from stepwell.values import ErrorInfo


class MemberHandler(PipelineHandler):
    """Calls a step of a parallel group: what it gives goes to the group's join."""

    __slots__ = ()

    def __init__(
        self, pipeline: PipelineBase, place: Place, policy: SeedlessRetryPolicy | None
    ) -> None:
        super().__init__(pipeline, place)
        self.policy = policy

    async def body(
        self, owner: PipelineBase, message: Message, attempt: PipelineAttempt
    ) -> Outcome:
        """Call it; nothing is kept before all of the group are there."""
        step = self.place.step or member_of(self.place, message)
        began = attempt.now()
        ctx = self.context(owner, attempt)
        result = await self.call(step, owner, ctx, attempt)
        changed, deleted = ctx.changes()
        note(owner, attempt, step.name, result, began)
        payload = {"step": step.name, "result": result, "set": changed, "deleted": deleted}
        return Emit((Message(part_of(cast(Parallel, self.place.group)), payload),))


class OpenHandler(PipelineHandler):
    """Begins the steps of a parallel group."""

    __slots__ = ("members",)

    def __init__(self, pipeline: PipelineBase, place: Place, members: tuple[str, ...]) -> None:
        super().__init__(pipeline, place)
        self.members = members

    async def body(
        self, owner: PipelineBase, message: Message, attempt: PipelineAttempt
    ) -> Outcome:
        """One message for each of them, which says which of the group it is for."""
        messages = (Message(GO, n, name) for n, name in enumerate(self.members))
        return Emit(tuple(messages), stream=True)


class JoinHandler(PipelineHandler):
    """Brings the results of a parallel group together."""

    __slots__ = ()

    def begin(
        self, owner: object, message: Message | tuple[Message, ...], attempt: StepAttempt
    ) -> Coroutine[Any, Any, object]:
        """The body, with all the parts."""
        parts = cast("tuple[Message, ...]", message)
        return self.join(cast(PipelineBase, owner), parts, cast(PipelineAttempt, attempt))

    async def join(
        self, owner: PipelineBase, parts: tuple[Message, ...], attempt: PipelineAttempt
    ) -> Outcome:
        """Merge their changes and keep their results, or fail with all that failed."""
        group = cast(Parallel, self.place.group)
        given = [cast("Mapping[str, Any]", part.payload) for part in parts]
        failed = [one for one in given if one.get("failed")]
        if failed:
            record = record_of(owner, attempt.run_id)
            raise _group_error(group, failed, record)
        values = attempt.values()
        merged: dict[str, Any] = {}
        writer: dict[str, str] = {}
        gone: list[str] = []
        results: list[Any] = []
        for one in given:
            name = str(one["step"])
            results.append(one["result"])
            given_set = dict(cast("Mapping[str, Any]", one["set"]))
            if one["result"] is not None:
                given_set[name] = one["result"]
            for key, value in given_set.items():
                if key in writer and key in owner.reducers:
                    merged[key] = owner.reducers[key](merged[key], value)
                elif key in writer:
                    raise WorkflowRuntimeError(
                        f"steps {writer[key]!r} and {name!r} of the parallel group "
                        f"{group.name!r} both set ctx[{key!r}]; set different keys, or say how to "
                        f"join them: Pipeline(reducers={{{key!r}: ...}})"
                    )
                else:
                    merged[key] = value
                writer[key] = name
            gone += [key for key in cast("list[str]", one["deleted"]) if key in values]
        merged[group.name] = results
        if gone:
            attempt.remove(gone)
        attempt.put(merged)
        record = record_of(owner, attempt.run_id)
        if record is not None:
            record.results[group.name] = results
        return self.go(owner, attempt, self.place.after)


def _group_error(
    group: Parallel, failed: list[Mapping[str, Any]], record: Record | None
) -> ExceptionGroup[Exception]:
    errors: list[Exception] = []
    for one in failed:
        live = None if record is None else record.errors.get(str(one["step"]))
        if not isinstance(live, Exception):
            made = TypeRegistry(()).exception(ErrorInfo.from_json(one))
            live = made if isinstance(made, Exception) else RuntimeError(str(made))
        errors.append(live)
    names = ", ".join(str(one["step"]) for one in failed)
    return ExceptionGroup(f"steps of the parallel group {group.name!r} failed: {names}", errors)

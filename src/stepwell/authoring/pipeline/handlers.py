"""What each kind of step of a pipeline does. All of them share one shape: make the context, call
something, put what changed into the run's state, and say where to go next."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from inspect import isawaitable
from typing import Any, Protocol, cast

from stepwell.authoring.pipeline.build import PipelineBase
from stepwell.authoring.pipeline.context import (
    OWN,
    PipelineContext,
    containers_copied,
    deeply_copied,
    model_view,
    take_in,
)
from stepwell.authoring.pipeline.steps import ExecutionMode, Parallel, Scope, Step, is_workflow
from stepwell.authoring.program import StepAttempt, TypeRegistry
from stepwell.errors import WorkflowRuntimeError
from stepwell.kernel.outcomes import Complete, Emit, Fail, Failure, Goto, Message, Outcome
from stepwell.policy import SeedlessRetryPolicy, next_delay
from stepwell.values import ErrorInfo

START = "(start)"
"""The hidden step that puts the fields of a start by name into the context; its message's tag."""

FAILED = "(failed)"
"""The hidden step that every failure passes: it notes the failure and says what now."""

GO = "(go)"
"""The tag of the messages between steps."""

RESULT = "(result)"
"""The tag of the message that a run completes with."""


@dataclass(slots=True)
class Record:
    """What is known of a run in the process that asked for it, beside its state: live errors."""

    results: dict[str, Any] = field(default_factory=dict[str, Any])
    timings: dict[str, float] = field(default_factory=dict[str, float])
    errors: dict[str, BaseException] = field(default_factory=dict[str, BaseException])


class PipelineAttempt(StepAttempt, Protocol):
    """What the handlers of a pipeline ask of an attempt besides."""

    @property
    def run_id(self) -> str:
        """The run."""
        ...

    @property
    def is_durable(self) -> bool:
        """Whether the run is kept in a store."""
        ...

    def now(self) -> float:
        """The time of the run's clock."""
        ...

    def values(self) -> dict[str, Any]:
        """The run's state, by key."""
        ...

    def put(self, values: Mapping[str, Any]) -> None:
        """Change the run's state, with the outcome of this attempt."""
        ...

    def remove(self, keys: list[str]) -> None:
        """Remove keys from the run's state, likewise."""
        ...

    async def ask_signal(self, name: str, timeout: float | None) -> Any:
        """Wait for a signal; its payload."""
        ...

    def idempotency_key(self) -> str:
        """The same for every attempt of this piece of work."""
        ...

    async def run_child(self, workflow: Any, fields: Mapping[str, Any]) -> Any:
        """Run a workflow as a part of this run; its result."""
        ...

    async def call_pooled(
        self, mode: str, func: Callable[..., object], kwargs: Mapping[str, object]
    ) -> object:
        """Run a plain function in the run's pool of threads, or of processes."""
        ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where a step stands: its scope, and what comes after it (None: its scope is done)."""

    scope: Scope
    after: str | None
    step: Step | None = None
    group: Parallel | None = None

    @property
    def waits_for_all(self) -> bool:
        """Whether what fails in this group waits for the others. Clean-up is never cut short."""
        return self.group is not None and (not self.group.fail_fast or self.scope is Scope.EXIT)


class PipelineHandler:
    """What all handlers of a pipeline have in common."""

    __slots__ = ("pipeline", "place", "policy")

    def __init__(self, pipeline: PipelineBase, place: Place) -> None:
        self.pipeline = pipeline
        self.place = place
        self.policy: SeedlessRetryPolicy | None = None if place.step is None else place.step.policy

    @property
    def may_return(self) -> str:
        """A pipeline's steps may return anything."""
        return "anything"

    def begin(
        self, owner: object, message: Message | tuple[Message, ...], attempt: StepAttempt
    ) -> Coroutine[Any, Any, object]:
        """The body."""
        return self.body(
            cast(PipelineBase, owner), cast(Message, message), cast(PipelineAttempt, attempt)
        )

    async def body(
        self, owner: PipelineBase, message: Message, attempt: PipelineAttempt
    ) -> Outcome:
        """What the step does."""
        raise NotImplementedError

    async def do(self, owner: PipelineBase, attempt: PipelineAttempt) -> None:
        """Call the step's function, and keep its result and its changes."""
        step = cast(Step, self.place.step)
        began = attempt.now()
        ctx = self.context(owner, attempt)
        result = await self.call(step, owner, ctx, attempt)
        if result is not None:
            ctx[step.name] = result
        keep(owner, ctx, attempt)
        note(owner, attempt, step.name, result, began)

    def outcome(self, result: object) -> Outcome:
        """The body gives an outcome already."""
        return cast(Outcome, result)

    def retry_after(
        self, error: Exception, attempts: int, elapsed: float, seed: int
    ) -> float | None:
        """As the step's policy says."""
        policy = self.policy
        return None if policy is None else next_delay(policy, elapsed, attempts, error, seed)

    # --- what bodies are made of -----------------------------------------------------------------

    def context(self, owner: PipelineBase, attempt: PipelineAttempt) -> PipelineContext:
        """The context of this attempt."""
        values = attempt.values()
        own = cast("Mapping[str, Any]", values.pop(OWN, None) or {})
        failures = cast("list[Mapping[str, Any]]", own.get("failures") or [])
        shown = None
        if failures:
            shown = shown_failures(failures, record_of(owner, attempt.run_id), set(values))
        copies = None
        if attempt.is_durable:
            copies = deeply_copied
        elif self.place.group is not None:
            copies = containers_copied
        return PipelineContext(values, owner.deps, shown, attempt, copies)

    async def call(
        self, step: Step, owner: PipelineBase, ctx: PipelineContext, attempt: PipelineAttempt
    ) -> Any:
        """What the step's function returns."""
        func = step.func
        if is_workflow(func):
            return await attempt.run_child(func, {})
        arguments: dict[str, Any] = {}
        for parameter in step.parameters:
            if parameter.name in ctx:
                arguments[parameter.name] = ctx[parameter.name]
            elif parameter.required:
                raise WorkflowRuntimeError(
                    f"step {step.name!r} of pipeline {owner.name!r} needs {parameter.name!r}, "
                    f"which is not in the context; it has {', '.join(map(str, ctx)) or 'nothing'}"
                )
        view = None
        if step.takes_ctx:
            if owner.model is not None:
                view = arguments["ctx"] = model_view(owner.model, ctx)
            else:
                arguments["ctx"] = ctx.plain() if step.mode is ExecutionMode.PROCESS else ctx
        if step.mode is ExecutionMode.ASYNC:
            result = await func(**arguments)
        else:
            result = await attempt.call_pooled(step.mode.value, func, arguments)
            if isawaitable(result):  # a plain function that only passes on what an async one gave
                result = await result
        if view is not None:
            take_in(view, ctx)
        return result

    def go(
        self,
        owner: PipelineBase,
        attempt: PipelineAttempt,
        after: str | None,
        scope: Scope | None = None,
    ) -> Outcome:
        """On to the next step, or this was the last one of its scope."""
        if after is not None:
            return Goto(after, Message(GO, None))
        scope = scope or self.place.scope
        values = attempt.values()
        own = cast("Mapping[str, Any]", values.pop(OWN, None) or {})
        if scope is Scope.EXIT:
            for one in cast("list[Mapping[str, Any]]", own.get("failures") or []):
                if one["scope"] == Scope.EXIT.value and not one.get("part"):
                    return failed_with(owner, attempt, one)
        elif scope is Scope.ERROR:
            attempt.put({OWN: {**own, "handled": True}})
        return Complete(Message(RESULT, values))

    def after_failure(
        self, owner: PipelineBase, attempt: PipelineAttempt, place: Place, name: str
    ) -> Outcome:
        """What the failure of a step for good, which is noted, leads to: to the others of its
        group; to the next step, after an exit step or with `cont_on_err`; or its scope fails."""
        step = place.step
        own = cast("Mapping[str, Any]", attempt.values().get(OWN) or {})
        noted = cast("list[Mapping[str, Any]]", own.get("failures") or [])
        this = next(one for one in reversed(noted) if one["step"] == name)
        goes_on = step is not None and step.cont_on_err
        if place.group is not None and step is not None and (goes_on or place.waits_for_all):
            part: dict[str, Any] = {"step": name, "result": None, "set": {}, "deleted": []}
            if not goes_on:
                part |= {"failed": True, "type": this["type"], "message": this["message"]}
            return Emit((Message(part_of(place.group), part),))
        if goes_on or place.scope is Scope.EXIT:
            return self.go(owner, attempt, place.after, place.scope)
        if place.scope is Scope.ERROR:  # what failed the run is what went wrong first
            this = next((one for one in noted if one.get("fatal")), this)
        else:
            noted = [{**one, "fatal": True} if one is this else one for one in noted]
            attempt.put({OWN: {**own, "failures": noted}})
        return failed_with(owner, attempt, this)


class StepHandler(PipelineHandler):
    """Calls one step's function."""

    __slots__ = ()

    async def body(
        self, owner: PipelineBase, message: Message, attempt: PipelineAttempt
    ) -> Outcome:
        """Call it, keep its result and its changes, go on."""
        await self.do(owner, attempt)
        return self.go(owner, attempt, self.place.after)


class BranchHandler(PipelineHandler):
    """Chooses one of two ways."""

    __slots__ = ("condition", "on_false", "on_true", "previous")

    def __init__(
        self,
        pipeline: PipelineBase,
        place: Place,
        condition: Step | None,
        previous: str | None,
        ways: tuple[str | None, str | None],
    ) -> None:
        super().__init__(pipeline, place)
        self.condition = condition
        self.previous = previous
        self.on_true, self.on_false = ways

    async def body(
        self, owner: PipelineBase, message: Message, attempt: PipelineAttempt
    ) -> Outcome:
        """Ask the condition, or look at the result of the step before."""
        ctx = self.context(owner, attempt)
        if self.condition is not None:
            holds = bool(await self.call(self.condition, owner, ctx, attempt))
            keep(owner, ctx, attempt)
        else:
            holds = bool(ctx.get(str(self.previous)))
        return self.go(owner, attempt, self.on_true if holds else self.on_false)


class StartHandler(PipelineHandler):
    """Puts what a run was started with, by name or as a part of another one, into its context."""

    __slots__ = ()

    async def body(
        self, owner: PipelineBase, message: Message, attempt: PipelineAttempt
    ) -> Outcome:
        """The pipeline's own data first, what was given over it."""
        given = cast("Mapping[str, Any]", message.payload or {})
        named = {key: value for key, value in given.items() if not key.startswith("(")}
        attempt.put(owner.beginning(named))
        return self.go(owner, attempt, self.place.after)


def member_of(place: Place, message: Message) -> Step:
    """The step of a group that a message is for."""
    return cast(Parallel, place.group).members[cast(int, message.payload)]


def shared_name(group: Parallel) -> str | None:
    """Steps that share a number of workers have to be one step of the definition: its name."""
    return None if group.max_concurrency is None else f"(steps of {group.name})"


def part_of(group: Parallel) -> str:
    """The tag of what the steps of a group give its join."""
    return f"(part of {group.name})"


def place_of(places: Mapping[str, Place], name: str) -> Place:
    """Where the step of this name stands, in a group or not."""
    for place in places.values():
        if place.step is not None and place.step.name == name:
            return place
        for member in () if place.group is None else place.group.members:
            if member.name == name:
                return replace(place, step=member)
    raise LookupError(name)


def failed_with(owner: PipelineBase, attempt: PipelineAttempt, noted: Mapping[str, Any]) -> Fail:
    """The scope has failed, with a failure that was noted."""
    name = str(noted["step"])
    record = record_of(owner, attempt.run_id)
    live = None if record is None else record.errors.get(name)
    info = ErrorInfo.from_json(noted, live)
    attempts, elapsed = int(noted["attempts"]), float(noted["elapsed"])
    passed = Failure(name, Message(GO, None), info, attempts, elapsed, attempt.now())
    return Fail(info, final=True, passed=passed)


# --- what is noted -------------------------------------------------------------------------------


def record_of(owner: PipelineBase, run_id: str) -> Record | None:
    """What this process notes of the run, if someone here asked for it."""
    return cast("dict[str, Record]", getattr(owner, "records", {})).get(run_id)


def note(
    owner: PipelineBase, attempt: PipelineAttempt, name: str, result: object, began: float
) -> None:
    """A step gave this result."""
    record = record_of(owner, attempt.run_id)
    if record is not None:
        record.results[name] = result
        record.timings[name] = attempt.now() - began


def keep(owner: PipelineBase, ctx: PipelineContext, attempt: PipelineAttempt) -> None:
    """Put what a step changed into the run's state, with its result."""
    changed, deleted = ctx.changes()
    if changed:
        attempt.put(changed)
    if deleted:
        attempt.remove(deleted)


def shown_failures(
    failures: list[Mapping[str, Any]], record: Record | None, taken: set[str]
) -> dict[str, Any]:
    """What steps see of failures in their context, unless a key of their own is in the way."""
    shown: dict[str, Any] = {"error": True}
    for one in failures:
        live = None if record is None else record.errors.get(str(one["step"]))
        if live is None:
            live = TypeRegistry(()).exception(ErrorInfo.from_json(one))
        shown[f"{one['scope']}_error"] = {"step": one["step"], "error": live}
        shown["error_message"] = str(live)
    return {key: value for key, value in shown.items() if key not in taken}

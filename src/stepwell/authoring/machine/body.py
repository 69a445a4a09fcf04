"""One attempt of a step: its Context, and what travels between steps.

What woke a step is merged into the Context when the attempt begins, from what is committed; so an
attempt that fails leaves nothing behind, and the next one begins with the same.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol, cast

from pydantic import BaseModel

from stepwell.authoring.machine.context import current_context, dump, load, merged
from stepwell.authoring.machine.define import Machine, StepInfo
from stepwell.authoring.program import Program, StepAttempt
from stepwell.authoring.words import GO, MOVED, PLAN, START
from stepwell.errors import StoreError, WorkflowRuntimeError
from stepwell.kernel.outcomes import Message, Outcome
from stepwell.values import Json


class MachineAttempt(StepAttempt, Protocol):
    """What the handlers of a state machine ask of an attempt besides."""

    @property
    def run_id(self) -> str:
        """The run."""
        ...

    def now(self) -> float:
        """The time of the run's clock."""
        ...

    def peek(self, key: str) -> Any:
        """What the run's state holds under `key`; None when there is nothing."""
        ...

    def put(self, values: Mapping[str, Any]) -> None:
        """Change the run's state, with the outcome of this attempt."""
        ...

    def know_child(self, program: Program, owner: object) -> None:
        """This attempt is about to start a run of `program`."""
        ...

    def idempotency_key(self) -> str:
        """The same for every attempt of this piece of work."""
        ...

    async def plan_run(
        self, program: Program, owner: object, at: float, plan: Mapping[str, Json]
    ) -> str:
        """Plan the run of the program's schedule for `at`, once; its id."""
        ...


class BrokenRule(WorkflowRuntimeError):
    """A step returned what no step may return: trying it again would not help."""

    __module__ = "stepwell.machine"  # where it is imported from; runs show it by this name


def start_message(
    machine: Machine, context: BaseModel | None, *, event: Json = None, plan: Json = None
) -> Message:
    """What a run begins with: its Context (None: made when its time has come); the event that
    started it; when it is to begin."""
    payload: dict[str, Any] = {}
    if context is not None:
        payload["context"] = dump(context, f"{machine.cls.__name__}.Context")
    if event is not None:
        payload["event"] = event
    if plan is not None:
        payload["plan"] = plan
    return Message(START, payload, machine.start if plan is None else PLAN)


class Begun:
    """One attempt of a method: its instance, its Context, and what it began with."""

    __slots__ = ("attempt", "before", "context", "instance", "machine")

    def __init__(self, machine: Machine, message: Message, attempt: MachineAttempt) -> None:
        self.machine = machine
        self.attempt = attempt
        held = attempt.peek("context")
        what = f"the context of run {attempt.run_id}"
        payload: Any = message.payload
        if message.tag == START:
            self.before: dict[str, Any] | None = None
            self.context = load(machine.context, payload["context"], what)
            if "event" in payload:
                attempt.put({"event": payload["event"]})
        else:
            self.before = cast("dict[str, Any]", held or {})
            if isinstance(payload, Mapping) and message.tag not in (GO, MOVED):
                what = f"the payload of {message.tag!r}"
                self.context = merged(
                    machine.context, self.before, cast("Mapping[str, Any]", payload), what
                )
            else:
                self.context = load(machine.context, self.before, what)
        instance = cast("Callable[[], Any]", machine.cls)()
        instance.context = self.context
        self.instance: Any = instance

    async def call(self, info: StepInfo, arguments: Mapping[str, object]) -> object:
        """What the method returns."""
        token = current_context.set(self.context)
        try:
            method = info.func.__get__(self.instance)
            if info.is_async:
                value = await method(**arguments)
            else:
                value = await self.attempt.call_sync("thread", method, arguments)
        except SystemExit as error:  # would end the loop of the engine, and all runs with it
            raise WorkflowRuntimeError(
                f"step {info.name} of {self.machine.cls.__name__} called sys.exit({error.code!r}); "
                "a step that is to end its run returns complete(...) or fail(...)"
            ) from error
        finally:
            current_context.reset(token)
        if self.instance.context is not self.context:
            self._replace(self.instance.context, info)
        return value

    def _replace(self, context: object, info: StepInfo) -> None:
        """The step has assigned another Context."""
        if not isinstance(context, self.machine.context):
            name = self.machine.cls.__name__
            raise BrokenRule(
                f"step {info.name} of {name} set self.context to {context!r:.80}, which is no "
                f"{name}.Context"
            )
        self.context = context

    def set(self, values: Mapping[str, Any]) -> None:
        """Set those of `values` that the Context declares, checked as any other."""
        known = self.machine.context.model_fields
        mine = {key: value for key, value in values.items() if key in known}
        if mine:
            what = f"the context of {self.machine.cls.__name__}"
            self.context = merged(self.machine.context, dump(self.context, what), mine, what)

    def keep(self, progress: float | None = None) -> None:
        """Commit the Context, as it is now, with the outcome."""
        after = dump(self.context, f"the context of {self.machine.cls.__name__}")
        changes: dict[str, Any] = {}
        if after != self.before:
            changes["context"] = after
        if progress is not None:
            changes["progress"] = progress
        if changes:
            self.attempt.put(changes)


class HiddenStep:
    """A step that the class does not define."""

    __slots__ = ("machine",)

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    @property
    def may_return(self) -> str:
        """Nothing that a user writes."""
        return "nothing"

    def begin(
        self, owner: object, message: Message | tuple[Message, ...], attempt: StepAttempt
    ) -> Coroutine[Any, Any, object]:
        """The body."""
        return self.body(cast(Message, message), cast(MachineAttempt, attempt))

    async def body(self, message: Message, attempt: MachineAttempt) -> Outcome:
        """What the step does."""
        raise NotImplementedError

    def outcome(self, result: object) -> Outcome:
        """The body gives an outcome already."""
        return cast(Outcome, result)

    def retry_after(
        self, error: Exception, attempts: int, elapsed: float, seed: int
    ) -> float | None:
        """Trouble of the store passes; all else would fail again."""
        if isinstance(error, StoreError):
            return min(60.0, 2.0**attempts)
        return None

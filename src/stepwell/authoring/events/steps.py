"""How a step of an event workflow is done: its arguments from what it received, its outcome from
what it returned.

Most steps take one event and return one of a declared type; for these both are a look-up. What a
step returns is trusted only as far as its annotation goes: a bare member of a list that was
declared, or something that is no event, is a mistake, and the error says which.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime
from typing import Any, cast

from stepwell.authoring.events.model import (
    CollectionReleaseEvent,
    Event,
    StepFailedEvent,
    StopEvent,
    WorkflowErrorEvent,
)
from stepwell.authoring.events.signature import EventParam, StepConfig
from stepwell.authoring.events.workflow import WorkflowBase
from stepwell.authoring.program import Execution, StepAttempt, TypeRegistry
from stepwell.errors import WorkflowRuntimeError
from stepwell.kernel.outcomes import Complete, Emit, Failure, Message, Outcome
from stepwell.policy import next_delay

_NOTHING = Emit()


class EventStep:
    """Does one step of an event workflow."""

    __slots__ = (
        "bound",
        "config",
        "context_name",
        "execution",
        "first",
        "func",
        "is_handler",
        "kind",
        "known",
        "loose",
        "member",
        "param",
        "plain",
        "policy",
        "quick",
        "resources",
        "streams",
        "tuple_streams",
        "types",
    )

    def __init__(
        self,
        config: StepConfig,
        types: TypeRegistry,
        *,
        bound: bool,
        known: Mapping[type, str],
        loose: bool,
        streams: bool,
        tuple_streams: bool,
    ) -> None:
        self.config = config
        self.func = cast("Callable[..., Any]", config.func)
        self.types = types
        self.known = known  # the types that the workflow declares; `types` may learn more
        self.bound = bound
        self.loose = loose
        self.param = config.event_params[0].name
        self.kind = config.event_params[0].kind
        self.context_name = config.context_param
        self.resources = config.resources
        self.is_handler = config.is_error_handler
        self.execution: Execution = config.execution
        self.policy = config.retry_policy
        self.streams = streams
        self.tuple_streams = tuple_streams
        # Types that are just emitted, nothing about them having to be looked at; bare ones, too,
        # unless a bare one may be a mistake.
        self.member: dict[type, str] = {
            kind: tag
            for kind, tag in known.items()
            if not loose and not issubclass(kind, WorkflowErrorEvent)
        }
        self.quick: dict[type, str] = {} if streams else self.member
        names = list(inspect.signature(self.func).parameters)
        self.first = names[1:2] == [self.param]
        self.plain = (
            bound
            and config.execution == "async"
            and self.kind == "event"
            and not self.context_name
            and not self.resources
            and not self.is_handler
        )

    @property
    def may_return(self) -> str:
        return "an Event instance"

    def begin(
        self, owner: object, message: Message | tuple[Message, ...], attempt: StepAttempt
    ) -> Coroutine[Any, Any, object]:
        """The user's coroutine, or one that prepares what the function needs around it."""
        if self.plain and type(message) is Message:
            if self.first:
                return self.func(owner, message.payload)
            return self.func(owner, **{self.param: message.payload})
        if self.resources or self.execution != "async":
            return self._around(owner, message, attempt)
        args = self._arguments(message, attempt)
        return self.func(owner, **args) if self.bound else self.func(**args)

    def _arguments(
        self, message: Message | tuple[Message, ...], attempt: StepAttempt
    ) -> dict[str, object]:
        kind = self.kind
        args: dict[str, object]
        if isinstance(message, Message):
            payload = message.payload
            if self.is_handler:
                payload = _failed_event(cast(Failure, payload), self.types)
            args = {self.param: (payload,) if kind == "wrapped" else payload}
        elif kind == "slot":
            params: tuple[EventParam, ...] = self.config.event_params
            args = {p.name: m.payload for p, m in zip(params, message, strict=True)}
        elif kind == "slots":
            args = {self.param: tuple(m.payload for m in message)}
        else:
            args = {self.param: [m.payload for m in message]}
        if self.context_name:
            args[self.context_name] = attempt.context()
        return args

    async def _around(
        self, owner: object, message: Message | tuple[Message, ...], attempt: StepAttempt
    ) -> object:
        args = self._arguments(message, attempt)
        if not self.resources:
            return await self._call(owner, args, attempt)
        async with cast(WorkflowBase, owner).resource_manager.resolution_scope() as scope:
            for resource in self.resources:
                args[resource.name] = await scope.get(resource.descriptor)
            return await self._call(owner, args, attempt)

    async def _call(
        self, owner: object, args: Mapping[str, object], attempt: StepAttempt
    ) -> object:
        func = self.func.__get__(owner) if self.bound else self.func
        if self.execution == "async":
            return await func(**args)
        return await attempt.call_sync(self.execution, func, args)

    def outcome(self, result: object) -> Outcome:
        if result is None:
            return _NOTHING
        kind = type(result)
        tag = self.quick.get(kind)
        if tag is not None:
            return Emit((Message(tag, result),))
        if self.streams:
            if kind is list:
                return self._stream(cast("list[object]", result))
            self._refuse_bare(kind)
        if kind is tuple and self.config.tuple_return:
            results = cast("tuple[object, ...]", result)
            messages = tuple(self._message(m) for m in results if m is not None)
            return Emit(messages, stream=self.tuple_streams)
        message = self._message(result)
        if isinstance(result, StopEvent):
            return Complete(message)
        return Emit((message,))

    def _stream(self, members: list[object]) -> Outcome:
        tags = self.member
        if tags.keys() >= set(map(type, members)):
            return Emit(tuple([Message(tags[type(m)], m) for m in members]), stream=True)
        for member in members:
            if type(member) not in self.known and not isinstance(member, Event):
                raise WorkflowRuntimeError(
                    f"Step function {self.config.name} returned a list containing "
                    f"{type(member).__name__} instead of an Event instance."
                )
        return Emit(tuple([self._message(member) for member in members]), stream=True)

    def _refuse_bare(self, kind: type) -> None:
        """A member of the declared list, alone, is most likely a forgotten pair of brackets."""
        config = self.config
        alone = (*config.bare_returns, *config.tuple_returns)
        if kind in config.list_returns and kind not in alone:
            raise WorkflowRuntimeError(
                f"Step function {config.name} returned a bare {kind.__name__} but its return "
                "annotation only declares it inside a list. Return a one-element list to fan out, "
                "or add the bare type to the annotation."
            )

    def _message(self, result: object) -> Message:
        if isinstance(result, WorkflowErrorEvent):
            raise result.exception
        kind = type(result)
        tag = self.known.get(kind)
        undeclared = tag is None
        if tag is None:
            if not isinstance(result, Event):
                raise WorkflowRuntimeError(
                    f"Step function {self.config.name} returned {kind.__name__} instead of an "
                    "Event instance."
                )
            tag = self.types.add(kind)
        if self.loose or undeclared:
            bases = tuple(self.known[b] for b in kind.__mro__[1:] if b in self.known)
            return Message(tag, result, None, bases)
        return Message(tag, result)

    def retry_after(
        self, error: Exception, attempts: int, elapsed: float, seed: int
    ) -> float | None:
        policy = self.policy
        return None if policy is None else next_delay(policy, elapsed, attempts, error, seed)


def _failed_event(failure: Failure, types: TypeRegistry) -> StepFailedEvent:
    """What an error handler receives."""
    given = failure.input
    # Not validated: the tuple style sends other things than events.
    if isinstance(given, Message):
        event = given.payload
    else:
        event = CollectionReleaseEvent.model_construct(
            events=[m.payload for m in given], stream_id="", binding_id=failure.step
        )
    return StepFailedEvent.model_construct(
        step_name=failure.step,
        input_event=event,
        exception=types.exception(failure.error),
        attempts=failure.attempts,
        elapsed_seconds=failure.elapsed,
        failed_at=datetime.fromtimestamp(failure.failed_at, UTC),
    )

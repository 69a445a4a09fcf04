"""A state machine as a program: each step a `StepDef`, each return an outcome of the kernel.

A run of a state machine is at one place at a time: one piece of work, or one wait. What travels
between steps is an empty message; what woke a wait travels as it came and is merged into the
Context by the step that it leads to. Hidden steps do what no user's step does:

    (complete)   a wait of the last step was answered: merge, and the run is complete
    (plan)       the run is to begin at a later time: wait for it, or for word that it has moved
    (fire)       the time has come: plan the schedule's next run, then begin this one
    (on fail)    the `@on_fail` method, the entry of the error scope

It refuses to know when anything is due, and where the data is kept.
"""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Coroutine, Mapping
from typing import Any, Protocol, cast

from stepwell.authoring.events.serializers import JsonSerializer
from stepwell.authoring.machine import returns
from stepwell.authoring.machine.body import (
    Begun,
    BrokenRule,
    HiddenStep,
    MachineAttempt,
    start_message,
)
from stepwell.authoring.machine.context import (
    dump,
    load,
    merged,
    not_declared,
    plain,
    unexpected,
    unfit,
)
from stepwell.authoring.machine.define import Machine, StepInfo, find_machine
from stepwell.authoring.machine.plan import FireStep, Planner, PlanStep
from stepwell.authoring.machine.scan import lasting
from stepwell.authoring.machine.status import SubflowResult, WorkflowStatus
from stepwell.authoring.program import (
    Ending,
    Handler,
    Program,
    StepAttempt,
    TypeRegistry,
    no_fields,
)
from stepwell.authoring.words import END, FAIL, FIRE, GO, ON_FAIL, PLAN, RESULT, SAID_FAIL, START
from stepwell.errors import (
    InvalidArgument,
    WorkflowNotRegistered,
    WorkflowRuntimeError,
)
from stepwell.kernel.definition import Definition, StepDef
from stepwell.kernel.outcomes import (
    ChildResult,
    Complete,
    Fail,
    Failure,
    Goto,
    Message,
    Outcome,
    Sleep,
    Spawn,
    WaitFor,
)
from stepwell.policy import SeedlessRetryPolicy, next_delay
from stepwell.values import ErrorInfo, Json, RunStatus, derived_id

logger = logging.getLogger("stepwell")


def compile_machine(machine: Machine) -> Program:
    """The program of a state machine."""
    steps = [_step_def(machine, info) for info in machine.steps.values()]
    handlers: dict[str, Handler] = {
        info.name: MachineStep(machine, info) for info in machine.steps.values()
    }
    steps.append(StepDef(END))
    handlers[END] = EndStep(machine)
    steps += (
        StepDef(PLAN, emits=(FIRE,), title=_beginning(machine)),
        StepDef(FIRE, emits=(machine.start,)),
    )
    handlers[PLAN] = PlanStep(machine)
    handlers[FIRE] = FireStep(machine)
    if machine.on_fail is not None:
        steps.append(StepDef(ON_FAIL, title=machine.on_fail.name))
        handlers[ON_FAIL] = FailStep(machine, machine.on_fail)
    definition = Definition(
        name=machine.name,
        version=machine.version,
        steps=tuple(steps),
        start=START,
        entry=None,
        on_error=None if machine.on_fail is None else ON_FAIL,
    )
    return Program(
        definition=definition,
        handlers=handlers,
        types=TypeRegistry((), exceptions=(BrokenRule,)),
        start=lambda fields: start_message(machine, machine.new_context(**fields)),
        result=lambda message: dict(cast("dict[str, Any]", message.payload or {})),
        final=_final,
        failure=TypeRegistry((), exceptions=(BrokenRule,)).exception,
        serializer=JsonSerializer(),
        resident=False,
        shows_state=True,
        admit=lambda message, state: _admit(machine, message, state),
        edit=lambda tag, data, fields: _edited(machine, tag, data, fields),
        schedule=None if machine.schedule is None else Planner(machine, machine.schedule),
        source=machine,
    )


def _step_def(machine: Machine, info: StepInfo) -> StepDef:
    policy = info.options.retry or machine.default_retry
    describe = getattr(policy, "describe", None)
    reach = machine.reach[info.name]
    following = machine.after(info.name)
    ways = [*reach.targets, *([info.name] if reach.again else [])]
    if reach.implicit:
        ways.append(END if following is None else following)
    ways += [{"complete": END, "fail": FAIL}[end] for end in reach.ends]
    return StepDef(
        name=info.name,
        emits=tuple(dict.fromkeys(ways)),
        timeout=info.options.timeout,
        retry=cast("Json", describe()) if callable(describe) else None,
        title=info.options.title,
    )


def _beginning(machine: Machine) -> str:
    """What starts its runs, in words; "" when they are started by hand."""
    if machine.schedule is not None:
        return f"schedule {machine.schedule.cron}, {machine.schedule.timezone}"
    if machine.trigger is None:
        return ""
    offset = machine.trigger.offset
    when = f"{lasting(abs(offset))} {'before' if offset < 0 else 'after'} " if offset else ""
    return f"{when}event {machine.trigger.event}"


# --- handlers ------------------------------------------------------------------------------------


class MachineStep:
    """Does one step: makes the Context, calls the method, and says what its return means."""

    __slots__ = ("info", "machine", "policy")

    def __init__(self, machine: Machine, info: StepInfo) -> None:
        self.machine = machine
        self.info = info
        self.policy: SeedlessRetryPolicy | None = info.options.retry or machine.default_retry

    @property
    def may_return(self) -> str:
        return returns.MAY_RETURN

    def begin(
        self, owner: object, message: Message | tuple[Message, ...], attempt: StepAttempt
    ) -> Coroutine[Any, Any, object]:
        """The body."""
        return self._body(cast(Message, message), cast(MachineAttempt, attempt))

    def outcome(self, result: object) -> Outcome:
        """The body gives an outcome already."""
        return cast(Outcome, result)

    def retry_after(
        self, error: Exception, attempts: int, elapsed: float, seed: int
    ) -> float | None:
        """As the step's `retry`, or the workflow's `default_retry`, says."""
        if isinstance(error, BrokenRule):
            return None
        return (
            None if self.policy is None else next_delay(self.policy, elapsed, attempts, error, seed)
        )

    async def _body(self, message: Message, attempt: MachineAttempt) -> Outcome:
        begun = Begun(self.machine, message, attempt)
        value = await begun.call(self.info, self._argument(message))
        if not isinstance(value, returns.Return):
            raise BrokenRule(
                f"step {self.info.name} of {self.machine.cls.__name__} returned {value!r:.80}; a "
                f"step returns {returns.MAY_RETURN}"
            )
        return await self._outcome(value, begun)

    def _argument(self, message: Message) -> dict[str, object]:
        """The SubflowResult, for a step that takes one."""
        takes = self.info.takes
        if takes is None:
            return {}
        if isinstance(message.payload, ChildResult):
            return {takes: _subflow_result(message.payload)}
        if (
            inspect.signature(self.info.func).parameters[takes].default
            is not inspect.Parameter.empty
        ):
            return {}
        raise BrokenRule(
            f"step {self.info.name} of {self.machine.cls.__name__} takes {takes!r}, the "
            "SubflowResult, and does not come after a run_subflow(...); give it a default, or go "
            "to another step"
        )

    async def _outcome(self, value: returns.Return, begun: Begun) -> Outcome:
        name = self.info.name
        empty = Message(GO, None)
        match value:
            case returns.Goto(step, progress):
                begun.keep(progress)
                return Goto(self._known(step), empty)
            case returns.Sleep(seconds, then):
                begun.keep()
                return Sleep(seconds, name if then is None else self._known(then), empty)
            case returns.Wait(timeout=timeout, on_timeout=late, then=then, where=where):
                following = self.machine.after(name) or END if then is None else self._known(then)
                may_end = following == END or (timeout is not None and late is None)
                late = None if late is None else self._known(late)
                wanted = None if where is None else plain(where, "where")
                begun.keep()
                if may_end:
                    begun.attempt.put({"last": name})
                held = Message(GO, {"from": name})
                return WaitFor(value.tag, held, following, wanted, timeout, late)
            case returns.Subflow(workflow, then, on_create, fields):
                return await self._spawn(workflow, self._known(then), on_create, fields, begun)
            case returns.Done(result):
                begun.set(result)
                given = plain(result, "complete()")
                begun.keep(1.0)
                begun.attempt.put({"last": name})
                return Complete(Message(RESULT, given))
            case returns.Failed(reason):
                begun.keep()
                return Fail(ErrorInfo(SAID_FAIL, reason), final=True)

    async def _spawn(
        self,
        workflow: object,
        then: str,
        on_create: str | None,
        fields: Mapping[str, Any],
        begun: Begun,
    ) -> Outcome:
        child = getattr(workflow, "__stepwell__", None)
        if not isinstance(child, Machine):  # of another style
            child = cast("Startable", workflow() if isinstance(workflow, type) else workflow)
        program = child.compiled()
        message = program.start(fields)
        message.data = program.types.dumps(message.payload, where=message.tag)
        begun.attempt.know_child(program, child)
        id = derived_id(begun.attempt.idempotency_key(), "subflow")[:16]
        if on_create is not None:
            hook = getattr(begun.instance, on_create, None)
            if not callable(hook):
                raise BrokenRule(
                    f"step {self.info.name}: on_create names {on_create!r}, which is no method of "
                    f"{self.machine.cls.__name__}"
                )
            made = hook(id)
            if isinstance(made, Coroutine):
                await cast("Coroutine[Any, Any, object]", made)
        if "active_subworkflow_run_id" in self.machine.context.model_fields:
            begun.set({"active_subworkflow_run_id": id})
        begun.keep()
        return Spawn(
            program.definition.name, message, then, id, Message(GO, {"from": self.info.name})
        )

    def _known(self, step: str) -> str:
        if step not in self.machine.steps:
            raise BrokenRule(
                f"step {self.info.name} of {self.machine.cls.__name__} goes to {step!r}, which is "
                f"no step of it; it has {', '.join(self.machine.steps)}"
            )
        return step


class Startable(Protocol):
    """A workflow of whatever style."""

    def compiled(self) -> Program:
        """Its program."""
        ...


class EndStep(HiddenStep):
    """The run is complete once what woke its last wait is merged into the Context."""

    __slots__ = ()

    async def body(self, message: Message, attempt: MachineAttempt) -> Outcome:
        """Merge, and complete."""
        Begun(self.machine, message, attempt).keep(1.0)
        return Complete(Message(RESULT, {}))


class FailStep(MachineStep):
    """Calls `@on_fail`."""

    __slots__ = ()

    @property
    def may_return(self) -> str:
        return "None"

    async def _body(self, message: Message, attempt: MachineAttempt) -> Outcome:
        failure = cast(Failure, message.payload)
        begun = self._begun(failure.input, attempt)
        error = self.machine.compiled().types.exception(failure.error)
        takes = self.info.takes
        try:
            value = await begun.call(self.info, {} if takes is None else {takes: error})
        except Exception as another:
            raise WorkflowRuntimeError(
                f"{failure.error.message} (and then {self.info.name}, the @on_fail method, raised "
                f"{type(another).__name__}: {another})"
            ) from another
        if value is not None:
            raise BrokenRule(
                f"{self.info.name} of {self.machine.cls.__name__} returned {value!r:.80}; an "
                "@on_fail method returns nothing: the run has failed"
            )
        begun.keep()
        return Complete(Message(RESULT, {}))

    def _begun(self, woke: object, attempt: MachineAttempt) -> Begun:
        """What the failed step had been woken with is merged for this one, too."""
        first = attempt.peek("context") is None
        if isinstance(woke, Message) and (first or woke.tag != START):
            try:
                return Begun(self.machine, woke, attempt)
            except ValueError as error:  # it may be what the step failed of
                if first:
                    raise
                logger.debug("run %s: %s", attempt.run_id, error)
        return Begun(self.machine, Message(GO, None), attempt)


def _subflow_result(ended: ChildResult) -> SubflowResult:
    state = cast("Mapping[str, Any]", ended.state or {})
    context: Any = state.get("context")
    try:
        kind = find_machine(ended.workflow).context
    except WorkflowNotRegistered:
        context = context or dict(state)  # not loaded here, or of another style
    else:
        if context is not None:
            context = load(kind, context, f"the context of subflow {ended.run}")
    payload: Any = None if ended.result is None else ended.result.payload
    dump = getattr(payload, "model_dump", None)
    result: Any = dump(mode="json") if callable(dump) else payload
    error = None if ended.error is None else ended.error.message
    given = dict(cast("Mapping[str, Any]", result)) if isinstance(result, Mapping) else {}
    return SubflowResult(ended.run, WorkflowStatus.of(ended.status), context, error, given)


def _admit(machine: Machine, message: Message, state: Mapping[str, Any]) -> None:
    """A payload that the Context does not allow is refused before it wakes anything."""
    payload, held = message.payload, state.get("context")
    if isinstance(payload, Mapping) and held is not None and not message.tag.startswith("("):
        given = cast("Mapping[str, Any]", payload)
        merged(machine.context, held, given, f"the payload of {message.tag!r}")


def _edited(machine: Machine, tag: str, data: Json, fields: Mapping[str, Json]) -> Json:
    """Other values for the Context that a run began with, or for the payload that woke a step."""
    held: Mapping[str, Json] = data if isinstance(data, Mapping) else {}
    context = held.get("context")
    begins = tag == START and isinstance(context, Mapping)
    if tag.startswith("(") and not begins:
        raise no_fields()
    whose = f"the Context of {machine.name}"
    faults = not_declared(unexpected(machine.context, fields), machine.context, whose)
    if faults:
        raise InvalidArgument("; ".join(faults))
    if not begins:
        if faults := unfit(machine.context, fields):  # what the rest is, the state says later
            raise InvalidArgument("; ".join(faults))
        return {**held, **fields}
    begun = cast("Mapping[str, Any]", context)
    made = merged(machine.context, begun, fields, whose)
    return {**held, "context": dump(made, whose)}


# --- ends ----------------------------------------------------------------------------------------


def _final(ending: Ending) -> object | None:
    """The last item of the run's stream: how it ended, as JSON values."""
    shown: dict[str, Any] = {"status": ending.status.value}
    if ending.status is RunStatus.COMPLETED and ending.result is not None:
        shown["result"] = json.loads(json.dumps(ending.result.payload or {}))
    if ending.error is not None:
        shown["error"] = ending.error.message
    return shown

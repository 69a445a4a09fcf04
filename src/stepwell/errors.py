"""Every error stepwell raises, whose fault it is, and what to do about it.

The theory: an error is read by a person first and by a program second. So each class says
three things besides its message: `code` (a stable word for programs, logs and the API),
`whose` (who can put it right: the `user` who called, the author of the `workflow`, the
`operator` of the store and the machine, or `stepwell` itself), and `hint` (what to do next).

    Exception
    ├── WorkflowValidationError            workflow   the steps do not fit together
    ├── WorkflowConfigurationError         workflow   no start, no stop, no steps
    ├── WorkflowRuntimeError               workflow   a step broke the rules while running
    ├── WorkflowTimeoutError               workflow   the run took longer than allowed
    ├── WorkflowStepDoesNotExistError      user       a step was named that is not there
    ├── WorkflowCancelledByUser            user       the run was cancelled
    ├── WorkflowDone                       stepwell   internal: the run has ended
    ├── ContextSerdeError                  user       a context cannot be saved or loaded
    ├── ContextStateError                  user       a context is used in the wrong place
    └── StepwellError
        ├── RunNotFound                    user       (LookupError)
        ├── RunAlreadyExists               user       (WorkflowRuntimeError, RuntimeError)
        ├── WorkflowNotRegistered          user       (LookupError)
        ├── NoPendingQuestion              user       (LookupError)
        ├── InvalidArgument                user       (ValueError, TypeError)
        ├── DefinitionMismatch             workflow
        ├── UnserializableValue            workflow   (ValueError)
        ├── ValueTooLarge                  workflow   (ValueError)
        ├── UnknownType                    workflow   (ValueError)
        ├── WorkflowFailed                 workflow   (WorkflowRuntimeError)
        ├── UnknownTask                    user       (LookupError)
        ├── DocumentError                  user       (ValueError)
        ├── StepTimeoutError               workflow   (TimeoutError)
        ├── ExecutionRefused               workflow
        ├── ChildFailed                    workflow
        ├── RestoredError                  workflow
        ├── LeaseLost                      operator
        └── StoreError                     operator
            ├── StoreUnavailable
            ├── StoreLocked
            ├── StoreFull
            ├── StoreReadOnly
            ├── StoreCorrupt
            └── StoreVersionError

The nine names above `StepwellError` are the vocabulary of the event style. They stay direct
children of `Exception`, because programs that move here catch them that way.

This module refuses to know about runs, stores and steps: errors carry plain strings and
numbers, so they can be raised, printed, logged and copied to another process anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

__all__ = [
    "ChildFailed",
    "ContextSerdeError",
    "ContextStateError",
    "DefinitionMismatch",
    "DocumentError",
    "ExecutionRefused",
    "InvalidArgument",
    "LeaseLost",
    "NoPendingQuestion",
    "RestoredError",
    "RunAlreadyExists",
    "RunNotFound",
    "StepTimeoutError",
    "StepwellError",
    "StoreCorrupt",
    "StoreError",
    "StoreFull",
    "StoreLocked",
    "StoreReadOnly",
    "StoreUnavailable",
    "StoreVersionError",
    "UnknownTask",
    "UnknownType",
    "UnserializableValue",
    "ValueTooLarge",
    "Whose",
    "WorkflowCancelledByUser",
    "WorkflowConfigurationError",
    "WorkflowDone",
    "WorkflowFailed",
    "WorkflowNotRegistered",
    "WorkflowRuntimeError",
    "WorkflowStepDoesNotExistError",
    "WorkflowTimeoutError",
    "WorkflowValidationError",
]

Whose = Literal["user", "workflow", "operator", "stepwell"]
"""Who can put an error right."""


# --- the vocabulary of the event style -----------------------------------------------------


class WorkflowValidationError(Exception):
    """The steps and events of a workflow do not fit together; raised before anything runs."""

    code = "workflow_invalid"
    whose: Whose = "workflow"


class WorkflowConfigurationError(Exception):
    """The workflow lacks something it cannot do without: steps, a start or a stop event."""

    code = "workflow_misconfigured"
    whose: Whose = "workflow"


class WorkflowRuntimeError(Exception):
    """A step, or the caller of a run, broke a rule that only shows while running."""

    code = "workflow_broke_rule"
    whose: Whose = "workflow"


class WorkflowTimeoutError(Exception):
    """The run was alive for longer than its timeout; the message names the active steps."""

    code = "workflow_timed_out"
    whose: Whose = "workflow"


class WorkflowStepDoesNotExistError(Exception):
    """A step was asked for by a name that the workflow does not have."""

    code = "step_does_not_exist"
    whose: Whose = "user"


class WorkflowCancelledByUser(Exception):
    """The run was cancelled on request; raised to whoever awaits its result."""

    code = "workflow_cancelled"
    whose: Whose = "user"


class WorkflowDone(Exception):
    """Internal: the run has ended and no step may go on."""

    code = "workflow_done"
    whose: Whose = "stepwell"


class ContextSerdeError(Exception):
    """A context could not be turned into data, or not be built from it."""

    code = "context_not_serializable"
    whose: Whose = "user"


class ContextStateError(Exception):
    """A context was asked for something that its present place or state does not allow."""

    code = "context_wrong_state"
    whose: Whose = "user"


# --- ours ------------------------------------------------------------------------------------


class StepwellError(Exception):
    """Base of the errors that say whose fault they are and what to do.

    Args:
        message: what happened, one sentence.
        hint: what to do about it; without it the hint of the class is used.

    Attributes:
        message: as given.
        code: stable identifier for programs.
        whose: who can put it right.
        hint: what to do next; may be empty.

    Example:
        >>> print(StepwellError("The tap is closed.", hint="Open the tap."))
        The tap is closed.
        Open the tap.
    """

    code: str = "stepwell_error"
    whose: Whose = "stepwell"
    hint: str = ""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if hint is not None:
            self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[Callable[..., StepwellError], tuple[object, ...]]:
        # Subclasses take other arguments than the message; copying must not call them again.
        return _rebuild, (type(self), self.args, dict(self.__dict__))


def _rebuild(
    cls: type[StepwellError], args: tuple[object, ...], attributes: dict[str, object]
) -> StepwellError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(attributes)
    return error


class RunNotFound(StepwellError, LookupError):
    """No run has this id.

    Args:
        run_id: the id asked for, or what was asked for besides.
        message: instead of the usual one.
    """

    code = "run_not_found"
    whose = "user"
    hint = "Check the id and the store; finished runs are deleted after their retention time."

    def __init__(self, run_id: str, message: str | None = None) -> None:
        super().__init__(message or f"No workflow run has run_id {run_id!r}.")
        self.run_id = run_id


class RunAlreadyExists(StepwellError, WorkflowRuntimeError, RuntimeError):
    """A run with this id is already there.

    Args:
        run_id: the id that is taken.
    """

    code = "run_already_exists"
    whose: Whose = "user"  # both parents declare it

    def __init__(self, run_id: str) -> None:
        super().__init__(f"Workflow run with run_id '{run_id}' already exists.")
        self.run_id = run_id


class WorkflowNotRegistered(StepwellError, LookupError):
    """The engine was asked for a workflow it was not given.

    Args:
        name: the workflow asked for.
        known: names of the workflows it has.
    """

    code = "workflow_not_registered"
    whose = "user"
    hint = "Register the workflow with the engine before its runs are started or resumed."

    def __init__(self, name: str, known: Iterable[str] = ()) -> None:
        self.name = name
        self.known = tuple(known)
        super().__init__(f"Workflow {name} not found; {_known(self.known)}")


class NoPendingQuestion(StepwellError, LookupError):
    """An answer came for a question that the run is not asking.

    Args:
        run_id: the run that was answered.
        question: id of the question, or None when the answer named none.
    """

    code = "no_pending_question"
    whose = "user"
    hint = "List the pending questions of the run; it may have been answered already."

    def __init__(self, run_id: str, question: str | None = None) -> None:
        asked = (
            "no pending question" if question is None else f"no pending question {question!r:.200}"
        )
        super().__init__(f"Run {run_id!r} has {asked}.")
        self.run_id = run_id
        self.question = question


class InvalidArgument(StepwellError, ValueError, TypeError):
    """A call was given something that it can't work with; nothing was done.

    Args:
        message: what is wrong, one sentence that names the argument.
        hint: what to give instead.
    """

    code = "invalid_argument"
    whose = "user"


class DefinitionMismatch(StepwellError):
    """The code of a workflow no longer fits a run that was started with an older version.

    Args:
        workflow: name of the workflow.
        detail: what does not fit, one clause without a full stop.
        run_id: the run concerned, when it is one run.
    """

    code = "definition_mismatch"
    whose = "workflow"
    hint = "Deploy a version that still has what the run needs, or cancel the run."

    def __init__(self, workflow: str, detail: str, *, run_id: str | None = None) -> None:
        of = "" if run_id is None else f" of run {run_id!r}"
        super().__init__(f"Workflow {workflow!r}{of} does not match its definition: {detail}.")
        self.workflow = workflow
        self.detail = detail
        self.run_id = run_id


class UnserializableValue(StepwellError, ValueError):
    """A value that has to be stored cannot be written as JSON.

    Args:
        path: where the value sits, such as `state.client` or `event.rows.3`.
        type: the type of the value, or its name.
        message: replaces the standard sentence.
    """

    code = "unserializable_value"
    whose = "workflow"
    hint = "Store plain data or a pydantic model; keep clients and connections in resources."

    def __init__(self, path: str, type: type[object] | str, *, message: str | None = None) -> None:
        name = type if isinstance(type, str) else f"{type.__module__}.{type.__qualname__}"
        standard = f"The value at {path!r} has type {name}, which cannot be stored."
        super().__init__(message or standard)
        self.path = path
        self.type = name


class ValueTooLarge(StepwellError, ValueError):
    """A value that has to be stored is larger than the limit.

    Args:
        path: where the value sits.
        size: its size in bytes.
        limit: the largest allowed size in bytes.
    """

    code = "value_too_large"
    whose = "workflow"
    hint = "Put the data in your own storage and keep a reference to it."

    def __init__(self, path: str, size: int, limit: int) -> None:
        super().__init__(f"The value at {path!r} has {size} bytes; the limit is {limit} bytes.")
        self.path = path
        self.size = size
        self.limit = limit


class UnknownType(StepwellError, ValueError):
    """Data names a type that is not among the types it may name.

    Args:
        tag: the name found in the data.
        known: the names that would have been accepted.
        message: replaces the standard sentence.
    """

    code = "unknown_type"
    whose = "workflow"

    def __init__(self, tag: str, known: Iterable[str] = (), *, message: str | None = None) -> None:
        self.tag = tag
        self.known = tuple(known)
        super().__init__(message or f"No type is registered as {tag!r}; {_known(self.known)}")


class WorkflowFailed(StepwellError, WorkflowRuntimeError):
    """A step ended the run with `fail(reason)`.

    Args:
        message: the reason.
    """

    code = "workflow_failed"
    whose: Whose = "workflow"  # both parents declare it


class UnknownTask(StepwellError, LookupError):
    """A document names a task that nobody has registered.

    Args:
        name: the name.
        known: the names of the tasks that there are.
    """

    code = "unknown_task"
    whose = "user"
    hint = "Register it, or name the module that does with --tasks or STEPWELL_TASKS."

    def __init__(self, name: str, known: Iterable[str] = ()) -> None:
        self.name = name
        self.known = tuple(known)
        super().__init__(f"unknown task {name!r}; {_known(self.known)}")


class DocumentError(StepwellError, ValueError):
    """What was given is no workflow document, or one that can't run.

    Args:
        problems: a line for every fault, each with the path of what is wrong.
    """

    code = "bad_document"
    whose = "user"

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class StepTimeoutError(StepwellError, TimeoutError):
    """A step took longer than its own timeout.

    Args:
        step: name of the step.
        timeout: the time it had, in seconds.
        abandoned: whether its function goes on in a thread, which can't be stopped.
    """

    code = "step_timed_out"
    whose = "workflow"

    def __init__(self, step: str, timeout: float, *, abandoned: bool = False) -> None:
        text = f"Step {step!r} timed out after {timeout:g} seconds."
        if abandoned:
            text += " Its thread can't be stopped and goes on; what it returns is ignored."
        super().__init__(text)
        self.step = step
        self.timeout = timeout
        self.abandoned = abandoned


class ExecutionRefused(StepwellError):
    """A step cannot be executed the way it asks for, such as in another process.

    Args:
        step: name of the step.
        execution: the way asked for, `thread` or `process`.
        reason: why not, one clause without a full stop.
    """

    code = "execution_refused"
    whose = "workflow"

    def __init__(self, step: str, execution: str, reason: str) -> None:
        super().__init__(f"Step {step!r} cannot be executed in a {execution}: {reason}.")
        self.step = step
        self.execution = execution
        self.reason = reason


class ChildFailed(StepwellError):
    """A child workflow ended without a result.

    Args:
        run_id: run id of the child.
        status: how it ended: failed, cancelled or timed_out.
        message: the message of its error.
    """

    code = "child_failed"
    whose = "workflow"

    def __init__(self, run_id: str, status: str, message: str = "") -> None:
        tail = f": {message}" if message else "."
        super().__init__(f"Child run {run_id!r} ended as {status}{tail}")
        self.run_id = run_id
        self.status = status
        self.child_message = message


class RestoredError(StepwellError):
    """An exception came back from the journal and its class is not known here.

    Args:
        original_type: qualified name of the class that was raised.
        message: the message it had.
    """

    code = "restored_error"
    whose = "workflow"

    def __init__(self, original_type: str, message: str) -> None:
        super().__init__(f"{original_type}: {message}" if message else original_type)
        self.original_type = original_type
        self.original_message = message


class LeaseLost(StepwellError):
    """This process no longer has the right to advance the run; nothing was committed.

    Args:
        run_id: the run concerned.
    """

    code = "lease_lost"
    whose = "operator"
    hint = "Another worker has taken over and goes on; look for long pauses of this process."

    def __init__(self, run_id: str) -> None:
        super().__init__(f"The lease on run {run_id!r} was lost.")
        self.run_id = run_id


class StoreError(StepwellError):
    """The store could not do what it was asked to do.

    Args:
        message: what happened, one sentence.
        hint: what to do about it.
    """

    code = "store_error"
    whose = "operator"


class StoreUnavailable(StoreError):
    """The store cannot be reached; the same call may succeed later."""

    code = "store_unavailable"
    hint = "Check that the database runs and can be reached; work goes on when it is back."


class StoreLocked(StoreError):
    """Someone else holds the store for longer than we may wait."""

    code = "store_locked"
    hint = "Find the process that keeps the database locked, such as an open transaction."


class StoreFull(StoreError):
    """The store has no room left; nothing was written."""

    code = "store_full"
    hint = "Free disk space or shorten the retention of finished runs."


class StoreReadOnly(StoreError):
    """The store may be read but not written."""

    code = "store_read_only"
    hint = "Check the permissions of the file and its folder, or the role of the database user."


class StoreCorrupt(StoreError):
    """What the store holds cannot be what was written."""

    code = "store_corrupt"
    hint = "Stop writing, keep a copy of the database, and restore from a backup."


class StoreVersionError(StoreError):
    """The store was written by a newer release than this one.

    Args:
        found: schema version in the store.
        supported: newest schema version this release knows.
    """

    code = "store_version"
    hint = "Upgrade stepwell here; older releases never write to a newer store."

    def __init__(self, found: int, supported: int) -> None:
        super().__init__(
            f"The store has schema version {found}; this release supports up to {supported}."
        )
        self.found = found
        self.supported = supported


def _known(names: tuple[str, ...]) -> str:
    return f"known: {', '.join(names)}." if names else "none is known."


_BY_NAME = {
    f"{cls.__module__}.{cls.__qualname__}": cls
    for cls in tuple(globals().values())
    if isinstance(cls, type) and issubclass(cls, Exception)
}


def rebuilt(name: str, text: str) -> Exception | None:
    """One of these errors from its qualified name and the text that it showed; None for others.

    Of its attributes it has `message` and `hint`; the rest was never written down.

    Example:
        >>> error = rebuilt("stepwell.errors.StepTimeoutError", "Step 's' timed out.")
        >>> isinstance(error, TimeoutError), str(error)
        (True, "Step 's' timed out.")
    """
    cls = _BY_NAME.get(name)
    if cls is None or not issubclass(cls, StepwellError):
        return None if cls is None else cls(text)
    hint = cls.hint if cls.hint and text.endswith(f"\n{cls.hint}") else ""
    message = text.removesuffix(f"\n{hint}") if hint else text
    return _rebuild(cls, (message,), {"message": message, "hint": hint})

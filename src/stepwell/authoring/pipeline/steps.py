"""What a pipeline is made of. Plain data: what a step calls, with what, where and how often."""

from __future__ import annotations

import enum
import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol, TypeAlias, cast

from stepwell.policy import SeedlessRetryPolicy, seconds_of
from stepwell.values import Json


class Compiles(Protocol):
    """A workflow of any style, as an instance."""

    def compiled(self) -> Any:
        """Its program."""
        ...


class Scope(enum.StrEnum):
    """When a step runs.

    `NORMAL` steps run in order; `ERROR` steps when a normal step has failed for good; `EXIT` steps
    at the end, however it came to it.
    """

    NORMAL = "normal"
    ERROR = "error"
    EXIT = "exit"


class ExecutionMode(enum.StrEnum):
    """Where a step runs: in the event loop (`async def` always does), a thread, or a process."""

    ASYNC = "async"
    THREAD = "thread"
    PROCESS = "process"


@dataclass(frozen=True, slots=True)
class Again:
    """Try up to `retries` times more, at once.

    Example:
        >>> policy = Again(2)
        >>> [policy.next(0.0, attempts, OSError()) for attempts in (1, 2, 3)]
        [0.0, 0.0, None]
    """

    retries: int

    def next(
        self, elapsed_time: float, attempts: int, error: Exception, *, seed: int | None = None
    ) -> float | None:
        """See `RetryPolicy.next`."""
        return 0.0 if attempts <= self.retries else None

    def describe(self) -> dict[str, Json]:
        """The policy as JSON data."""
        return {"kind": "Again", "retries": self.retries}


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a step that is filled from the context."""

    name: str
    required: bool


class Step:
    """One step of a pipeline: what it calls, and how.

    Args:
        func: a function (`async def` or `def`), a method, or a workflow, whose run is a part of
            this one. Its parameter `ctx` gets the context, each other one the value of its name.
        name: unique in the pipeline; that of the function by default.
        timeout: how long one attempt may take, as a timedelta or in seconds.
        retries: how often it is tried again, at once, after it raised.
        cont_on_err: when it has failed for good, go on with the next step all the same.
        err_step: what is called when it has failed for good: a function or a `Step`.
        execution_mode: `ExecutionMode.THREAD` (the default of plain functions) or `PROCESS`.
        retry_policy: when to try again, instead of `retries`.

    Raises:
        TypeError, ValueError: an argument makes no sense; the text names the step.

    Example:
        >>> def double(n):
        ...     return n * 2
        >>> Step(double, retries=2).name
        'double'
    """

    __slots__ = (
        "cont_on_err",
        "err_step",
        "func",
        "mode",
        "name",
        "named",
        "parameters",
        "policy",
        "takes_ctx",
        "timeout",
    )

    def __init__(
        self,
        func: Any,
        name: str | None = None,
        timeout: timedelta | float | None = None,
        retries: int = 0,
        cont_on_err: bool = False,
        err_step: Callable[..., Any] | Step | None = None,
        execution_mode: ExecutionMode | str | None = None,
        retry_policy: SeedlessRetryPolicy | None = None,
    ) -> None:
        self.named = name is not None
        self.name = name or name_of(func)
        what = f"step {self.name!r}"
        if not isinstance(cast(object, self.name), str) or "(" in self.name:
            raise ValueError(f"{what}: a name is a text without '('")
        if isinstance(cast(object, retries), bool) or not isinstance(cast(object, retries), int):
            raise TypeError(f"{what}: retries is a number, not {retries!r}")
        if retries < 0:
            raise ValueError(f"{what}: retries must be 0 or more, got {retries}")
        if retries and retry_policy is not None:
            raise ValueError(f"{what}: give retries or retry_policy, not both")
        if retry_policy is not None and not callable(getattr(retry_policy, "next", None)):
            raise TypeError(f"{what}: retry_policy has no method next: {retry_policy!r:.80}")
        self.timeout = None if timeout is None else seconds_of(timeout)
        if self.timeout is not None and self.timeout <= 0:
            raise ValueError(f"{what}: timeout must be above 0, got {timeout!r}")
        self.func = func
        self.cont_on_err = bool(cont_on_err)
        self.policy = retry_policy or (Again(retries) if retries else None)
        self.err_step = (
            err_step if err_step is None or isinstance(err_step, Step) else Step(err_step)
        )
        if self.err_step is not None and self.err_step.err_step is not None:
            raise ValueError(f"{what}: an error step has no error step of its own")
        self.mode = _mode(what, func, execution_mode)
        self.takes_ctx, self.parameters = _parameters(what, func)

    def __repr__(self) -> str:
        return f"Step({self.name!r})"


@dataclass(frozen=True, slots=True)
class Parallel:
    """Steps that run at the same time. Their results are the result of the group, in order."""

    name: str
    members: tuple[Step, ...]
    fail_fast: bool = True
    max_concurrency: int | None = None


@dataclass(frozen=True, slots=True)
class Branch:
    """Some steps or some others, as `condition` says."""

    name: str
    condition: Step | None
    on_true: tuple[Node, ...]
    on_false: tuple[Node, ...]


Callee: TypeAlias = Callable[..., Any] | Compiles | Step
"""What can be made a step of: a function, a workflow, or one that is made already."""

Node: TypeAlias = Step | Parallel | Branch
"""One element of a scope."""


def is_workflow(func: object) -> bool:
    """Whether `func` is a workflow (a class of one, or an instance), not a function."""
    return callable(getattr(func, "compiled", None)) or hasattr(func, "__stepwell__")


def name_of(func: object) -> str:
    """What a step that calls `func` is called."""
    inner = func
    while isinstance(inner, functools.partial):
        inner = cast("functools.partial[Any]", inner).func
    if is_workflow(inner) and not isinstance(inner, type):
        return str(getattr(inner, "name", None) or type(inner).__name__)
    found = getattr(inner, "__name__", None) or type(inner).__name__
    if found == "<lambda>":
        raise ValueError("a step that is a lambda needs a name: add_step(..., name='...')")
    return str(found)


def _mode(what: str, func: object, given: ExecutionMode | str | None) -> ExecutionMode:
    mode = None if given is None else ExecutionMode(given)
    inner = func
    while isinstance(inner, functools.partial):
        inner = cast("functools.partial[Any]", inner).func
    if not callable(inner) and not is_workflow(inner):
        raise TypeError(f"{what} takes a function, not {func!r:.80}")
    called = inner if inspect.isroutine(inner) else getattr(inner, "__call__", inner)  # noqa: B004
    if is_workflow(inner) or inspect.iscoroutinefunction(called):
        if mode is ExecutionMode.PROCESS:
            raise ValueError(f"{what} is async: it runs in the event loop, not in a process")
        return ExecutionMode.ASYNC
    if mode is ExecutionMode.ASYNC:
        raise ValueError(f"{what} is a plain function: it runs in a thread or in a process")
    return mode or ExecutionMode.THREAD


def _parameters(what: str, func: Any) -> tuple[bool, tuple[Parameter, ...]]:
    if is_workflow(func):
        return False, ()
    try:
        signature = inspect.signature(func)
    except (ValueError, TypeError):  # written in C without a signature
        return False, ()
    takes_ctx = False
    found: list[Parameter] = []
    for p in signature.parameters.values():
        if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            continue
        if p.kind is p.POSITIONAL_ONLY:
            raise TypeError(f"{what}: parameter {p.name!r} can't be given by name")
        if p.name == "ctx":
            takes_ctx = True
        else:
            found.append(Parameter(p.name, p.default is p.empty))
    return takes_ctx, tuple(found)


def as_steps(items: Sequence[object] | None) -> tuple[Node, ...]:
    """Functions, steps, groups and branches as elements of a scope."""
    return tuple(i if isinstance(i, Step | Parallel | Branch) else Step(i) for i in items or ())

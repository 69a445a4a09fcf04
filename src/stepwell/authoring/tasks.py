"""Tasks: what the tasks of a document do. Classes and functions, found by name in a registry.

A document names tasks; it can never name code. Whoever runs the service says which tasks there are:
by registering them, by naming modules in the settings, or by entry points of installed packages.
"""

from __future__ import annotations

import asyncio
import enum
import inspect
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from stepwell.authoring.strict import few, what_there_is
from stepwell.errors import UnknownTask

F = TypeVar("F", bound=Callable[..., Any])


class TaskStatus(enum.StrEnum):
    """Where a task is."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"


class TaskFailed(Exception):
    """A task said that it failed, without an exception of its own."""

    __module__ = "stepwell.tasks"  # where it is imported from; runs show it by this name


class Task:
    """Base class of tasks. A new object is made for every attempt.

    Subclasses define `execute`. It returns False, or leaves the status at FAILED, when the task
    failed; any other value that is no bool is the task's result. It may raise, too.

    Args:
        name: what documents call it; the class's `name`, or else its own name, by default.

    Attributes:
        name: see above.
        status: where it is; `set_status` changes it.
        params: what the document gives it, references resolved; a `Params` object when the class
            has an inner model `Params`, which checks them.
        context: the data of the run: the results of the tasks before, by place and by id.
        logger: says which task it is.

    Example:
        >>> class Greet(Task):
        ...     async def execute(self):
        ...         return {"text": f"Hello {self.params['name']}"}
        >>> Greet().name
        'Greet'
    """

    name: str
    Params: ClassVar[type[BaseModel] | None] = None

    def __init__(self, name: str | None = None) -> None:
        self.name = name or getattr(type(self), "name", None) or type(self).__name__
        self.status = TaskStatus.PENDING
        self.params: Any = {}
        self.context: Mapping[str, Any] = {}
        self.logger = logging.getLogger(f"stepwell.tasks.{self.name}")

    def set_status(self, status: TaskStatus) -> None:
        """Say where the task is. At the end only FAILED matters."""
        self.status = TaskStatus(status)

    async def execute(self) -> Any:
        """What the task does."""
        raise NotImplementedError(f"task {self.name!r} does not define execute()")


class TaskRegistry:
    """Tasks by name.

    Example:
        >>> registry = TaskRegistry()
        >>> @registry.task("double")
        ... def double(n: int) -> int:
        ...     return 2 * n
        >>> registry.names(), registry.problem("double", {"n": "x"})
        (['double'], "n: Input should be a valid integer, unable to parse string as an integer")
    """

    def __init__(self, others: Mapping[str, type[Task]] | None = None) -> None:
        self._tasks: dict[str, type[Task]] = dict(others or {})

    def register(self, task: type[Task], name: str | None = None) -> None:
        """Let documents name this class.

        Args:
            task: the class; made without arguments for every attempt.
            name: what documents call it; that of a new object by default.

        Raises:
            TypeError: it is no class of tasks.
            ValueError: the name is taken by another class, or has other characters than letters,
                digits, _ and -.
        """
        given = cast(object, task)
        if not (isinstance(given, type) and issubclass(given, Task)):
            raise TypeError(f"register() takes a class derived from Task, not {task!r:.80}")
        known = _checked(name or task().name)
        there = self._tasks.get(known)
        if there is not None and there is not task:
            raise ValueError(f"there is a task {known!r} already: {there.__qualname__}")
        self._tasks[known] = task

    def task(self, name: str | None = None) -> Callable[[F], F]:
        """Let documents name this function: a decorator.

        Its parameters are the task's params, checked by their annotations; one called `context`
        receives the run's data. Plain functions run in a thread.
        """

        def add(function: F) -> F:
            known = _checked(name or function.__name__)
            there = self._tasks.get(known)
            if there is not None:
                raise ValueError(f"there is a task {known!r} already")
            self._tasks[known] = _function_task(known, function)
            return function

        return add

    def names(self) -> list[str]:
        """The names of all tasks, in order."""
        return sorted(self._tasks)

    def __contains__(self, name: str) -> bool:
        return name in self._tasks

    def __iter__(self) -> Iterator[str]:
        return iter(self._tasks)

    def find(self, name: str) -> type[Task]:
        """The class of a task. Raises `UnknownTask`, which names those that are known."""
        found = self._tasks.get(name)
        if found is None:
            raise UnknownTask(name, self.names())
        return found

    def create(self, name: str) -> Task:
        """A new task, for one attempt. Raises `UnknownTask`."""
        made = self.find(name)()
        made.name = name
        return made

    def problem(self, name: str, params: Mapping[str, Any]) -> str | None:
        """What is wrong with params that hold no references, in words; None when nothing is."""
        kind = self.find(name).Params
        if kind is None:
            return None
        try:
            kind.model_validate(dict(params))
        except ValidationError as error:
            return "; ".join(few(_fault(kind, e) for e in error.errors()))
        return None


STEERING = ("timeout", "retry_count", "retry_delay", "priority")
"""Params that steer the engine, and that no task gets."""


def _fault(kind: type[BaseModel], error: Any) -> str:
    where = ".".join(map(str, error["loc"])) or "params"
    if error["type"] != "extra_forbidden" or len(error["loc"]) > 1:
        return f"{where:.200}: {error['msg']}"
    known = (*kind.model_fields, *STEERING)
    return f"{where:.80}: there is no such param; {what_there_is(where, known)}"


def _checked(name: str) -> str:
    """A name that references can go through. Raises ValueError."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,200}", name):
        raise ValueError(f"a task's name has letters, digits, _ and -, not {name!r:.80}")
    return name


def _function_task(name: str, function: Callable[..., Any]) -> type[Task]:
    """A task class that calls a function."""
    fields: dict[str, Any] = {}
    wants_context = False
    for p in inspect.signature(function, eval_str=True).parameters.values():
        if p.kind in (p.VAR_POSITIONAL, p.POSITIONAL_ONLY):
            raise TypeError(f"task {name!r}: parameter {p.name!r} can't be given by name")
        if p.name == "context":
            wants_context = True
        elif p.kind is not p.VAR_KEYWORD:
            annotation = Any if p.annotation is p.empty else p.annotation
            fields[p.name] = (annotation, ... if p.default is p.empty else p.default)
    extra = (
        "allow"
        if any(p.kind is p.VAR_KEYWORD for p in inspect.signature(function).parameters.values())
        else "forbid"
    )
    model = create_model(f"{name}_params", __config__=ConfigDict(extra=extra), **fields)

    class FunctionTask(Task):
        Params = model

        def __init__(self) -> None:
            super().__init__(name)

        async def execute(self) -> Any:
            values = {field: getattr(self.params, field) for field in fields}
            values.update(self.params.__pydantic_extra__ or {})
            if wants_context:
                values["context"] = self.context
            if inspect.iscoroutinefunction(function):
                return await function(**values)
            return await asyncio.to_thread(function, **values)

    FunctionTask.__qualname__ = FunctionTask.__name__ = getattr(function, "__name__", name)
    return FunctionTask


# --- what is there on a fresh install ------------------------------------------------------------


class _Sample(Task):
    """A sample task: says that it ran, and gives its name."""

    async def execute(self) -> Any:
        self.logger.info("runs with %s", self.params)
        return {"task": self.name, "params": dict(self.params)}


class TaskA(_Sample):
    """A sample."""

    name = "task_a"


class TaskB(_Sample):
    """A sample."""

    name = "task_b"


class TaskC(_Sample):
    """A sample."""

    name = "task_c"


class Sleep(Task):
    """Waits for `seconds`, at most a day."""

    name = "sleep"

    class Params(BaseModel):  # pyright: ignore[reportIncompatibleVariableOverride]
        """What it takes."""

        model_config = ConfigDict(extra="forbid")
        seconds: float = Field(ge=0, le=86_400)

    async def execute(self) -> Any:
        await asyncio.sleep(self.params.seconds)
        return {"slept": self.params.seconds}


class Log(Task):
    """Writes `message` to the log of the worker, at `level`."""

    name = "log"

    class Params(BaseModel):  # pyright: ignore[reportIncompatibleVariableOverride]
        """What it takes."""

        model_config = ConfigDict(extra="forbid")
        message: str = Field(max_length=10_000)
        level: str = Field("info", pattern="^(debug|info|warning|error)$")

    async def execute(self) -> Any:
        level = logging.getLevelNamesMapping()[self.params.level.upper()]
        self.logger.log(level, "%s", self.params.message)
        return {"logged": True}


BUILT_IN: Mapping[str, type[Task]] = {kind.name: kind for kind in (TaskA, TaskB, TaskC, Sleep, Log)}
"""The tasks that every registry of a service begins with."""

tasks = TaskRegistry(BUILT_IN)
"""The registry that `@task` fills, and documents use unless they are given another."""


def task(name: str | None = None) -> Callable[[F], F]:
    """Register a function as a task of the default registry; see `TaskRegistry.task`.

    Example:
        >>> @task("doc-double")
        ... async def double(n: int) -> int:
        ...     return 2 * n
        >>> "doc-double" in tasks
        True
    """
    return tasks.task(name)

"""What is known of a class that is a state machine, and the register of all of them.

Every class is filed under its name and version; a second one under the same two is refused, since
the runs of both would be told apart by nothing.
"""

from __future__ import annotations

import gc
import inspect
import random
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

from pydantic import BaseModel

from stepwell.authoring.machine.cron import Schedule
from stepwell.authoring.machine.scan import Reach
from stepwell.authoring.program import Program
from stepwell.errors import WorkflowConfigurationError, WorkflowNotRegistered
from stepwell.policy import SeedlessRetryPolicy, seconds_of
from stepwell.values import Json


def duration_of(value: object, what: str) -> float:
    """A duration as seconds. Raises TypeError or ValueError, naming the argument."""
    try:
        return seconds_of(value)
    except TypeError:
        raise TypeError(f"{what} takes a timedelta, or seconds, not {value!r:.80}") from None
    except ValueError:
        raise ValueError(f"{what} must not be NaN") from None


@dataclass(frozen=True, slots=True)
class Retry:
    """How often, and after how long, a step that raised is tried again.

    The delays are `base_delay`, then each time `backoff_factor` times more, up to `max_delay`.

    Args:
        max_attempts: attempts in all, the first one included; counted for each visit of a step.
        base_delay: before the second attempt; a timedelta, or seconds.
        max_delay: no delay is longer.
        backoff_factor: what each delay is multiplied with to give the next.
        jitter: up to this part of a delay is added to it by chance (0.1: up to a tenth).
        retry_on: the exception types worth another attempt.

    Raises:
        ValueError, TypeError: a number makes no sense.

    Example:
        >>> policy = Retry(max_attempts=4, base_delay=timedelta(seconds=2))
        >>> [policy.next(0.0, n, OSError()) for n in (1, 2, 3, 4)]
        [2.0, 4.0, 8.0, None]
    """

    max_attempts: int = 3
    base_delay: timedelta | float = timedelta(seconds=1)
    max_delay: timedelta | float = timedelta(minutes=5)
    backoff_factor: float = 2.0
    jitter: float = 0.0
    retry_on: type[BaseException] | tuple[type[BaseException], ...] = Exception

    def __post_init__(self) -> None:
        if not isinstance(cast(object, self.max_attempts), int):
            raise TypeError(f"max_attempts takes a whole number, not {self.max_attempts!r:.80}")
        if isinstance(cast(object, self.max_attempts), bool) or self.max_attempts < 1:
            raise ValueError(f"max_attempts must be 1 or more, got {self.max_attempts!r}")
        base, most = (
            duration_of(self.base_delay, "base_delay"),
            duration_of(self.max_delay, "max_delay"),
        )
        if base < 0 or most < 0:
            raise ValueError("base_delay and max_delay must not be negative")
        if self.backoff_factor < 1:
            raise ValueError(f"backoff_factor must be 1 or more, got {self.backoff_factor!r}")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"jitter is a part of the delay, from 0 to 1, got {self.jitter!r}")
        kinds = cast(
            "tuple[object, ...]",
            self.retry_on if isinstance(self.retry_on, tuple) else (self.retry_on,),
        )
        if not all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds):
            raise TypeError(f"retry_on takes exception types, got {self.retry_on!r}")

    def next(
        self, elapsed_time: float, attempts: int, error: Exception, *, seed: int | None = None
    ) -> float | None:
        """Seconds until the next attempt, None to give up; see `RetryPolicy.next`."""
        if attempts >= self.max_attempts or not isinstance(error, self.retry_on):
            return None
        most = seconds_of(self.max_delay)
        try:
            delay = min(seconds_of(self.base_delay) * self.backoff_factor ** (attempts - 1), most)
        except OverflowError:
            delay = most
        if self.jitter:
            delay += delay * self.jitter * random.Random(seed).random()  # noqa: S311 - no secret
        return delay

    def describe(self) -> dict[str, Json]:
        """The policy as JSON data, durations in seconds."""
        kinds = self.retry_on if isinstance(self.retry_on, tuple) else (self.retry_on,)
        return {
            "kind": "Retry",
            "max_attempts": self.max_attempts,
            "base_delay": seconds_of(self.base_delay),
            "max_delay": seconds_of(self.max_delay),
            "backoff_factor": self.backoff_factor,
            "jitter": self.jitter,
            "retry_on": [f"{kind.__module__}.{kind.__qualname__}" for kind in kinds],
        }


@dataclass(frozen=True, slots=True)
class StepOptions:
    """What `@step(...)` was given."""

    retry: SeedlessRetryPolicy | None = None
    start: bool = False
    timeout: float | None = None
    title: str = ""
    visible: bool = True


@dataclass(frozen=True, slots=True)
class StepInfo:
    """A step of a class. `takes` is the name of its one parameter, if it has one."""

    name: str
    func: Callable[..., Any]
    options: StepOptions
    takes: str | None = None

    @property
    def is_async(self) -> bool:
        """Whether it is an `async def`."""
        return inspect.iscoroutinefunction(self.func)


@dataclass(frozen=True, slots=True)
class Trigger:
    """The event that starts runs of a class, and how many seconds after (or before) it."""

    event: str
    offset: float = 0.0


@dataclass(eq=False)
class Machine:
    """A class that was checked: all that is known of it. Found as `cls.__stepwell__`."""

    cls: type
    name: str
    version: str
    context: type[BaseModel]
    steps: Mapping[str, StepInfo]
    start: str
    reach: Mapping[str, Reach]
    compile: Callable[[Machine], Program]
    on_fail: StepInfo | None = None
    default_retry: SeedlessRetryPolicy | None = None
    trigger: Trigger | None = None
    schedule: Schedule | None = None
    program: Program | None = None

    def compiled(self) -> Program:
        """Its program; made once."""
        if self.program is None:
            self.program = self.compile(self)
        return self.program

    def after(self, step: str) -> str | None:
        """The step that is defined next."""
        names = list(self.steps)
        place = names.index(step) + 1
        return names[place] if place < len(names) else None

    def new_context(self, *args: Any, **fields: Any) -> BaseModel:
        """What `create_context` makes of these. Raises what it raises, and TypeError when it makes
        something else."""
        made = cast("Callable[..., object]", getattr(self.cls, "create_context"))(*args, **fields)  # noqa: B009 - added by the decorator
        if not isinstance(made, self.context):
            raise TypeError(
                f"{self.cls.__name__}.create_context() must return {self.cls.__name__}.Context, "
                f"not {type(made).__name__}"
            )
        return made


# --- the register --------------------------------------------------------------------------------

_machines: dict[tuple[str, str], weakref.ref[type]] = {}
_watchers: list[weakref.WeakMethod[Callable[[Machine], None]]] = []


def machines() -> list[Machine]:
    """All state machines that are defined in this process, in the order they were defined."""
    found: list[Machine] = []
    for ref in tuple(_machines.values()):
        cls = ref()
        if cls is not None:
            found.append(machine_of(cls))
    return found


def machine_of(cls: type) -> Machine:
    """What is known of a decorated class. Raises TypeError for one that is not."""
    found = getattr(cls, "__dict__", {}).get("__stepwell__")
    if not isinstance(found, Machine):
        raise TypeError(f"{cls!r} is not decorated with @workflow or @event_workflow")
    return found


def find_machine(name: str, version: str | None = None) -> Machine:
    """The state machine of this name: of this version, or the one defined last.

    Raises:
        WorkflowNotRegistered: there is none; the text is "Workflow X not found" and more.
    """
    found = [m for m in machines() if m.name == name and version in (None, m.version)]
    if not found:
        raise WorkflowNotRegistered(name, sorted({m.name for m in machines()}))
    return found[-1]


def on_definition(watcher: Callable[[Machine], None]) -> None:
    """Call a bound method with every state machine that is defined from now on."""
    _watchers[:] = [ref for ref in _watchers if ref() is not None]
    _watchers.append(weakref.WeakMethod(watcher))


def file(machine: Machine) -> None:
    """Enter a class in the register. Raises WorkflowConfigurationError when its name and version
    are taken."""
    key = (machine.name, machine.version)
    there = _machines.get(key)
    if there is not None and there() is not None:
        gc.collect()  # a class that nobody has any more is still there until this
    other = None if there is None else there()
    if other is not None:
        raise WorkflowConfigurationError(
            f"there is a workflow {machine.name!r} of version {machine.version!r} already: "
            f"{other.__module__}.{other.__qualname__}. Give "
            f"{machine.cls.__module__}.{machine.cls.__qualname__} another name, or another version"
        )
    _machines.pop(key, None)
    _machines[key] = weakref.ref(machine.cls)
    for ref in tuple(_watchers):
        watcher = ref()
        if watcher is not None:
            watcher(machine)

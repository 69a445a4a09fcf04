"""The class that event workflows are written as: its steps, its types, its options.

The theory: everything that can be known of a workflow is known of its *class*: the steps, the
start and stop events, whether it is valid. It is worked out once, kept with the class as a
`Plan`, and thrown away when a step is added or replaced. An instance only holds the options of
one use, so making one costs a few microseconds and it may be made anew for every run.

    class Flow(Workflow)                     types are found in the annotations of the steps
    class Flow(Workflow[Ctx, Start, End])    types are said: the state, the payload, the result

With the types said, an undecorated method `start` is the step that receives the payload, and
`Start` and `End` may be any classes: pydantic models, dataclasses, plain ones.

Steps are methods, found along the inheritance order so that a subclass overrides them by name;
and free functions given to `add_step`, which belong to that one class alone: neither its parents
nor its subclasses nor its siblings see them.

This module refuses to know how a workflow is run. It hands out plain data and bound functions;
`stepwell.workflow` adds `run()`.
"""

from __future__ import annotations

# The metaclass in `plan` and the class here are one thing in two files; what they share is private
# because every public name of theirs would be taken from the workflows of users.
# pyright: reportPrivateUsage=false
import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, cast

from pydantic import BaseModel
from typing_extensions import TypeVar

from stepwell.authoring.events.checks import validate_shape
from stepwell.authoring.events.model import StartEvent
from stepwell.authoring.events.plan import Plan, WorkflowMeta, config_of
from stepwell.authoring.events.resources import (
    ResourceDefinition,
    ResourceManager,
    validate_resource_configs,
    validate_resources,
)
from stepwell.authoring.events.serializers import BaseSerializer
from stepwell.authoring.events.shape import GraphCheck, Shape, parse_graph_checks
from stepwell.authoring.events.signature import StepConfig, StepFunction
from stepwell.authoring.events.starting import make_start_event
from stepwell.authoring.events.state_data import infer_state_type
from stepwell.errors import (
    WorkflowConfigurationError,
    WorkflowValidationError,
)

__all__ = ["BoundStep", "WorkflowBase", "WorkflowMeta"]

logger = logging.getLogger(__name__)

Ctx = TypeVar("Ctx", default=Any)
Start = TypeVar("Start", default=StartEvent)
End = TypeVar("End", default=Any)


@dataclass(frozen=True, slots=True)
class BoundStep:
    """A step of one workflow instance.

    Attributes:
        config: what is known of the step.
        call: the function to call with the step's parameters by name; a method is bound.
        free: a free function, or a static method: it does not take the instance.
    """

    config: StepConfig
    call: Callable[..., Any]
    free: bool


# --- what an instance says ------------------------------------------------------------------------


class WorkflowBase(Generic[Ctx, Start, End], metaclass=WorkflowMeta):
    """The authoring side of an event workflow; `stepwell.Workflow` is this and `run()`.

    Args:
        timeout: seconds a run may be alive, over all its resumptions; None is no limit.
        disable_validation: run without checking that the steps fit together.
        verbose: print what the steps do.
        resource_manager: where resources live; share one between workflows to share resources.
        num_concurrent_runs: how many runs of this instance may be active at once; more wait.
        runtime: what runs it; None is the default of the process.
        workflow_name: the name its runs are stored under; by default module and class name.
        skip_graph_checks: graph checks to leave out: "reachability", "terminal_event",
            "dead_end".
        serializer: how events and state are written; None is the default.

    Raises:
        WorkflowConfigurationError: no steps, or no single start and stop event class.
        WorkflowValidationError: an option has an impossible value.

    Example:
        >>> from stepwell.authoring.events.decorators import step
        >>> from stepwell.authoring.events.model import StopEvent
        >>> class Greeting(WorkflowBase):
        ...     @step
        ...     async def greet(self, ev: StartEvent) -> StopEvent:
        ...         return StopEvent(result=f"Hello {ev.name}")
        >>> Greeting(timeout=5).start_event_class.__name__
        'StartEvent'
    """

    workflow_version: ClassVar[str] = ""
    """Free text of the author's: kept with each run, and shown with it."""

    def __init__(
        self,
        timeout: float | None = 45.0,
        disable_validation: bool = False,
        verbose: bool = False,
        resource_manager: ResourceManager | None = None,
        num_concurrent_runs: int | None = None,
        runtime: Any = None,
        workflow_name: str | None = None,
        skip_graph_checks: Iterable[GraphCheck] | None = None,
        serializer: BaseSerializer | None = None,
    ) -> None:
        cls = type(self)
        cls._current_plan()
        _check_limits(timeout, num_concurrent_runs)
        self._timeout = timeout
        self._disable_validation = disable_validation
        self._verbose = verbose
        self._resource_manager = resource_manager or ResourceManager()
        self._num_concurrent_runs = num_concurrent_runs
        self._runtime = runtime
        self._workflow_name = workflow_name
        self._skip_graph_checks = parse_graph_checks(skip_graph_checks)
        self._serializer = serializer
        self._launched = False

    # --- options ---

    @property
    def timeout(self) -> float | None:
        """Seconds a run may be alive; None is no limit."""
        return self._timeout

    @property
    def verbose(self) -> bool:
        """Whether what the steps do is printed."""
        return self._verbose

    @property
    def resource_manager(self) -> ResourceManager:
        """Where the resources of this workflow live."""
        return self._resource_manager

    @property
    def num_concurrent_runs(self) -> int | None:
        """How many runs of this instance may be active at once; None is no limit."""
        return self._num_concurrent_runs

    @property
    def serializer(self) -> BaseSerializer | None:
        """How events and state are written, as given."""
        return self._serializer

    @property
    def runtime(self) -> Any:
        """What runs it, as given.

        Raises:
            RuntimeError: on setting it after the first run was started.
        """
        return self._runtime

    @runtime.setter
    def runtime(self, runtime: Any) -> None:
        if self._launched:
            raise RuntimeError("Cannot reassign runtime after workflow has been launched")
        self._runtime = runtime

    @property
    def workflow_name(self) -> str:
        """The name its runs are stored under.

        Raises:
            RuntimeError: on setting it after the first run was started.
        """
        cls = type(self)
        return self._workflow_name or f"{cls.__module__}.{cls.__qualname__}"

    @workflow_name.setter
    def workflow_name(self, name: str) -> None:
        if self._launched:
            raise RuntimeError("Cannot change workflow_name after workflow has been launched")
        self._workflow_name = name

    def _lock(self) -> None:
        """The workflow has been launched: its name and its runtime are settled."""
        self._launched = True

    # --- what is known of the class ---

    def _plan_now(self) -> Plan:
        return type(self)._current_plan()

    @property
    def start_event_class(self) -> type[Start]:
        """The class of event, or of payload, that begins a run."""
        return cast("type[Start]", self._plan_now().shape.start)

    @property
    def stop_event_class(self) -> type[Any]:
        """The class of event that ends a run; with said types, `End`."""
        return self._plan_now().shape.stop

    @property
    def events(self) -> list[type[Any]]:
        """Every event class that a step receives or emits, in the order of the source."""
        return list(self._plan_now().events)

    @property
    def state_types(self) -> tuple[type[BaseModel], ...]:
        """The state types that `Ctx` of `Workflow[Ctx, ...]` and `Context[State]` of steps name."""
        return self._plan_now().states

    @property
    def state_type(self) -> type[BaseModel]:
        """The class of a run's state: the most derived of `state_types`.

        Raises:
            ValueError: the named types do not derive from one another.
        """
        return infer_state_type(self.state_types)

    def _step_configs(self) -> Mapping[str, StepConfig]:
        """The steps as data, in the order of the source; the same object until a step changes."""
        return self._plan_now().shape.steps

    def _free_steps(self) -> frozenset[str]:
        """Names of the steps whose functions do not take the instance."""
        return self._plan_now().free

    def _get_steps(self) -> dict[str, BoundStep]:
        """The steps with their callables, bound to this instance.

        They are bound anew at each call: kept, they would hold the instance in a cycle, and
        only the garbage collector could free it.
        """
        plan, functions = self._plan_now(), type(self)._step_functions
        return {
            name: BoundStep(
                config,
                functions[name] if name in functions else getattr(self, name),
                name in plan.free,
            )
            for name, config in plan.shape.steps.items()
        }

    @classmethod
    def add_step(cls, func: StepFunction) -> None:
        """Add a free function as a step of this class, and of this class alone.

        Args:
            func: a function decorated with `@step` or `@catch_error`.

        Raises:
            WorkflowValidationError: it is not decorated, or its name is taken.

        Example:
            >>> from stepwell.authoring.events.decorators import step
            >>> from stepwell.authoring.events.model import StopEvent
            >>> class Flow(WorkflowBase): ...
            >>> @step(workflow=Flow)  # calls Flow.add_step
            ... async def only(ev: StartEvent) -> StopEvent:
            ...     return StopEvent()
            >>> Flow().start_event_class.__name__
            'StartEvent'
        """
        config = config_of(func)
        if config is None:
            raise WorkflowValidationError(
                f"Step function {func.__name__} is missing the `@step` decorator."
            )
        if config.name in cls._step_functions or any(
            method.name == config.name for method, _ in cls._methods()
        ):
            raise WorkflowValidationError(
                f"A step {config.name} is already part of this workflow, please choose another "
                "name."
            )
        cls._check_provisional(config)
        cls._step_functions[config.name] = func
        cls._plan = None

    # --- validation ---

    def _ensure_valid(self) -> bool:
        """Validate before a run: once per class and set of checks, until a step changes."""
        if "_disable_validation" not in self.__dict__:
            raise WorkflowConfigurationError(
                f"{type(self).__qualname__}.__init__() does not call super().__init__()."
            )
        if self._disable_validation:
            return False
        plan = self._plan_now()
        people = plan.valid.get(self._skip_graph_checks)
        if people is None:
            people = validate_shape(plan.shape, self._skip_graph_checks)
            plan.valid[self._skip_graph_checks] = people
        return people

    def validate(
        self, *, validate_resource_configs: bool = True, validate_resources: bool = False
    ) -> bool:
        """Check everything that can be known before running, whatever was checked before.

        Args:
            validate_resource_configs: read the configuration files of resources.
            validate_resources: make every resource once. This runs an event loop of its own, so
                it cannot be asked for where one is running.

        Returns:
            Whether the workflow asks people, or takes their answers.

        Raises:
            WorkflowValidationError: something does not fit; the text says what.
            RuntimeError: `validate_resources` in a running event loop.
        """
        plan = self._plan_now()
        people = validate_shape(plan.shape, self._skip_graph_checks)
        _check_resources(
            plan.shape,
            self._resource_manager,
            configs=validate_resource_configs,
            make=validate_resources,
        )
        plan.valid[self._skip_graph_checks] = people
        return people

    # --- the start event ---

    def _get_start_event_instance(self, start_event: Start | None, **kwargs: Any) -> Start:
        """The event a run begins with: the one given, or one made of the keyword arguments.

        Raises:
            ValueError: what was given is not a start event of this workflow.
            WorkflowRuntimeError: the keyword arguments do not make one.
        """
        wanted = self.start_event_class
        if start_event is None:
            return make_start_event(wanted, kwargs)
        base = StartEvent if issubclass(wanted, StartEvent) else wanted
        for cls in (base, wanted):
            if not isinstance(start_event, cls):
                raise ValueError(
                    f"The 'start_event' argument must be an instance of '{cls.__name__}'."
                )
        if kwargs:
            logger.warning(
                "run() was given a start_event, so its other keyword arguments are ignored: %s",
                ", ".join(kwargs),
            )
        return start_event


def _check_limits(timeout: object, num_concurrent_runs: object) -> None:
    if timeout is not None and (
        isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout >= 0
    ):
        raise WorkflowValidationError(
            f"timeout must be a number of seconds, 0 or more, or None, got {timeout!r}"
        )
    limit = num_concurrent_runs
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise WorkflowValidationError(
            "num_concurrent_runs must be an integer greater than 0 or None"
        )


def _check_resources(shape: Shape, manager: ResourceManager, *, configs: bool, make: bool) -> None:
    resources = {
        name: [ResourceDefinition(r.name, r.descriptor, r.type_annotation) for r in step.resources]
        for name, step in shape.steps.items()
        if step.resources
    }
    if configs:
        validate_resource_configs(resources)
    if make:
        if _in_running_loop():
            raise RuntimeError(
                "validate(validate_resources=True) cannot be called from a running event loop; "
                "call it before the loop starts, or in a thread."
            )
        asyncio.run(validate_resources(resources, manager))


def _in_running_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True

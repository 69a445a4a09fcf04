"""What is known of a workflow class: its steps and types, worked out once and kept with it.

The theory: a class is read in two moments. When it is made, its metaclass takes what only that
moment knows: the type arguments and the undecorated `start` method, with the names around the
class statement. When it is first used, its steps are gathered along the inheritance order into a
`Plan`; that is kept until a step of any workflow class is added or replaced, which is rare enough
to be noticed with one counter for all classes.

This module refuses to know what is right about a workflow beyond its having a start and a stop;
the rules are those of `checks`.
"""

from __future__ import annotations

import sys
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import FrameType, FunctionType, NoneType
from typing import Any, cast

from pydantic import BaseModel

from stepwell.authoring.events.annotations import names_around
from stepwell.authoring.events.checks import check_has_steps, find_start, find_stop
from stepwell.authoring.events.shape import Shape
from stepwell.authoring.events.signature import (
    StepConfig,
    StepFunction,
    context_state,
    inspect_step,
)
from stepwell.errors import WorkflowConfigurationError, WorkflowValidationError

__all__ = ["Plan", "WorkflowMeta", "config_of"]


@dataclass(slots=True)
class Plan:
    """What is known of a workflow class as long as no step is added or replaced."""

    generation: int
    shape: Shape
    free: frozenset[str]
    events: tuple[type[Any], ...]
    states: tuple[type[BaseModel], ...]
    valid: dict[frozenset[str], bool] = field(default_factory=dict[frozenset[str], bool])
    programs: dict[object, Any] = field(default_factory=dict[object, Any])


def config_of(value: object) -> StepConfig | None:
    """The step mark on an attribute of a class."""
    if isinstance(value, (staticmethod, classmethod)):
        value = cast("staticmethod[..., object]", value).__func__
    config = getattr(value, "_step_config", None)
    return config if isinstance(config, StepConfig) else None


def _arguments_of(cls: type[Any]) -> tuple[object, ...]:
    """The three type arguments of a workflow class, followed through generic bases."""
    for base in cls.__dict__.get("__orig_bases__", cls.__bases__):
        origin = typing.get_origin(base) or base
        if isinstance(origin, WorkflowMeta):
            given = dict(zip(origin.__parameters__, typing.get_args(base), strict=False))
            inherited = origin._type_arguments  # pyright: ignore[reportPrivateUsage] # see below
            return tuple(given.get(argument, argument) for argument in inherited)
    return getattr(cls, "__parameters__", ())  # the root class: nothing is given


def _as_class(argument: object, workflow: str) -> type[Any] | None:
    """The class a type argument stands for; None when it says nothing."""
    if argument is Any or argument is NoneType or isinstance(argument, typing.TypeVar):
        return None
    cls = typing.get_origin(argument) or argument
    if not isinstance(cls, type):
        raise WorkflowConfigurationError(
            f"The type arguments of workflow '{workflow}' must be classes, got {argument!r}."
        )
    return cls


class WorkflowMeta(type):
    """Makes workflow classes: reads their type arguments and entry step, keeps their steps."""

    _type_arguments: tuple[object, ...]
    """State, start and end type as given; type variables where nothing was given."""

    _generation = 0  # of all classes together: a change of one also concerns its subclasses
    _step_functions: dict[str, StepFunction]
    _entry: StepConfig | None
    _plan: Plan | None
    __parameters__: tuple[object, ...]

    def __init__(
        cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: Any
    ) -> None:
        super().__init__(name, bases, namespace, **options)
        cls._step_functions = {}
        cls._plan = None
        cls._type_arguments = _arguments_of(cls)
        cls._entry = cls._read_entry(namespace, sys._getframe(1))  # pyright: ignore[reportPrivateUsage] # the documented way to see the scopes around a definition
        for value in namespace.values():
            if (config := config_of(value)) is not None:
                if isinstance(value, classmethod):
                    raise WorkflowValidationError(
                        f"Step '{config.name}' is a class method; a step is a method of the "
                        "instance, or a static method."
                    )
                cls._check_provisional(config)

    def __setattr__(cls, name: str, value: object) -> None:
        if config_of(value) or config_of(cls.__dict__.get(name)):
            WorkflowMeta._generation += 1
        super().__setattr__(name, value)

    def __delattr__(cls, name: str) -> None:
        if config_of(cls.__dict__.get(name)):
            WorkflowMeta._generation += 1
        super().__delattr__(name)

    def _declared(cls, index: int) -> type[Any] | None:
        return _as_class(cls._type_arguments[index], cls.__name__)

    def _read_entry(cls, namespace: Mapping[str, Any], frame: FrameType) -> StepConfig | None:
        """Read an undecorated `start` method of a class whose types are said."""
        func = namespace.get("start")
        start, end = cls._declared(1), cls._declared(2)
        if start is None or not isinstance(func, FunctionType) or config_of(func) is not None:
            return None
        if func.__code__.co_argcount < 2:
            return None  # a helper that receives nothing is not the entry
        scopes = names_around(func, frame)
        scopes = ({**scopes[0], **namespace}, scopes[1])
        declared = (start,) if end is None else (start, end)
        config = inspect_step(func, scopes=scopes, declared=declared)
        if config.accepted_events != (start,):
            raise WorkflowConfigurationError(
                f"The start method of workflow '{cls.__name__}' must receive its declared start "
                f"type {start.__name__}."
            )
        return replace(config, is_entry=True)

    def _check_provisional(cls, config: StepConfig) -> None:
        """Refuse what the decorator let through because it might be the declared start type."""
        if any(event is not cls._declared(1) for event in config.provisional):
            raise WorkflowValidationError(
                "Step signature must have at least one parameter annotated as type Event "
                f"(step '{config.name}' of workflow '{cls.__name__}')"
            )

    def _methods(cls) -> Iterator[tuple[StepConfig, bool]]:
        """The steps among the attributes, and whether each is a static method."""
        found: dict[str, tuple[StepConfig, bool] | None] = {}
        for owner in reversed(cls.__mro__):
            for name, value in vars(owner).items():
                config = config_of(value)
                if config is None and name == "start" and isinstance(owner, WorkflowMeta):
                    config = owner._entry
                if config is not None:
                    static = isinstance(value, staticmethod)
                    func = cast(StepFunction, value.__func__ if static else value)
                    # The attribute counts: it may have another name, or a wrapper around it.
                    found[name] = (replace(config, name=name, func=func), static)
                elif name in found:
                    found[name] = None  # overridden by something that is no step
        yield from (step for step in found.values() if step is not None)

    def _current_plan(cls) -> Plan:
        """The plan of this class, made now if there is none or a step has changed since.

        Raises:
            WorkflowConfigurationError: there are no steps, or no single start and stop class.
        """
        plan = cls._plan
        if plan is None or plan.generation != WorkflowMeta._generation:
            plan = cls._plan = cls._make_plan()
        return plan

    def _make_plan(cls) -> Plan:
        steps: dict[str, StepConfig] = {}
        free: set[str] = set(cls._step_functions)
        for config, static in cls._methods():
            steps[config.name] = config
            if static:
                free.add(config.name)
        for name, func in cls._step_functions.items():
            steps[name] = cast(StepConfig, config_of(func))
        check_has_steps(cls.__name__, steps)
        start = find_start(cls.__name__, steps, cls._declared(1))
        stop = find_stop(cls.__name__, steps, cls._declared(2))
        events: dict[type[Any], None] = {}
        for config in steps.values():
            events.update(dict.fromkeys(config.accepted_events))
            events.update(dict.fromkeys(config.produced_events))
        return Plan(
            WorkflowMeta._generation,
            Shape(cls.__name__, steps, start, stop),
            frozenset(free),
            tuple(events),
            cls._find_states(steps),
        )

    def _find_states(cls, steps: Mapping[str, StepConfig]) -> tuple[type[BaseModel], ...]:
        """The state types that the class and its steps name; `Context[State]` names State."""
        said = cls._type_arguments[0]
        is_context, state = context_state(said)
        if not is_context:
            state = cls._declared(0)
        found: list[type[BaseModel]] = []
        for named in (state, *(config.state_type for config in steps.values())):
            if named is None:
                continue
            if not issubclass(named, BaseModel):
                raise WorkflowConfigurationError(
                    f"The state of workflow '{cls.__name__}' must be a pydantic model, got "
                    f"{named.__name__}."
                )
            found.append(named)
        return tuple(dict.fromkeys(found))

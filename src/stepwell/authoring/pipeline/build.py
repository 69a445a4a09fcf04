"""Adding steps to a pipeline, one after the other, and checking that they fit together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self, cast

from pydantic import BaseModel

from stepwell.authoring.pipeline.context import OWN, containers_copied
from stepwell.authoring.pipeline.steps import (
    Branch,
    Callee,
    ExecutionMode,
    Node,
    Parallel,
    Scope,
    Step,
    as_steps,
    is_workflow,
)
from stepwell.errors import WorkflowConfigurationError
from stepwell.policy import SeedlessRetryPolicy, seconds_of

if TYPE_CHECKING:
    from stepwell.authoring.program import Program


class Dep:
    """Marks a value of a context that is no data: it is there for the steps, and never kept.

    Args:
        value: the client, gateway, connection.

    Example:
        >>> Dep(print).value is print
        True
    """

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class PipelineBase:
    """A pipeline without a way to run: what it is made of. `stepwell.pipeline.Pipeline` runs.

    Args:
        ctx: the data that every run begins with: a dictionary, or a model (then it is checked).
            A value marked `Dep(...)` is a dependency.
        name: what runs are filed under; the class's name by default.
        timeout: seconds a run may take before its exit steps begin; or a timedelta.
        deps: values that are no data, by name; or a function that makes them.
        reducers: for keys that several steps of a parallel group may set: a function of two values
            that makes one.
        types: further classes that values of the context may have, so that they can be read back.
        version: of the pipeline; kept with each run.
    """

    def __init__(
        self,
        ctx: Mapping[str, Any] | BaseModel | None = None,
        *,
        name: str | None = None,
        timeout: timedelta | float | None = None,
        deps: Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None = None,
        reducers: Mapping[str, Callable[[Any, Any], Any]] | None = None,
        types: Sequence[type] = (),
        version: str = "",
    ) -> None:
        self.name = name or type(self).__name__
        self.version = version
        self.timeout = None if timeout is None else seconds_of(timeout)
        if self.timeout is not None and self.timeout <= 0:
            raise ValueError(f"timeout must be above 0, got {timeout!r}")
        self.model: type[BaseModel] | None = type(ctx) if isinstance(ctx, BaseModel) else None
        given: dict[str, Any]
        if isinstance(ctx, BaseModel):
            given = {**(ctx.__pydantic_extra__ or {}), **ctx.__dict__}
        else:
            given = dict(ctx or {})
        self._given_deps = deps
        self._made_deps: dict[str, Any] | None = None
        self._marked = {k: v.value for k, v in given.items() if isinstance(v, Dep)}
        self.initial = {k: v for k, v in given.items() if not isinstance(v, Dep)}
        if OWN in self.initial:
            raise ValueError(f"the key {OWN!r} of ctx is the pipeline's own")
        self.reducers = dict(reducers or {})
        self.types = tuple(types)
        self.scopes: dict[Scope, list[Node]] = {scope: [] for scope in Scope}
        self.handlers_of: dict[str, Step] = {}
        self._names: set[str] = set()
        self._program: Program | None = None

    @property
    def deps(self) -> Mapping[str, Any]:
        """What is no data, by name; made when first asked for."""
        if self._made_deps is None:
            given = self._given_deps
            made = given() if callable(given) else given
            self._made_deps = {**(made or {}), **self._marked}
        return self._made_deps

    def beginning(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The data that a run begins with: the pipeline's own, and over it what was given.

        Each run has lists and dictionaries of its own.

        Raises:
            ValueError: a value is for a dependency, or for what belongs to the pipeline itself.
            pydantic.ValidationError: the context is a model, and they don't fit it.
        """
        for key, value in given.items():
            if key in self.deps or isinstance(value, Dep):
                raise ValueError(
                    f"{key!r} is a dependency of pipeline {self.name!r}: dependencies are given "
                    "to the pipeline, not to its runs"
                )
        if OWN in given:
            raise ValueError(f"the key {OWN!r} of ctx is the pipeline's own")
        values = {**containers_copied(self.initial), **given}
        return values if self.model is None else dict(self.model.model_validate(values))

    # --- adding ----------------------------------------------------------------------------------

    def add_step(
        self,
        func: Callee,
        scope: Scope | str = Scope.NORMAL,
        name: str | None = None,
        timeout: timedelta | float | None = None,
        retries: int = 0,
        cont_on_err: bool = False,
        err_step: Callable[..., Any] | Step | None = None,
        execution_mode: ExecutionMode | str | None = None,
        retry_policy: SeedlessRetryPolicy | None = None,
    ) -> Self:
        """Add a step at the end of a scope.

        Args:
            func: what to call; see `Step` for this and all others.
            scope: when it runs.
            name: what it is called; its result is found under it in the context.
            timeout, retries, cont_on_err, err_step, execution_mode, retry_policy: see `Step`.

        Returns:
            The pipeline, so that calls can be chained.

        Raises:
            TypeError, ValueError: an argument makes no sense.
            WorkflowConfigurationError: there is a step of this name.
        """
        step = func
        if not isinstance(step, Step):
            step = Step(
                func, name, timeout, retries, cont_on_err, err_step, execution_mode, retry_policy
            )
        return self._add(Scope(scope), step)

    def step(self, func: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        """`add_step` as a decorator: `@pipeline.step(retries=2)`, or `@pipeline.step`."""

        def add(function: Callable[..., Any]) -> Callable[..., Any]:
            self.add_step(function, **options)
            return function

        return add if func is None else add(func)

    def add_error_step(
        self,
        func: Callee,
        name: str | None = None,
        timeout: timedelta | float | None = None,
        retries: int = 0,
        step_func: Callable[..., Any] | str | None = None,
    ) -> Self:
        """Add a step that runs when a normal step has failed for good.

        Args:
            func, name, timeout, retries: see `Step`.
            step_func: the one step (its function or name) whose failure this is for; it runs before
                the error steps for all.

        Raises:
            WorkflowConfigurationError: the pipeline has no step `step_func`.
        """
        step = func if isinstance(func, Step) else Step(func, name, timeout, retries)
        if step_func is None:
            return self._add(Scope.ERROR, step)
        covered = self._find(step_func)
        if covered.name in self.handlers_of:
            raise WorkflowConfigurationError(
                f"step {covered.name!r} has the error step {self.handlers_of[covered.name].name!r}"
            )
        self._take(step)
        self.handlers_of[covered.name] = step
        return self

    def add_exit_step(
        self,
        func: Callee,
        name: str | None = None,
        timeout: timedelta | float | None = None,
        retries: int = 0,
    ) -> Self:
        """Add a step that runs at the end, however it came to it; see `Step` for the arguments."""
        step = func if isinstance(func, Step) else Step(func, name, timeout, retries)
        return self._add(Scope.EXIT, step)

    def add_parallel_steps(
        self,
        steps: Sequence[Callee] | str,
        name: Sequence[Callee] | str | None = None,
        execution_mode: ExecutionMode | str | None = ExecutionMode.THREAD,
        scope: Scope | str = Scope.NORMAL,
        timeout: timedelta | float | None = None,
        retries: int = 0,
        max_concurrency: int | None = None,
        fail_fast: bool = True,
    ) -> Self:
        """Add steps that run at the same time.

        The result of each is found under its own name, and all of them, in the order given, as a
        list under the group's. None of them sees what the others change.

        Args:
            steps: the functions or `Step`s (this and `name` may change places).
            name: what the group is called.
            execution_mode: where plain functions among them run.
            scope: when they run.
            timeout, retries: of each; see `Step`.
            max_concurrency: how many run at once; None: all.
            fail_fast: the first failure stops the others. False waits for all, and then fails with
                an ExceptionGroup; as exit steps always do, since clean-up is not cut short.

        Raises:
            TypeError, ValueError: an argument makes no sense.
            WorkflowConfigurationError: there is a step of one of these names.
        """
        if isinstance(steps, str):
            steps, name = cast("Sequence[Callee]", name or ()), steps
        group = name if isinstance(name, str) else f"parallel_{len(self._names) + 1}"
        if "(" in group:
            raise ValueError(f"parallel group {group!r}: a name is a text without '('")
        if not steps:
            raise ValueError(f"parallel group {group!r} has no steps")
        if max_concurrency is not None and max_concurrency < 1:
            raise ValueError(f"max_concurrency must be 1 or more, got {max_concurrency}")
        members: list[Step] = []
        for item in steps:
            if isinstance(item, Step):
                members.append(item)
                continue
            plain = ExecutionMode(execution_mode) if execution_mode else None
            made = Step(item, None, timeout, retries)
            if made.mode is not ExecutionMode.ASYNC:
                made = Step(item, None, timeout, retries, execution_mode=plain)
            members.append(made)
        if max_concurrency is not None and len({(m.timeout, m.policy) for m in members}) > 1:
            raise ValueError(
                f"parallel group {group!r}: with max_concurrency all its steps have one timeout "
                "and one retry policy"
            )
        return self._add(Scope(scope), Parallel(group, tuple(members), fail_fast, max_concurrency))

    def add_cond_step(
        self,
        on_true_steps: Sequence[Callee] | Callee | None,
        on_false_steps: Sequence[Callee] | Callee | None = None,
        scope: Scope | str = Scope.NORMAL,
        condition: Callable[..., Any] | None = None,
        name: str | None = None,
    ) -> Self:
        """Go on with some steps or with others.

        Args:
            on_true_steps: what runs when the condition holds.
            on_false_steps: what runs when it does not.
            scope: when.
            condition: a function like any step's; what it returns counts. Without it, the result
                of the step before does.
            name: what the choice is called.

        Raises:
            WorkflowConfigurationError: there is no condition and no step before.
        """
        scope = Scope(scope)
        if condition is None and not (
            self.scopes[scope] and isinstance(self.scopes[scope][-1], Step | Parallel)
        ):
            raise WorkflowConfigurationError(
                "a conditional step needs a condition, or a step before it whose result counts"
            )
        title = name or f"choice_{len(self._names) + 1}"
        if "(" in title:
            raise ValueError(f"conditional step {title!r}: a name is a text without '('")
        asked = None if condition is None else Step(condition, title)
        branch = Branch(title, asked, _listed(on_true_steps), _listed(on_false_steps))
        return self._add(scope, branch)

    def add_node(self, scope: Scope, node: Node) -> Self:
        """Add a step, a group or a branch that is made already, at the end of a scope."""
        return self._add(scope, node)

    # --- checks ----------------------------------------------------------------------------------

    def _add(self, scope: Scope, node: Node) -> Self:
        self._take(node)
        self.scopes[scope].append(node)
        return self

    def _take(self, node: Node) -> None:
        """Take the names of a node and of all that is in it, or of none of them."""
        if self._program is not None:
            raise WorkflowConfigurationError(
                f"pipeline {self.name!r} has been run: its steps can't be changed any more"
            )
        added: set[str] = set()
        handlers: dict[str, Step] = {}
        for one in walk([node]):
            self._name(one, added)
            if isinstance(one, Step) and one.err_step is not None:
                self._name(one.err_step, added)
                handlers[one.name] = one.err_step
        self._names |= added
        self.handlers_of |= handlers

    def _name(self, node: Node, added: set[str]) -> None:
        """Names must differ; the second step of one function gets a number."""
        if isinstance(node, Step) and not node.named:
            plain, number = node.name, 1
            while node.name in self._names or node.name in added:
                number += 1
                node.name = f"{plain}_{number}"
        if node.name in self._names or node.name in added:
            raise WorkflowConfigurationError(
                f"pipeline {self.name!r} has two steps called {node.name!r}; give one of them "
                "another name"
            )
        added.add(node.name)

    def _find(self, target: Callable[..., Any] | str) -> Step:
        for step in self.steps():
            if step.name == target or step.func == target:
                return step
        raise self._unknown(target)

    def _unknown(self, target: Callable[..., Any] | str) -> WorkflowConfigurationError:
        said = target if isinstance(target, str) else getattr(target, "__name__", target)
        return WorkflowConfigurationError(f"pipeline {self.name!r} has no step {said!r}")

    def steps(self) -> list[Step]:
        """All its steps, those in groups and branches and the error steps of one step too."""
        found = [n for nodes in self.scopes.values() for n in walk(nodes) if isinstance(n, Step)]
        return found + list(self.handlers_of.values())


def _listed(steps: object) -> tuple[Node, ...]:
    if steps is None:
        return ()
    if callable(steps) or isinstance(steps, Step) or is_workflow(steps):
        return as_steps([steps])
    return as_steps(cast("Sequence[object]", steps))


def walk(nodes: Sequence[Node]) -> list[Node]:
    """These nodes and all that is in them."""
    found: list[Node] = []
    for node in nodes:
        found.append(node)
        if isinstance(node, Parallel):
            found += node.members
        elif isinstance(node, Branch):
            found += walk(node.on_true) + walk(node.on_false)
    return found

"""What a step gets as `ctx`: a dictionary of its own, whose changes are kept when it succeeds.

The theory: each attempt works on a copy of the dictionary, and what it set, deleted or changed in
place is put into the run's state with its result. Where that matters (in durable runs, and in steps
that run side by side) the values are copied, too, as they are read: then an attempt that fails has
changed nothing, no step sees what its neighbours do, and what is in the journal is what later steps
see. Other steps in memory share what they read, so that big data costs nothing to pass on.

Values that are no data (dependencies) are there to be read, and are no part of the state.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

from pydantic import BaseModel

_ATOMS = (str, int, float, bool, bytes, type(None))

OWN = "(pipeline)"
"""Where the state keeps what belongs to the pipeline itself."""


class Asking(Protocol):
    """What a context asks of its attempt."""

    async def ask_signal(self, name: str, timeout: float | None) -> Any:
        """Wait for a signal; its payload."""
        ...

    def idempotency_key(self) -> str:
        """The same for every attempt of this piece of work."""
        ...

    async def run_child(self, workflow: Any, fields: Mapping[str, Any]) -> Any:
        """Run a workflow as a part of this run; its result."""
        ...


class PipelineContext(dict[str, Any]):
    """The data of a run, as one step sees it. A dictionary, and a little more."""

    __slots__ = ("_attempt", "_copied", "_copies", "_deleted", "_deps", "_hidden", "_set")

    def __init__(
        self,
        values: Mapping[str, Any],
        deps: Mapping[str, Any] | None = None,
        shown: Mapping[str, Any] | None = None,
        attempt: Asking | None = None,
        copies: Callable[[Any], Any] | None = None,
    ) -> None:
        super().__init__({**values, **(shown or {}), **(deps or {})})
        self._attempt = attempt
        self._deps = frozenset(deps or ())
        self._hidden = self._deps | frozenset(shown or ())
        # What makes copies of values, and what was copied: the value that it was at first.
        self._copies = copies
        self._copied: dict[str, Any] = {}
        # Dictionaries for their order: what is kept is kept in the order it was done.
        self._set: dict[str, None] = {}
        self._deleted: dict[str, None] = {}

    # --- what is more ----------------------------------------------------------------------------

    async def wait_for_signal(self, name: str, timeout: float | None = None) -> Any:
        """Wait, for days if need be, until the run is sent this signal; returns its payload.

        Args:
            name: the signal's name.
            timeout: seconds to wait at most.

        Raises:
            TimeoutError: it did not come in time.
            RuntimeError: called outside of a step, or in a thread or a process.
        """
        return await self._asking("wait_for_signal").ask_signal(name, timeout)

    async def run_child(self, workflow: Any, /, **fields: Any) -> Any:
        """Run a workflow of any style as a part of this run; its result.

        Args:
            workflow: what to run.
            **fields: what it starts with.

        Raises:
            ChildFailed: it was cancelled, or its error can't be raised here.
            Exception: what it failed with.
            RuntimeError: called outside of a step, or in a thread or a process.
        """
        return await self._asking("run_child").run_child(workflow, fields)

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt of this step in this run, and for no other."""
        if self._attempt is None:
            raise RuntimeError("ctx.idempotency_key: the step runs in a process")
        return self._attempt.idempotency_key()

    def _asking(self, call: str) -> Asking:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError(f"ctx.{call}() works inside of async steps only") from None
        if self._attempt is None:
            raise RuntimeError(f"ctx.{call}() works inside of steps only")
        return self._attempt

    # --- a dictionary that notes what happens to it ----------------------------------------------

    def __setitem__(self, key: str, value: Any) -> None:
        if key in self._deps:
            raise TypeError(f"ctx[{key!r}] is a dependency of the pipeline: it can't be changed")
        super().__setitem__(key, value)
        self._set[key] = None
        self._deleted.pop(key, None)

    def __delitem__(self, key: str) -> None:
        if key in self._deps:
            raise TypeError(f"ctx[{key!r}] is a dependency of the pipeline: it can't be deleted")
        super().__delitem__(key)
        self._set.pop(key, None)
        self._deleted[key] = None

    def __getitem__(self, key: str) -> Any:
        value = super().__getitem__(key)
        if (
            self._copies is None
            or type(value) in _ATOMS
            or key in self._set
            or key in self._copied
            or key in self._hidden
        ):
            return value
        self._copied[key] = value
        value = self._copies(value)
        super().__setitem__(key, value)
        return value

    def get(self, key: str, default: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The value under `key`, or `default`."""
        if key not in self:
            return default
        return self[key]

    def pop(self, key: str, *default: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Remove a key and give its value."""
        if key in self or not default:
            value = self[key]
            del self[key]
            return value
        return default[0]

    def popitem(self) -> tuple[str, Any]:
        """Remove the key that was added last."""
        key = next(reversed(self))
        return key, self.pop(key)

    def setdefault(self, key: str, default: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The value under `key`, set to `default` when there is none."""
        if key not in self:
            self[key] = default
        return self[key]

    def update(self, *args: Any, **kwargs: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Set several values."""
        given: dict[str, Any] = dict(*args, **kwargs)
        for key, value in given.items():
            self[key] = value

    def __ior__(self, other: Any) -> PipelineContext:  # pyright: ignore[reportIncompatibleMethodOverride, reportIncompatibleVariableOverride]
        self.update(other)
        return self

    def clear(self) -> None:
        """Remove all keys."""
        for key in tuple(self):
            del self[key]

    def values(self) -> Any:
        """All values."""
        self._copy_all()
        return super().values()

    def items(self) -> Any:
        """All keys with their values."""
        self._copy_all()
        return super().items()

    def copy(self) -> dict[str, Any]:
        """A plain dictionary of it."""
        self._copy_all()
        return dict(self)

    def _copy_all(self) -> None:
        if self._copies is not None:
            for key in tuple(self):
                self[key]

    # --- for the engine --------------------------------------------------------------------------

    def changes(self) -> tuple[dict[str, Any], list[str]]:
        """What was set or changed in place, and what was deleted."""
        plain = super().__getitem__
        found = {
            key: plain(key)
            for key, before in self._copied.items()
            if key in self and key not in self._set and not same(before, plain(key))
        }
        found |= {key: plain(key) for key in self._set}
        return found, list(self._deleted)

    def plain(self) -> dict[str, Any]:
        """A plain dictionary of its data, for another process."""
        plain = super().__getitem__
        return {key: plain(key) for key in self if key not in self._deps}

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[dict[str, Any]]]:
        return PipelineContext, (self.plain(),)


def same(before: Any, after: Any) -> bool:
    """Whether a value is what it was. What can't be compared counts as changed.

    Example:
        >>> same([1, {"a": 2}], [1, {"a": 2}]), same([1], [True])
        (True, False)
    """
    kind = cast("type[Any]", type(before))
    if before is after or kind is not type(after):
        return before is after
    if kind is list or kind is tuple:
        return len(before) == len(after) and all(map(same, before, after))
    if kind is dict:
        return list(before) == list(after) and all(map(same, before.values(), after.values()))
    try:
        return bool(before == after)
    except Exception:  # whatever a user's `==` raises
        return False


def containers_copied(value: Any) -> Any:
    """A copy of plain containers, and of those in them; all else is shared.

    Example:
        >>> shared = object()
        >>> copied = containers_copied({"list": [1, shared]})
        >>> copied["list"][1] is shared
        True
    """
    kind = cast("type[Any]", type(value))
    if kind is list:
        items = cast("list[Any]", value)
        return [i if type(i) in _ATOMS else containers_copied(i) for i in items]
    if kind is dict:
        pairs = cast("dict[Any, Any]", value).items()
        return {k: v if type(v) in _ATOMS else containers_copied(v) for k, v in pairs}
    return set(cast("set[Any]", value)) if kind is set else value


deeply_copied = copy.deepcopy
"""A copy of all that is in a value; of what can be kept, that can be made."""


def model_view(model: type[BaseModel], ctx: PipelineContext) -> BaseModel:
    """The context as a model, for pipelines whose context is one; checked by it."""
    names = set(model.model_fields)
    if model.model_config.get("extra") == "allow":
        names |= ctx.keys()
    return model.model_validate({name: ctx[name] for name in ctx if name in names})


def take_in(view: BaseModel, ctx: PipelineContext) -> None:
    """What a step changed in the model that it got. Raises pydantic's ValidationError when the
    model does not allow it."""
    values = {**view.__dict__, **(view.__pydantic_extra__ or {})}
    checked = type(view).model_validate(values)
    for name in values:
        value = getattr(checked, name)
        if name not in ctx or not same(ctx[name], value):
            ctx[name] = value

"""What a step gets as `ctx`: a dictionary of its own, whose changes are kept when it succeeds.

The theory: each attempt works on a copy of the data (of the dictionary, not of what is in it), and
what it set, deleted or touched is put into the run's state with its result. So an attempt that
fails changes nothing, steps that run side by side do not see each other's changes, and what is in
the journal is what later steps see. In memory nothing is written down, and a list that a step
appends to is the same list everywhere.

Values that are no data (dependencies) are there to be read, and are no part of the state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

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


class PipelineContext(dict[str, Any]):
    """The data of a run, as one step sees it. A dictionary, and a little more."""

    __slots__ = ("_attempt", "_deleted", "_hidden", "_set", "_touched")

    def __init__(
        self, values: Mapping[str, Any], hidden: Iterable[str] = (), attempt: Asking | None = None
    ) -> None:
        super().__init__(values)
        self._attempt = attempt
        self._hidden = frozenset(hidden)
        # Dictionaries for their order: what is kept is kept in the order it was done.
        self._set: dict[str, None] = {}
        self._deleted: dict[str, None] = {}
        self._touched: dict[str, None] = {}

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

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt of this step in this run, and for no other."""
        return self._asking("idempotency_key").idempotency_key()

    def _asking(self, call: str) -> Asking:
        if self._attempt is None:
            raise RuntimeError(f"ctx.{call} works inside of async steps only")
        return self._attempt

    # --- a dictionary that notes what happens to it ----------------------------------------------

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        self._set[key] = None
        self._deleted.pop(key, None)

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        self._set.pop(key, None)
        self._deleted[key] = None

    def __getitem__(self, key: str) -> Any:
        value = super().__getitem__(key)
        if type(value) not in _ATOMS:
            self._touched[key] = None
        return value

    def get(self, key: str, default: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The value under `key`, or `default`."""
        if key not in self:
            return default
        return self[key]

    def pop(self, key: str, *default: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Remove a key and give its value."""
        if key in self or not default:
            value = super().__getitem__(key)
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
        self._touch_all()
        return super().values()

    def items(self) -> Any:
        """All keys with their values."""
        self._touch_all()
        return super().items()

    def _touch_all(self) -> None:
        values = super().items()
        self._touched.update({key: None for key, value in values if type(value) not in _ATOMS})

    # --- for the engine --------------------------------------------------------------------------

    def changes(self, durable: bool) -> tuple[dict[str, Any], list[str]]:
        """What was set, and what was deleted. When the run is durable, what was only read may have
        been changed in place, and is given, too."""
        keys = self._set | self._touched if durable else self._set
        plain = super().__getitem__
        found = {key: plain(key) for key in keys if key in self and key not in self._hidden}
        return found, [key for key in self._deleted if key not in self._hidden]

    def plain(self) -> dict[str, Any]:
        """A plain dictionary of it, for another process."""
        return {key: super(PipelineContext, self).__getitem__(key) for key in self}

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[dict[str, Any]]]:
        return PipelineContext, (self.plain(),)


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
        if type(value) not in _ATOMS or name not in ctx or ctx[name] is not value:
            ctx[name] = value

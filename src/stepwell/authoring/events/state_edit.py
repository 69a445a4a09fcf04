"""What a store of state is to its users, and one write to it; how values are copied and compared.

This module refuses to know how a state is kept: a write knows its store, and asks it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from pydantic import BaseModel

from stepwell import patch as patches
from stepwell.authoring.events.serializers import BaseSerializer
from stepwell.authoring.events.state_path import MISSING, put_field, remove_field

if TYPE_CHECKING:
    from stepwell.authoring.events.state_store import InMemoryStateStore

StateT = TypeVar("StateT", bound=BaseModel)
ATOMS = (str, int, float, bool, bytes, type(None))


@runtime_checkable
class StateStore(Protocol[StateT]):
    """What steps and handlers do with the state of a run; `InMemoryStateStore` says how."""

    @property
    def state_type(self) -> type[StateT]:
        """The class of the state."""
        ...

    async def get_state(self) -> StateT:
        """Return a shallow copy of the state."""
        ...

    async def set_state(self, state: StateT) -> None:
        """Replace the state, or merge a state of a parent type into it."""
        ...

    async def get(self, path: str, default: Any = ...) -> Any:
        """Return the value at a dotted path."""
        ...

    async def set(self, path: str, value: Any) -> None:
        """Set the value at a dotted path."""
        ...

    async def clear(self) -> None:
        """Set all fields to their defaults."""
        ...

    def edit_state(self) -> AbstractAsyncContextManager[StateT]:
        """Change several values at once, alone."""
        ...

    def to_dict(self, serializer: BaseSerializer) -> dict[str, Any]:
        """Return the state as data."""
        ...


class StateEdit:
    """One write: the top-level fields it changed, before and after (`MISSING`: not there).

    Attributes:
        before: old values by field name.
        after: new values by field name.
        owner: whoever made it, as the observer says; None: nobody in particular.
        numbers: which of its owner's writes of each field it is, as the observer says.
    """

    __slots__ = ("__weakref__", "_store", "after", "before", "numbers", "owner")

    def __init__(
        self, store: InMemoryStateStore[Any], before: dict[str, object], after: dict[str, object]
    ) -> None:
        self._store = store
        self.before = before
        self.after = after
        self.owner: object = None
        self.numbers: dict[str, int] = {}

    def patch(self, serializer: BaseSerializer | None = None) -> list[dict[str, Any]]:
        """Return the JSON patch of this write, and take it as journaled.

        It is empty for fields that are settled already.

        For several writes, `InMemoryStateStore.patch` encodes each field only once.

        Raises:
            ValueError: a value cannot be written; the message names its key.
        """
        return self._store.patch([self], serializer)

    def __repr__(self) -> str:
        return f"StateEdit(before={self.before!r}, after={self.after!r})"


def put_value(state: BaseModel, key: str, value: Any) -> None:
    if value is MISSING:
        remove_field(state, key)
    else:
        put_field(state, key, value)


def copied(values: Mapping[str, Any]) -> dict[str, Any]:
    """Deep copies that keep what they share among each other; what cannot be copied is shared."""
    memo: dict[int, Any] = {}
    copies: dict[str, Any] = {}
    for key, value in values.items():
        try:
            copies[key] = copy.deepcopy(value, memo)
        except TypeError:  # locks, clients, sockets
            copies[key] = value
    return copies


def differs(old: Any, new: Any) -> bool:
    if isinstance(old, (dict, list, *ATOMS)):
        try:
            return not patches.same(old, new)
        except (TypeError, ValueError):  # something inside has no plain equality
            return True
    try:
        return type(old) is not type(new) or not bool(old == new)
    except (TypeError, ValueError):  # such as arrays, whose equality is an array
        return True

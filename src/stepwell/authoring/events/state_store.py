"""The state of a run: read and written by its steps, undone with a failed attempt, journaled.

The theory: a state is a set of top-level fields. Every write makes new values for the fields it
changes and leaves the old ones as they were (containers along a path are copied, `edit_state`
works on a copy). So one write is fully said by its `StateEdit`: for each changed field the value
before and after. Undoing it is putting the old values back; journaling it is the JSON patch from
what was journaled last to what is now.

What the journal holds (`encoded()`) and what steps see are two things. Edits of attempts that
have not ended are seen at once by everybody, and are not in the journal yet. Where edits of one
field overlap, the later one wins in both: an edit that was overwritten by one journaled before
it adds nothing, and undoing an edit that was overwritten keeps the later value.

Whoever sets `observer` is told of every write, and settles each edit in one of two ways:
`edit.patch(...)` when the attempt succeeded, `store.revert(edit)` when it failed. Without an
observer nothing is kept. Whoever sets `made` is asked before every write of a field whether it has
been made in an earlier life, and is in what the journal holds: then it is left out.

Reading never waits. A store that nobody touches holds no state, no lock and no history.

This module refuses to know runs, attempts and journals.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import Any, Generic, cast

from pydantic import BaseModel, ValidationError

from stepwell import patch as patches
from stepwell.authoring.events.naming import qualified_name
from stepwell.authoring.events.serializers import BaseSerializer, JsonSerializer
from stepwell.authoring.events.state_data import (
    DictState,
    StateCheckpoint,
    decode_fields,
    deserialize_state_from_dict,
    encode_fields,
    state_to_dict,
)
from stepwell.authoring.events.state_edit import (
    ATOMS,
    StateEdit,
    StateT,
    copied,
    differs,
    put_value,
)
from stepwell.authoring.events.state_lock import EditLock
from stepwell.authoring.events.state_path import (
    MISSING,
    fields_of,
    find,
    get_field,
    put_field,
    replaced,
    split_path,
)

_FREE = nullcontext()  # nobody has ever edited: writers need no lock


class InMemoryStateStore(Generic[StateT]):
    """A state in memory.

    Args:
        initial_state: the state; without it a new one is made when it is first needed.
        state_type: class of the state; default the class of `initial_state`, or `DictState`.
        serializer: writes values for `encoded`, `patch` and `checkpoint`.

    Attributes:
        observer: called with every `StateEdit`, right after the write.
        made: called with the name of a field before it is written; True leaves the write out.

    Example:
        >>> async def count():
        ...     store = InMemoryStateStore(DictState())
        ...     await store.set("pages.seen", 1)
        ...     async with store.edit_state() as state:
        ...         state.pages["seen"] += 1
        ...     return await store.get("pages.seen")
        >>> import asyncio
        >>> asyncio.run(count())
        2
    """

    __slots__ = (
        "__weakref__",
        "_encoded",
        "_journaled",
        "_lock",
        "_open",
        "_serializer",
        "_state",
        "_type",
        "made",
        "observer",
    )

    def __init__(
        self,
        initial_state: StateT | None = None,
        *,
        state_type: type[StateT] | None = None,
        serializer: BaseSerializer | None = None,
    ) -> None:
        self.observer: Callable[[StateEdit], None] | None = None
        self.made: Callable[[str], bool] | None = None
        self._state = initial_state
        self._type = state_type
        self._serializer = serializer
        self._encoded: dict[str, Any] | None = None  # the state as long as nobody has read it
        self._journaled: dict[str, Any] | None = None  # what the journal holds, by field
        self._open: dict[str, deque[weakref.ref[StateEdit]]] | None = None  # unsettled, in order
        self._lock: EditLock | None = None  # from the first `edit_state` on

    @property
    def state_type(self) -> type[StateT]:
        """The class of the state."""
        if self._type is None:
            state: Any = self._state
            self._type = cast("type[StateT]", DictState if state is None else type(state))
        return self._type

    def _live(self) -> StateT:
        if self._state is None:
            if self._encoded is not None:
                encoded, self._encoded = self._encoded, None
                try:
                    self._state = decode_fields(self.state_type, encoded, self._writer())
                except BaseException:
                    self._encoded = encoded
                    raise
            else:
                self._state = self._fresh()
        return self._state

    def _fresh(self) -> StateT:
        try:
            return self.state_type()
        except ValidationError as error:
            raise ValueError("State must have defaults for all fields") from error

    def _writer(self, serializer: BaseSerializer | None = None) -> BaseSerializer:
        if self._serializer is None:
            self._serializer = JsonSerializer()
        return serializer or self._serializer

    # --- reading ------------------------------------------------------------------------------

    async def get_state(self) -> StateT:
        """Return a shallow copy of the state; give it to `set_state` to keep changes of it."""
        return self._live().model_copy()

    async def get(self, path: str, default: Any = ...) -> Any:
        """Return the value at a dotted path: keys, list indexes, fields and attributes.

        Args:
            path: such as `orders.0.id`; empty for the whole state.
            default: returned when nothing is there.

        Raises:
            ValueError: nothing is there and no default was given, or the path is too long.
        """
        segments = split_path(path)
        if not segments:
            return self._live().model_copy()
        value = find(self._live(), segments)
        if value is not MISSING:
            return value
        if default is ...:
            raise ValueError(f"Path '{path}' not found in state")
        return default

    def peek(self, key: str) -> Any:
        """Return the value under a top-level key, None when nothing is there. For the engine."""
        value = get_field(self._live(), key)
        return None if value is MISSING else value

    def values(self) -> dict[str, Any]:
        """Return all top-level values, by key. For the engine."""
        return fields_of(self._live())

    # --- writing ------------------------------------------------------------------------------

    def put(self, values: Mapping[str, Any]) -> None:
        """Set top-level values, at once. For the engine: it waits for no `edit_state`."""
        self._commit(values)

    async def set(self, path: str, value: Any) -> None:
        """Set the value at a dotted path; missing dicts on the way are made.

        Containers on the way are copied: who got one of them before keeps it unchanged.

        Raises:
            ValueError: the path is empty, too long, or leads through something that has no
                parts; or the state has no such field.
            RuntimeError: called inside `edit_state`.
        """
        if not path:
            raise ValueError("Path cannot be empty")
        segments = split_path(path)
        async with self._lock or _FREE:
            head, rest = segments[0], segments[1:]
            if rest:
                value = replaced(get_field(self._live(), head), rest, value)
            self._commit({head: value})

    async def set_state(self, state: BaseModel) -> None:
        """Replace the state by one of the same type, or merge in the fields of a parent type.

        Raises:
            ValueError: it is of neither type.
            RuntimeError: called inside `edit_state`.
        """
        async with self._lock or _FREE:
            cls, given = self.state_type, type(state)
            after: dict[str, Any] = fields_of(state)
            if isinstance(state, cls):
                after = {**dict.fromkeys(fields_of(self._live()), MISSING), **after}
                self._commit(after, state.model_copy())
            elif issubclass(cls, given):
                self._commit(after)
            else:
                raise ValueError(
                    f"State must be of type {cls.__name__} or a parent type, got {given.__name__}"
                )

    async def clear(self) -> None:
        """Set all fields to their defaults and drop all other values.

        Raises:
            ValueError: a field has no default.
            RuntimeError: called inside `edit_state`.
        """
        async with self._lock or _FREE:
            fresh = self._fresh()
            after = {**dict.fromkeys(fields_of(self._live()), MISSING), **fields_of(fresh)}
            self._commit(after, fresh)

    @asynccontextmanager
    async def edit_state(self) -> AsyncGenerator[StateT]:
        """Change several values at once: `async with store.edit_state() as state: ...`.

        The block gets a deep copy (values that cannot be copied are shared). Its changes become
        the state when the block ends; when it raises, they are dropped. Other writers wait.

        Raises:
            RuntimeError: entered inside another `edit_state` of this store.
        """
        if self._lock is None:
            self._lock = EditLock()
        async with self._lock.block():
            old = fields_of(self._live())
            state = self._live().model_copy()
            for key, value in copied(old).items():
                put_field(state, key, value)
            yield state
            new = fields_of(state)
            gone: dict[str, Any] = dict.fromkeys(old.keys() - new.keys(), MISSING)
            changed = {k: v for k, v in new.items() if k not in old or differs(old[k], v)}
            if gone or changed:
                self._commit(gone | changed)

    def _commit(self, after: Mapping[str, Any], new_state: StateT | None = None) -> None:
        """Make a write: these fields, or as a whole the state that has them."""
        state = self._live()
        if self.made is not None and (made := set(filter(self.made, after))):
            after = {key: value for key, value in after.items() if key not in made}
            for key in made if new_state is not None else ():
                put_value(cast(StateT, new_state), key, get_field(state, key))
        before = {key: get_field(state, key) for key in after}
        if new_state is not None:
            self._state = state = new_state
        else:
            for key, value in after.items():
                put_value(state, key, value)
        if self.observer is None:
            if self._journaled:  # the journal was not told
                for key in after:
                    self._journaled.pop(key, None)
            return
        changed: dict[str, object] = {}
        for key, old in before.items():
            new = get_field(state, key)  # assignment may have converted it
            # The same object may have been changed in place; only for atoms it says nothing.
            if new is not old or not (new is MISSING or isinstance(new, ATOMS)):
                changed[key] = new
        if changed:
            edit = StateEdit(self, {key: before[key] for key in changed}, changed)
            self._track(edit)
            self.observer(edit)

    # --- edits: journaled or undone -----------------------------------------------------------

    def _track(self, edit: StateEdit) -> None:
        if self._open is None:
            self._open = {}
        for key in edit.after:
            edits = self._open.setdefault(key, deque())
            while edits and edits[0]() is None:
                edits.popleft()
            edits.append(weakref.ref(edit))

    def _unsettled(self, key: str) -> list[StateEdit]:
        """The open edits of a field, in order."""
        opened = self._open.get(key, ()) if self._open else ()
        return [edit for ref in opened if (edit := ref()) is not None]

    def _leave_open(self, key: str, edits: Sequence[StateEdit]) -> None:
        if self._open is not None:
            if edits:
                self._open[key] = deque(map(weakref.ref, edits))
            else:
                self._open.pop(key, None)

    def patch(
        self,
        edits: Iterable[StateEdit],
        serializer: BaseSerializer | None = None,
        upon: list[tuple[StateEdit, str]] | None = None,
    ) -> list[dict[str, Any]]:
        """Return the JSON patch of several writes and take them as journaled.

        Args:
            edits: writes in the order they were observed, such as all of one attempt.
            serializer: writes the values; default that of the store.
            upon: gets the writes of fields that these were made upon and that were not journaled
                yet; they are in the patch too.

        Returns:
            Operations over `encoded()`; empty when nothing changed.

        Raises:
            ValueError: a value cannot be written; the message names its key. Nothing is then
                taken as journaled.
        """
        last: dict[str, int] = {}  # by field: the place of its last edit among the unsettled
        values: dict[str, Any] = {}
        unsettled: dict[str, list[StateEdit]] = {}
        places: dict[str, dict[int, int]] = {}
        for edit in edits:
            for key, value in edit.after.items():
                if key not in unsettled:
                    unsettled[key] = self._unsettled(key)
                    places[key] = {id(opened): i for i, opened in enumerate(unsettled[key])}
                place = places[key].get(id(edit), -1)
                if place > last.get(key, -1):
                    last[key], values[key] = place, value

        present = {key: value for key, value in values.items() if value is not MISSING}
        encoded = encode_fields(self.state_type, present, self._writer(serializer))
        journaled = self._journaled = {} if self._journaled is None else self._journaled
        operations: list[dict[str, Any]] = []
        for key, place in last.items():
            # Edits before this one were overwritten by it: there is nothing left to settle.
            if upon is not None:
                upon += [(edit, key) for edit in unsettled[key][:place]]
            self._leave_open(key, unsettled[key][place + 1 :])
            if key in encoded and key in journaled:
                operations += patches.diff(journaled[key], encoded[key], (key,))
            else:
                before = {key: journaled.pop(key)} if key in journaled else {}
                after = {key: encoded[key]} if key in encoded else {}
                operations += patches.diff(before, after)
        journaled.update(encoded)
        return operations

    def revert(self, edit: StateEdit) -> None:
        """Undo a write: put back each field that still holds exactly what it wrote.

        A field that was overwritten since keeps its value; should that later write be undone
        too, the field gets the value from before this one. Settled fields are left alone.
        """
        state = self._live()
        for key, after in edit.after.items():
            edits = self._unsettled(key)
            place = next((i for i, opened in enumerate(edits) if opened is edit), None)
            if place is None:
                continue
            self._leave_open(key, edits[:place] + edits[place + 1 :])
            if place + 1 < len(edits):
                edits[place + 1].before[key] = edit.before[key]
            elif get_field(state, key) is after:
                put_value(state, key, edit.before[key])

    def encoded(self, serializer: BaseSerializer | None = None) -> dict[str, Any]:
        """Return what a snapshot must hold: the fields as JSON, without unsettled edits.

        With an observer, later patches build on what is returned. Without one, nothing is ever
        unsettled, and it is simply the state.

        Raises:
            ValueError: a value cannot be written; the message names its key.
        """
        if self._state is None and self._encoded is not None:
            return dict(self._encoded)
        values = fields_of(self._live())
        for key in self._open or ():
            for first in self._unsettled(key)[:1]:
                values[key] = first.before[key]
        journaled = self._journaled if self._journaled and self.observer else {}
        kept = {key: journaled[key] for key in values if key in journaled}
        rest = {k: v for k, v in values.items() if k not in kept and v is not MISSING}
        result = kept | encode_fields(self.state_type, rest, self._writer(serializer))
        if self.observer is not None:
            self._journaled = dict(result)
        return result

    @classmethod
    def from_encoded(
        cls,
        encoded: Mapping[str, Any],
        state_type: type[StateT],
        serializer: BaseSerializer | None = None,
    ) -> InMemoryStateStore[StateT]:
        """Return the store of a snapshot; values are read when they are first needed."""
        store = cls(state_type=state_type, serializer=serializer)
        store._encoded = store._journaled = dict(encoded)
        return store

    def apply_patch(
        self, patch: Iterable[Mapping[str, Any]], serializer: BaseSerializer | None = None
    ) -> None:
        """Make a journaled write again; meant for recovery, and not told to the observer.

        Raises:
            ValueError: the patch does not fit what `encoded()` holds.
        """
        self._encoded = self._journaled = patches.apply(self.encoded(serializer), patch)
        self._state = self._open = None
        if serializer is not None:
            self._serializer = serializer

    # --- as data ----------------------------------------------------------------------------------

    def to_dict(self, serializer: BaseSerializer | None = None) -> dict[str, Any]:
        """Return the state as data, for `from_dict`.

        Raises:
            ValueError: a value cannot be written; the message names its key.
        """
        return state_to_dict(self._live(), self._writer(serializer))

    @classmethod
    def from_dict(
        cls,
        serialized_state: Mapping[str, Any],
        serializer: BaseSerializer,
        state_type: type[StateT] | None = None,
    ) -> InMemoryStateStore[StateT]:
        """Return a store with the state that `to_dict` or a checkpoint wrote.

        Raises:
            ValueError: the data names a class that is not known, or does not fit it.
        """
        state = deserialize_state_from_dict(serialized_state, serializer, state_type)
        return cls(cast("StateT", state), state_type=state_type, serializer=serializer)

    def checkpoint(self) -> StateCheckpoint:
        """Return the state of this moment, to compare with another one.

        Raises:
            TypeError: the store was made with another serializer than a JsonSerializer.
        """
        return StateCheckpoint(self._live(), self._writer())

    def __repr__(self) -> str:
        return f"InMemoryStateStore({qualified_name(self.state_type)})"

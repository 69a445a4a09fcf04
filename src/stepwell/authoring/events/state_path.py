"""Dotted paths into a state: reading along them, and setting without changing what is there.

The theory: a path is a list of names separated by dots. Each names a key of a dict, an index of
a list, a field (or dynamic value) of a model, or an attribute of another object. Reading never
finds methods: `get("items")` is the value that was stored, or nothing.

Setting copies every container along the path and leaves the old ones as they were, so that
whoever holds them (a failed attempt that is undone, a reader) keeps what they had.

This module refuses to know who may set what and when.
"""

from __future__ import annotations

import copy
import enum
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, Final, cast

from pydantic import BaseModel

from stepwell.authoring.events.dictlike import DictLikeModel

MAX_DEPTH = 1000
"""A path has at most this many segments."""


class Missing(enum.Enum):
    """The type of `MISSING`, which says that there is no value (None is one)."""

    MISSING = "missing"

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = Missing.MISSING
"""Stands where there is no value."""


def split_path(path: str) -> list[str]:
    """Return the segments of a path.

    Raises:
        ValueError: the path is longer than `MAX_DEPTH`.
    """
    segments = path.split(".") if path else []
    if len(segments) > MAX_DEPTH:
        raise ValueError(f"Path length exceeds {MAX_DEPTH} segments")
    return segments


# --- the fields of a state --------------------------------------------------------------------


def fields_of(state: BaseModel) -> dict[str, Any]:
    """Return all values of a model by name: declared fields, and dynamic or extra ones."""
    if isinstance(state, DictLikeModel):
        return {**state.to_dict(), **state.__dict__}
    return {**(state.__pydantic_extra__ or {}), **state.__dict__}


def get_field(state: BaseModel, name: str) -> Any:
    """Return one value of a model, or MISSING."""
    if name in state.__dict__:
        return state.__dict__[name]
    if isinstance(state, DictLikeModel):
        return state[name] if name in state else MISSING  # noqa: SIM401 - `get` may be a field
    return (state.__pydantic_extra__ or {}).get(name, MISSING)


def put_field(state: BaseModel, name: str, value: object) -> None:
    """Set one value of a model.

    Raises:
        ValueError: the model has no such field and takes no others.
    """
    if isinstance(state, DictLikeModel) and name not in type(state).model_fields:
        state[name] = value
    else:
        setattr(state, name, value)


def remove_field(state: BaseModel, name: str) -> None:
    """Remove one value of a model, if it is there."""
    if name in state.__dict__:
        del vars(state)[name]
    elif isinstance(state, DictLikeModel):
        if name in state:
            del state[name]
    elif state.__pydantic_extra__:
        state.__pydantic_extra__.pop(name, None)


# --- along a path -----------------------------------------------------------------------------


def find(root: object, segments: Sequence[str]) -> Any:
    """Return the value that a path leads to, or MISSING."""
    value: Any = root
    for segment in segments:
        value = _child(value, segment)
        if value is MISSING:
            break
    return value


def _child(parent: Any, segment: str) -> Any:
    if isinstance(parent, BaseModel):
        value = get_field(parent, segment)
        if value is MISSING and isinstance(getattr(type(parent), segment, None), property):
            return getattr(parent, segment, MISSING)
        return value
    if isinstance(parent, Mapping):
        return cast("Mapping[Any, Any]", parent).get(segment, MISSING)
    if isinstance(parent, (list, tuple)):
        items = cast("Sequence[Any]", parent)
        index = _index(items, segment)
        return MISSING if index is None else items[index]
    if segment.startswith("_") or isinstance(parent, (str, bytes, int, float, type, type(None))):
        return MISSING
    value = getattr(parent, segment, MISSING)
    return MISSING if callable(value) else value


def _index(items: Sequence[Any], segment: str) -> int | None:
    digits = segment.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()):
        return None
    index = int(segment)
    return index if -len(items) <= index < len(items) else None


def replaced(root: object, segments: Sequence[str], value: object) -> Any:
    """Return `root` with the value at the path set; containers along the path are copied.

    Args:
        root: what the path starts from, or MISSING for a new dict.
        segments: where to set; without any, the value itself is returned.
        value: what to set.

    Raises:
        ValueError: the path leads through something that cannot be set.
    """
    parents: list[Any] = []
    node: Any = root
    for segment in segments:
        node = {} if node is MISSING else node
        parents.append(node)
        node = _child(node, segment)
    for parent, segment in zip(reversed(parents), reversed(segments), strict=True):
        value = _with_child(parent, segment, value, segments)
    return value


def _with_child(parent: Any, segment: str, value: object, segments: Sequence[str]) -> Any:
    kind = type(cast("object", parent)).__name__
    if isinstance(parent, MutableMapping):
        pairs = copy.copy(cast("MutableMapping[Any, Any]", parent))
        pairs[segment] = value
        return pairs
    if isinstance(parent, list):
        items = cast("list[Any]", parent)
        index = _index(items, segment)
        if index is not None:
            return [value if i == index % len(items) else item for i, item in enumerate(items)]
    elif isinstance(parent, BaseModel):
        model = parent.model_copy()
        put_field(model, segment, value)
        return model
    elif hasattr(parent, "__dict__") and not isinstance(parent, type) and segment[:1] != "_":
        other = copy.copy(parent)
        setattr(other, segment, value)
        return other
    raise ValueError(f"Path '{'.'.join(segments)}' cannot be set: a {kind} has no '{segment}'")

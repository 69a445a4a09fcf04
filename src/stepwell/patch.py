"""What changed between two JSON values, and how to make that change again.

The theory: a patch is a list of `add`, `replace` and `remove` operations of RFC 6902 whose paths
are JSON pointers (RFC 6901). `apply(before, diff(before, after))` equals `after`; that is the one
promise, and it holds for every pair of JSON values.

A diff is for storing, so it is small rather than clever: what is the same at both ends of a list
is left alone, so that an append is one `add` with the path `.../-` and taking the first element
is one `remove`; a part that changed nearly everywhere is replaced as a whole.

Values are compared as JSON sees them: `true` is not `1`, though Python says so.

This module refuses to know what the values mean, and never changes a value it was given: results
share the parts that did not change with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

__all__ = ["apply", "diff", "same"]

_JsonDict = dict[str, Any]
_JsonList = list[Any]

_FEW = 3  # up to so many operations are kept without weighing them against a replacement
_OP_COST = 30  # characters of an operation beside its path and its value


def diff(before: Any, after: Any, at: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return the operations that turn `before` into `after`.

    Args:
        before: a JSON value.
        after: a JSON value. The patch holds parts of it, not copies.
        at: where the two values sit in the document that the patch is for: keys, outermost first.

    Returns:
        A patch, empty when both are the same.

    Example:
        >>> diff({"seen": [1, 2], "n": 1}, {"seen": [1, 2, 3], "n": 1})
        [{'op': 'add', 'path': '/seen/-', 'value': 3}]
    """
    return _diff(before, after, "".join(f"/{_escape(key)}" for key in at))


def same(a: Any, b: Any) -> bool:
    """Return whether two JSON values are the same, telling `true` and `1.0` from `1`.

    Example:
        >>> same([1], [True]), same({"a": 1}, {"a": 1})
        (False, True)
    """
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        left, right = cast("_JsonDict", a), cast("_JsonDict", b)
        return len(left) == len(right) and all(
            key in right and same(value, right[key]) for key, value in left.items()
        )
    if isinstance(a, list):
        first, second = cast("_JsonList", a), cast("_JsonList", b)
        return len(first) == len(second) and all(map(same, first, second))
    return bool(a == b)


def _diff(before: Any, after: Any, path: str) -> list[dict[str, Any]]:
    if isinstance(before, dict) and isinstance(after, dict):
        ops = _diff_dicts(cast("_JsonDict", before), cast("_JsonDict", after), path)
    elif isinstance(before, list) and isinstance(after, list):
        ops = _diff_lists(cast("_JsonList", before), cast("_JsonList", after), path)
    elif same(before, after):
        return []
    else:
        return [{"op": "replace", "path": path, "value": after}]
    if len(ops) > _FEW:
        cost = sum(_OP_COST + len(op["path"]) + _size(op.get("value", "")) for op in ops)
        if cost > _OP_COST + len(path) + _size(after):
            return [{"op": "replace", "path": path, "value": after}]
    return ops


def _diff_dicts(before: _JsonDict, after: _JsonDict, path: str) -> list[dict[str, Any]]:
    ops: list[dict[str, Any]] = [
        {"op": "remove", "path": f"{path}/{_escape(key)}"} for key in before if key not in after
    ]
    for key, value in after.items():
        if key not in before:
            ops.append({"op": "add", "path": f"{path}/{_escape(key)}", "value": value})
        elif before[key] is not value:
            ops += _diff(before[key], value, f"{path}/{_escape(key)}")
    return ops


def _diff_lists(before: _JsonList, after: _JsonList, path: str) -> list[dict[str, Any]]:
    start, end = _common_ends(before, after)
    old_stop, new_stop = len(before) - end, len(after) - end
    paired = min(old_stop, new_stop) - start
    ops: list[dict[str, Any]] = []
    for i in range(start, start + paired):
        ops += _diff(before[i], after[i], f"{path}/{i}")
    at = start + paired
    ops += [{"op": "remove", "path": f"{path}/{at}"}] * (old_stop - at)
    for i in range(at, new_stop):
        place = "-" if end == 0 else str(i)
        ops.append({"op": "add", "path": f"{path}/{place}", "value": after[i]})
    return ops


def _common_ends(before: _JsonList, after: _JsonList) -> tuple[int, int]:
    """How many elements are the same at the start, and how many of the others at the end."""
    shorter = min(len(before), len(after))
    start = 0
    while start < shorter and same(before[start], after[start]):
        start += 1
    end = 0
    while end < shorter - start and same(before[-1 - end], after[-1 - end]):
        end += 1
    return start, end


def _size(value: Any) -> int:
    """About how many characters the value takes when written."""
    if isinstance(value, str):
        return len(value) + 2
    if isinstance(value, dict):
        pairs = cast("_JsonDict", value).items()
        return 2 + sum(len(key) + 4 + _size(item) for key, item in pairs)
    if isinstance(value, list):
        return 2 + sum(1 + _size(item) for item in cast("_JsonList", value))
    return 6


def _escape(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1") if "~" in key or "/" in key else key


def _unescape(token: str) -> str:
    return token.replace("~1", "/").replace("~0", "~") if "~" in token else token


# --- applying ---------------------------------------------------------------------------------


def apply(doc: Any, patch: Iterable[Mapping[str, Any]]) -> Any:
    """Return `doc` with the operations of `patch` carried out in order.

    Args:
        doc: a JSON value; it is not changed.
        patch: `add`, `replace` and `remove` operations.

    Returns:
        The new value. It shares unchanged parts with `doc`, and added values with `patch`.

    Raises:
        ValueError: an operation is of another kind, or its path is not there.

    Example:
        >>> before = {"seen": [1]}
        >>> apply(before, [{"op": "add", "path": "/seen/-", "value": 2}]), before
        ({'seen': [1, 2]}, {'seen': [1]})
    """
    ours: set[int] = set()  # ids of the containers made here, which may be changed in place
    kept: _JsonList = []  # keeps those alive while their ids count
    for op in patch:
        kind, path = op.get("op"), op.get("path")
        if kind not in ("add", "replace", "remove"):
            raise ValueError(f"Unsupported state patch op {kind!r}")
        if not isinstance(path, str) or (path and not path.startswith("/")):
            raise ValueError(f"State patch path {path!r} is not a JSON pointer")
        if kind != "remove" and "value" not in op:
            raise ValueError(f"State patch op {kind!r} at {path!r} has no value")
        tokens = [_unescape(token) for token in path.split("/")[1:]]
        if not tokens:
            if kind == "remove":
                raise ValueError("State patch op 'remove' cannot remove the whole document")
            doc = op["value"]
            continue
        doc = _own(doc, ours, kept)
        parent: Any = doc
        for i, token in enumerate(tokens[:-1]):
            key = _find(parent, token, tokens[: i + 1])
            parent[key] = _own(parent[key], ours, kept)
            parent = parent[key]
        _change(parent, tokens, str(kind), op.get("value"))
    return doc


def _own(value: Any, ours: set[int], kept: _JsonList) -> Any:
    if id(value) in ours or not isinstance(value, (dict, list)):
        return value
    copied: Any = cast("_JsonDict | _JsonList", value).copy()
    ours.add(id(copied))
    kept.append(copied)
    return copied


def _change(parent: Any, tokens: Sequence[str], kind: str, value: Any) -> None:
    last = tokens[-1]
    if kind == "add" and isinstance(parent, list):
        items = cast("_JsonList", parent)
        at = len(items) if last == "-" else _index(items, last, tokens, 1)
        items.insert(at, value)
    elif kind == "add" and isinstance(parent, dict):
        parent[last] = value
    else:
        key = _find(parent, last, tokens)
        if kind == "remove":
            del parent[key]
        else:
            parent[key] = value


def _find(parent: Any, token: str, tokens: Sequence[str]) -> str | int:
    """The key of an existing member, or the index of an existing element."""
    if isinstance(parent, list):
        return _index(cast("_JsonList", parent), token, tokens, 0)
    if isinstance(parent, dict) and token in parent:
        return token
    raise ValueError(f"State patch path '/{'/'.join(tokens)}' is not in the document")


def _index(items: _JsonList, token: str, tokens: Sequence[str], beyond: int) -> int:
    if token.isascii() and token.isdigit() and int(token) < len(items) + beyond:
        return int(token)
    raise ValueError(f"State patch path '/{'/'.join(tokens)}' is not in the document")

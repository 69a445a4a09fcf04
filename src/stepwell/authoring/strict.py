"""What is typed by people is taken as they meant it, or not at all: JSON that means one thing, and
names that there are.

Most readers of JSON let the last of two keys win, and say nothing; whoever wrote both meant
something by each. To notice costs little: the decoder is made once, and looks where it makes
objects anyway. Where the key stands is only found out once there is one.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn, cast

SHOWN = 20
"""Faults that are told of at once."""


class KeyTwice(ValueError):
    """An object has a key twice.

    Args:
        place: where, with the key: `steps[0].name`.
    """

    def __init__(self, place: str) -> None:
        super().__init__(f"{place} is there twice")
        self.place = place


def strict_json(text: str) -> Any:
    """The value that a JSON text says.

    Raises:
        KeyTwice: a key stands twice in an object.
        ValueError: it is no JSON.
        RecursionError: it is too deep.

    Example:
        >>> strict_json('{"steps": [{"name": "a", "name": "b"}]}')
        Traceback (most recent call last):
        stepwell.authoring.strict.KeyTwice: steps[0].name is there twice
    """
    try:
        return _DECODER.decode(text)
    except _Found:
        # The decoder goes from the inside out, and knows no places: the tree does.
        place = next(_places(_MARKING.decode(text), ""))
        raise KeyTwice(place) from None


def what_there_is(key: str, names: Iterable[str]) -> str:
    """What to say to someone who gave a name that there is not.

    >>> what_there_is("aproved", ["number", "approved"])
    'it has number, approved; did you mean approved?'
    """
    known = list(names)
    close = difflib.get_close_matches(key, known, 1)
    meant = f"; did you mean {close[0]}?" if close else ""
    return f"it has {', '.join(known)}{meant}" if known else "it has none"


def few(faults: Iterable[str]) -> list[str]:
    """The first ones, as many as a person reads, and a word when there are more."""
    found: list[str] = []
    for fault in faults:
        if len(found) == SHOWN:
            return [*found, "... and more"]
        found.append(fault)
    return found


class _Found(Exception):
    """There is such a key."""


class _Marked(dict[str, Any]):
    """An object that has a key twice."""

    key = ""


def _checked(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise _Found
    return made


def _marked(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = _Marked(pairs)
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            made.key = key
            return made
        seen.add(key)
    return dict(made)


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON value")


_DECODER = json.JSONDecoder(object_pairs_hook=_checked, parse_constant=_no_constant)
_MARKING = json.JSONDecoder(object_pairs_hook=_marked, parse_constant=_no_constant)


def _places(value: object, path: str) -> Iterator[str]:
    """Where keys stand twice, in the order of the text. Of long paths the end: each item has a
    copy of what it is within."""
    path = path[-200:]
    if isinstance(value, dict):
        if isinstance(value, _Marked):
            yield f"{path}.{value.key:.80}".lstrip(".")[-200:]
        for key, item in cast("dict[str, Any]", value).items():
            yield from _places(item, f"{path}.{key}")
    elif isinstance(value, list):
        for n, item in enumerate(cast("list[Any]", value)):
            yield from _places(item, f"{path}[{n}]")

"""JSON that means one thing: no key twice in an object, and no numbers that JSON does not have.

Most readers let the last of two keys win, and say nothing; whoever wrote both meant something by
each. To notice costs little: the decoder is made once, and looks where it makes objects anyway.
Where the key stands is only found out once there is one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NoReturn, cast


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
    """Where keys stand twice, in the order of the text."""
    if isinstance(value, dict):
        if isinstance(value, _Marked):
            yield f"{path}.{value.key:.80}".lstrip(".")[-200:]
        for key, item in cast("dict[str, Any]", value).items():
            yield from _places(item, f"{path}.{key}")
    elif isinstance(value, list):
        for n, item in enumerate(cast("list[Any]", value)):
            yield from _places(item, f"{path}[{n}]")

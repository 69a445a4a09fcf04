"""Paths with names in them that have a slash: `/api/workflow/a%2Fb` is the run `a/b`.

Servers decode a path before anyone can look at its parts, and then a slash in a name is one between
parts. So, where a path has such a slash, its parts are decoded here, one by one, with a character
for it that no name can have; who takes a name out of a path turns it back.
"""

from __future__ import annotations

from urllib.parse import quote, unquote

from starlette.types import Scope

_SLASH = "\x1f"


def split_well(scope: Scope) -> None:
    """See to it that slashes in names are none between parts."""
    raw: bytes = scope.get("raw_path") or b""
    if b"%2f" not in raw.lower() and b"%1f" not in raw.lower():
        return
    text = raw.partition(b"?")[0].decode("latin-1")
    if unquote(text) != scope["path"]:
        return  # the server has changed one and not the other
    parts = [unquote(part).replace(_SLASH, "\0").replace("/", _SLASH) for part in text.split("/")]
    scope["path"] = "/".join(parts)


def name_in(part: str) -> str:
    """A name as it was meant.

    >>> name_in("a\\x1fb")
    'a/b'
    """
    return part.replace(_SLASH, "/")


def part_of(name: str) -> str:
    """A name as a part of a path. A name of nothing but dots would be a step up, or none.

    >>> part_of("a/b"), part_of("..")
    ('a%2Fb', '%2E%2E')
    """
    return name.replace(".", "%2E") if name in (".", "..") else quote(name, safe="")

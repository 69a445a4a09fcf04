"""The cursor of a listing: where a page ended, as text that a client can hand back.

A listing is ordered by (created, id), descending, so these two values say exactly where the next
page starts, whatever was created or deleted in between. The text is for handing back only; nothing
but this file reads it.
"""

from __future__ import annotations


def encode(created: float, run: str) -> str:
    """The cursor that stands after the run `run` created at `created` (seconds).

    >>> encode(12.5, "a1")
    '12.5~a1'
    """
    return f"{float(created)!r}~{run}"


def decode(cursor: str) -> tuple[float, str]:
    """The (created, id) that `encode` was given. Raises `ValueError` for any other text.

    >>> decode("12.5~a1")
    (12.5, 'a1')
    """
    created, found, run = cursor.partition("~")
    try:
        at = float(created)
    except ValueError:
        found = ""
        at = 0.0
    if not found or not run:
        raise ValueError(f"{cursor!r} is not a page cursor; pass on Page.cursor as it was given")
    return at, run

"""What comes in: bodies and words, checked before anything else sees them.

Every limit is named in its error. A body is counted as it comes, so that one that says nothing of
its length, or lies about it, is cut off as well.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any, cast

from starlette.requests import ClientDisconnect, Request

from stepwell.authoring.document import check_plain
from stepwell.authoring.document_file import MAX_BYTES
from stepwell.authoring.strict import KeyTwice, strict_json
from stepwell.errors import DocumentError
from stepwell.server.patience import patience_of
from stepwell.server.problems import Problem

_WORD = re.compile(r"[^\x00-\x1f\x7f]{1,512}")
_FAR = 253402300800.0  # the year 10000: later times can't be written


async def read_json(request: Request, *, optional: bool = False) -> Any:
    """The body of a request as JSON values; one that may be left out, and is, is an empty object.

    Raises:
        Problem: it is too large, no JSON, not UTF-8, too deep, or declared as something else.
    """
    data = await _read(request)
    if not data:
        if optional:
            return {}
        raise _bad("a JSON body is wanted, and there is none")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise Problem(
            415,
            "unsupported_media_type",
            f"the body is {kind or 'of no declared type'}; JSON is wanted",
            hint="Send the header Content-Type: application/json.",
        )
    try:
        value = strict_json(data.decode("utf-8"))
    except KeyTwice as error:
        raise _bad(f"the body means two things: {error}") from error
    except UnicodeDecodeError as error:
        raise _bad(f"the body is not UTF-8: {error.reason} at byte {error.start}") from error
    except RecursionError as error:
        raise _bad("the body is at most 64 levels deep") from error
    except ValueError as error:
        raise _bad(f"the body is no JSON: {error}") from error
    try:
        check_plain(value, "the body")
    except DocumentError as error:
        raise _bad(error.problems[0]) from error
    return value


def _bad(detail: str) -> Problem:
    return Problem(400, "bad_json", detail)


async def _read(request: Request) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared[:20]) > MAX_BYTES:
        raise _too_large()
    parts: list[bytes] = []
    size = 0
    try:
        with patience_of(request).for_body():
            async for part in request.stream():
                size += len(part)
                if size > MAX_BYTES:
                    raise _too_large()
                parts.append(part)
    except ClientDisconnect as error:
        raise Problem(400, "disconnected", "the body did not come whole") from error
    return b"".join(parts)


def _too_large() -> Problem:
    return Problem(
        413,
        "body_too_large",
        f"a body has at most {MAX_BYTES} bytes",
        headers={"Connection": "close"},
    )


async def read_object(request: Request, *allowed: str, optional: bool = True) -> dict[str, Any]:
    """The body as an object, with no other fields than `allowed` (any, when none is given)."""
    value = await read_json(request, optional=optional)
    if not isinstance(value, dict):
        raise Problem(422, "bad_body", f"the body is an object, not {json.dumps(value):.60}")
    fields = cast("dict[str, Any]", value)
    unknown = [name for name in fields if allowed and name not in allowed]
    if unknown:
        known = ", ".join(allowed)
        raise Problem(422, "bad_body", f"{unknown[0]!r:.80} is no field; there is {known}")
    return fields


def text_of(fields: dict[str, Any], name: str) -> str | None:
    """A field that is a text, or not there."""
    value = fields.get(name)
    if value is None or isinstance(value, str):
        return value
    raise Problem(422, "bad_body", f"{name}: a text is wanted, not {value!r:.60}")


def object_of(
    fields: dict[str, Any], name: str, wanted: str = "an object"
) -> dict[str, Any] | None:
    """A field that is an object, or not there."""
    value = fields.get(name)
    if value is None or isinstance(value, dict):
        return cast("dict[str, Any] | None", value)
    raise Problem(422, "bad_body", f"{name}: {wanted} is wanted, not {value!r:.60}")


def word_of(value: str | None, what: str) -> str | None:
    """An id, a key or a name as the store can keep it: up to 512 characters, no control ones."""
    if value is None or _WORD.fullmatch(value):
        return value
    raise Problem(422, "bad_word", f"{what} has 1 to 512 characters, and no control characters")


def time_of(value: str | None, what: str) -> float | None:
    """A moment: seconds since the epoch, or ISO 8601 (UTC unless it says otherwise)."""
    if value is None:
        return None
    try:
        at = float(value)
    except ValueError:
        at = _iso(value)
    if at is None or not 0 <= at < _FAR:
        raise Problem(
            422, "bad_time", f"{what}: ISO 8601, or seconds since the epoch, not {value!r:.60}"
        )
    return at


def _iso(value: str) -> float | None:
    try:
        moment = datetime.fromisoformat(value.replace(" ", "+") if "T" in value else value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None

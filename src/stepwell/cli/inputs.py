"""The fields of a start event, from what was typed: JSON, a file of it, or one by one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, cast

from stepwell.cli.errors import CommandError


def input_of(given: str | None, fields: tuple[str, ...]) -> dict[str, Any]:
    """The start event's fields, as they were typed."""
    found: dict[str, Any] = {}
    if given is not None:
        text = _text(given)
        try:
            value = json.loads(text)
        except json.JSONDecodeError as error:
            raise CommandError(
                f"--input is no JSON: {error}", hint='Write for example \'{"topic": "ships"}\'.'
            ) from error
        if not isinstance(value, dict):
            raise CommandError(
                f"--input is {type(value).__name__}, not an object",
                hint="Name the field: '{\"topic\": ...}'.",
            )
        found.update(cast("dict[str, Any]", value))
    for field in fields:
        key, equals, value = field.partition("=")
        if not equals or not key:
            raise CommandError(f"-i {field!r} is not key=value", hint="Write -i topic=ships.")
        try:
            found[key] = json.loads(value)
        except json.JSONDecodeError:
            found[key] = value
    return found


def _text(given: str) -> str:
    if not given.startswith("@"):
        return given
    if given == "@-":
        return sys.stdin.read()
    try:
        return Path(given[1:]).read_text(encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{given[1:]} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CommandError(f"{given[1:]} is not UTF-8 text") from error

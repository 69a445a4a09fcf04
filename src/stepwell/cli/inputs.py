"""The fields of a start event, from what was typed: JSON, a file of it, or one by one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, cast

from stepwell.authoring.strict import KeyTwice, strict_json
from stepwell.cli.errors import CommandError


def input_of(given: str | None, fields: tuple[str, ...]) -> dict[str, Any]:
    """The start event's fields, as they were typed."""
    found: dict[str, Any] = {}
    if given is not None:
        hint = 'Write for example \'{"topic": "ships"}\'.'
        value = json_typed(_text(given), "--input", hint)
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


def json_typed(text: str, what: str, hint: str) -> Any:
    """What was typed as JSON. Raises `CommandError`: it is none, or means two things."""
    try:
        return strict_json(text)
    except KeyTwice as error:
        raise CommandError(f"{what}: {error}", hint="Say it once.") from error
    except (ValueError, RecursionError) as error:
        raise CommandError(f"{what} is no JSON: {error}", hint=hint) from error


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

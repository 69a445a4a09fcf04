"""Reads SQL from `.sql` files, so that statements stand where SQL is read and not inside Python.

A file holds named statements:

    -- name: get_thing
    -- A sentence that says what it is for.
    SELECT ... ;

Nothing here knows a dialect or runs anything.
"""

from __future__ import annotations

from importlib.resources import files

_NAME = "-- name: "


def load_statements(package: str, *names: str) -> dict[str, str]:
    """The statements of `statements/NAME.sql` of a package, by name.

    Raises `ValueError` for a statement without a sentence and for a name that is there twice:
    mistakes of whoever wrote the file, so they show at import.
    """
    folder = files(package) / "statements"
    found: dict[str, str] = {}
    for name in names:
        text = (folder / f"{name}.sql").read_text(encoding="utf-8")
        for block in text.split(_NAME)[1:]:
            statement, _, body = block.partition("\n")
            lines = body.splitlines()
            sql = "\n".join(line for line in lines if not line.startswith("--")).strip()
            if not lines or not lines[0].startswith("-- "):
                raise ValueError(f"{name}.sql: {statement!r} has no sentence that explains it")
            if statement in found:
                raise ValueError(f"{name}.sql: there are two statements {statement!r}")
            found[statement] = sql.removesuffix(";")
    return found

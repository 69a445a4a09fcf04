"""Numbered schema migrations: which there are, and which a database still needs.

A migration is a file `migrations/0001_what_it_does.sql` of a store's package. They are numbered
1, 2, 3, ... and applied in order, each in one transaction that also writes its number down; a file
that was released is never edited. The store applies them, since only it knows its dialect.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from stepwell.errors import StoreVersionError


@dataclass(frozen=True, slots=True)
class Migration:
    """One step from schema version `number - 1` to `number`."""

    number: int
    name: str
    script: str


def load_migrations(package: str) -> tuple[Migration, ...]:
    """The migrations of a package, in order.

    Raises `ValueError` when their numbers are not 1, 2, 3, ...
    """
    found: list[Migration] = []
    for file in (files(package) / "migrations").iterdir():
        if file.name.endswith(".sql"):
            number, _, name = file.name.removesuffix(".sql").partition("_")
            found.append(Migration(int(number), name, file.read_text(encoding="utf-8")))
    found.sort(key=lambda migration: migration.number)
    if [migration.number for migration in found] != [*range(1, len(found) + 1)]:
        raise ValueError(f"the migrations of {package} are not numbered 1, 2, 3, ...")
    return tuple(found)


def pending(found: int, migrations: Sequence[Migration]) -> Sequence[Migration]:
    """Those that a database of schema version `found` (0: an empty one) still needs.

    Raises `StoreVersionError` when it was written by a newer release.
    """
    if found > len(migrations):
        raise StoreVersionError(found, len(migrations))
    return migrations[found:]

"""The small parts of the stores: cursors, migrations, statements in files, change counters."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from stepwell.errors import StoreVersionError
from stepwell.stores import cursor, sql
from stepwell.stores.changes import Changes
from stepwell.stores.conformance import PATIENCE
from stepwell.stores.migrate import Migration, load_migrations, pending
from stepwell.stores.postgres import statements as in_postgres
from stepwell.stores.sqlite import statements as in_sqlite

FOREVER = PATIENCE * 10


@pytest.mark.parametrize("at", [0.0, 1763696227.123456, 1e-9, 2.0**53])
@pytest.mark.parametrize("run", ["a", "with~tilde", "12.5"])
def test_a_cursor_comes_back_as_it_was(at: float, run: str) -> None:
    assert cursor.decode(cursor.encode(at, run)) == (at, run)


@pytest.mark.parametrize("text", ["", "1.0", "1.0~", "~a", "x~a"])
def test_other_text_is_no_cursor(text: str) -> None:
    with pytest.raises(ValueError, match="cursor"):
        cursor.decode(text)


MIGRATIONS = [Migration(1, "one", ""), Migration(2, "two", "")]


@pytest.mark.parametrize("found, numbers", [(0, [1, 2]), (1, [2]), (2, [])])
def test_a_database_needs_the_migrations_after_its_own(found: int, numbers: list[int]) -> None:
    assert [each.number for each in pending(found, MIGRATIONS)] == numbers


def test_a_newer_database_is_refused() -> None:
    with pytest.raises(StoreVersionError):
        pending(3, MIGRATIONS)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "some_package_of_sql"
    for name in ("statements", "migrations"):
        (folder / name).mkdir(parents=True)
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    sys.modules.pop(folder.name, None)


def test_migrations_are_numbered_without_gaps(package: Path) -> None:
    for name in ("0002_second", "0001_first"):
        (package / "migrations" / f"{name}.sql").write_text(name)
    assert load_migrations(package.name) == (
        Migration(1, "first", "0001_first"),
        Migration(2, "second", "0002_second"),
    )
    (package / "migrations" / "0004_fourth.sql").touch()
    with pytest.raises(ValueError, match="not numbered"):
        load_migrations(package.name)


def test_statements_are_read_by_name(package: Path) -> None:
    (package / "statements" / "some.sql").write_text(
        "-- name: one\n-- The first.\nSELECT 1\nFROM a;\n\n"
        "-- name: two\n-- Next.\n-- More.\nSELECT 2;\n"
    )
    assert sql.load_statements(package.name, "some") == {
        "one": "SELECT 1\nFROM a",
        "two": "SELECT 2",
    }


@pytest.mark.parametrize(
    "text, says",
    [
        ("-- name: one\nSELECT 1;\n", "no sentence"),
        ("-- name: one\n-- A.\nSELECT 1;\n-- name: one\n-- B.\nSELECT 2;\n", "two statements"),
    ],
)
def test_a_badly_written_file_of_statements_is_refused(package: Path, text: str, says: str) -> None:
    (package / "statements" / "some.sql").write_text(text)
    with pytest.raises(ValueError, match=says):
        sql.load_statements(package.name, "some")


@pytest.mark.parametrize("statements", [in_sqlite, in_postgres])
def test_every_statement_is_used(statements: ModuleType) -> None:
    folder = Path(str(statements.__file__)).parent
    files = [*folder.glob("*.py"), folder.parent / "rows.py"]
    source = "".join(file.read_text() for file in files)
    used = re.findall(r'(?:SQL\[|ask\(|ask\(db, )"(\w+)"', source)
    assert set(used) == set(statements.SQL)


async def test_a_task_waits_for_the_next_change() -> None:
    changes = Changes()
    waiting = asyncio.create_task(changes.wait(FOREVER))
    await asyncio.sleep(0)
    assert not waiting.done()
    changes.bump()
    await waiting


async def test_each_task_misses_no_change_of_its_own() -> None:
    changes = Changes()
    woken: list[str] = []
    go = asyncio.Event()

    async def watch(name: str, busy: bool) -> None:
        await changes.wait(FOREVER)
        woken.append(name)
        if busy:
            await go.wait()
        await changes.wait(FOREVER)
        woken.append(name)

    async with asyncio.TaskGroup() as group:
        group.create_task(watch("busy", True))
        group.create_task(watch("idle", False))
        await asyncio.sleep(0)
        changes.bump()
        await asyncio.sleep(0)
        changes.bump()  # "idle" waits for it, "busy" does not
        await asyncio.sleep(0)
        assert sorted(woken) == ["busy", "idle", "idle"]
        go.set()
    assert sorted(woken) == ["busy", "busy", "idle", "idle"]


async def test_a_wait_in_a_new_task_each_time_does_not_spin() -> None:
    changes = Changes()
    changes.bump()
    await asyncio.create_task(changes.wait(FOREVER))  # it had changed
    second = asyncio.create_task(changes.wait(FOREVER))
    for _ in range(3):
        await asyncio.sleep(0)
    assert not second.done()
    changes.bump()
    await second


async def test_a_cancelled_wait_leaves_nothing_behind() -> None:
    changes = Changes()
    waiting = asyncio.create_task(changes.wait(FOREVER))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not changes._waiting

"""What goes wrong with a file is said in the store's own errors, with the path and what to do."""

from __future__ import annotations

import asyncio
import itertools
import os
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

import stepwell
from stepwell.errors import (
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreReadOnly,
    StoreUnavailable,
    StoreVersionError,
)
from stepwell.stores.base import Snapshot
from stepwell.stores.conformance import begin, journal, message, new, turn
from stepwell.stores.digests import digest_of
from stepwell.stores.sqlite import SQLiteStore, connection
from stepwell.stores.sqlite.connection import MIGRATIONS
from stepwell.values import RunStatus

SCRIPTS = Path(__file__).parent / "scripts"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(stepwell.__file__).parent.parent)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SQLiteStore]:
    store = SQLiteStore(path, busy_timeout=0.01)
    await store.open()
    yield store
    await store.close()


async def on_writer(store: SQLiteStore, sql: str) -> list[tuple[object, ...]]:
    return await store._write().submit(False, lambda db: db.execute(sql).fetchall())


def contents(path: Path) -> bytes:
    return path.read_bytes()


def overwrite(path: Path, start: int, data: bytes) -> None:
    path.touch()
    with path.open("r+b") as file:
        file.seek(start)
        file.write(data)


async def refuses_to_open(path: Path, error: type[StoreError]) -> str:
    store = SQLiteStore(path, busy_timeout=0.01)
    with pytest.raises(error) as raised:
        await store.open()
    assert type(raised.value) is error
    with pytest.raises(StoreUnavailable, match="not open"):
        await store.get("a")
    await store.close()
    return str(raised.value)


# In use -------------------------------------------------------------------------------------------


async def test_a_locked_file_is_waited_for_and_then_refused(store: SQLiteStore, path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreLocked) as raised:
            await store.create(new("a"))
        assert str(path) in str(raised.value)
        assert raised.value.hint
        assert await store.get("a") is None  # reading goes on
        other.execute("ROLLBACK")
    assert await store.create(new("a")) == "a"


async def test_a_lock_that_ends_in_time_is_no_error(path: Path) -> None:
    store = SQLiteStore(path, busy_timeout=30.0)
    await store.open()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        creating = asyncio.create_task(store.create(new("a")))
        await asyncio.sleep(0)
        other.execute("ROLLBACK")
    assert await creating == "a"
    await store.close()


def test_time_in_which_the_process_stood_still_is_not_time_it_waited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever holds the lock stood still as well: the machine had halted."""
    now = itertools.count(0.0, 60.0)
    monkeypatch.setattr(connection.time, "monotonic", lambda: next(now))
    tries = 0

    def locked_once() -> str:
        nonlocal tries
        tries += 1
        if tries == 1:
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorcode = sqlite3.SQLITE_BUSY
            raise error
        return "done"

    assert connection.retrying(locked_once, 5.0) == "done"


async def test_a_full_disk_loses_nothing_that_was_kept(store: SQLiteStore, path: Path) -> None:
    await begin(store, "a", b"1")
    ((pages,),) = await on_writer(store, "PRAGMA page_count")
    await on_writer(store, f"PRAGMA max_page_count = {pages}")
    big = b'"' + b"x" * 100_000 + b'"'
    with pytest.raises(StoreFull) as raised:
        await store.commit(turn("a", b"2", big))
    assert str(path) in str(raised.value)
    kept, refused = await asyncio.gather(
        store.commit(turn("a", b"2")), store.commit(turn("a", big)), return_exceptions=True
    )
    assert kept == "a"
    assert isinstance(refused, StoreFull)
    await on_writer(store, "PRAGMA max_page_count = 1000000")
    await store.commit(turn("a", b"3"))
    assert await journal(store, "a") == [(1, b"1"), (2, b"2"), (3, b"3")]
    assert await store.verify() == []


async def test_a_file_that_cannot_be_written_says_so(store: SQLiteStore, path: Path) -> None:
    await begin(store, "a", b"1")
    await on_writer(store, "PRAGMA query_only = 1")
    with pytest.raises(StoreReadOnly, match=r"runs\.db"):
        await store.commit(turn("a", b"2"))
    assert await journal(store, "a") == [(1, b"1")]


async def test_a_value_that_sqlite_cannot_hold_is_a_store_error(store: SQLiteStore) -> None:
    await store._write().submit(False, lambda db: db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 5000))
    await begin(store, "a", b"1")
    with pytest.raises(StoreError, match="too big"):
        await store.commit(turn("a", b'"' + b"x" * 6000 + b'"'))
    assert await journal(store, "a") == [(1, b"1")]


# Opening ------------------------------------------------------------------------------------------


async def test_a_directory_is_never_created(tmp_path: Path) -> None:
    said = await refuses_to_open(tmp_path / "none" / "runs.db", StoreUnavailable)
    assert "directory" in said
    assert "does not exist" in said
    assert os.listdir(tmp_path) == []


async def test_a_directory_is_not_a_file(path: Path) -> None:
    os.mkdir(path)
    assert str(path) in await refuses_to_open(path, StoreUnavailable)


@pytest.mark.parametrize("directory", [0o755, 0o555], ids=["file", "file and directory"])
async def test_a_read_only_file_says_so(directory: int) -> None:
    # Not under `tmp_path`, which nobody but its owner can look into.
    with TemporaryDirectory(prefix="stepwell-") as place:
        path = Path(place) / "runs.db"
        store = SQLiteStore(path)
        await store.open()
        await store.close()
        path.chmod(0o444)
        os.chmod(place, directory)
        said = await opened_by_somebody(path)
        os.chmod(place, 0o700)
    assert said.startswith("StoreReadOnly: ")
    assert str(path) in said


async def opened_by_somebody(path: Path) -> str:
    """What comes of opening a file in a process that is not root."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SCRIPTS / "unprivileged.py"), str(path),
        env=ENVIRONMENT, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode()


async def test_a_newer_file_is_left_as_it_is(path: Path) -> None:
    store = SQLiteStore(path)
    await store.open()
    await store.close()
    newer = len(MIGRATIONS) + 1
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = DELETE")
        db.execute("UPDATE meta SET value = ? WHERE key = 'schema'", (str(newer),))
    before = contents(path)
    store = SQLiteStore(path)
    with pytest.raises(StoreVersionError) as raised:
        await store.open()
    assert (raised.value.found, raised.value.supported) == (newer, len(MIGRATIONS))
    assert contents(path) == before


async def test_a_file_of_something_else_is_left_as_it_is(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE recipes (name TEXT)")
        db.commit()
    before = contents(path)
    assert "something else" in await refuses_to_open(path, StoreError)
    assert contents(path) == before


async def test_garbage_is_corrupt(path: Path) -> None:
    overwrite(path, 0, b"this was never a database, whatever its name says" * 100)
    assert str(path) in await refuses_to_open(path, StoreCorrupt)


async def test_a_locked_file_cannot_be_migrated(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        await refuses_to_open(path, StoreLocked)


async def test_many_may_create_the_file_at_once(path: Path) -> None:
    stores = [SQLiteStore(path) for _ in range(4)]
    await asyncio.gather(*(store.open() for store in stores))
    for n, store in enumerate(stores):
        await store.create(new(f"run{n}"))
    assert await stores[0].verify() == []
    for store in stores:
        await store.close()


@pytest.mark.parametrize(
    "arguments, says",
    [
        ({"durability": "always"}, "durability"),
        ({"busy_timeout": -1.0}, "busy_timeout"),
        ({"read_connections": 0}, "read_connections"),
        ({"path": ":memory:"}, "MemoryStore"),
        ({"path": ""}, "file"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        SQLiteStore(**{"path": "runs.db", **arguments})  # pyright: ignore[reportArgumentType]


# Checking -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage, says",
    [
        ("DELETE FROM journal WHERE seq = 2", "run a: it should have 3 journal rows"),
        ("DELETE FROM journal WHERE seq = 3", "run a: it should have 3 journal rows"),
        ("UPDATE journal SET seq = seq + 1 WHERE seq = 3", "run a: it should have 3 journal rows"),
        ("UPDATE runs SET seq = 4", "run a: it should have 4 journal rows"),
        ("UPDATE snapshots SET seq = 9", "snapshot is of journal row 9"),
        ("UPDATE messages SET run = 77", r"messages: 1 row\(s\) refer to runs"),
        ("UPDATE blobs SET data = CAST('bag' AS BLOB)", "is not what was written"),
        ("DELETE FROM blobs", "refer to blobs"),
        ("DELETE FROM blob_refs", "nobody refers to the payload"),
        ("UPDATE runs SET status = 'failed'", "run a: it is failed"),
        ("UPDATE runs SET ended = 5", "run a: it is running"),
    ],
)
async def test_verify_finds_damage(store: SQLiteStore, damage: str, says: str) -> None:
    blobs = {digest_of(b"big"): b"big"}
    await begin(store, "a", b"1", b"2", b"3", snapshot=Snapshot(2, b"0"), blobs=blobs)
    await store.send([message("a")])
    assert await store.verify() == []
    await on_writer(store, damage)
    faults = await store.verify()
    assert len(faults) == 1
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(faults[0])


async def test_verify_finds_damaged_pages(store: SQLiteStore, path: Path) -> None:
    await begin(store, "a", *(b'"' + b"x" * 500 + b'"' for _ in range(200)))
    ((root,),) = await on_writer(store, "SELECT rootpage FROM sqlite_master WHERE name = 'journal'")
    ((size,),) = await on_writer(store, "PRAGMA page_size")
    await store.close()
    assert isinstance(root, int)
    assert isinstance(size, int)
    overwrite(path, (root - 1) * size, b"\xff" * size)
    await store.open()
    faults = await store.verify()
    assert faults
    with pytest.raises(StoreCorrupt, match=r"runs\.db"):
        await store.read("a")


async def test_deleting_gives_room_back_to_new_runs(store: SQLiteStore, path: Path) -> None:
    rows = [b'"' + b"x" * 500 + b'"'] * 100

    async def round_trip(run: str) -> None:
        await begin(store, run, *rows)
        await store.commit(turn(run, status=RunStatus.COMPLETED, due=None, release=True))
        assert await store.delete([run]) == 1

    await round_trip("first")
    ((pages,),) = await on_writer(store, "PRAGMA page_count")
    for n in range(10):
        await round_trip(f"run{n}")
    assert await on_writer(store, "PRAGMA page_count") == [(pages,)]


# Backups ------------------------------------------------------------------------------------------


async def test_a_backup_overwrites_nothing(store: SQLiteStore, tmp_path: Path) -> None:
    target = tmp_path / "copy.db"
    target.write_text("precious")
    with pytest.raises(StoreError, match="there already"):
        await store.backup(str(target))
    assert target.read_text() == "precious"


async def test_a_backup_needs_its_directory(store: SQLiteStore, tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="does not exist"):
        await store.backup(str(tmp_path / "none" / "copy.db"))


async def test_a_backup_is_one_file(store: SQLiteStore, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    await begin(store, "a", b"1")
    await store.backup(str(folder / "copy.db"))
    assert os.listdir(folder) == ["copy.db"]

"""The SQLite store keeps the contract, groups commits, and shares its file."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

import stepwell
from stepwell.errors import LeaseLost, StoreError, StoreUnavailable
from stepwell.stores.base import RunFilter, Store
from stepwell.stores.conformance import (
    PATIENCE,
    StoreConformance,
    begin,
    claimed,
    journal,
    message,
    new,
    turn,
    worker,
)
from stepwell.stores.sqlite import SQLiteStore
from stepwell.stores.sqlite.connection import MIGRATIONS
from stepwell.stores.sqlite.statements import SQL
from stepwell.values import RunStatus

SCRIPTS = Path(__file__).parent / "scripts"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(stepwell.__file__).parent.parent)}


class TestSQLiteStore(StoreConformance):
    def make_store(self, place: Path) -> Store:
        return SQLiteStore(place / "runs.db")


class TestSQLiteStoreForProcessCrashes(StoreConformance):
    def make_store(self, place: Path) -> Store:
        return SQLiteStore(place / "runs.db", durability="process", read_connections=1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SQLiteStore]:
    store = SQLiteStore(path)
    await store.open()
    yield store
    await store.close()


@contextmanager
def write_lock(path: Path) -> Iterator[None]:
    """What another process does while it writes."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA wal_autocheckpoint = 0")
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


async def on_writer(store: SQLiteStore, sql: str) -> list[tuple[object, ...]]:
    return await store._write().submit(False, lambda db: db.execute(sql).fetchall())


def size_of(path: Path) -> int:
    return path.stat().st_size


def transactions(store: SQLiteStore) -> int:
    return store._write().transactions


# Durability ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("synced")
@pytest.mark.parametrize("durability, synchronous", [("power", 2), ("process", 1)])
async def test_durability_is_what_the_log_is_synced_for(
    path: Path, durability, synchronous
) -> None:
    store = SQLiteStore(path, durability=durability)
    await store.open()
    assert await on_writer(store, "PRAGMA synchronous") == [(synchronous,)]
    assert await on_writer(store, "PRAGMA journal_mode") == [("wal",)]
    assert store.durability == durability
    await store.close()


async def test_only_the_writer_may_write_or_checkpoint(store: SQLiteStore) -> None:
    def ask(db: sqlite3.Connection) -> tuple[int, int]:
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            db.execute("DELETE FROM runs")
        pragmas = ("wal_autocheckpoint", "query_only")
        return tuple(db.execute(f"PRAGMA {pragma}").fetchone()[0] for pragma in pragmas)

    assert await store._read(ask) == (0, 1)
    assert await on_writer(store, "PRAGMA wal_autocheckpoint") == [(1000,)]


async def test_closing_leaves_one_file(path: Path) -> None:
    store = SQLiteStore(path)
    await store.open()
    await begin(store, "a", b"1")
    await store.close()
    assert os.listdir(path.parent) == ["runs.db"]


@pytest.mark.parametrize("size", [20, 200, 1500, 2500])
async def test_a_step_costs_little_more_than_its_bytes(path: Path, size: int) -> None:
    steps, runs = 40, 50
    store = SQLiteStore(path, durability="process")
    await store.open()
    await store.close()
    empty = size_of(path)
    await store.open()
    data = b'"' + b"x" * (size - 2) + b'"'

    async def live(run: str) -> None:
        await begin(store, run, data)
        for _ in range(steps - 1):
            await store.commit(turn(run, data))

    await asyncio.gather(*(live(f"{n:016d}") for n in range(runs)))
    await store.close()
    assert (size_of(path) - empty) / (steps * runs) < size + 300


# Group commit -------------------------------------------------------------------------------------


async def test_commits_that_wait_share_a_transaction(store: SQLiteStore, path: Path) -> None:
    before = transactions(store)
    with write_lock(path):
        creating = [asyncio.create_task(store.create(new(f"run{n}"))) for n in range(60)]
        await asyncio.sleep(0)
    await asyncio.gather(*creating)
    # The thread may have taken the first before the others were there.
    assert 1 <= transactions(store) - before <= 2


async def test_a_bad_job_harms_no_other_of_its_group(store: SQLiteStore, path: Path) -> None:
    await begin(store, "a")
    await begin(store, "b")
    with write_lock(path):
        jobs = [
            asyncio.create_task(job)
            for job in (
                store.commit(turn("a", b"1")),
                store.commit(turn("a", b"stale", fence=7)),
                store.commit(turn("b", b"undone", consumed=[99], children=[new("child")])),
                store.create(new("c")),
                store.commit(turn("b", b"\xff not text")),
                store.commit(turn("a", b"2")),
                store.send([message("b", b"3")]),
            )
        ]
        await asyncio.sleep(0)
    a1, stale, undone, c, not_text, a2, sent = await asyncio.gather(*jobs, return_exceptions=True)
    assert (a1, c, a2, sent) == ("a", "c", "a", [True])
    assert isinstance(stale, LeaseLost)
    assert type(undone) is StoreError
    assert isinstance(not_text, UnicodeDecodeError)
    assert await journal(store, "a") == [(1, b"1"), (2, b"2")]
    assert await journal(store, "b") == []
    assert await store.get("child") is None
    assert await store.verify() == []


async def test_an_id_that_loads_could_not_ask_for_is_refused(store: SQLiteStore) -> None:
    with pytest.raises(StoreError, match=r"a run can't be called 'nul \\x00 in its id'"):
        await store.create(new("nul \0 in its id"))
    assert (await store.list(RunFilter())).rows == []


async def test_a_cancelled_caller_harms_nobody(store: SQLiteStore, path: Path) -> None:
    with write_lock(path):
        leaving = asyncio.create_task(store.create(new("a")))
        staying = asyncio.create_task(store.create(new("b")))
        await asyncio.sleep(0)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
    assert await staying == "b"
    assert await store.get("a") is not None  # it was accepted


async def test_closing_finishes_what_was_accepted(path: Path) -> None:
    store = SQLiteStore(path)
    await store.open()
    with write_lock(path):
        creating = [asyncio.create_task(store.create(new(f"run{n}"))) for n in range(20)]
        await asyncio.sleep(0)
        closing = asyncio.create_task(store.close())
        await asyncio.sleep(0)
    await closing
    assert await asyncio.gather(*creating) == [f"run{n}" for n in range(20)]
    with pytest.raises(StoreUnavailable):
        await store.create(new("late"))


async def test_crash_tests_are_told_of_every_transaction(path: Path) -> None:
    told: list[tuple[str, int]] = []
    store = SQLiteStore(path, on_write=lambda when, n: told.append((when, n)))
    await store.open()
    await begin(store, "a")
    assert await store.claim("w2", ["none"], 100.0, 10) == []  # writes nothing
    await store.commit(turn("a"))
    assert told == [("before", 1), ("after", 1), ("before", 2), ("after", 2)]
    await store.close()


async def test_an_error_before_the_commit_undoes_the_group(path: Path) -> None:
    def fail(when: str, n: int) -> None:
        if (when, n) == ("before", 2):
            raise RuntimeError("simulated")

    store = SQLiteStore(path, on_write=fail)
    await store.open()
    await begin(store, "a", b"1")
    with pytest.raises(RuntimeError, match="simulated"):
        await store.commit(turn("a", b"2", status=RunStatus.WAITING))
    assert await journal(store, "a") == [(1, b"1")]
    await store.close()


# Statements ---------------------------------------------------------------------------------------


def explained(db: sqlite3.Connection, how: str, sql: str) -> list[tuple[object, ...]]:
    named = ("since", "created", "id", "workflow", "parent", "correlation", "statuses", "limit")
    values = (
        dict.fromkeys((*named, "status", "waiting")) if ":" in sql else (None,) * sql.count("?")
    )
    return db.execute(f"{how} {sql}", values).fetchall()  # pyright: ignore[reportArgumentType]


async def test_a_run_that_its_creator_ends_takes_two_statements_a_commit(
    store: SQLiteStore,
) -> None:
    seen: list[str] = []

    def note(statement: str) -> None:
        seen.append(statement.split(" (")[0].split(" SET")[0])

    await store._write().submit(False, lambda db: db.set_trace_callback(note))
    await begin(store, "a", b"1")
    await store.commit(turn("a", b"2", status=RunStatus.COMPLETED, release=True))
    await store._write().submit(False, lambda db: db.set_trace_callback(None))
    both = [each for each in seen if each not in ("BEGIN IMMEDIATE", "COMMIT")]
    assert both == ["INSERT INTO runs", "INSERT INTO journal", "UPDATE runs", "INSERT INTO journal"]


async def test_the_usual_commit_touches_no_index_of_runs(store: SQLiteStore) -> None:
    code = await store._read(lambda db: explained(db, "EXPLAIN", SQL["advance"]))
    opcodes = {row[1] for row in code}
    assert "Insert" in opcodes
    assert not {"IdxInsert", "IdxDelete"} & opcodes


@pytest.mark.parametrize(
    "name",
    [
        *("due_runs", "first_due", "next_priority", "next_owner", "find_key", "get_run"),
        *("list_by_created", "list_by_status", "list_by_parent", "list_by_correlation"),
        *("list_by_waiting", "waited_for", "wait_no_more", "wait_for_nothing"),
        *("journal_after", "messages_after", "expired", "owned_with_messages", "release_all"),
        *("load_runs", "load_snapshots", "load_journals", "load_messages"),
    ],
)
async def test_frequent_questions_walk_over_no_table(store: SQLiteStore, name: str) -> None:
    plan = await store._read(lambda db: explained(db, "EXPLAIN QUERY PLAN", SQL[name]))
    for _, _, _, step in plan:
        assert isinstance(step, str)
        assert "TEMP B-TREE" not in step or name == "owned_with_messages" or "load_" in name
        assert not step.startswith("SCAN") or " json_each" in step or "wanted" in step, plan


# Files of earlier releases ------------------------------------------------------------------------


async def test_what_waited_before_there_was_a_list_is_listed(path: Path) -> None:
    first, *_ = MIGRATIONS
    wait = '{"id":"q","event":"Answer"}'
    rows = [
        ("asks", "waiting", f'{{"waits":[{wait},{wait},{{"id":"t","event":null}},7]}}'),
        ("sleeps", "waiting", '{"waits":[{"id":"t","event":null}]}'),
        ("odd", "waiting", "not JSON"),
        ("bare", "waiting", None),
        ("runs", "running", f'{{"waits":[{wait}]}}'),
    ]
    with closing(sqlite3.connect(path)) as db:
        db.executescript(first.script)
        db.execute("INSERT INTO meta VALUES ('schema', '1')")
        db.executemany(
            "INSERT INTO runs (id, workflow, version, status, seq, fence, created, updated,"
            " priority, detail) VALUES (?, 'wf', '', ?, 0, 0, 1.0, 1.0, 0, ?)",
            rows,
        )
        db.commit()
    store = SQLiteStore(path)
    await store.open()
    page = await store.list(RunFilter(waiting="Answer"))
    assert [row.id for row in page.rows] == ["asks"]
    assert len((await store.list(RunFilter())).rows) == len(rows)
    assert await store.verify() == []
    await store.close()


async def test_a_list_that_does_not_fit_its_run_is_a_fault(store: SQLiteStore) -> None:
    await begin(store, "a", waits=("Answer",))
    await on_writer(store, "UPDATE waits SET created = 77.0")
    assert await store.verify() == [
        "run a: it is listed as waiting for 'Answer', which does not fit it"
    ]
    await on_writer(store, "UPDATE waits SET created = 1.0")
    assert await store.verify() == []


# One file, several users --------------------------------------------------------------------------


async def test_two_stores_share_one_file(store: SQLiteStore, path: Path) -> None:
    other = SQLiteStore(path)
    await other.open()

    async def live(mine: Store, run: str) -> None:
        await begin(mine, run, b"1")
        for n in range(2, 31):
            await mine.commit(turn(run, str(n).encode()))

    users = (store, other)
    await asyncio.gather(*(live(users[n % 2], f"run{n}") for n in range(10)))
    for n in range(10):
        wanted = [(seq, str(seq).encode()) for seq in range(1, 31)]
        assert await journal(users[(n + 1) % 2], f"run{n}") == wanted
    await store.register(worker("x", 1000.0))
    await other.register(worker("y", 1000.0))
    got = await asyncio.gather(claimed(store, "x", limit=5), claimed(other, "y", limit=5))
    assert len({*got[0], *got[1]}) == 10
    await other.close()
    assert await store.verify() == []


async def test_a_fence_of_another_process_is_seen(store: SQLiteStore, path: Path) -> None:
    await begin(store, "a", b"1")
    await store.commit(turn("a", b"2"))
    other = SQLiteStore(path)
    await other.open()
    row = await other.claim_one("w2", "a", 100.0)
    assert row is not None
    with pytest.raises(LeaseLost):
        await store.commit(turn("a", b"stale"))
    await other.commit(turn("a", b"3", fence=row.fence))
    # The run moved on in between: what this store remembered of it is no use any more.
    await store.commit(turn("a", b"4", fence=row.fence))
    await other.commit(turn("a", b"5", fence=row.fence))
    assert [data for _, data in await journal(store, "a")] == [b"1", b"2", b"3", b"4", b"5"]
    await other.close()


async def test_a_run_deleted_and_made_again_elsewhere_is_not_mistaken(
    store: SQLiteStore, path: Path
) -> None:
    await begin(store, "a", b"1")
    other = SQLiteStore(path)
    await other.open()
    await other.commit(turn("a", status=RunStatus.FAILED))
    await other.delete(["a"])
    await begin(other, "b", b"1")
    with pytest.raises(LeaseLost):
        await store.commit(turn("a", b"2"))
    assert await journal(store, "b") == [(1, b"1")]
    await other.close()


async def test_changes_of_another_process_are_noticed(store: SQLiteStore, path: Path) -> None:
    other = SQLiteStore(path)
    await other.open()
    await store.changed(0)
    waiting = asyncio.create_task(store.changed(PATIENCE * 10))
    await asyncio.sleep(0)
    await other.create(new("a"))
    async with asyncio.timeout(PATIENCE):
        await waiting
    await other.create(new("b"))  # while nobody waits
    async with asyncio.timeout(PATIENCE):
        await store.changed(PATIENCE * 10)
    await other.close()


async def test_two_processes_write_at_once(store: SQLiteStore, path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SCRIPTS / "commit.py"), str(path), "process", "never", "0", "30",
        env=ENVIRONMENT, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    for n in range(200):
        await store.create(new(f"mine{n}"))
    out, _ = await process.communicate()
    assert process.returncode == 0
    assert len(out.splitlines()) == 8 * 30
    for n in range(8):
        assert len(await store.read(f"run{n}")) == 30
    assert await store.verify() == []


async def test_a_second_event_loop_may_use_the_store(store: SQLiteStore) -> None:
    async def elsewhere() -> str:
        return await store.create(new("a"))

    await store.changed(0)
    waiting = asyncio.create_task(store.changed(PATIENCE * 10))
    await asyncio.sleep(0)
    assert await asyncio.to_thread(lambda: asyncio.run(elsewhere())) == "a"
    async with asyncio.timeout(PATIENCE):
        await waiting


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
async def test_a_forked_process_is_refused(path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "ignore::DeprecationWarning", str(SCRIPTS / "fork.py"), str(path),
        env=ENVIRONMENT, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    assert out.decode().split() == ["refused", "refused", "kept"]

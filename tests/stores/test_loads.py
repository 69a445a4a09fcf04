"""Loads of single runs that share trips. The pool is real; what a load does is not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from stepwell.errors import StoreError, StoreUnavailable
from stepwell.stores.base import Loaded, RunRow
from stepwell.stores.loads import Loads
from stepwell.values import RunStatus


def run(id: str) -> Loaded:
    row = RunRow(
        id=id,
        workflow="w",
        version="",
        status=RunStatus.QUEUED,
        seq=0,
        fence=0,
        owner=None,
        due=None,
        created=0.0,
        updated=0.0,
        ended=None,
        key=None,
        correlation=None,
        parent=None,
        priority=0,
        detail=None,
    )
    return Loaded(row, None, [], [])


class Database:
    """Notes its trips. The first one waits until it is let go."""

    def __init__(self) -> None:
        self.trips: list[list[str]] = []
        self.began = Event()
        self.go = Event()
        self.bad: frozenset[str] = frozenset()

    def load(self, runs: Sequence[str]) -> list[Loaded]:
        self.trips.append([*runs])
        self.began.set()
        self.go.wait()
        if self.bad & {*runs}:
            raise StoreError(f"{sorted(self.bad & {*runs})} can't be read")
        return [run(id) for id in reversed(runs) if not id.startswith("none")]


@pytest.fixture
def database() -> Iterator[Database]:
    database = Database()
    yield database
    database.go.set()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


Asking = Callable[[Sequence[str]], list[asyncio.Future[Loaded | None]]]


@pytest.fixture
def ask(pool: ThreadPoolExecutor, database: Database) -> Asking:
    loads = Loads(pool, database.load)
    return lambda ids: [loads.load(id) for id in ids]


async def test_what_is_asked_for_while_one_is_under_way_goes_in_one_trip(
    ask: Asking, database: Database
) -> None:
    first = ask(["first"])
    await asyncio.to_thread(database.began.wait)
    others = ask(["a", "none", "b", "a"])
    database.go.set()
    found = await asyncio.gather(*first, *others)
    assert [loaded and loaded.row.id for loaded in found] == ["first", "a", None, "b", "a"]
    assert database.trips == [["first"], ["a", "none", "b"]]
    (later,) = ask(["later"])  # the thread has gone home meanwhile
    assert await later is not None


async def test_a_trip_has_an_end(ask: Asking, database: Database) -> None:
    database.go.set()
    found = await asyncio.gather(*ask([f"run{n}" for n in range(500)]))
    assert [loaded and loaded.row.id for loaded in found] == [f"run{n}" for n in range(500)]
    assert max(map(len, database.trips)) <= 64


async def test_other_work_of_the_pool_has_its_turn_between_trips(
    ask: Asking, database: Database, pool: ThreadPoolExecutor
) -> None:
    first = ask(["first"])
    await asyncio.to_thread(database.began.wait)
    others = ask([f"run{n}" for n in range(200)])
    trips_before = asyncio.get_running_loop().run_in_executor(pool, lambda: len(database.trips))
    database.go.set()
    await asyncio.gather(*first, *others)
    assert await trips_before == 1


async def test_what_is_wrong_with_one_run_is_nothing_to_the_others(
    ask: Asking, database: Database
) -> None:
    database.bad = frozenset({"bad"})
    database.go.set()
    found = await asyncio.gather(*ask(["a", "bad", "b", "none"]), return_exceptions=True)
    said = [each.row.id if isinstance(each, Loaded) else str(each) for each in found]
    assert said == ["a", "['bad'] can't be read", "b", "None"]


async def test_who_was_cancelled_harms_nobody(ask: Asking, database: Database) -> None:
    leaving, staying = ask(["a", "b"])
    leaving.cancel()
    database.go.set()
    assert await staying is not None
    assert leaving.cancelled()


async def test_a_pool_that_is_shut_down_still_answers(
    ask: Asking, database: Database, pool: ThreadPoolExecutor
) -> None:
    first = ask(["first"])
    await asyncio.to_thread(database.began.wait)
    others = ask([f"run{n}" for n in range(100)])
    pool.shutdown(wait=False)
    database.go.set()
    assert None not in await asyncio.gather(*first, *others)


async def test_a_store_that_is_away_is_looked_for_once(pool: ThreadPoolExecutor) -> None:
    trips: list[Sequence[str]] = []

    def load(runs: Sequence[str]) -> list[Loaded]:
        trips.append(runs)
        raise StoreUnavailable("nobody is there")

    loads = Loads(pool, load)
    asked = [loads.load(f"run{n}") for n in range(20)]
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(each) for each in found] == [StoreUnavailable] * 20
    assert len(trips) <= 2  # the first may have gone alone


async def test_whoever_asks_a_pool_that_was_shut_down_is_told(
    ask: Asking, pool: ThreadPoolExecutor
) -> None:
    pool.shutdown()
    for _ in range(2):
        (asked,) = ask(["a"])
        with pytest.raises(RuntimeError, match="after shutdown"):
            await asked

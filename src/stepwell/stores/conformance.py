"""The conformance kit: one test for every promise that `stores.base` makes.

A store is a `Store` when it passes. Subclass the kit in a test module and say how to make one:

    class TestMyStore(StoreConformance):
        def make_store(self, place: Path) -> Store:
            return MyStore(place / "runs")

`make_store` gives an unconnected store; two stores made of the same place keep the same runs. A
store that keeps nothing when its process ends subclasses `VolatileStoreConformance`. The kit needs
pytest and pytest-asyncio. No test waits for time to pass: times are arguments of the contract, and
what must happen "at once" has `PATIENCE` seconds.
"""

# ruff: noqa: S101 - this is a test module that happens to be public

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import pytest_asyncio

from stepwell.errors import LeaseLost, RunAlreadyExists, StoreCorrupt, StoreError, StoreUnavailable
from stepwell.stores.base import (
    Commit,
    NewMessage,
    NewRun,
    RunFilter,
    Snapshot,
    Store,
    WorkerRow,
)
from stepwell.stores.digests import digest_of
from stepwell.values import RunStatus

PATIENCE = 60.0
"""Seconds after which something that should happen at once is said not to happen."""

QUEUED, RUNNING, WAITING = RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.WAITING
PARKED, COMPLETED, FAILED = RunStatus.PARKED, RunStatus.COMPLETED, RunStatus.FAILED
TERMINAL = [status for status in RunStatus if status.terminal]


def new(id: str, **fields: Any) -> NewRun:
    """A run of workflow "wf", created at 1.0 and due at once, unless `fields` say otherwise."""
    return dataclasses.replace(NewRun(id, "wf", 1.0), **fields)


def turn(run: str, *rows: bytes, fence: int = 1, **fields: Any) -> Commit:
    """A commit of worker "w" at 2.0 that leaves the run running and due."""
    commit = Commit(run, fence, 2.0, RUNNING, 2.0, "w", rows)
    return dataclasses.replace(commit, **fields)


def message(run: str, data: bytes = b"{}", **fields: Any) -> NewMessage:
    """A signal sent at 3.0."""
    return dataclasses.replace(NewMessage(run, "signal", data, 3.0), **fields)


def worker(id: str, until: float) -> WorkerRow:
    """A worker on some host whose lease ends at `until`."""
    return WorkerRow(id, "host", 7, until, ["wf"])


async def begin(store: Store, id: str, *rows: bytes, **fields: Any) -> None:
    """A run that worker "w" has created and claimed in one commit."""
    at_creation = {name: fields.pop(name) for name in ("key", "parent", "start") if name in fields}
    await store.commit(turn(id, *rows, create=new(id, **at_creation), **fields))


async def ids(store: Store, where: RunFilter) -> list[str]:
    """The ids of one page."""
    return [row.id for row in (await store.list(where)).rows]


async def journal(store: Store, run: str) -> list[tuple[int, bytes]]:
    """All journal rows of a run."""
    return [(row.seq, row.data) for row in await store.read(run)]


async def claimed(
    store: Store,
    by: str = "w2",
    *,
    workflows: Sequence[str] = ("wf",),
    now: float = 100.0,
    limit: int = 10,
    dead: Sequence[str] = (),
) -> list[str]:
    """The ids that a claim gets."""
    return [row.id for row in await store.claim(by, workflows, now, limit, dead)]


class VolatileStoreConformance:
    """What every store must pass, also one that keeps nothing when its process ends."""

    pytestmark: ClassVar[Sequence[pytest.MarkDecorator]] = [pytest.mark.asyncio]

    def make_store(self, place: Path) -> Store:
        """A store that keeps its data (if it keeps any) in the directory `place`."""
        raise NotImplementedError

    @pytest_asyncio.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        """An open store, checked and closed after the test."""
        store = self.make_store(tmp_path)
        await store.open()
        yield store
        await store.open()  # idempotent; a test may have closed it
        if store.supports("verify"):
            assert await store.verify() == []
        await store.close()

    # Opening ------------------------------------------------------------------------------------

    async def test_open_and_close_are_idempotent(self, store: Store) -> None:
        await store.open()
        await store.create(new("a"))
        await store.close()
        await store.close()

    async def test_a_store_that_is_not_open_says_so(self, store: Store) -> None:
        await store.close()
        with pytest.raises(StoreUnavailable):
            await store.get("a")
        with pytest.raises(StoreUnavailable):
            await store.create(new("a"))

    async def test_says_what_it_is_and_what_it_survives(self, store: Store) -> None:
        assert "://" in store.url
        assert store.durability in ("none", "process", "power")
        assert store.supports("persistent") == (store.durability != "none")
        assert store.supports("persistent") == isinstance(self, StoreConformance)

    # Creating -----------------------------------------------------------------------------------

    async def test_a_new_run_has_what_it_was_created_with(self, store: Store) -> None:
        run = NewRun("a", "wf", 1.5, "v2", QUEUED, 9.0, None, "k", "c", "p", 3)
        assert await store.create(run) == "a"
        row = await store.get("a")
        assert row is not None
        assert (row.id, row.workflow, row.version, row.status) == ("a", "wf", "v2", QUEUED)
        assert (row.seq, row.fence, row.owner, row.due) == (0, 0, None, 9.0)
        assert (row.created, row.updated, row.ended) == (1.5, 1.5, None)
        assert (row.key, row.correlation, row.parent, row.priority) == ("k", "c", "p", 3)
        assert row.detail is None

    async def test_start_input_is_a_message_of_kind_start(self, store: Store) -> None:
        await store.create(new("a", start=b'{"n":1}', due=None))
        loaded = await store.load("a")
        assert loaded is not None
        assert [(m.kind, m.data) for m in loaded.messages] == [("start", b'{"n":1}')]
        assert loaded.row.due == 1.0

    async def test_a_taken_id_is_refused(self, store: Store) -> None:
        await store.create(new("a"))
        with pytest.raises(RunAlreadyExists):
            await store.create(new("a"))
        with pytest.raises(RunAlreadyExists):
            await begin(store, "a", b"1")
        assert await journal(store, "a") == []

    async def test_creating_by_key_is_idempotent(self, store: Store) -> None:
        assert await store.create(new("a", key="k")) == "a"
        assert await store.create(new("b", key="k", start=b"1")) == "a"
        assert await store.create(new("a", key="k")) == "a"
        assert await store.get("b") is None
        assert await store.create(new("c", workflow="other", key="k")) == "c"
        assert await store.find("wf", "k") == "a"
        assert await store.find("wf", "none") is None

    async def test_a_first_commit_with_a_taken_key_keeps_nothing(self, store: Store) -> None:
        await begin(store, "a", b"1", key="k")
        repeated = turn("b", b"2", create=new("b", key="k"), children=[new("c")])
        assert await store.commit(repeated) == "a"
        assert await store.get("b") is None
        assert await store.get("c") is None
        assert await journal(store, "a") == [(1, b"1")]

    async def test_a_first_commit_creates_claims_and_appends(self, store: Store) -> None:
        await begin(store, "a", b"1", b"2", status=WAITING, due=7.0, detail=b'"d"')
        row = await store.get("a")
        assert row is not None
        assert (row.seq, row.fence, row.owner, row.status) == (2, 1, "w", WAITING)
        assert (row.due, row.updated, row.detail) == (7.0, 2.0, b'"d"')

    async def test_a_run_may_be_over_with_its_first_commit(self, store: Store) -> None:
        await begin(store, "a", b"1", status=COMPLETED, due=None, release=True)
        row = await store.get("a")
        assert row is not None
        assert (row.owner, row.ended, row.status) == (None, 2.0, COMPLETED)

    # Committing ---------------------------------------------------------------------------------

    async def test_rows_are_numbered_without_gaps_and_read_in_order(self, store: Store) -> None:
        await begin(store, "a", b"1")
        await store.commit(turn("a", b"2", b"3"))
        await store.commit(turn("a"))
        await store.commit(turn("a", b"4"))
        assert await journal(store, "a") == [(1, b"1"), (2, b"2"), (3, b"3"), (4, b"4")]
        assert [row.seq for row in await store.read("a", after=1, limit=2)] == [2, 3]
        assert await store.read("a", after=4) == []
        assert await store.read("none") == []

    async def test_a_commit_changes_the_run_as_it_says(self, store: Store) -> None:
        await begin(store, "a", detail=b'"first"')
        await store.commit(turn("a", at=5.0, status=WAITING, due=8.0))
        row = await store.get("a")
        assert row is not None
        assert (row.status, row.due, row.updated, row.owner) == (WAITING, 8.0, 5.0, "w")
        assert row.detail == b'"first"'
        await store.commit(turn("a", at=6.0, status=PARKED, due=None, detail=b'"why"'))
        row = await store.get("a")
        assert row is not None
        assert (row.status, row.due, row.detail) == (PARKED, None, b'"why"')

    @pytest.mark.parametrize("status", TERMINAL)
    async def test_the_end_of_a_run_is_kept(self, store: Store, status: RunStatus) -> None:
        await begin(store, "a")
        await store.commit(turn("a", at=9.0, status=status, due=None, release=True))
        row = await store.get("a")
        assert row is not None
        assert (row.status, row.ended, row.owner) == (status, 9.0, None)

    async def test_releasing_gives_up_the_claim(self, store: Store) -> None:
        await store.register(worker("w", 1000.0))
        await begin(store, "a")
        assert await claimed(store) == []
        await store.commit(turn("a", release=True))
        assert await claimed(store) == ["a"]

    async def test_a_stale_fence_keeps_nothing(self, store: Store) -> None:
        await begin(store, "a", b"1")
        await store.create(new("other"))
        assert await claimed(store) == ["other", "a"]  # "w" never had a lease
        digest = digest_of(b"big")
        late = turn(
            "a",
            b"2",
            messages=[message("other")],
            children=[new("child")],
            blobs={digest: b"big"},
            snapshot=Snapshot(1, b'"s"'),
            status=COMPLETED,
        )
        with pytest.raises(LeaseLost):
            await store.commit(late)
        loaded = await store.load("a")
        assert loaded is not None
        assert (loaded.row.seq, loaded.row.status, loaded.snapshot) == (1, RUNNING, None)
        assert await store.messages("other") == []
        assert await store.get("child") is None
        with pytest.raises(StoreCorrupt):
            await store.blob(digest)
        await store.commit(turn("a", b"2", fence=2, worker="w2"))
        assert await journal(store, "a") == [(1, b"1"), (2, b"2")]

    @pytest.mark.parametrize("how", ["release", "unregister", "released at its creation"])
    async def test_a_run_that_was_let_go_of_takes_no_commit_of_its_last_claim(
        self, store: Store, how: str
    ) -> None:
        await store.register(worker("w", 1000.0))
        await begin(store, "a", b"1", release=how == "released at its creation")
        if how == "release":
            await store.commit(turn("a", status=WAITING, due=7.0, release=True))
        elif how == "unregister":
            await store.unregister("w")
        await store.send([message("a")])
        for late in (turn("a", b"2"), turn("a", status=COMPLETED, due=None, release=True)):
            with pytest.raises(LeaseLost):
                await store.commit(late)
        assert await journal(store, "a") == [(1, b"1")]
        row = await store.get("a")
        assert row is not None
        assert (row.owner, row.ended, row.fence) == (None, None, 1)
        assert row.due is not None
        assert await claimed(store) == ["a"]
        await store.commit(turn("a", b"2", fence=2, worker="w2"))
        assert await journal(store, "a") == [(1, b"1"), (2, b"2")]

    @pytest.mark.parametrize("status", TERMINAL)
    async def test_what_has_ended_stays_as_it_ended(self, store: Store, status: RunStatus) -> None:
        await begin(store, "a", b"1", at=5.0, status=status, due=None, release=True)
        await begin(store, "owned", b"1", at=5.0, status=status, due=None)
        assert await store.claim_one("w2", "a", 200.0) is not None
        other = COMPLETED if status is FAILED else FAILED
        for wrong in (RUNNING, WAITING, PARKED, other):
            for late in (
                turn("a", b"2", fence=2, worker="w2", status=wrong),
                turn("owned", b"2", status=wrong, due=None, release=True),
            ):
                with pytest.raises(StoreError, match="ended"):
                    await store.commit(late)
        for id in ("a", "owned"):
            row = await store.get(id)
            assert row is not None
            assert (row.status, row.ended, row.seq) == (status, 5.0, 1)
        await store.commit(
            turn("a", at=9.0, fence=2, worker="w2", status=status, due=None, release=True)
        )
        row = await store.get("a")
        assert row is not None
        assert (row.status, row.ended, row.owner) == (status, 5.0, None)

    async def test_a_run_that_is_not_there_has_no_lease(self, store: Store) -> None:
        with pytest.raises(LeaseLost):
            await store.commit(turn("none", b"1"))

    async def test_a_commit_of_which_one_part_fails_keeps_nothing(self, store: Store) -> None:
        await begin(store, "a", b"1")
        await begin(store, "other")
        digest = digest_of(b"big")
        with pytest.raises(StoreError):
            await store.commit(
                turn(
                    "a",
                    b"2",
                    status=COMPLETED,
                    due=None,
                    release=True,
                    consumed=[12345],
                    messages=[message("other")],
                    children=[new("child")],
                    blobs={digest: b"big"},
                )
            )
        row = await store.get("a")
        assert row is not None
        assert (row.seq, row.status, row.owner, row.ended) == (1, RUNNING, "w", None)
        assert await journal(store, "a") == [(1, b"1")]
        assert await store.messages("other") == []
        assert await store.get("child") is None
        with pytest.raises(StoreCorrupt):
            await store.blob(digest)

    async def test_a_commit_that_failed_can_be_made_again(self, store: Store) -> None:
        await begin(store, "a", b"1")
        asleep = turn("a", status=WAITING, due=9.0)
        with pytest.raises(StoreError):
            await store.commit(dataclasses.replace(asleep, consumed=[12345]))
        await store.commit(asleep)
        row = await store.get("a")
        assert row is not None
        assert (row.status, row.due, row.seq) == (WAITING, 9.0, 1)

    async def test_children_are_created_once(self, store: Store) -> None:
        await begin(store, "a")
        child = new("child", parent="a", start=b"1", key="k")
        await store.commit(turn("a", children=[child]))
        await store.commit(turn("a", children=[child, new("second", parent="a")]))
        await store.commit(turn("a", children=[new("third", key="k")]))
        assert [m.data for m in await store.messages("child")] == [b"1"]
        assert await store.get("second") is not None
        assert await store.get("third") is None
        row = await store.get("child")
        assert row is not None
        assert (row.parent, row.owner, row.fence) == ("a", None, 0)

    async def test_a_hundred_runs_commit_at_once_without_gaps(self, store: Store) -> None:
        async def live(run: str) -> None:
            await begin(store, run, b"1")
            for n in range(2, 11):
                await store.commit(turn(run, str(n).encode()))

        await asyncio.gather(*(live(f"run{n}") for n in range(100)))
        wanted = [(n, str(n).encode()) for n in range(1, 11)]
        for n in range(100):
            assert await journal(store, f"run{n}") == wanted

    async def test_commits_in_flight_at_once_are_kept_in_order(self, store: Store) -> None:
        await begin(store, "a", b"1")
        await asyncio.gather(*(store.commit(turn("a", str(n).encode())) for n in range(2, 30)))
        assert await journal(store, "a") == [(n, str(n).encode()) for n in range(1, 30)]

    # Messages -----------------------------------------------------------------------------------

    async def test_messages_are_kept_in_order_until_consumed(self, store: Store) -> None:
        await begin(store, "a")
        assert await store.send([message("a", b"1"), message("a", b"2")]) == [True, True]
        await begin(store, "b", messages=[message("a", b"3")])
        inbox = await store.messages("a")
        assert [m.data for m in inbox] == [b"1", b"2", b"3"]
        assert [m.id for m in inbox] == sorted({m.id for m in inbox})
        assert [m.data for m in await store.messages("a", after=inbox[0].id)] == [b"2", b"3"]
        await store.commit(turn("a", consumed=[inbox[0].id, inbox[2].id]))
        assert [m.data for m in await store.messages("a")] == [b"2"]
        await store.send([message("a", b"4")])
        loaded = await store.load("a")
        assert loaded is not None
        assert [m.data for m in loaded.messages] == [b"2", b"4"]
        assert loaded.messages[1].id > inbox[2].id

    async def test_a_message_is_consumed_by_one_commit(self, store: Store) -> None:
        await begin(store, "a")
        await store.send([message("a")])
        (only,) = await store.messages("a")
        await store.commit(turn("a", b"1", consumed=[only.id]))
        with pytest.raises(StoreError):
            await store.commit(turn("a", b"2", consumed=[only.id]))
        assert await journal(store, "a") == [(1, b"1")]

    async def test_a_run_cannot_consume_the_message_of_another(self, store: Store) -> None:
        await begin(store, "a")
        await begin(store, "b")
        await store.send([message("b")])
        (its,) = await store.messages("b")
        with pytest.raises(StoreError):
            await store.commit(turn("a", consumed=[its.id]))
        assert await store.messages("b") == [its]

    async def test_a_dedupe_value_is_used_once_for_ever(self, store: Store) -> None:
        await begin(store, "a")
        await begin(store, "b")
        twice = [message("a", b"1", dedupe="x"), message("a", b"2", dedupe="x")]
        assert await store.send(twice) == [True, False]
        (first,) = await store.messages("a")
        await store.commit(turn("a", consumed=[first.id]))
        assert await store.send([message("a", dedupe="x")]) == [False]
        await store.commit(turn("b", messages=[message("a", dedupe="x")]))
        assert await store.messages("a") == []
        assert await store.send([message("b", dedupe="x"), message("a", dedupe="y")]) == [True] * 2

    async def test_nobody_there_nobody_told(self, store: Store) -> None:
        await begin(store, "a", status=COMPLETED, due=None, release=True)
        await begin(store, "b", messages=[message("none"), message("a")])
        told = await store.send([message("none"), message("a"), message("b")])
        assert told == [False, False, True]
        assert await store.messages("a") == []
        assert await store.messages("none") == []

    async def test_a_message_makes_its_run_due(self, store: Store) -> None:
        await begin(store, "a", status=WAITING, due=500.0, release=True)
        await store.create(new("b", due=None))
        await store.create(new("c", due=0.5))
        await store.send([message("a"), message("b"), message("c")])
        dues = [row.due for row in (await store.list(RunFilter())).rows]
        assert sorted(due for due in dues if due is not None) == [0.5, 3.0, 3.0]

    async def test_a_message_that_a_commit_left_keeps_its_run_due(self, store: Store) -> None:
        await begin(store, "a")
        await store.send([message("a"), message("a")])
        first, second = await store.messages("a")
        asleep = turn("a", status=WAITING, due=500.0, at=4.0, consumed=[first.id])
        await store.commit(asleep)
        row = await store.get("a")
        assert row is not None
        assert row.due == 4.0
        await store.commit(dataclasses.replace(asleep, consumed=[second.id]))
        row = await store.get("a")
        assert row is not None
        assert row.due == 500.0

    async def test_a_consumed_message_leaves_its_run_due_when_it_was(self, store: Store) -> None:
        await begin(store, "a", status=WAITING, due=500.0)
        asleep = turn("a", status=WAITING, due=500.0)
        await store.commit(asleep)
        await store.send([message("a")])
        await store.commit(asleep)
        row = await store.get("a")
        assert row is not None
        assert row.due is not None
        assert row.due <= 3.0
        (only,) = await store.messages("a")
        await store.commit(dataclasses.replace(asleep, consumed=[only.id]))
        row = await store.get("a")
        assert row is not None
        assert row.due == 500.0

    async def test_the_inbox_of_a_worker_names_its_runs_with_mail(self, store: Store) -> None:
        for run in ("a", "b", "c"):
            await begin(store, run)
        await store.commit(turn("c", release=True))
        await store.send([message("a"), message("c")])
        assert await store.inbox("w") == ["a"]
        assert await store.inbox("other") == []

    # Claims -------------------------------------------------------------------------------------

    async def test_what_is_due_is_claimed_by_one_worker(self, store: Store) -> None:
        await store.register(worker("w1", 1000.0))
        await store.register(worker("w2", 1000.0))
        for n in range(20):
            await store.create(new(f"run{n}"))
        halves = await asyncio.gather(*(claimed(store, by) for by in ("w1", "w2")))
        assert sorted(halves[0] + halves[1]) == sorted(f"run{n}" for n in range(20))
        assert await claimed(store, "w1") == []

    async def test_a_claim_says_who_and_raises_the_fence(self, store: Store) -> None:
        await store.create(new("a"))
        (row,) = await store.claim("w1", ["wf"], 100.0, 10)
        assert (row.id, row.owner, row.fence) == ("a", "w1", 1)
        assert await store.get("a") == row
        await store.commit(turn("a", b"1", release=True))
        (row,) = await store.claim("w2", ["wf"], 100.0, 10)
        assert (row.owner, row.fence, row.seq) == ("w2", 2, 1)

    async def test_claims_go_by_priority_then_by_due_time(self, store: Store) -> None:
        await store.create(new("late", due=9.0))
        await store.create(new("early", due=3.0))
        await store.create(new("urgent", due=50.0, priority=5))
        await store.create(new("idle", due=1.0, priority=-5))
        await store.create(new("future", due=101.0, priority=9))
        assert await claimed(store, limit=3) == ["urgent", "early", "late"]
        assert await claimed(store) == ["idle"]

    async def test_claims_of_the_same_due_time_go_in_order_of_creation(self, store: Store) -> None:
        for n, id in enumerate(("r3", "r10", "r1", "r2")):
            workflow = "other" if id == "r1" else "wf"
            await store.create(new(id, at=n / 1000, workflow=workflow))
        assert await claimed(store, limit=1) == ["r3"]
        await store.commit(turn("r3", b"1", worker="w2", due=0.0, release=True))
        assert await claimed(store, limit=2) == ["r3", "r10"]
        both = ["wf", "other"]  # and "w2" has no lease
        assert await claimed(store, "w3", workflows=both) == ["r3", "r10", "r1", "r2"]

    async def test_claims_go_in_order_of_creation_whatever_the_workflow(self, store: Store) -> None:
        await store.create(new("first", workflow="wf"))
        await store.create(new("second", workflow="other"))
        assert await claimed(store, workflows=["wf", "other"], limit=1) == ["first"]

    async def test_only_what_may_be_advanced_is_claimed(self, store: Store) -> None:
        await store.create(new("future", due=100.5))
        await store.create(new("never", due=None))
        await store.create(new("unknown", workflow="other"))
        await begin(store, "parked", status=PARKED, release=True)
        await begin(store, "over", status=FAILED, release=True)
        await store.create(new("waiting", status=WAITING, due=100.0))
        assert await claimed(store) == ["waiting"]
        assert await claimed(store, workflows=[]) == []
        assert await claimed(store, now=101.0) == ["future"]

    async def test_an_owner_keeps_its_runs_while_its_lease_lasts(self, store: Store) -> None:
        await store.register(worker("w", 100.5))
        await begin(store, "a")
        assert await claimed(store) == []
        assert await claimed(store, now=100.5) == ["a"]

    async def test_a_lease_can_be_renewed(self, store: Store) -> None:
        await store.register(worker("w", 50.0))
        await begin(store, "a")
        await store.register(dataclasses.replace(worker("w", 500.0), workflows=["wf", "x"]))
        assert await claimed(store) == []
        (row,) = await store.workers()
        assert (row.until, list(row.workflows)) == (500.0, ["wf", "x"])

    async def test_what_a_dead_worker_owned_is_claimable(self, store: Store) -> None:
        await store.register(worker("w", 1000.0))
        await begin(store, "a")
        await begin(store, "asleep", status=WAITING, due=500.0)
        assert await claimed(store, dead=["w"]) == ["a"]
        with pytest.raises(LeaseLost):
            await store.commit(turn("a"))

    async def test_a_worker_never_claims_from_itself(self, store: Store) -> None:
        await begin(store, "a")
        assert await claimed(store, by="w") == []
        assert await store.claim_one("w", "a", 100.0) is None

    async def test_unregistering_releases_what_the_worker_owns(self, store: Store) -> None:
        await store.register(worker("w", 1000.0))
        await begin(store, "a", status=WAITING, due=30.0)
        await begin(store, "parked", status=PARKED, due=None)
        await store.unregister("w")
        assert await store.workers() == []
        for run, due in (("a", 30.0), ("parked", None)):
            row = await store.get(run)
            assert row is not None
            assert (row.owner, row.due, row.fence) == (None, due, 1)
        assert await claimed(store) == ["a"]

    @pytest.mark.parametrize("status", [QUEUED, WAITING, PARKED, COMPLETED])
    async def test_one_run_can_be_claimed_in_any_state(
        self, store: Store, status: RunStatus
    ) -> None:
        await begin(store, "a", status=status, due=None, release=True)
        row = await store.claim_one("w2", "a", 100.0)
        assert row is not None
        assert (row.owner, row.fence, row.status) == ("w2", 2, status)

    async def test_one_run_is_not_taken_from_a_live_worker(self, store: Store) -> None:
        await store.register(worker("w", 200.0))
        await begin(store, "a")
        assert await store.claim_one("w2", "a", 100.0) is None
        assert await store.claim_one("w2", "none", 100.0) is None
        assert await store.claim_one("w2", "a", 100.0, dead=["w"]) is not None
        assert await store.claim_one("w3", "a", 200.0) is not None  # "w2" has no lease

    async def test_next_due_is_that_of_runs_nobody_has(self, store: Store) -> None:
        await store.register(worker("w", 1000.0))
        assert await store.next_due(["wf"], 100.0) is None
        await begin(store, "owned", status=WAITING, due=5.0)
        await begin(store, "parked", status=PARKED, due=6.0, release=True)
        await begin(store, "over", status=COMPLETED, due=7.0, release=True)
        await store.create(new("never", due=None))
        await store.create(new("unknown", workflow="other", due=8.0))
        await store.create(new("later", due=300.0, priority=5))
        await store.create(new("next", due=200.0))
        assert await store.next_due(["wf"], 100.0) == 200.0
        assert await store.next_due(["wf", "other"], 100.0) == 8.0
        assert await store.next_due(["wf"], 1000.0) == 5.0  # the lease is over

    # Loading ------------------------------------------------------------------------------------

    async def test_load_gives_the_snapshot_and_the_rows_after_it(self, store: Store) -> None:
        await begin(store, "a", b"1", b"2", b"3")
        loaded = await store.load("a")
        assert loaded is not None
        assert loaded.snapshot is None
        assert [row.seq for row in loaded.rows] == [1, 2, 3]
        await store.commit(turn("a", b"4", snapshot=Snapshot(2, b'"old"')))
        await store.commit(turn("a", b"5", snapshot=Snapshot(3, b'"new"')))
        loaded = await store.load("a")
        assert loaded is not None
        assert loaded.snapshot == Snapshot(3, b'"new"')
        assert [(row.seq, row.data, row.at) for row in loaded.rows] == [
            (4, b"4", 2.0),
            (5, b"5", 2.0),
        ]
        assert loaded.row == await store.get("a")
        assert len(await store.read("a")) == 5

    async def test_many_are_loaded_at_once(self, store: Store) -> None:
        await begin(store, "a", b"1")
        await begin(store, "b", b"2")
        loaded = await store.load_many(["b", "none", "a"])
        assert [each.row.id for each in loaded] == ["b", "a"]
        assert loaded[1] == await store.load("a")
        assert await store.load_many([]) == []

    async def test_runs_that_are_asked_for_together_are_loaded_as_if_alone(
        self, store: Store
    ) -> None:
        ids = [f"run{n} ☃ '\"\\" for n in range(80)]
        for n, id in enumerate(ids):
            await begin(store, id, *[b"%d" % row for row in range(n % 4)])
            if n % 3 == 0:
                await store.send([message(id, b'"hello"'), message(id, b'"again"')])
            if n % 5 == 0:
                seq = n % 4 + 1
                await store.commit(turn(id, b'"kept"', snapshot=Snapshot(seq, b'"so far"')))
        one_by_one = [await store.load(id) for id in ids]
        assert [loaded and loaded.row.id for loaded in one_by_one] == ids
        wanted = [*ids, "none", ids[0]]
        together = await asyncio.gather(*(store.load(id) for id in wanted))
        assert together == [*one_by_one, None, one_by_one[0]]
        assert await store.load_many(ids) == one_by_one

    async def test_what_is_not_there_is_none(self, store: Store) -> None:
        assert await store.get("none") is None
        assert await store.load("none") is None
        assert await store.messages("none") == []

    async def test_bytes_come_back_as_they_were(self, store: Store) -> None:
        data = '{"text":"héllo \\u0000 ☃ \U0001f680"}'.encode()
        await begin(store, "a", data, detail=data, start=data, snapshot=Snapshot(1, data))
        loaded = await store.load("a")
        assert loaded is not None
        assert [loaded.row.detail, loaded.messages[0].data] == [data, data]
        assert [row.data for row in await store.read("a")] == [data]
        assert loaded.snapshot == Snapshot(1, data)

    # Listing ------------------------------------------------------------------------------------

    async def test_listing_is_newest_first_and_paged(self, store: Store) -> None:
        for n in range(7):
            await store.create(new(f"run{n}", at=float(n // 2)))
        found: list[str] = []
        after: str | None = None
        for _ in range(4):
            page = await store.list(RunFilter(limit=2, after=after))
            found += [row.id for row in page.rows]
            after = page.cursor
            # What comes and goes between pages moves none of the others.
            await store.create(new(f"later{len(found)}", at=50.0))
        assert after is None
        assert found == [f"run{n}" for n in (6, 5, 4, 3, 2, 1, 0)]

    async def test_a_page_that_holds_all_has_no_cursor(self, store: Store) -> None:
        assert await store.list(RunFilter()) == await store.list(RunFilter(workflow="none"))
        await store.create(new("a"))
        await store.create(new("b"))
        assert (await store.list(RunFilter(limit=2))).cursor is None
        assert (await store.list(RunFilter(limit=1))).cursor is not None

    async def test_listing_by_filter(self, store: Store) -> None:
        await store.create(new("a", at=1.0, parent="p", correlation="c"))
        await store.create(new("b", at=2.0, workflow="other", correlation="c"))
        await begin(store, "c", status=COMPLETED)
        await begin(store, "d", status=FAILED, parent="p")
        await store.create(new("e", at=5.0))
        for where, wanted in [
            (RunFilter(), "ebdca"),
            (RunFilter(workflow="other"), "b"),
            (RunFilter(status=[QUEUED]), "eba"),
            (RunFilter(status=[COMPLETED, FAILED]), "dc"),
            (RunFilter(status=[FAILED, QUEUED, FAILED]), "ebda"),
            (RunFilter(status=[]), ""),
            (RunFilter(parent="p"), "da"),
            (RunFilter(parent="p", status=[FAILED]), "d"),
            (RunFilter(parent="p", correlation="c"), "a"),
            (RunFilter(correlation="c"), "ba"),
            (RunFilter(correlation="c", workflow="wf"), "a"),
            (RunFilter(correlation="c", status=[FAILED]), ""),
            (RunFilter(since=2.0), "eb"),
            (RunFilter(workflow="wf", status=[QUEUED], since=2.0), "e"),
        ]:
            assert await ids(store, where) == list(wanted), where

    async def test_every_filter_is_paged(self, store: Store) -> None:
        for n in range(5):
            status = (QUEUED, WAITING)[n % 2]
            await store.create(
                new(f"run{n}", at=float(n), status=status, parent="p", correlation="c")
            )
        for where in [
            RunFilter(status=[QUEUED, WAITING]),
            RunFilter(parent="p"),
            RunFilter(correlation="c"),
            RunFilter(workflow="wf"),
        ]:
            first = await store.list(dataclasses.replace(where, limit=3))
            second = await store.list(dataclasses.replace(where, limit=3, after=first.cursor))
            assert [row.id for row in (*first.rows, *second.rows)] == [
                f"run{n}" for n in (4, 3, 2, 1, 0)
            ]
            assert second.cursor is None

    async def test_a_run_is_found_by_what_it_waits_for(self, store: Store) -> None:
        waiting = RunFilter(waiting="approval")
        await begin(store, "a", waits=("approval", "reply"))  # with its first commit
        await begin(store, "b")
        assert await ids(store, waiting) == ["a"]
        await store.commit(turn("b", b"1", waits=("approval",)))
        await store.commit(turn("a", b"1"))  # None leaves what is there
        assert await ids(store, waiting) == ["b", "a"]
        await store.commit(turn("a", b"2", waits=("reply", "reply"), release=True))
        assert await ids(store, waiting) == ["b"]
        assert await ids(store, RunFilter(waiting="reply")) == ["a"]
        await store.commit(turn("b", status=PARKED, due=None))
        assert await ids(store, waiting) == ["b"]  # it does, when it goes on
        await store.commit(turn("b", waits=()))
        assert await ids(store, waiting) == []
        assert await ids(store, RunFilter(waiting="nothing of the sort")) == []

    @pytest.mark.parametrize("status", TERMINAL)
    async def test_a_run_that_is_over_waits_for_nothing(
        self, store: Store, status: RunStatus
    ) -> None:
        await begin(store, "a", waits=("approval",))
        await store.commit(turn("a", status=status, due=None, waits=("approval",)))
        await begin(store, "b", waits=("approval",), status=status, due=None)
        assert await ids(store, RunFilter(waiting="approval")) == []

    async def test_a_stale_commit_does_not_change_what_is_waited_for(self, store: Store) -> None:
        await begin(store, "a", waits=("approval",))
        with pytest.raises(LeaseLost):
            await store.commit(turn("a", fence=7, waits=("reply",)))
        with pytest.raises(StoreError):
            await store.commit(turn("a", consumed=[99], waits=("reply",)))
        assert await ids(store, RunFilter(waiting="reply")) == []
        assert await ids(store, RunFilter(waiting="approval")) == ["a"]

    async def test_listing_what_waits_goes_with_every_other_filter(self, store: Store) -> None:
        for n in range(6):
            child = new(
                f"run{n}",
                at=float(n // 2),
                workflow=("wf", "other")[n % 2],
                parent=("p", "q")[n // 3],
                correlation=("c", "d")[n > 0],
            )
            status = (WAITING, RUNNING)[n % 2]
            waits = ("approval", f"own{n}")
            await store.commit(turn(child.id, create=child, status=status, waits=waits))
        await begin(store, "not waiting")
        for other, wanted in [
            (RunFilter(), "543210"),
            (RunFilter(workflow="wf"), "420"),
            (RunFilter(parent="q"), "543"),
            (RunFilter(correlation="c"), "0"),
            (RunFilter(status=[RUNNING]), "531"),
            (RunFilter(status=[RUNNING, WAITING]), "543210"),
            (RunFilter(status=[]), ""),
            (RunFilter(since=1.0), "5432"),
            (RunFilter(status=[WAITING], parent="p", correlation="d", since=1.0), "2"),
        ]:
            where = dataclasses.replace(other, waiting="approval")
            found = await ids(store, where)
            assert found == [f"run{n}" for n in wanted], where
            paged: list[str] = []
            after: str | None = None
            for _ in range(4):
                page = await store.list(dataclasses.replace(where, limit=2, after=after))
                paged += [row.id for row in page.rows]
                after = page.cursor
                if after is None:
                    break
            assert paged == found, where

    async def test_a_deleted_run_waits_for_nothing(self, store: Store) -> None:
        await begin(store, "a", waits=("approval",))
        await store.commit(turn("a", status=FAILED, due=None))
        assert await store.delete(["a"]) == 1
        await begin(store, "a", b"again")
        assert await ids(store, RunFilter(waiting="approval")) == []

    async def test_a_cursor_nobody_gave_is_refused(self, store: Store) -> None:
        with pytest.raises(ValueError, match="cursor"):
            await store.list(RunFilter(after="yesterday"))

    async def test_counts_are_by_workflow_and_status(self, store: Store) -> None:
        assert await store.counts() == {}
        await store.create(new("a"))
        await store.create(new("b"))
        await store.create(new("c", workflow="other"))
        await begin(store, "d", status=FAILED)
        assert await store.counts() == {
            ("wf", QUEUED): 2,
            ("other", QUEUED): 1,
            ("wf", FAILED): 1,
        }

    # Keeping house ------------------------------------------------------------------------------

    async def test_only_runs_that_are_over_are_deleted_whole(self, store: Store) -> None:
        await begin(store, "live", b"1")
        await begin(store, "over", b"1", key="k", start=b"0", snapshot=Snapshot(1, b"1"))
        await store.send([message("over", dedupe="x")])
        await store.commit(turn("over", status=FAILED, due=None, release=True))
        assert await store.delete(["live", "over", "over", "none"]) == 1
        assert await store.get("over") is None
        assert await store.find("wf", "k") is None
        assert await store.read("over") == []
        assert await journal(store, "live") == [(1, b"1")]
        assert await ids(store, RunFilter()) == ["live"]

        await begin(store, "over", b"2", key="k")  # nothing of the old one is left
        assert await journal(store, "over") == [(1, b"2")]
        assert await store.messages("over") == []
        assert await store.send([message("over", dedupe="x")]) == [True]

    async def test_retention_finds_what_ended_before(self, store: Store) -> None:
        for run, at in (("c", 30.0), ("a", 10.0), ("b", 20.0)):
            await begin(store, run, status=COMPLETED, due=None, at=at)
        await begin(store, "live")
        assert await store.expired(30.0, 10) == ["a", "b"]
        assert await store.expired(100.0, 2) == ["a", "b"]

    async def test_a_blob_lives_as_long_as_somebody_refers_to_it(self, store: Store) -> None:
        digest, lone = digest_of(b"shared"), digest_of(b"lone")
        await begin(store, "a", blobs={digest: b"shared", lone: b"lone"})
        await begin(store, "b", blobs={digest: b"shared"})
        for run in ("a", "b"):
            await store.commit(turn(run, status=COMPLETED, due=None))
        assert await store.blob(digest) == b"shared"
        await store.delete(["a"])
        assert await store.blob(digest) == b"shared"
        with pytest.raises(StoreCorrupt):
            await store.blob(lone)
        await store.delete(["b"])
        with pytest.raises(StoreCorrupt):
            await store.blob(digest)

    async def test_a_blob_outlives_its_sender_for_those_it_was_sent_to(self, store: Store) -> None:
        digest = digest_of(b"big")
        await begin(store, "friend")
        await begin(
            store,
            "a",
            blobs={digest: b"big"},
            children=[new("child")],
            messages=[message("friend")],
            status=COMPLETED,
        )
        await store.delete(["a"])
        assert await store.blob(digest) == b"big"
        await store.commit(turn("friend", status=COMPLETED))
        await store.delete(["friend"])
        assert await store.blob(digest) == b"big"

    async def test_a_backup_is_a_store(self, store: Store, tmp_path: Path) -> None:
        place = tmp_path / "copy"
        place.mkdir()
        target = place / "runs.db"
        if not store.supports("backup"):
            with pytest.raises(StoreError):
                await store.backup(str(target))
            return
        await begin(store, "a", b"1", key="k", waits=("approval",))
        await store.backup(str(target))
        await store.commit(turn("a", b"2"))
        copy = self.make_store(place)
        await copy.open()
        assert await journal(copy, "a") == [(1, b"1")]
        assert await ids(copy, RunFilter(waiting="approval")) == ["a"]
        assert await copy.verify() == []
        await copy.commit(turn("a", b"3"))
        await copy.close()
        assert await journal(store, "a") == [(1, b"1"), (2, b"2")]

    # Changes ------------------------------------------------------------------------------------

    async def test_changed_returns_with_the_next_change(self, store: Store) -> None:
        await begin(store, "a")
        for change in (
            store.commit(turn("a", b"1")),
            store.create(new("b")),
            store.send([message("a")]),
        ):
            await store.changed(0)
            waiting = asyncio.create_task(store.changed(PATIENCE * 10))
            for _ in range(5):
                await asyncio.sleep(0)
            assert not waiting.done()
            await change
            async with asyncio.timeout(PATIENCE):
                await waiting

    async def test_a_change_between_two_waits_is_not_missed(self, store: Store) -> None:
        await store.changed(0)
        await begin(store, "a")
        async with asyncio.timeout(PATIENCE):
            await store.changed(PATIENCE * 10)

    async def test_everyone_who_waits_hears_of_a_change(self, store: Store) -> None:
        await store.changed(0)
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as waiting:
            for _ in range(5):
                waiting.create_task(store.changed(PATIENCE * 10))
            await asyncio.sleep(0)
            await store.create(new("a"))

    async def test_changed_gives_up_after_its_time(self, store: Store) -> None:
        await store.changed(0)
        async with asyncio.timeout(PATIENCE):
            await store.changed(0.001)


class StoreConformance(VolatileStoreConformance):
    """What every persistent store must pass; see the module's text for how to use it."""

    async def test_reopening_keeps_everything(self, store: Store, tmp_path: Path) -> None:
        await begin(store, "a", b"1", b"2", key="k", snapshot=Snapshot(1, b'"s"'), detail=b'"d"')
        digest = digest_of(b"big")
        await store.commit(turn("a", blobs={digest: b"big"}))
        await store.send([message("a", b"3", dedupe="x")])
        await store.register(worker("w", 50.0))
        before = await store.load("a")
        await store.close()

        again = self.make_store(tmp_path)
        await again.open()
        assert await again.load("a") == before
        assert await again.find("wf", "k") == "a"
        assert await again.blob(digest) == b"big"
        assert await again.send([message("a", dedupe="x")]) == [False]
        assert await again.workers() == [worker("w", 50.0)]
        await again.commit(turn("a", b"4"))
        assert await journal(again, "a") == [(1, b"1"), (2, b"2"), (3, b"4")]
        await again.close()

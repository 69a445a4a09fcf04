"""Keys of idempotency: one key stands for one request, and starts one run.

The store sees to it that a workflow has one run for a key, whoever asks and however many at once.
What it does not know is whether the request that comes again is the same: so the id of a run that
was started with a key ends in a fingerprint of the request, which needs no place of its own, is as
durable as the run and is gone with it. A run that was started with its key from Python has no
fingerprint, and is taken for the one that is meant.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from stepwell.runtime.clock import new_run_id
from stepwell.server.problems import Problem
from stepwell.stores.base import Store

_DIGITS = 16
_ID = re.compile(r"[0-9a-f]{20}-([0-9a-f]{16})")


def fingerprint_of(*asked: object) -> str:
    """What tells a request from another one.

    >>> fingerprint_of("order", {"a": 1, "b": 2}) == fingerprint_of("order", {"b": 2, "a": 1})
    True
    """
    text = json.dumps(asked, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def id_for(fingerprint: str) -> str:
    """A fresh id for the run that a request with a key starts."""
    return f"{new_run_id()}-{fingerprint}"


def check_same(run_id: str, key: str, fingerprint: str) -> None:
    """Raise `Problem` when the run was started with this key by another request."""
    found = _ID.fullmatch(run_id)
    if found is not None and found[1] != fingerprint:
        raise reused(run_id, key)


def reused(run_id: str, key: str) -> Problem:
    """The key was given with another request."""
    return Problem(
        422,
        "idempotency_key_reused",
        f"the key {key!r:.80} was given with another request, which started run {run_id}",
        hint="Give every request a key of its own; repeat it only with the same body.",
    )


class Keys:
    """The keys of requests that are under way, each with whoever has it now."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def held(self, key: str) -> AsyncGenerator[None]:
        """Have a key alone: others of this process that bring it wait. The store alone keeps two
        processes apart, and does so for requests for the same workflow."""
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = asyncio.Lock()
        async with lock:
            yield


async def found(
    store: Store, key: str, workflow: str, others: Iterable[str], fingerprint: str
) -> str | None:
    """The run that was started with a key; None when there is none.

    Raises:
        Problem: another request started one with it, perhaps of another workflow.
    """
    run_id = await store.find(workflow, key)
    if run_id is not None:
        check_same(run_id, key, fingerprint)
        return run_id
    names = [name for name in others if name != workflow]
    for other in await asyncio.gather(*(store.find(name, key) for name in names)):
        if other is not None:
            raise reused(other, key)
    return None

"""From a URL to an engine that looks and speaks, from what was typed to a run.

Commands that only look never make a store: where there is none they say so.
"""

from __future__ import annotations

import asyncio
import difflib
import os
import sys
import threading
import time
from collections.abc import AsyncGenerator, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

import click

from stepwell.cli.errors import CommandError, NoStore
from stepwell.cli.options import Exit, settings
from stepwell.errors import RunNotFound
from stepwell.runtime.engine import Engine, Startable
from stepwell.runtime.views import RunInfo
from stepwell.stores.base import Store
from stepwell.stores.registry import open_store

if TYPE_CHECKING:
    from stepwell.client import Client

T = TypeVar("T")

_STEPS = "stepwell-step"
"""How the names of threads begin that run steps."""

_THREAD_GRACE = 0.5
"""Seconds that threads have to end when nothing is left to be done."""

_CURSOR = "\x1b[?25h"
"""Shows the cursor of a terminal, which a picture that was being drawn had hidden."""

_SEARCHED = 20_000
"""How many of the newest runs are searched for one whose id begins as typed."""


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine to its end, or to Ctrl-C."""
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        raise click.exceptions.Exit(Exit.INTERRUPTED) from None


def run_steps(work: Coroutine[Any, Any, Exit]) -> Exit:
    """`run_async` for a command that runs steps, whose threads may go on for ever.

    A thread can't be stopped, and Python waits for every one before it ends. When all is said and
    done, and a step that was given up still has one, the process is ended over its head.
    """
    return run_async(_with_threads(work))


async def _with_threads(work: Coroutine[Any, Any, Exit]) -> Exit:
    executor = ThreadPoolExecutor(thread_name_prefix=_STEPS)
    asyncio.get_running_loop().set_default_executor(executor)
    code = await work
    executor.shutdown(wait=False, cancel_futures=True)
    end = time.monotonic() + _THREAD_GRACE
    for thread in threading.enumerate():
        if thread.name.startswith(_STEPS):
            thread.join(max(0.0, end - time.monotonic()))
            if thread.is_alive():
                end_now(code)
    return code


def end_now(code: int) -> NoReturn:
    """End the process without waiting for anything, the terminal left in order."""
    for stream, last in ((sys.stdout, ""), (sys.stderr, _CURSOR)):
        # A signal may have come in the middle of a write to this very stream, which can't be
        # written to then; and nobody may be there to read it.
        with suppress(RuntimeError, OSError, ValueError):
            if last and stream.isatty():
                stream.write(last)
            stream.flush()
    os._exit(code)


def store_at(url: str) -> Store:
    """The store that a URL names, for use by several processes; not opened."""
    try:
        store = open_store(url)
    except ValueError as error:
        missing = "pip install" in str(error)
        hint = "" if missing else "Write for example sqlite:///runs.db."
        raise CommandError(str(error), hint=hint) from error
    if not store.supports("multiprocess"):
        raise CommandError(
            f"{url} is in memory: no other process can see it",
            hint="Use a store that is kept, for example sqlite:///runs.db.",
        )
    return store


def file_of(store: Store) -> Path | None:
    """The file of a store that is one."""
    scheme, _, place = store.url.partition(":///")
    return Path(place).absolute() if scheme == "sqlite" else None


def existing_store(url: str) -> Store:
    """The store at `url`, which must be there already. Raises `NoStore`."""
    store = store_at(url)
    file = file_of(store)
    if file is not None and not file.exists():
        raise NoStore(f"There is no store at {store.url} (no file {file}).")
    return store


@asynccontextmanager
async def looking(url: str, workflows: Iterable[Startable] = ()) -> AsyncGenerator[Engine]:
    """An engine on an existing store that advances nothing; or a service, with `--server`."""
    server = settings().server
    if server is not None:
        async with _client(server) as client:
            # All that these commands ask of an engine, a client answers in the same way.
            yield cast(Engine, client)
        return
    async with Engine(existing_store(url), workflows, name="cli", worker=False) as engine:
        yield engine


def _client(url: str) -> Client:
    try:
        from stepwell.client import Client  # an extra
    except ModuleNotFoundError as error:
        raise CommandError(
            f"--server needs {error.name}", hint="pip install 'stepwell[client]'", whose="operator"
        ) from None
    return Client(url, token=os.environ.get("STEPWELL_TOKEN") or None)


async def find_run(engine: Engine, given: str) -> RunInfo:
    """The run with this id, or with the only id that begins so. Raises `RunNotFound`, which names
    ids that are close, and `CommandError` when several begin so."""
    try:
        return await engine.get(given)
    except RunNotFound as error:
        ids = await _ids(engine)
        found = [id for id in ids if given and id.startswith(given)]
        if len(found) == 1:
            return await engine.get(found[0])
        if found:
            some = ", ".join(found[:5]) + (", ..." if len(found) > 5 else "")
            raise CommandError(
                f"{len(found)} runs have ids that begin with {given!r}: {some}",
                hint="Type more of the id.",
            ) from error
        close = difflib.get_close_matches(given, ids, 3, 0.6)
        missing = RunNotFound(given)
        missing.message = f"There is no run {given!r} in {engine.url}."
        if close:
            missing.hint = f"Did you mean {' or '.join(close)}?"
        else:
            missing.hint = (
                "`stepwell ls` lists the runs of a store; check --store and STEPWELL_STORE."
            )
        raise missing from error


async def _ids(engine: Engine) -> list[str]:
    ids: list[str] = []
    cursor = None
    while len(ids) < _SEARCHED:
        infos, cursor = await engine.list(limit=1000, after=cursor)
        ids += [info.id for info in infos]
        if cursor is None:
            break
    return ids


async def workflow_named(engine: Engine, given: str) -> str:
    """The full name of the workflow that was typed: that name, or the only one that ends in it."""
    names = sorted({name for name, _ in await engine.counts()})
    if given in names:
        return given
    found = [name for name in names if name.endswith(f".{given}")]
    if len(found) == 1:
        return found[0]
    if found:
        raise CommandError(
            f"{given!r} may be any of {', '.join(found)}", hint="Type the whole name."
        )
    raise CommandError(
        f"no run of a workflow {given!r} is in {engine.url}",
        hint=f"There are runs of {', '.join(names)}." if names else "The store has no runs.",
        exit=Exit.NOT_FOUND,
    )

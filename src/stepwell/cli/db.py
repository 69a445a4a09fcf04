"""`stepwell db`: migrate, gc, backup, verify."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import click

from stepwell.cli import output
from stepwell.cli.engines import existing_store, file_of, run_async, store_at
from stepwell.cli.errors import CommandError
from stepwell.cli.options import Duration, Exit, settings, shared_options, store_option
from stepwell.errors import StoreError
from stepwell.stores.base import Store
from stepwell.stores.sqlite.connection import connect_reader, schema_version

_BATCH = 200
"""How many runs are deleted in one transaction."""


@click.group()
@shared_options
def db() -> None:
    """Keep the store in order."""


@asynccontextmanager
async def opened(store: Store) -> AsyncGenerator[Store]:
    """The store, open."""
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def schema_of(file: Path) -> int:
    """The schema version of a SQLite store; 0 when there is none. Raises `StoreError`."""
    if not file.exists():
        return 0
    with closing(connect_reader(file, 5.0)) as connection:
        try:
            return schema_version(connection, file)
        except sqlite3.DatabaseError as error:
            raise StoreError(
                f"{file} can't be read: {error}", hint="It is damaged, or no SQLite database."
            ) from error


# --- migrate -------------------------------------------------------------------------------------


@db.command()
@store_option
@shared_options
def migrate(store: str) -> None:
    """Make the store, or bring its schema up to date.

    Every command that opens a store does the second by itself; this does it when you want it to be
    done, and says what it did.
    """
    run_async(_migrate(store))


async def _migrate(url: str) -> None:
    store = store_at(url)
    file = file_of(store)
    before = None if file is None else await asyncio.to_thread(schema_of, file)
    async with opened(store):
        after = None if file is None else await asyncio.to_thread(schema_of, file)
    if settings().json:
        output.document({"store": store.url, "before": before, "after": after})
        return
    if before == after:
        said = f"is at schema version {after}; there is nothing to do"
    elif before == 0:
        said = f"is made, with schema version {after}"
    else:
        said = f"is brought from schema version {before} to {after}"
    output.stdout().print(f"{store.url} {said}", soft_wrap=True)


# --- gc ------------------------------------------------------------------------------------------


@db.command()
@click.option(
    "--older-than",
    type=Duration(),
    default="30d",
    show_default=True,
    metavar="TIME",
    help="Runs that ended longer ago than this.",
)
@click.option("--dry-run", is_flag=True, help="Only say how many.")
@store_option
@shared_options
def gc(older_than: float, dry_run: bool, store: str) -> None:
    """Delete runs that ended long ago, with all that belongs to them.

    A run is deleted as a whole or not at all, and never while it is live.
    """
    run_async(_gc(older_than, dry_run, store))


async def _gc(older_than: float, dry_run: bool, url: str) -> None:
    before = time.time() - older_than
    deleted = 0
    async with opened(existing_store(url)) as store:
        if dry_run:
            deleted = len(await store.expired(before, 1_000_000))
        else:
            while ids := await store.expired(before, _BATCH):
                some = await store.delete(ids)
                deleted += some
                if not some:
                    break
    if settings().json:
        output.document({"store": store.url, "deleted": deleted, "dry_run": dry_run})
        return
    word = "would be deleted" if dry_run else "deleted"
    output.stdout().print(f"{deleted} run{'' if deleted == 1 else 's'} {word}")


# --- backup --------------------------------------------------------------------------------------


@db.command()
@click.argument("file")
@store_option
@shared_options
def backup(file: str, store: str) -> None:
    """Write a consistent copy of the store to FILE, while workers go on.

    The copy is a store itself. FILE must not be there yet.
    """
    run_async(_backup(file, store))


async def _backup(file: str, url: str) -> None:
    async with opened(existing_store(url)) as store:
        if not store.supports("backup"):
            raise CommandError(
                f"{store.url} can't be copied from here", hint="Use its own tools for backups."
            )
        await store.backup(file)
    size = (await asyncio.to_thread(Path(file).stat)).st_size
    if settings().json:
        output.document({"store": store.url, "file": file, "bytes": size})
        return
    output.stdout().print(f"{file} has a copy of {store.url} ({in_bytes(size)})", soft_wrap=True)


# --- verify --------------------------------------------------------------------------------------


@db.command()
@store_option
@shared_options
@click.pass_context
def verify(ctx: click.Context, store: str) -> None:
    """Check the data of the store. Exit code 4 when something is wrong with it."""
    ctx.exit(run_async(_verify(store)))


async def _verify(url: str) -> Exit:
    async with opened(existing_store(url)) as store:
        if not store.supports("verify"):
            raise CommandError(f"{store.url} can't be checked from here", hint="Use its own tools.")
        faults = await store.verify()
    if settings().json:
        output.document({"store": store.url, "sound": not faults, "faults": faults})
        return Exit.STORE if faults else Exit.OK
    console = output.stdout()
    if not faults:
        console.print(f"{store.url} is sound", soft_wrap=True)
        return Exit.OK
    for fault in faults:
        console.print(fault, style="red", soft_wrap=True)
    output.stderr().print(
        "Stop writing, keep a copy of the file, and restore from a backup.", soft_wrap=True
    )
    return Exit.STORE


def in_bytes(size: float) -> str:
    """A size in the unit that suits it.

    >>> in_bytes(2_500_000)
    '2.4 MiB'
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"

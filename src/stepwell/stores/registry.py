"""From a URL to a store: which kinds there are, and how their URLs read.

memory://                      nothing survives the process
sqlite:///runs.db              a file, relative to where the process runs
sqlite:////var/lib/runs.db     a file by its absolute path
sqlite:///runs.db?durability=process
runs.db, runs.sqlite           short for sqlite:///...
postgresql://me@host/database  a schema of a PostgreSQL database; postgres:// is the same
postgresql://me@host/database?schema=flows&durability=process
redis://host:6379/0            keys of a Redis server; rediss:// with TLS
redis://host:6379/0?prefix=flows&waitaof=1
"""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import parse_qsl, unquote

from stepwell.stores.base import Store
from stepwell.stores.memory import MemoryStore

_PASSWORD = re.compile(r"(://[^:/@]*:).*@")
_FILE_ENDINGS = (".db", ".sqlite", ".sqlite3")


def open_store(url: str | Store) -> Store:
    """The store that `url` names; it is not connected yet (await its `open`).

    Args:
        url: see the module's text; a store is given back as it is.

    Raises `ValueError` for a URL that names no store, naming the kinds there are.

    >>> open_store("memory://").url
    'memory://'
    >>> open_store("sqlite:///runs.db?durability=process").durability
    'process'
    """
    if not isinstance(url, str):
        return url
    if url.startswith(("postgresql://", "postgres://")):
        return _postgres(url)
    if url.startswith(("redis://", "rediss://")):
        return _redis(url)
    scheme, found, rest = url.partition("://")
    if not found:
        if url.endswith(_FILE_ENDINGS):
            return _file(url, "power", url)
        raise _unknown(url)
    kind = _KINDS.get(scheme)
    if kind is None:
        raise _unknown(url)
    location, _, query = rest.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
    return kind(url, unquote(location), options)


def _memory(url: str, location: str, options: dict[str, str]) -> Store:
    if location or options:
        raise ValueError(f"{url!r}: a store in memory has no place and no options; use memory://")
    return MemoryStore()


def _sqlite(url: str, location: str, options: dict[str, str]) -> Store:
    if not location.startswith("/") or location == "/":
        raise ValueError(
            f"{url!r}: write sqlite:///runs.db for a relative path"
            " and sqlite:////var/lib/runs.db for an absolute one"
        )
    durability = options.pop("durability", "power")
    if options:
        raise ValueError(f"{url!r}: the only option of a SQLite store is durability=power|process")
    return _file(location[1:], durability, url)


def _file(path: str, durability: str, url: str) -> Store:
    # Here and not above: who keeps runs in memory is not to wait for its import.
    from stepwell.stores.sqlite import SQLiteStore

    if durability not in ("power", "process"):
        raise ValueError(f"{url!r}: durability is power or process, not {durability}")
    return SQLiteStore(path, durability=durability)


def _postgres(url: str) -> Store:
    try:
        # Here and not above: psycopg comes with an extra, and takes its time to import.
        from stepwell.stores.postgres import PostgresStore
    except ImportError as error:
        raise ValueError(
            "a store in PostgreSQL needs psycopg: pip install 'stepwell[postgres]'"
        ) from error
    return PostgresStore(url)


def _redis(url: str) -> Store:
    try:
        # Here and not above: redis-py comes with an extra, and takes its time to import.
        from stepwell.stores.redis import RedisStore
    except ImportError as error:
        raise ValueError(
            "a store on Redis needs redis-py: pip install 'stepwell[redis]'"
        ) from error
    return RedisStore(url)


_KINDS: dict[str, Callable[[str, str, dict[str, str]], Store]] = {
    "memory": _memory,
    "sqlite": _sqlite,
}


def _unknown(url: str) -> ValueError:
    kinds = ", ".join(f"{kind}://" for kind in (*_KINDS, "postgresql", "redis"))
    url = _PASSWORD.sub(r"\1***@", url)
    return ValueError(f"{url!r} names no store; known: {kinds} or a path ending in .db or .sqlite")

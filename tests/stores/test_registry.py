"""A URL names a store, and a wrong one is told what would be right."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stepwell.stores import open_store
from stepwell.stores.memory import MemoryStore
from stepwell.stores.redis import RedisStore
from stepwell.stores.sqlite import SQLiteStore


@pytest.mark.parametrize(
    "url, kind, canonical, durability",
    [
        ("memory://", MemoryStore, "memory://", "none"),
        ("sqlite:///runs.db", SQLiteStore, "sqlite:///runs.db", "power"),
        ("sqlite:////var/lib/runs", SQLiteStore, "sqlite:////var/lib/runs", "power"),
        ("sqlite:///a%20b.db", SQLiteStore, "sqlite:///a b.db", "power"),
        ("sqlite:///x.db?durability=process", SQLiteStore, "sqlite:///x.db", "process"),
        ("sqlite:///x.db?durability=power", SQLiteStore, "sqlite:///x.db", "power"),
        ("runs.db", SQLiteStore, "sqlite:///runs.db", "power"),
        ("/var/runs.sqlite", SQLiteStore, "sqlite:////var/runs.sqlite", "power"),
    ],
)
def test_a_url_names_a_store(url: str, kind: type, canonical: str, durability: str) -> None:
    store = open_store(url)
    assert type(store) is kind
    assert (store.url, store.durability) == (canonical, durability)


def test_a_store_is_given_back() -> None:
    store = MemoryStore()
    assert open_store(store) is store


@pytest.mark.parametrize(
    "url, says",
    [
        ("mysql://localhost/runs", "memory://, sqlite://"),
        ("runs.txt", r"\.db"),
        ("", "memory://"),
        ("memory://here", "no place"),
        ("memory://?durability=power", "no options"),
        ("sqlite://runs.db", "sqlite:///runs.db"),
        ("sqlite:///", "sqlite:///runs.db"),
        ("sqlite://", "sqlite:///runs.db"),
        ("sqlite:///runs.db?speed=high", "only option"),
        ("sqlite:///runs.db?durability=often", "often"),
    ],
)
def test_a_wrong_url_is_told_what_is_right(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        open_store(url)


async def test_the_file_of_a_url_is_where_it_says(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/a%3Fb.db")
    await store.open()
    await store.close()
    assert os.listdir(tmp_path) == ["a?b.db"]


def test_a_redis_url_names_a_redis_store() -> None:
    store = open_store("redis://me:secret@db.example.com:6380/2?prefix=flows")
    assert type(store) is RedisStore
    assert store.url == "redis://me@db.example.com:6380/2?prefix=flows"
    assert open_store("rediss://db.example.com").url == "rediss://db.example.com"


@pytest.mark.parametrize(
    "url, canonical, durability",
    [
        ("postgresql://me:hush@db/app", "postgresql://me@db/app", "power"),
        ("postgres://db:5433/app", "postgresql://db:5433/app", "power"),
        (
            "postgresql://me:hu%40sh@db/app?schema=flows&durability=process",
            "postgresql://me@db/app?schema=flows",
            "process",
        ),
        ("postgresql:///app?host=/run/pg", "postgresql:///app?host=/run/pg", "power"),
        ("postgresql://db/app?password=hush&user=me", "postgresql://me@db/app", "power"),
        ("postgresql://me@a,b:5433/app?sslmode=require", "postgresql://me@a,b:5433/app", "power"),
    ],
)
def test_a_url_names_a_schema_of_a_postgresql_database(
    url: str, canonical: str, durability: str
) -> None:
    store = open_store(url)
    assert (store.url, store.durability) == (canonical, durability)
    assert "sh" not in f"{store!r}{store._place!r}".replace("schema", "")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "url, says",
    [
        ("postgresql://me:hush@db/app?schema=Not-So", "a schema is named"),
        ("postgresql://me:hush@db/app?durability=often", "power"),
        ("postgresql://me:hush@db:port/app", "port"),
        ("postgresql://me:hush@db/app?colour=red", "PostgreSQL URL"),
        ("postgresql://me:hu@sh@db/app?x", "PostgreSQL URL"),
        ("postgressql://me:hush@db/app", "postgresql://"),
        ("mysql://me:hu@sh@db/app", "known: memory"),
    ],
)
def test_a_wrong_postgresql_url_is_told_what_is_right_without_its_password(
    url: str, says: str
) -> None:
    with pytest.raises(ValueError, match=says) as raised:
        open_store(url)
    assert "hush" not in f"{raised.value!r} {raised.value.__cause__!r}"
    assert "hu@sh" not in f"{raised.value!r}"

"""One connection to the server: commands go out together, their replies come back in order.

It tries nothing twice: what is sent again, and when, is for those who know what was sent. A call
that was cut short (an error, a timeout, a cancelled task) breaks the connection, since the replies
that are still under way would be taken for those of the next call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias, cast

from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError

from stepwell.errors import StoreError, StoreUnavailable
from stepwell.stores.redis.errors import BROKEN, translate
from stepwell.stores.redis.place import (
    OLDEST,
    SETTINGS,
    WAITAOF_SINCE,
    Place,
    Survival,
    survival,
)
from stepwell.stores.redis.scripts import SCRIPTS

Command: TypeAlias = Sequence[str | bytes]
Reply: TypeAlias = "bytes | int | list[Reply] | ResponseError | None"

_PART = 256 * 1024
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 10.0
"""After which a server that says nothing counts as lost."""


class Line:
    """A connection. Use by one task at a time.

    Args:
        place: where to connect.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        # redis-py's arguments are of many types; `Place` has checked those that come from people.
        arguments = cast(dict[str, Any], dict(place.arguments))
        kind: type[AbstractConnection] = Connection
        if "path" in arguments:
            kind = UnixDomainSocketConnection
        elif place.tls:
            kind = SSLConnection
        self._connection = kind(
            protocol=2,
            socket_timeout=None,
            socket_connect_timeout=CONNECT_SECONDS,
            retry=Retry(NoBackoff(), 0),
            **arguments,
        )

    async def connect(self) -> None:
        """Connect and make the scripts known. Raises `StoreError`."""
        try:
            await self._reach()
            loads = [("SCRIPT", "LOAD", script.text) for script in SCRIPTS.values()]
            for reply in await self.call(*loads):
                if isinstance(reply, ResponseError):
                    raise reply
        except BROKEN as error:
            await self.close()
            raise translate(error, self._place.url) from error
        except BaseException:
            await self.close()
            raise

    async def _reach(self) -> None:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._connection.connect()
        except TimeoutError as error:
            # A server that speaks no TLS waits for the end of what it takes for a command.
            tls = "no TLS there, or nothing at all" if self._place.tls else "nothing"
            raise TimeoutError(f"the server said {tls} for {CONNECT_SECONDS:g} s") from error

    async def close(self) -> None:
        """Disconnect, without waiting for the server."""
        await self._connection.disconnect(nowait=True)

    async def call(self, *commands: Command, seconds: float = ANSWER_SECONDS) -> list[Reply]:
        """Send commands at once and give their replies, errors of the server among them.

        Raises one of `BROKEN` when the connection broke, and is of no use after that.
        """
        whole = False
        try:
            async with asyncio.timeout(seconds):
                for part in _parts(self._connection.pack_commands(commands)):
                    await self._connection.send_packed_command(part, check_health=False)
                replies = [await self._reply() for _ in commands]
            whole = True
            return replies
        finally:
            if not whole:
                await self.close()

    async def heard(self) -> Reply:
        """Wait for what the server says without being asked (after SUBSCRIBE)."""
        return await self._reply()

    async def _reply(self) -> Reply:
        # LOADING and the like are raised, although the server is there: redis-py counts them as
        # errors of the connection, and the next call is on a new one.
        try:
            return cast(Reply, await self._connection.read_response())
        except ResponseError as error:
            return error

    # What the server is ---------------------------------------------------------------------------

    async def survey(self) -> Survival:
        """What the server's settings make of a write. Raises `StoreError` for a server too old, or
        one that would never say that a write is on its disk."""
        try:
            info, *settings = await self.call(
                ("INFO", "server", "persistence"),
                *(("CONFIG", "GET", name) for name in SETTINGS),
            )
        except BROKEN as error:
            raise translate(error, self._place.url) from error
        said = _info(info)
        version = tuple(int(part) for part in said.get("redis_version", "0").split(".")[:2])
        config = _config(settings)
        self._check(version, config)
        aof = {"1": True, "0": False}.get(said.get("aof_enabled", ""))
        return survival(config, aof, self._place.waitaof)

    def _check(self, version: tuple[int, ...], config: Mapping[str, str]) -> None:
        shown = ".".join(map(str, version))
        if version < OLDEST:
            raise StoreUnavailable(
                f"{self._place.url} is Redis {shown}",
                hint=f"Use Redis {OLDEST[0]}.{OLDEST[1]} or later.",
            )
        if self._place.waitaof and version < WAITAOF_SINCE:
            raise StoreError(
                f"{self._place.url} is Redis {shown}, which has no WAITAOF",
                hint="Use Redis 7.2 or later, or appendfsync always without waitaof=1.",
            )
        if self._place.waitaof and config.get("appendfsync") == "no":
            raise StoreError(
                f"{self._place.url} runs with appendfsync no: it never syncs its file, so WAITAOF"
                " would wait for ever",
                hint="Set appendfsync to everysec or always, or leave waitaof=1 out.",
            )


def _parts(packed: Sequence[bytes]) -> Iterator[list[bytes]]:
    """What is to be sent, in parts that the event loop copies without being missed: it copies what
    it is given twice, and a value may be of many megabytes."""
    small: list[bytes] = []
    size = 0
    for each in packed:
        small.append(each)
        size += len(each)
        if size <= _PART:
            continue
        *others, last = small
        if others:
            yield others
        for start in range(0, len(last), _PART):
            yield [last[start : start + _PART]]
        small, size = [], 0
    if small:
        yield small


def _info(reply: Reply) -> Mapping[str, str]:
    text = reply.decode() if isinstance(reply, bytes) else ""
    pairs = (line.partition(":") for line in text.splitlines())
    return {name: value for name, found, value in pairs if found}


def _config(replies: Sequence[Reply]) -> Mapping[str, str]:
    """What CONFIG GET said; an error (the command is forbidden) says nothing."""
    found: dict[str, str] = {}
    for reply in replies:
        if isinstance(reply, list) and len(reply) == 2:
            name, value = (each.decode() for each in reply if isinstance(each, bytes))
            found[name] = value
    return found

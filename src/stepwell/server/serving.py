"""`stepwell serve`: the app with an engine, a socket, and safe defaults around it.

When Redis is asked for and can't be reached at the start, runs are kept in memory instead, as users
of the older service expect; that is said at the start, by every answer and by the probes, and can
be forbidden. No other store is ever replaced: one that can't be opened is an error. A store that is
lost while the service runs is waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import logging
import socket
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import uvicorn
from fastapi import FastAPI

from stepwell.authoring.tasks import TaskRegistry
from stepwell.errors import InvalidArgument, StoreUnavailable
from stepwell.runtime.engine import Engine, Startable
from stepwell.server.app import asgi
from stepwell.server.connections import guarded
from stepwell.server.service import Service
from stepwell.server.settings import Settings, without_password, words_of

logger = logging.getLogger("stepwell")

_AGAIN_SECONDS = 1.0
"""After this long a Redis that was not there is tried again: it may just be starting, too."""


@dataclass(frozen=True, slots=True)
class Opened:
    """An engine that was started, and why it is not on the store that was asked for."""

    engine: Engine
    degraded: str | None = None


async def open_engine(settings: Settings, workflows: Sequence[Startable]) -> Opened:
    """Start an engine on the store that is asked for; on memory, when that is Redis, can't be
    reached, and may be replaced. Then it is asked twice: what follows from a no lasts for long.

    Raises:
        InvalidArgument: the store's URL names no store.
        StoreError: the store can't be opened, and is not to be replaced.
    """
    try:
        return Opened(await _started(settings, settings.url, workflows))
    except StoreUnavailable:
        if not settings.wants_redis or settings.require_store:
            raise
    await asyncio.sleep(_AGAIN_SECONDS)
    try:
        return Opened(await _started(settings, settings.url, workflows))
    except StoreUnavailable as error:
        logger.warning(
            "redis unreachable (%s): runs are kept in memory only, and survive nothing. "
            "STEPWELL_REQUIRE_STORE=1 turns this off. %s",
            without_password(settings.url),
            error.message,
        )
    return Opened(await _started(settings, "memory://", workflows), "redis unreachable")


async def _started(settings: Settings, url: str, workflows: Sequence[Startable]) -> Engine:
    try:
        engine = Engine(
            url, workflows, lease=settings.lease, max_active=settings.max_concurrent_workflows
        )
    except ValueError as error:
        raise InvalidArgument(str(error)) from error
    await engine.start_up()
    return engine


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_safe(settings: Settings) -> None:
    """Raises `InvalidArgument` when anyone could reach the service and do anything."""
    if is_loopback(settings.host) or settings.insecure or settings.token is not None:
        return
    raise InvalidArgument(
        f"on {settings.host} others can reach the service, and there is no token",
        hint="Give one with --token or STEPWELL_TOKEN; or say --insecure and mean it.",
    )


def hosts_of(settings: Settings) -> set[str] | None:
    """The host names that requests may be for: any when callers are known by a token, or when
    nobody cares; else those of this machine, lest another name is made to lead here."""
    if settings.token is not None or settings.insecure:
        return None
    name = f"[{settings.host}]" if ":" in settings.host else settings.host
    more = (word.lower() for word in words_of(settings.allow_host))
    return {"localhost", "127.0.0.1", "[::1]", name.lower(), *more}


def listen_on(settings: Settings) -> socket.socket:
    """A socket at the address that is asked for. Raises `InvalidArgument` when it is taken."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        made = socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except (OSError, UnicodeError) as error:
        said = str(getattr(error, "strerror", None) or error).partition(" (while ")[0]
        raise InvalidArgument(
            f"can't listen on {settings.host}:{settings.port}: {said}",
            hint="Choose another address with --host and --port.",
        ) from error
    # What is accepted here inherits it; asyncio does so only for sockets that it makes itself. An
    # answer's body would wait for the receipt of its head.
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


class _Server(uvicorn.Server):
    """A uvicorn that leaves signals to the command, and ends streams before it waits for them."""

    def __init__(self, config: uvicorn.Config, closing: Callable[[], None]) -> None:
        super().__init__(config)
        self._closing = closing

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Signals are the command's."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop: streams end by themselves, other requests are answered."""
        self._closing()
        await super().shutdown(sockets)


def app_of(settings: Settings, opened: Opened, tasks: TaskRegistry) -> FastAPI:
    """The app as the settings want it."""
    token = settings.token
    return asgi(
        opened.engine,
        tasks=tasks,
        token=None if token is None else token.get_secret_value(),
        hosts=hosts_of(settings),
        degraded=opened.degraded,
        max_queue=settings.max_queue,
        heartbeat=settings.heartbeat,
        patience=settings.patience,
    )


async def serve(
    settings: Settings, app: FastAPI, listening: socket.socket, stop: asyncio.Event
) -> None:
    """Answer requests until `stop` is set, and those that are under way after that."""
    service: Service = app.state.stepwell
    config = uvicorn.Config(
        app,
        lifespan="off",  # whoever started the engine stops it
        http=guarded(settings.patience),
        ws="none",
        server_header=False,
        log_config=None,
        log_level="debug" if settings.debug else "warning",
        access_log=settings.debug,
        timeout_graceful_shutdown=max(1, int(settings.drain_seconds)),
    )
    server = _Server(config, service.feeds.close)
    # What was loaded until now stays for good. A full collection that goes through all of it again
    # holds every request up for as long as fifty of them take.
    gc.collect()
    gc.freeze()
    serving = asyncio.ensure_future(server.serve([listening]))
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    server.should_exit = True
    await serving
    app.state.stop_listening()

"""Ports for servers that can't choose one themselves, or that shall not be there at all."""

from __future__ import annotations

import contextlib
import random
import socket


def free_port() -> int:
    """A port that nobody uses. It is none of those that systems give to whoever asks for any, so
    that nothing else takes it before its server does, or while that is away."""
    while True:
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", random.randrange(10_000, 32_000)))
            return probe.getsockname()[1]

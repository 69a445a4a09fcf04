"""Which Redis server, how to connect to it, and what it survives.

Nothing here knows what is kept. The password is in the connection's arguments and nowhere else:
`Place.url` is what may be shown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

PREFIX = "stepwell"
OLDEST = (7, 0)
"""The server's version that is needed: scripts of earlier ones are repeated by replicas."""
WAITAOF_SINCE = (7, 2)
SETTINGS = ("appendonly", "appendfsync", "no-appendfsync-on-rewrite", "maxmemory-policy")
"""The server's settings that say what a write survives."""

_PREFIX = re.compile(r"[^{}\s]{1,64}")
_TLS_OPTIONS = (
    "ssl_ca_certs",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_cert_reqs",
    "ssl_check_hostname",
)
_FLAGS = {"0": False, "1": True, "false": False, "true": True}
_WRITE = "write redis://user:password@host:6379/0?prefix=name"


@dataclass(frozen=True, slots=True)
class Place:
    """A deployment's keys on a server.

    Args:
        url: what may be shown.
        prefix: what keys begin with, without the braces that make it a hash tag.
        waitaof: whether each group of writes waits until it is on the server's disk.
        tls: whether to connect with TLS.
        arguments: for redis-py's connection; holds the password.
    """

    url: str
    prefix: str
    waitaof: bool
    tls: bool
    arguments: Mapping[str, str | int | bool | None] = field(repr=False)

    def key(self, *parts: str) -> str:
        """The key of these parts; all keys of one place stand in one slot of a cluster.

        >>> parse("redis://localhost").key("run", "r1")
        '{stepwell}:run:r1'
        """
        return ":".join((f"{{{self.prefix}}}", *parts))


def parse(url: str) -> Place:
    """The place that a URL names. Raises `ValueError`, whose text holds no password.

    >>> parse("redis://me:secret@db.example.com/2?prefix=flows").url
    'redis://me@db.example.com/2?prefix=flows'
    """
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss"):
        raise ValueError("a RedisStore needs a URL: redis://host:6379/0, or rediss:// for TLS")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    prefix, socket = options.pop("prefix", PREFIX), options.pop("socket", "")
    waitaof = _flag("waitaof", options.pop("waitaof", "0"))
    tls = parts.scheme == "rediss"
    arguments: dict[str, str | int | bool | None] = {}
    for name in _TLS_OPTIONS:
        if name in options and tls:
            value = options.pop(name)
            arguments[name] = _flag(name, value) if name == "ssl_check_hostname" else value
    if options:
        raise ValueError(
            f"{next(iter(options))} is no option of a Redis store; there are prefix, socket,"
            f" waitaof, and for rediss:// {', '.join(_TLS_OPTIONS)}"
        )
    if not _PREFIX.fullmatch(prefix):
        raise ValueError(f"a prefix is up to 64 characters without braces or spaces: {prefix!r}")
    database, port = _numbers(parts)
    if socket and (tls or parts.hostname):
        raise ValueError("a socket stands for host and port: redis:///0?socket=/run/redis.sock")
    arguments["db"] = database
    arguments["username"] = unquote(parts.username) if parts.username else None
    arguments["password"] = unquote(parts.password) if parts.password else None
    if socket:
        arguments["path"] = socket
    else:
        arguments["host"], arguments["port"] = parts.hostname or "localhost", port
    return Place(_shown(parts, prefix, socket, waitaof), prefix, waitaof, tls, arguments)


def _numbers(parts: SplitResult) -> tuple[int, int]:
    """The database's number and the port."""
    name = parts.path.strip("/") or "0"
    try:
        port = parts.port or 6379
    except ValueError:
        # Without the cause, which quotes what was taken for a port: it may be half a password.
        raise ValueError(f"this Redis URL has no valid port (not shown); {_WRITE}") from None
    if not name.isdecimal():
        raise ValueError(f"a database of Redis has a number, not a name; {_WRITE}")
    return int(name), port


def _flag(name: str, value: str) -> bool:
    if value.lower() not in _FLAGS:
        raise ValueError(f"{name} is 0 or 1, not {value!r}")
    return _FLAGS[value.lower()]


def _shown(parts: SplitResult, prefix: str, socket: str, waitaof: bool) -> str:
    """The URL without what is secret."""
    query: dict[str, str] = {}
    if socket:
        query["socket"] = socket
    if prefix != PREFIX:
        query["prefix"] = prefix
    if waitaof:
        query["waitaof"] = "1"
    user = f"{quote(unquote(parts.username))}@" if parts.username else ""
    place = parts.netloc.rpartition("@")[2]
    ending = f"?{urlencode(query, safe='/')}" if query else ""
    return f"{parts.scheme}://{user}{place}{parts.path}{ending}"


@dataclass(frozen=True, slots=True)
class Survival:
    """What a server's settings make of an acknowledged write, in a word and for people."""

    durability: str
    text: str

    def is_less_than(self, other: Survival) -> bool:
        """Whether the other one's word promises more."""
        return _WORDS.index(self.durability) < _WORDS.index(other.durability)


_WORDS = ("none", "process", "power")


def survival(config: Mapping[str, str], aof_enabled: bool | None, waitaof: bool) -> Survival:
    """What writes survive.

    Args:
        config: what CONFIG GET said; empty when the server forbids it, as managed ones do.
        aof_enabled: what INFO said, for when CONFIG says nothing.
        waitaof: whether each write waits for the disk anyway.

    >>> survival({"appendonly": "yes", "appendfsync": "always"}, None, False).durability
    'power'
    """
    policy = config.get("maxmemory-policy", "noeviction")
    if policy.startswith("allkeys"):
        return Survival(
            "none", f"maxmemory-policy {policy}: the server drops runs when memory is short"
        )
    if not (config["appendonly"] == "yes" if "appendonly" in config else aof_enabled):
        return Survival("none", "no append-only file: a crash of the server takes the last writes")
    if waitaof:
        return Survival("power", "append-only file, waited for after each group of writes")
    fsync = config.get("appendfsync")
    if fsync == "always" and config.get("no-appendfsync-on-rewrite") == "yes":
        return Survival(
            "process", "append-only file, not synced while it is rewritten: a power cut takes that"
        )
    if fsync == "always":
        return Survival("power", "append-only file, synced before each answer")
    if fsync == "everysec":
        return Survival(
            "process",
            "append-only file, synced each second: a power cut takes a second or two, and so may a"
            " crash of the server while its disk is busy",
        )
    if fsync == "no":
        return Survival(
            "process", "append-only file that is never synced: a power cut takes half a minute"
        )
    return Survival(
        "process", "append-only file; how it is synced can't be asked for (CONFIG is forbidden)"
    )

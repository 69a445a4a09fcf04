"""The routes that carry the load, past what a framework does for all routes.

Starting a run, looking at it and signalling it is what a busy service does all day, and for those
requests finding the route and checking three parameters by machinery cost more than the run. They
are recognised here, by the plain form in which nearly all of them come. Whatever is not quite
plain (another parameter, one that comes twice, a number that is none) goes on to the route that the
documentation is made of, which takes everything and says what is wrong. There is one answer to a
request whichever way it takes, because both ways end in the same function.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

_PLAIN: dict[str, tuple[re.Pattern[str], Callable[[str], float]]] = {
    "wait": (re.compile(r"\d{1,6}(?:\.\d{1,6})?", re.ASCII), float),
    "priority": (re.compile(r"-?\d{1,6}", re.ASCII), int),
}
"""The plain form of a query parameter, and how it is read."""

Given = dict[str, float | str]


class Plain(NamedTuple):
    """A route in its plain form.

    Attributes:
        method, path: as the framework has them; `{name}` is a segment of a path.
        endpoint: answers the request, given the path's segments and the parameters by name.
        query: the parameters that it takes.
        key: whether it takes an `Idempotency-Key`, as `idempotency_key`.
    """

    method: str
    path: str
    endpoint: Callable[..., Awaitable[Response]]
    query: frozenset[str] = frozenset()
    key: bool = False


class Direct:
    """An ASGI app around another one, which answers some requests itself.

    Args:
        app: the other.
        routes: what is answered here; the other one has these routes as well.
    """

    def __init__(self, app: ASGIApp, routes: list[Plain]) -> None:
        self._app = app
        self._routes: dict[str, list[tuple[re.Pattern[str], Plain]]] = {}
        for route in routes:
            pattern = re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", route.path))
            self._routes.setdefault(route.method, []).append((pattern, route))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        # One that is traced takes the long way, where the framework writes down what it does.
        if scope["type"] == "http" and scope.get("fastapi.telemetry") is None:
            path = scope["path"].removeprefix(scope.get("root_path", ""))
            for pattern, route in self._routes.get(scope["method"], ()):
                found = pattern.fullmatch(path)
                if found is not None:
                    if await self._answer(scope, receive, send, route, found.groupdict()):
                        return
                    break
        await self._app(scope, receive, send)

    async def _answer(
        self, scope: Scope, receive: Receive, send: Send, route: Plain, names: dict[str, str]
    ) -> bool:
        """Answer a request for a route, if it is plain."""
        given = _given(scope, route)
        if given is None:
            return False
        scope["route"] = route
        response = await route.endpoint(Request(scope, receive), **names, **given)
        await response(scope, receive, send)
        return True


def _given(scope: Scope, route: Plain) -> Given | None:
    """The parameters of a request; None when they are not all plain."""
    given: Given = {}
    query: bytes = scope["query_string"]
    for pair in query.decode("latin-1").split("&") if query else ():
        name, _, value = pair.partition("=")
        if name not in route.query or name in given:
            return None
        pattern, read = _PLAIN[name]
        if not pattern.fullmatch(value):
            return None
        given[name] = read(value)
    for header, value in scope["headers"]:
        if route.key and header == b"idempotency-key":
            if not value or "idempotency_key" in given:
                return None
            given["idempotency_key"] = value.decode("latin-1")
    return given

"""What stands around every request: who may ask, what every answer says, what becomes of errors.

Who may ask: whoever has the token, when there is one. A browser can't be told to send it as
programs do, but asks people for a password: the token will do, to look and not to change anything.
Pages of other sites may never change anything (browsers say where a request comes from), and a
service that trusts its own machine only answers to that machine's names, so that no other name can
be made to lead here.
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import logging
import time
from collections.abc import Callable, Collection

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stepwell.server.metrics import Metrics
from stepwell.server.paths import split_well
from stepwell.server.patience import begin
from stepwell.server.problems import Problem, problem_of

logger = logging.getLogger("stepwell")

_OPEN = ("/healthz", "/readyz")
_PAGES = ("/", "/docs")
_LOOKING = ("GET", "HEAD")
_SAFE = ("GET", "HEAD", "OPTIONS")
_METHODS = frozenset({*_SAFE, "POST", "PUT", "PATCH", "DELETE"})


_NO_STORE = (b"cache-control", b"no-store")
_NO_SNIFFING = (b"x-content-type-options", b"nosniff")


class Shell:
    """An ASGI app around another.

    Args:
        app: the other.
        token: what a caller must have; None: nothing.
        hosts: the names that a request may be for; None: any.
        durability: says what the `Stepwell-Durability` header says.
        metrics: where requests are counted.
        patience: says how many seconds the body, and then the store, have.
    """

    def __init__(
        self,
        app: ASGIApp,
        token: str | None,
        hosts: Collection[str] | None,
        durability: Callable[[], str],
        metrics: Metrics,
        patience: Callable[[], float],
    ) -> None:
        self._app = app
        self._token = None if token is None else token.encode()
        self._hosts = hosts
        self._durability = durability
        self._metrics = metrics
        self._patience = patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        status = 0
        patience = begin(scope, self._patience())
        split_well(scope)
        method = scope["method"] if scope["method"] in _METHODS else "OTHER"
        if method == "HEAD":
            scope, send = {**scope, "method": "GET"}, _without_body(send)

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                patience.lift()
                headers = [*message["headers"], self._promise(), _NO_SNIFFING]
                if all(name != b"cache-control" for name, _ in headers):
                    headers.append(_NO_STORE)
                message["headers"] = headers
            await send(message)

        try:
            self._check(scope)
            async with patience:
                await self._app(scope, receive, answer)
        except Exception as error:
            if status:
                raise  # an answer is under way: the connection can only be cut
            late = isinstance(error, TimeoutError) and patience.is_over
            problem = patience.problem() if late else problem_of(error)
            if problem is None:
                logger.exception("%s %s failed", scope["method"], scope["path"])
                problem = Problem(
                    500,
                    "internal_error",
                    "this is a fault of the service; its log says more",
                )
            await problem.response()(scope, receive, answer)
        finally:
            route = getattr(scope.get("route"), "path", "(none)")
            self._metrics.request(method, route, status, time.monotonic() - began)

    def _promise(self) -> tuple[bytes, bytes]:
        return b"stepwell-durability", self._durability().encode("latin-1")

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if self._hosts is not None and _name(headers.get("host", "")) not in self._hosts:
            raise Problem(
                421,
                "wrong_host",
                f"this service is not {headers.get('host', '')!r:.80}",
                hint="It answers to the names of this machine; --allow-host adds one.",
            )
        if self._token is not None and path not in _OPEN:
            given = _token_in(headers.get("authorization", ""), scope["method"] in _LOOKING)
            if not hmac.compare_digest(given, self._token):
                page = path in _PAGES or path.startswith("/runs/")
                raise Problem(
                    401,
                    "unauthorized",
                    "this is not the token" if given else "a bearer token is needed",
                    hint="Send the header Authorization: Bearer TOKEN. A browser that asks for a "
                    "name and a password may be given any name, and the token.",
                    headers={"WWW-Authenticate": 'Basic realm="stepwell"' if page else "Bearer"},
                )
        site = headers.get("sec-fetch-site")
        if scope["method"] not in _SAFE and site not in (None, "same-origin", "none"):
            raise Problem(403, "cross_site", "a page of another site may not do this")


def _without_body(send: Send) -> Send:
    """What is sent, but for the body: the first part of one ends the answer."""
    ended = False

    async def sent(message: Message) -> None:
        nonlocal ended
        if message["type"] == "http.response.body":
            if ended:
                return
            ended = True
            message = {"type": "http.response.body", "body": b""}
        await send(message)

    return sent


def _token_in(header: str, looking: bool) -> bytes:
    """What an Authorization header gives as the token; empty for none."""
    kind, _, given = header.partition(" ")
    sent = given.strip().encode("latin-1", "replace")
    if kind.lower() == "bearer":
        return sent
    if kind.lower() == "basic" and looking:
        with contextlib.suppress(ValueError):
            return base64.b64decode(sent, validate=True).partition(b":")[2]
    return b""


def _name(host: str) -> str:
    """A Host header without its port."""
    host = host.lower()
    return host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]

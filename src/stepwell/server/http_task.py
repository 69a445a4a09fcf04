"""`http_request`: a task that asks other services. Off unless hosts are allowed.

The danger is that a document makes the service ask what only the service can reach. So: only hosts
and schemes that the operator allows; only addresses of the open internet, looked at after the name
was resolved, all of them; the connection is made to just the address that was looked at, so that a
name that resolves otherwise a moment later leads nowhere; and every redirect is checked like a
first request. Nothing of the environment (proxies, netrc files) is used.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal

import httpx
from pydantic import BaseModel, ConfigDict, Field

from stepwell.authoring.tasks import Task, TaskFailed

MAX_ANSWER = 1024 * 1024
"""Bytes of an answer that are read; more fails the task."""

MAX_REDIRECTS = 5

_NAT64 = ipaddress.ip_network("64:ff9b::/96")

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""From a host name and a port to addresses."""


async def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of a host, by the system's resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(row[4][0]) for row in found]


class HttpParams(BaseModel):
    """What `http_request` takes."""

    model_config = ConfigDict(extra="forbid")
    url: str = Field(min_length=1, max_length=8000)
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    headers: dict[str, str] = Field(default_factory=dict)
    json_body: Any = Field(None, alias="json")
    seconds: float = Field(30.0, gt=0, le=600)


def http_request(
    hosts: Sequence[str],
    schemes: Sequence[str] = ("https",),
    *,
    private: bool = False,
    resolve: Resolve = resolve,
    transport: httpx.AsyncBaseTransport | None = None,
) -> type[Task]:
    """The task, for these hosts.

    Args:
        hosts: names that may be asked; `*.example.com` stands for all names under it.
        schemes: `https`, `http`.
        private: whether addresses that are not of the open internet may be asked.
        resolve: how names become addresses.
        transport: how requests are sent; for tests.

    Returns:
        A class of tasks: params `url`, `method`, `headers`, `json`, `seconds`; its result has
        `status`, `headers` and `json` or `text`. A status of 400 or more fails it.

    Raises:
        ValueError: a scheme is not `http` or `https`.

    Example:
        >>> http_request(["api.example.com"]).name
        'http_request'
    """
    if not set(schemes) <= {"http", "https"}:
        raise ValueError(f"http_request knows http and https, not {', '.join(schemes)}")
    allowed = tuple(host.lower().rstrip(".") for host in hosts)

    async def target(url: httpx.URL) -> str:
        """The address to connect to. Raises `TaskFailed` for what may not be asked."""
        host = url.host.lower().rstrip(".")
        if url.scheme not in schemes:
            raise TaskFailed(f"the scheme {url.scheme!r:.20} is not allowed: {', '.join(schemes)}")
        if url.userinfo:
            raise TaskFailed("a URL with a password in it is not allowed; use a header")
        if not any(_fits(host, pattern) for pattern in allowed):
            raise TaskFailed(f"the host {host!r:.200} is not among those that are allowed")
        port = url.port or (443 if url.scheme == "https" else 80)
        try:
            addresses = await resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise OSError(f"{host} can't be resolved: {error}") from error
        if not addresses:
            raise OSError(f"{host} can't be resolved")
        if not private:
            for address in addresses:
                if not is_open(address):
                    raise TaskFailed(f"{host} is at {address}, which is not of the open internet")
        return addresses[0]

    class HttpRequest(Task):
        """Asks another service."""

        name = "http_request"
        Params = HttpParams

        async def execute(self) -> Any:
            params: HttpParams = self.params
            url, method = _url(params.url), params.method
            headers = httpx.Headers(params.headers)
            content = None
            if params.json_body is not None:
                content = json.dumps(params.json_body).encode()
                headers.setdefault("Content-Type", "application/json")
            key = getattr(self.context, "idempotency_key", None)
            if key is not None and method != "GET":
                headers.setdefault("Idempotency-Key", str(key))
            async with httpx.AsyncClient(
                transport=transport, trust_env=False, timeout=params.seconds
            ) as client:
                for _ in range(MAX_REDIRECTS + 1):
                    answer = await _ask(client, method, url, await target(url), headers, content)
                    where = answer.headers.get("location")
                    if (
                        method not in ("GET", "HEAD")
                        or not answer.has_redirect_location
                        or not where
                    ):
                        return _result(answer)
                    onward = _url(where, url)
                    if (onward.scheme, onward.host, onward.port) != (
                        url.scheme,
                        url.host,
                        url.port,
                    ):
                        for secret in ("Authorization", "Cookie", "Proxy-Authorization"):
                            headers.pop(secret, None)
                    url = onward
            raise TaskFailed(f"more than {MAX_REDIRECTS} redirects")

    return HttpRequest


def _url(text: str, base: httpx.URL | None = None) -> httpx.URL:
    try:
        return httpx.URL(text) if base is None else base.join(text)
    except (httpx.InvalidURL, TypeError) as error:
        raise TaskFailed(f"{text!r:.200} is no URL: {error}") from error


def _fits(host: str, pattern: str) -> bool:
    if pattern.startswith("*."):
        return host.endswith(pattern[1:]) and len(host) > len(pattern) - 1
    return host == pattern


def is_open(address: str) -> bool:
    """Whether an address is of the open internet, and so is any that it stands for.

    >>> [is_open(a) for a in ("93.184.216.34", "10.0.0.1", "::ffff:127.0.0.1", "169.254.169.254")]
    [True, False, False, False]
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None and not is_open(str(inner)):
            return False
        if ip.ipv4_mapped is not None:
            return True
    return ip.is_global and not ip.is_multicast


async def _ask(
    client: httpx.AsyncClient,
    method: str,
    url: httpx.URL,
    address: str,
    headers: httpx.Headers,
    content: bytes | None,
) -> httpx.Response:
    """Send one request to the address that was looked at, whatever the name means by now."""
    sent = httpx.Headers(headers)
    sent["Host"] = url.netloc.decode("ascii")
    request = client.build_request(
        method,
        url.copy_with(host=address),
        headers=sent,
        content=content,
        extensions={"sni_hostname": url.host},
    )
    answer = await client.send(request, stream=True)
    try:
        body = bytearray()
        async for part in answer.aiter_bytes():
            body += part
            if len(body) > MAX_ANSWER:
                raise TaskFailed(f"the answer has more than {MAX_ANSWER} bytes")
    finally:
        await answer.aclose()
    answer._content = bytes(body)  # pyright: ignore[reportPrivateUsage] - read above
    return answer


def _result(answer: httpx.Response) -> dict[str, Any]:
    if answer.status_code >= 400:
        raise TaskFailed(f"the answer was {answer.status_code}: {answer.text[:200]}")
    shown: dict[str, Any] = {"status": answer.status_code, "headers": dict(answer.headers)}
    if "json" in answer.headers.get("content-type", ""):
        try:
            return {**shown, "json": answer.json()}
        except ValueError as error:
            raise TaskFailed(f"the answer says it is JSON, and is none: {error}") from error
    return {**shown, "text": answer.text}

"""`http_request`: whom it asks, and whom it never does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from stepwell.authoring.tasks import TaskFailed
from stepwell.server.http_task import MAX_ANSWER, http_request, is_open

OPEN = "93.184.216.34"
NAMES = {"api.example.com": [OPEN], "inside.example.com": [OPEN, "10.0.0.7"], "other.com": [OPEN]}


async def names(host: str, _port: int) -> Sequence[str]:
    return NAMES.get(host, [host])


class Web:
    """Answers requests, and keeps them."""

    def __init__(self, *answers: httpx.Response) -> None:
        self.answers = list(answers)
        self.asked: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        return self.answers.pop(0)


async def ask(web: Web, *, private: bool = False, **params: Any) -> Any:
    kind = http_request(
        ["api.example.com", "inside.example.com", "*.wild.com", "127.0.0.1"],
        resolve=names,
        private=private,
        transport=httpx.MockTransport(web),
    )
    task = kind()
    assert kind.Params is not None
    task.params = kind.Params.model_validate(params)
    return await task.execute()


async def test_it_connects_to_the_address_that_was_looked_at() -> None:
    web = Web(httpx.Response(200, json={"a": 1}))
    found = await ask(web, url="https://api.example.com/x?y=1", method="POST", json={"q": 2})
    assert (found["status"], found["json"]) == (200, {"a": 1})
    (request,) = web.asked
    assert request.url.host == OPEN
    assert request.headers["host"] == "api.example.com"
    assert request.extensions["sni_hostname"] == "api.example.com"
    assert request.content == b'{"q": 2}'


@pytest.mark.parametrize(
    "url, said",
    [
        ("http://api.example.com/", "scheme"),
        ("file:///etc/passwd", "scheme"),
        ("https://other.com/", "not among those"),
        ("https://api.example.com.evil.com/", "not among those"),
        ("https://wild.com/", "not among those"),
        ("https://user:pass@api.example.com/", "password"),
        ("https://inside.example.com/", "10.0.0.7, which is not of the open internet"),
        ("https://127.0.0.1/", "not of the open internet"),
        ("https://api.example.com:x/", "is no URL"),
    ],
)
async def test_whom_it_does_not_ask(url: str, said: str) -> None:
    web = Web()
    with pytest.raises(TaskFailed, match=said):
        await ask(web, url=url)
    assert web.asked == []


async def test_every_redirect_is_checked_and_secrets_stay_behind() -> None:
    web = Web(httpx.Response(302, headers={"Location": "https://inside.example.com/"}))
    with pytest.raises(TaskFailed, match=r"10\.0\.0\.7"):
        await ask(web, url="https://api.example.com/")
    assert len(web.asked) == 1
    web = Web(
        httpx.Response(302, headers={"Location": "https://a.wild.com/"}),
        httpx.Response(200, text="hello"),
    )
    NAMES["a.wild.com"] = [OPEN]
    found = await ask(web, url="https://api.example.com/", headers={"Authorization": "x"})
    assert found["text"] == "hello"
    assert "authorization" in web.asked[0].headers
    assert "authorization" not in web.asked[1].headers
    web = Web(*(httpx.Response(302, headers={"Location": "/"}) for _ in range(9)))
    with pytest.raises(TaskFailed, match="redirects"):
        await ask(web, url="https://api.example.com/")


async def test_what_fails_it() -> None:
    with pytest.raises(TaskFailed, match="500: oh"):
        await ask(Web(httpx.Response(500, text="oh")), url="https://api.example.com/")
    with pytest.raises(TaskFailed, match="bytes"):
        big = httpx.Response(200, content=b"x" * (MAX_ANSWER + 1))
        await ask(Web(big), url="https://api.example.com/")
    with pytest.raises(TaskFailed, match="is none"):
        broken = httpx.Response(200, content=b"{", headers={"Content-Type": "application/json"})
        await ask(Web(broken), url="https://api.example.com/")


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "0.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254"),
        *("100.64.0.1", "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0"),
        *("fc00::1", "ff02::1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "x"),
    ],
)
def test_addresses_that_are_not_of_the_open_internet(address: str) -> None:
    assert not is_open(address)


@pytest.mark.parametrize("address", [OPEN, "2606:4700::1111", "::ffff:93.184.216.34"])
def test_addresses_of_the_open_internet(address: str) -> None:
    assert is_open(address)


def test_other_schemes_are_not_known() -> None:
    with pytest.raises(ValueError, match="ftp"):
        http_request(["x"], ["ftp"])

"""The engine's verbs over HTTP: what `stepwell serve` answers, as Python.

    from stepwell.client import Client

    async with Client("http://localhost:8000") as client:
        run = await client.start("onboarding", user=1)
        print(await run)

The names and shapes are those of `Engine`, and so are the errors: what surfaces can do with an
engine they can do with a client. What a run's step raised comes as a likeness; no code is loaded.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Any, Self, cast
from urllib.parse import quote

import httpx

from stepwell.authoring.document import WorkflowDocument
from stepwell.authoring.program import TypeRegistry
from stepwell.errors import (
    DocumentError,
    InvalidArgument,
    NoPendingQuestion,
    RunNotFound,
    StepwellError,
    StoreUnavailable,
    WorkflowNotRegistered,
    WorkflowRuntimeError,
)
from stepwell.runtime.stored import StreamItem
from stepwell.runtime.views import RunInfo, WaitInfo, Why
from stepwell.values import ErrorInfo, Json, RunStatus

_AGAIN = 0.25
"""Seconds before a stream that broke off is gone on with; doubled each time nothing came."""

_TRIES = 6


class ServiceError(StepwellError):
    """The service refused a request for a reason that no other error is for.

    Args:
        status: the HTTP status.
        code: the service's word for it.
        message: what happened.
        hint: what to do.
    """

    code = "service_error"
    whose = "user"

    def __init__(self, status: int, code: str, message: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.problem = code
        if status >= 500:
            self.whose = "operator"


class RemoteRun:
    """A run of a service. Awaiting it gives its result, or raises what it failed with.

    Attributes:
        run_id: its id.
    """

    def __init__(self, client: Client, run_id: str) -> None:
        self._client = client
        self.run_id = run_id

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._client.result(self.run_id).__await__()

    async def started(self) -> None:
        """It is kept already."""

    async def cancel(self, reason: str = "") -> bool:
        """See `Client.cancel`."""
        return await self._client.cancel(self.run_id, reason)


class Client:
    """A service's runs.

    Args:
        url: where it is, with the path that it is mounted under.
        token: what it asks for, if it does.
        timeout: seconds that an answer may take.
        transport: how to reach it; for tests and proxies.

    Raises:
        StoreUnavailable: from any verb: the service, or its store, can't be reached.
        ServiceError: from any verb: it refused for another reason (a token, a full queue).

    Example:
        >>> Client("http://localhost:8000/").url
        'http://localhost:8000'
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        timeout: float = 30.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise InvalidArgument(f"{url!r} is no address of a service; write http://host:port")
        self._url = url.rstrip("/")
        headers = {} if token is None else {b"Authorization": b"Bearer " + token.encode()}
        self._http = httpx.AsyncClient(headers=headers, timeout=timeout, transport=transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Let go of the connections."""
        await self._http.aclose()

    @property
    def url(self) -> str:
        """Where the service is."""
        return self._url

    @property
    def workflows(self) -> dict[str, Any]:
        """What is known here of the workflows' code: nothing."""
        return {}

    # --- starting --------------------------------------------------------------------------------

    async def start(
        self,
        workflow: str | WorkflowDocument | Mapping[str, Any],
        start_event: Mapping[str, Any] | None = None,
        /,
        *,
        key: str | None = None,
        priority: int = 0,
        **fields: Any,
    ) -> RemoteRun:
        """Start a run; it is kept when this returns.

        Args:
            workflow: the name of a workflow of the service, or a document.
            start_event: the fields of the start event, or the input of the document.
            key: idempotency key.
            priority: higher starts first; a document says its own.
            **fields: further fields.

        Raises:
            WorkflowNotRegistered, DocumentError, InvalidArgument: as their names say.
        """
        given = {**(start_event or {}), **fields}
        if isinstance(workflow, str):
            path, params, body = (
                f"/api/definitions/{_part(workflow)}/run",
                {"priority": priority},
                given,
            )
        else:
            if isinstance(workflow, WorkflowDocument):
                workflow = workflow.model_dump(mode="json", by_alias=True, exclude_unset=True)
            path, params, body = "/api/workflow", {}, {**workflow}
            if given:
                body["input"] = given
        shown = await self._post(path, body, params=params, key=key)
        return RemoteRun(self, str(shown["workflow_id"]))

    # --- looking ---------------------------------------------------------------------------------

    async def show(self, run_id: str) -> dict[str, Any]:
        """The run as the service shows it, with steps and tasks. Raises `RunNotFound`."""
        return await self._get(self._of(run_id))

    async def get(self, run_id: str) -> RunInfo:
        """The run as it is now. Raises `RunNotFound`."""
        return _info(await self.show(run_id))

    async def list(
        self,
        *,
        workflow: str | None = None,
        status: Sequence[RunStatus | str] | RunStatus | str | None = None,
        parent: str | None = None,
        correlation: str | None = None,
        since: float | None = None,
        limit: int = 50,
        after: str | None = None,
        waiting: str | None = None,
    ) -> tuple[list[RunInfo], str | None]:
        """Runs, newest first, and the cursor of the next page; see `Engine.list`."""
        several = [status] if isinstance(status, str) else status
        params = {
            "definition": workflow,
            "status": None if several is None else [RunStatus(s).value for s in several],
            "parent": parent,
            "correlation": correlation,
            "since": since,
            "limit": limit,
            "after": after,
            "waiting": waiting,
        }
        page = await self._get("/api/workflows", params)
        return [_info(row) for row in page["workflows"]], page["next"]

    async def counts(self) -> dict[tuple[str, RunStatus], int]:
        """How many runs there are, by workflow and status."""
        shown = await self._get("/api/counts")
        return {(r["definition"], RunStatus(r["status"])): r["runs"] for r in shown["counts"]}

    async def journal(
        self, run_id: str, after: int = 0, limit: int | None = None
    ) -> list[tuple[int, float, list[Json]]]:
        """The run's journal as JSON, behind a row; at most `limit` rows, all by default."""
        found: list[tuple[int, float, list[Json]]] = []
        while True:
            page = await self._get(f"{self._of(run_id)}/journal", {"after": after})
            found += [(row["row"], row["at"], row["entries"]) for row in page["rows"]]
            if page["next"] is None or (limit is not None and len(found) >= limit):
                return found[:limit]
            after = page["next"]

    async def why(self, run_id: str) -> Why:
        """What the run waits for, since when, and what would move it."""
        shown = await self.show(run_id)
        waits = tuple(_wait(wait) for wait in shown["waits"])
        return Why(RunStatus(shown["status"]), shown["why"], waits)

    async def waits(self, run_id: str) -> list[WaitInfo]:
        """All that the run waits for now."""
        return [_wait(wait) for wait in (await self.show(run_id))["waits"]]

    async def result(self, run_id: str) -> Any:
        """Wait for the run's end and give its result, or raise what it failed with."""
        last: StreamItem | None = None
        async with aclosing(self.stream(run_id)) as items:
            async for item in items:
                last = item
        event = cast("Mapping[str, Any]", {} if last is None else last.event)
        if event.get("type") != "run.ended":
            raise RunNotFound(run_id)
        error = event.get("error")
        if error:
            raise TypeRegistry(()).exception(ErrorInfo.from_json(error))
        return event.get("result")

    async def stream(self, run_id: str, *, after: str | None = None) -> AsyncGenerator[StreamItem]:
        """What the run does, to its end: items whose `event` is a dictionary with a `type`.

        A connection that breaks off is made again, and the stream goes on where it was.

        Args:
            run_id: the run.
            after: the cursor of the last item that was seen.
        """
        failures = 0
        while True:
            try:
                async with aclosing(self._items(run_id, after)) as items:
                    async for item in items:
                        failures, after = 0, item.cursor
                        yield item
                        if item.terminal:
                            return
                if (await self.get(run_id)).status.terminal and failures:
                    return
            except (httpx.TransportError, StoreUnavailable) as error:
                if failures >= _TRIES:
                    raise self._gone(error) from error
            failures += 1
            await asyncio.sleep(_AGAIN * 2 ** (failures - 1))

    async def _items(self, run_id: str, after: str | None) -> AsyncGenerator[StreamItem]:
        headers = {"Accept": "application/x-ndjson"}
        if after is not None:
            headers["Last-Event-ID"] = after
        # A stream without news shows that it lives every 15 seconds.
        timeout = httpx.Timeout(60.0)
        address = f"{self._url}{self._of(run_id)}/events"
        async with self._http.stream("GET", address, headers=headers, timeout=timeout) as answer:
            if answer.status_code >= 400:
                await answer.aread()
                raise _error(answer, run_id)
            async for line in answer.aiter_lines():
                if line.strip():
                    event = json.loads(line)
                    last = event["type"] in ("run.ended", "run.deleted", "stream.failed")
                    at = _time(event.get("at")) or 0.0
                    yield StreamItem(str(event.get("id", after or "")), event, at, last)

    # --- speaking --------------------------------------------------------------------------------

    async def signal(
        self,
        run_id: str,
        event: str,
        payload: Mapping[str, Any] | None = None,
        *,
        step: str | None = None,
        question: str | None = None,
        dedupe: str | None = None,
    ) -> bool:
        """Send a run an event; see `Engine.signal`. A run that has ended raises."""
        shown = await self._post(
            f"{self._of(run_id)}/signal/{_part(event)}",
            dict(payload or {}),
            params={"step": step, "question": question},
            key=dedupe,
            run_id=run_id,
        )
        return bool(shown["accepted"])

    async def broadcast(
        self,
        name: str,
        payload: Mapping[str, Any] | None = None,
        *,
        workflow: str | None = None,
        correlation: str | None = None,
    ) -> int:
        """Send every run that waits for it now an event; how many received it."""
        shown = await self._post(
            f"/api/signal/{_part(name)}",
            dict(payload or {}),
            params={"definition": workflow, "correlation": correlation},
        )
        return int(shown["received"])

    async def answer(
        self, run_id: str, answer: Mapping[str, Any] | str, *, question: str | None = None
    ) -> None:
        """Answer a question that a run asks; see `Engine.answer`."""
        given = answer if isinstance(answer, str) else dict(answer)
        body = {"answer": given, "question": question}
        await self._post(f"{self._of(run_id)}/answer", body, run_id=run_id)

    async def cancel(self, run_id: str, reason: str = "") -> bool:
        """Ask for a run to be cancelled; False when it has ended already."""
        try:
            await self._post(f"{self._of(run_id)}/cancel", {"reason": reason}, run_id=run_id)
        except _Ended:
            return False
        return True

    async def resume(self, run_id: str) -> None:
        """Let a parked run go on."""
        await self._post(f"{self._of(run_id)}/resume", {}, run_id=run_id)

    async def retry(self, run_id: str, *, new_id: str | None = None) -> RemoteRun:
        """Try a failed run again, as a new run; see `Engine.retry`."""
        body = {} if new_id is None else {"id": new_id}
        shown = await self._post(f"{self._of(run_id)}/retry", body, run_id=run_id)
        return RemoteRun(self, str(shown["workflow_id"]))

    async def fork(
        self,
        run_id: str,
        *,
        seq: int | None = None,
        step: str | None = None,
        input: Mapping[str, Json] | None = None,
        new_id: str | None = None,
    ) -> RemoteRun:
        """Start a copy of a run up to a point; see `Engine.fork`."""
        body = {"seq": seq, "step": step, "input": input, "id": new_id}
        given = {name: value for name, value in body.items() if value is not None}
        shown = await self._post(f"{self._of(run_id)}/fork", given, run_id=run_id)
        return RemoteRun(self, str(shown["workflow_id"]))

    async def delete(self, run_ids: Sequence[str]) -> int:
        """Delete ended runs; how many there were."""
        for run_id in run_ids:
            await self._ask("DELETE", self._of(run_id), run_id=run_id)
        return len(run_ids)

    # --- asking ----------------------------------------------------------------------------------

    def _of(self, run_id: str) -> str:
        return f"/api/workflow/{_part(run_id)}"

    async def _get(self, path: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return (await self._ask("GET", path, params=params)).json()

    async def _post(
        self,
        path: str,
        body: Mapping[str, Any],
        *,
        params: Mapping[str, Any] | None = None,
        key: str | None = None,
        run_id: str = "",
    ) -> dict[str, Any]:
        headers = {} if key is None else {"Idempotency-Key": key}
        answer = await self._ask(
            "POST", path, params=params, body=body, headers=headers, run_id=run_id
        )
        return answer.json()

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        run_id: str = "",
    ) -> httpx.Response:
        known = {name: value for name, value in (params or {}).items() if value is not None}
        content = None
        if body is not None:
            try:
                content = json.dumps(body, allow_nan=False).encode()
            except (TypeError, ValueError) as error:
                raise InvalidArgument(f"what is sent can't be written as JSON: {error}") from error
            headers = {**(headers or {}), "Content-Type": "application/json"}
        try:
            answer = await self._http.request(
                method, self._url + path, params=known, content=content, headers=headers
            )
        except httpx.TransportError as error:
            raise self._gone(error) from error
        if answer.status_code >= 400:
            raise _error(answer, run_id or path.rpartition("/")[2])
        return answer

    def _gone(self, error: Exception) -> StoreUnavailable:
        if isinstance(error, StoreUnavailable):
            return error
        return StoreUnavailable(
            f"the service at {self._url} can't be reached: {error or type(error).__name__}",
            hint="Check that it runs (`stepwell serve`), and its address.",
        )


class _Ended(WorkflowRuntimeError):
    """The run has ended."""


def _error(answer: httpx.Response, run_id: str) -> Exception:
    """What a refusal is as an error of this library."""
    try:
        shown = cast("dict[str, Any]", answer.json())
        code, detail = str(shown["code"]), str(shown["detail"])
    except (ValueError, KeyError, TypeError):
        return ServiceError(
            answer.status_code,
            "no_problem",
            f"{answer.url} answered {answer.status_code}, and is no stepwell service",
        )
    hint = str(shown.get("hint", ""))
    match answer.status_code, code:
        case _, "run_not_found":
            return RunNotFound(run_id)
        case _, "workflow_not_registered":
            error = WorkflowNotRegistered("")
            error.message, error.args = detail, (detail,)
            return error
        case _, "no_pending_question":
            return NoPendingQuestion(run_id)
        case _, "bad_document":
            return DocumentError(shown.get("errors") or [detail])
        case _, "run_ended":
            return _Ended(detail)
        case 409, _:
            return WorkflowRuntimeError(detail)
        case 400 | 413 | 422, _:
            return InvalidArgument(detail, hint=hint)
        case 503, _:
            return StoreUnavailable(detail, hint=hint)
        case 401, _:
            hint = "Give the service's token: the variable STEPWELL_TOKEN, or Client(token=...)."
            return ServiceError(401, code, detail, hint)
        case status, _:
            return ServiceError(status, code, detail, hint)


def _part(name: str) -> str:
    """A name as a part of a path. One of nothing but dots would be a step up, or none."""
    return name.replace(".", "%2E") if name in (".", "..") else quote(name, safe="")


def _time(text: str | None) -> float | None:
    return None if text is None else datetime.fromisoformat(text).timestamp()


def _wait(shown: Mapping[str, Any]) -> WaitInfo:
    times: dict[str, Any] = {"since": _time(shown["since"]) or 0.0, "due": _time(shown["due"])}
    return WaitInfo(**{**shown, **times})


def _info(shown: Mapping[str, Any]) -> RunInfo:
    return RunInfo(
        id=shown["workflow_id"],
        workflow=shown["definition"],
        version=shown["version"],
        status=RunStatus(shown["status"]),
        created=_time(shown["created"]) or 0.0,
        updated=_time(shown["updated"]) or 0.0,
        ended=_time(shown["ended"]),
        owner=shown["owner"],
        due=_time(shown["due"]),
        parent=shown["parent"],
        key=shown["key"],
        correlation=shown["correlation"],
        priority=shown["priority"],
        reason=shown["reason"],
        waits=tuple(_wait(wait) for wait in shown.get("waits", ())),
        seq=shown["journal_rows"],
        error=shown["error"],
        unread=tuple(shown["unread"]),
    )

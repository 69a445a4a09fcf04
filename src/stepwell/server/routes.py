"""The routes of runs: start, look, follow, speak."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request
from pydantic_core import to_json
from starlette.responses import Response, StreamingResponse

from stepwell.authoring.document_run import NAME
from stepwell.errors import RunNotFound
from stepwell.runtime.views import RunInfo
from stepwell.server import shapes
from stepwell.server.bodies import read_object, time_of, word_of
from stepwell.server.feed import Item, cursor_of
from stepwell.server.known import KnownOnly
from stepwell.server.paths import name_in, part_of
from stepwell.server.patience import patience_of
from stepwell.server.problems import Problem
from stepwell.server.service import Service
from stepwell.server.shown import summary
from stepwell.values import RunStatus

router = APIRouter(route_class=KnownOnly)

JOURNAL_PAGE = 1000
"""How many rows of a journal are shown at once."""

Wait = Annotated[
    float | None,
    Query(ge=0, allow_inf_nan=False, description="Seconds to wait for the end; at most 60."),
]
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="A second request with the same key starts nothing, and gives the first's run.",
        json_schema_extra=shapes.WORD,
    ),
]
Graph = Literal["mermaid", "dot", "svg", "html"]
MEDIA_TYPES = {
    "mermaid": "text/vnd.mermaid; charset=utf-8",
    "dot": "text/vnd.graphviz; charset=utf-8",
    "svg": "image/svg+xml",
    "html": "text/html; charset=utf-8",
}


class Answer(Response):
    """An answer in JSON."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        """The body."""
        return to_json(content, inf_nan_mode="strings")


def body_of(name: str, required: bool = True) -> dict[str, Any]:
    """A request's body, in OpenAPI's words."""
    schema = {"$ref": f"#/components/schemas/{name}"}
    return {
        "requestBody": {"required": required, "content": {"application/json": {"schema": schema}}}
    }


def service_of(request: Request) -> Service:
    """The service of the app that got the request."""
    return request.app.state.stepwell


def links_of(request: Request, run_id: str) -> dict[str, str]:
    """Where a run can be looked at and spoken to."""
    here = f"{request.scope.get('root_path', '')}/api/workflow/{part_of(run_id)}"
    return {
        "self": here,
        "events": f"{here}/events",
        "graph": f"{here}/graph",
        "cancel": f"{here}/cancel",
    }


def known_id(run_id: str) -> str:
    """An id that a run may have. Raises `RunNotFound` for what can be none."""
    run_id = name_in(run_id)
    try:
        word_of(run_id, "the id")
    except Problem:
        raise RunNotFound(run_id[:80]) from None
    return run_id


def event_name(name: str) -> str:
    """The name of an event that may come from outside."""
    name = name_in(name)
    if name.startswith("("):
        raise Problem(422, "bad_word", "an event's name does not begin with '('")
    return str(word_of(name, "the event's name"))


async def started(request: Request, handler: Any, again: bool, wait: float | None) -> Response:
    """The answer to a start."""
    service = service_of(request)
    run_id = handler.run_id
    links = links_of(request, run_id)
    headers = {"Location": links["self"]}
    if again:
        headers["Idempotency-Replayed"] = "true"
    if wait is not None:
        patience_of(request).lift()
        ended = await service.wait(handler, wait)
        patience_of(request).renew()
        if ended:
            return Answer(await service.run(run_id, links), 200, headers)
    info = await service.engine.get(run_id)
    return Answer(
        {"workflow_id": run_id, "status": info.status.value, "links": links}, 202, headers
    )


@router.post(
    "/api/workflow",
    status_code=202,
    response_model=shapes.Started,
    responses={200: {"model": shapes.RunShown, "description": "It ended within `wait`."}},
    openapi_extra=body_of("NewWorkflow"),
    tags=["runs"],
)
async def start(request: Request, wait: Wait = None, idempotency_key: Key = None) -> Response:
    """Start a workflow that is written in the body."""
    body = await read_object(request, optional=False)
    key = word_of(idempotency_key, "Idempotency-Key")
    handler, again = await service_of(request).start_document(body, key)
    return await started(request, handler, again, wait)


@router.get("/api/workflow/{workflow_id}", response_model=shapes.RunShown, tags=["runs"])
async def show(request: Request, workflow_id: str) -> Response:
    """A run: its status, its steps and tasks with attempts, times, results and errors."""
    run_id = known_id(workflow_id)
    return Answer(await service_of(request).run(run_id, links_of(request, run_id)))


@router.get("/api/workflows", response_model=shapes.RunPage, tags=["runs"])
async def listing(
    request: Request,
    status: Annotated[
        list[str] | None,
        Query(
            description="Only these; several, or with commas between.",
            json_schema_extra=shapes.STATUSES,
        ),
    ] = None,
    name: Annotated[
        str | None,
        Query(description="Of a document, or of a workflow.", json_schema_extra=shapes.WORD),
    ] = None,
    definition: Annotated[
        str | None, Query(description="Only runs of this workflow.", json_schema_extra=shapes.WORD)
    ] = None,
    parent: Annotated[
        str | None, Query(description="Only parts of this run.", json_schema_extra=shapes.WORD)
    ] = None,
    correlation: Annotated[
        str | None, Query(description="Only runs with this word.", json_schema_extra=shapes.WORD)
    ] = None,
    waiting: Annotated[
        str | None,
        Query(description="Only runs that wait for this event now.", json_schema_extra=shapes.WORD),
    ] = None,
    since: Annotated[
        str | None, Query(description="Only runs made since: ISO 8601, or seconds since 1970.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    after: Annotated[str | None, Query(description="`next` of the page before.")] = None,
) -> Response:
    """Runs, newest first, a page at a time."""
    service = service_of(request)
    if name is not None:
        if name in service.engine.workflows:
            definition = definition or name
        else:
            definition, correlation = definition or NAME, name
    infos, cursor = await runs_of(
        service,
        workflow=word_of(definition, "definition"),
        status=status,
        parent=word_of(parent, "parent"),
        correlation=word_of(correlation, "correlation" if name is None else "name"),
        since=time_of(since, "since"),
        limit=limit,
        after=after,
        waiting=word_of(waiting, "waiting"),
    )
    rows = [summary(info, links_of(request, info.id)) for info in infos]
    return Answer({"workflows": rows, "next": cursor})


async def runs_of(
    service: Service, *, status: list[str] | None, **where: Any
) -> tuple[list[RunInfo], str | None]:
    """A page of runs, as `Engine.list` gives it. Raises `Problem` for a status or a cursor that is
    none."""
    wanted = _statuses(status)
    try:
        return await service.engine.list(status=wanted, **where)
    except ValueError as error:
        raise Problem(
            422,
            "bad_cursor",
            f"after: {where.get('after')!r:.60} is no cursor of a page",
            hint="Give what the page before has as `next`.",
        ) from error


def _statuses(given: list[str] | None) -> list[RunStatus] | None:
    words = [word for one in given or () for word in one.split(",") if word]
    known = {s.value: s for s in RunStatus}
    wrong = [word for word in words if word not in known]
    if wrong:
        raise Problem(
            422, "bad_status", f"{wrong[0]!r:.40} is no status; there is {', '.join(known)}"
        )
    return [known[word] for word in words] or None


@router.get(
    "/api/workflow/{workflow_id}/events",
    response_class=Response,
    responses={
        200: {
            "description": "Server-sent events, or a line of JSON each.",
            "content": {
                "text/event-stream": {},
                "application/x-ndjson": {},
            },
        },
        204: {"description": "The run has ended, and all of it was seen: do not come back."},
    },
    tags=["runs"],
)
async def events(
    request: Request,
    workflow_id: str,
    last_event_id: Annotated[
        str | None, Header(alias="Last-Event-ID", json_schema_extra=shapes.CURSOR)
    ] = None,
    after: Annotated[
        str | None, Query(description="As Last-Event-ID.", json_schema_extra=shapes.CURSOR)
    ] = None,
) -> Response:
    """What a run does, as it happens, to its end. Goes on behind `Last-Event-ID`."""
    service = service_of(request)
    run_id = known_id(workflow_id)
    behind = cursor_of(after)
    cursor = cursor_of(last_event_id) if last_event_id else behind
    info = await service.engine.get(run_id)
    lines = "application/x-ndjson" in request.headers.get("accept", "")
    items = service.feeds.read(run_id, cursor, service.limits.heartbeat)
    first: list[Item | None] = []
    if info.status.terminal:
        # Whoever has seen the end is told to stay away: browsers come back by themselves.
        first = [item async for item in _one_of(items)]
        if not first:
            return Response(status_code=204)
    kind = "application/x-ndjson" if lines else "text/event-stream"
    headers = {"X-Accel-Buffering": "no"}
    return StreamingResponse(_written(first, items, lines), 200, headers, kind)


async def _one_of(items: AsyncGenerator[Item | None]) -> AsyncGenerator[Item | None]:
    """The first item, if there is one; the others are left where they are."""
    try:
        yield await anext(items)
    except StopAsyncIteration:
        return


async def _written(
    first: list[Item | None], items: AsyncGenerator[Item | None], lines: bool
) -> AsyncGenerator[bytes]:
    try:
        if not lines:
            yield b"retry: 1000\n\n"
        for item in first:
            yield _bytes(item, lines)
        async for item in items:
            yield _bytes(item, lines)
    finally:
        await items.aclose()


def _bytes(item: Item | None, lines: bool) -> bytes:
    """An item as it is sent; None is a sign of life."""
    if item is None:
        return b"\n" if lines else b": still here\n\n"
    return item.line() if lines else item.event()


@router.get("/api/workflow/{workflow_id}/journal", response_model=shapes.JournalPage, tags=["runs"])
async def journal(
    request: Request,
    workflow_id: str,
    after: Annotated[int, Query(ge=0, le=2**53, description="Rows behind this one.")] = 0,
) -> Response:
    """What was decided about a run, row by row, at most 1,000 at a time."""
    engine = service_of(request).engine
    rows = await engine.journal(known_id(workflow_id), after, JOURNAL_PAGE)
    shown = [{"row": seq, "at": at, "entries": entries} for seq, at, entries in rows]
    last = rows[-1][0] if len(rows) >= JOURNAL_PAGE else None
    return Answer({"rows": shown, "next": last})


@router.get("/api/counts", response_model=shapes.Counts, tags=["runs"])
async def counts(request: Request) -> Response:
    """How many runs there are, by workflow and status."""
    found = await service_of(request).engine.counts()
    rows = [
        {"definition": name, "status": status.value, "runs": n}
        for (name, status), n in sorted(found.items())
    ]
    return Answer({"counts": rows})


@router.get(
    "/api/workflow/{workflow_id}/graph",
    response_class=Response,
    responses={200: {"content": {kind.partition(";")[0]: {} for kind in MEDIA_TYPES.values()}}},
    tags=["runs"],
)
async def run_graph(request: Request, workflow_id: str, format: Graph = "mermaid") -> Response:
    """A drawing of what a run did."""
    text = await service_of(request).graph(known_id(workflow_id), format)
    return Response(text, media_type=MEDIA_TYPES[format])

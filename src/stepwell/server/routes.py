"""The routes of runs: start, look, follow, speak."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from stepwell.authoring.document_run import NAME
from stepwell.errors import RunNotFound, WorkflowRuntimeError
from stepwell.server import shapes
from stepwell.server.bodies import object_of, read_object, text_of, time_of, word_of
from stepwell.server.feed import Item, cursor_of
from stepwell.server.problems import Problem
from stepwell.server.service import Service
from stepwell.server.shown import summary
from stepwell.values import RunStatus

router = APIRouter()

Wait = Annotated[
    float | None,
    Query(ge=0, allow_inf_nan=False, description="Seconds to wait for the end; at most 60."),
]
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="A second request with the same key starts nothing, and gives the first's run.",
    ),
]
Graph = Literal["mermaid", "dot", "svg", "html"]
MEDIA_TYPES = {
    "mermaid": "text/vnd.mermaid; charset=utf-8",
    "dot": "text/vnd.graphviz; charset=utf-8",
    "svg": "image/svg+xml",
    "html": "text/html; charset=utf-8",
}


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
    here = f"{request.scope.get('root_path', '')}/api/workflow/{run_id}"
    return {
        "self": here,
        "events": f"{here}/events",
        "graph": f"{here}/graph",
        "cancel": f"{here}/cancel",
    }


def known_id(run_id: str) -> str:
    """An id that a run may have. Raises `RunNotFound` for what can be none."""
    try:
        word_of(run_id, "the id")
    except Problem:
        raise RunNotFound(run_id[:80]) from None
    return run_id


async def started(request: Request, handler: Any, again: bool, wait: float | None) -> Response:
    """The answer to a start."""
    service = service_of(request)
    run_id = handler.run_id
    links = links_of(request, run_id)
    headers = {"Location": links["self"]}
    if again:
        headers["Idempotency-Replayed"] = "true"
    if wait is not None and await service.wait(handler, wait):
        return JSONResponse(await service.run(run_id, links), 200, headers)
    info = await service.engine.get(run_id)
    return JSONResponse(
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
    return JSONResponse(await service_of(request).run(run_id, links_of(request, run_id)))


@router.get("/api/workflows", response_model=shapes.RunPage, tags=["runs"])
async def listing(
    request: Request,
    status: Annotated[
        list[str] | None, Query(description="Only these; several, or with commas between.")
    ] = None,
    name: Annotated[str | None, Query(description="Of a document, or of a workflow.")] = None,
    definition: Annotated[str | None, Query(description="Only runs of this workflow.")] = None,
    since: Annotated[
        str | None, Query(description="Only runs made since: ISO 8601, or seconds since 1970.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    after: Annotated[str | None, Query(description="`next` of the page before.")] = None,
) -> Response:
    """Runs, newest first, a page at a time."""
    service = service_of(request)
    correlation = None
    if name is not None:
        if name in service.engine.workflows:
            definition = definition or name
        else:
            definition, correlation = definition or NAME, word_of(name, "name")
    try:
        infos, cursor = await service.engine.list(
            workflow=word_of(definition, "definition"),
            status=_statuses(status),
            correlation=correlation,
            since=time_of(since, "since"),
            limit=limit,
            after=after,
        )
    except ValueError as error:
        raise Problem(422, "bad_cursor", "after is no cursor of a page") from error
    rows = [summary(info, links_of(request, info.id)) for info in infos]
    return JSONResponse({"workflows": rows, "next": cursor})


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
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID")] = None,
    after: Annotated[str | None, Query(description="As Last-Event-ID.")] = None,
) -> Response:
    """What a run does, as it happens, to its end. Goes on behind `Last-Event-ID`."""
    service = service_of(request)
    run_id = known_id(workflow_id)
    cursor = cursor_of(last_event_id or after)
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


# --- speaking ------------------------------------------------------------------------------------


@router.post(
    "/api/workflow/{workflow_id}/cancel",
    status_code=202,
    response_model=shapes.Started,
    openapi_extra=body_of("CancelBody", required=False),
    tags=["runs"],
)
async def cancel(request: Request, workflow_id: str) -> Response:
    """Ask for a run to be cancelled; its exit steps still run."""
    service, run_id = service_of(request), known_id(workflow_id)
    reason = text_of(await read_object(request, "reason"), "reason") or ""
    await service.live(run_id)
    if not await service.engine.cancel(run_id, reason):
        await service.live(run_id)
    return await _now(request, run_id)


async def _now(request: Request, run_id: str) -> Response:
    info = await service_of(request).engine.get(run_id)
    links = links_of(request, run_id)
    shown = {"workflow_id": run_id, "status": info.status.value, "links": links}
    return JSONResponse(shown, 202, {"Location": links["self"]})


@router.post(
    "/api/workflow/{workflow_id}/signal/{name}",
    status_code=202,
    response_model=shapes.Accepted,
    openapi_extra=body_of("RunBody", required=False),
    tags=["runs"],
)
async def signal(
    request: Request,
    workflow_id: str,
    name: str,
    step: Annotated[str | None, Query(description="Only for this step.")] = None,
    question: Annotated[str | None, Query(description="It answers this question.")] = None,
    idempotency_key: Key = None,
) -> Response:
    """Send a run an event; it is kept, and may come before anyone waits for it."""
    run_id = known_id(workflow_id)
    payload = await read_object(request)
    accepted = await service_of(request).signal(
        run_id,
        str(word_of(name, "the event's name")),
        payload,
        step=word_of(step, "step"),
        question=word_of(question, "question"),
        dedupe=word_of(idempotency_key, "Idempotency-Key"),
    )
    return JSONResponse({"workflow_id": run_id, "accepted": accepted}, 202)


@router.post(
    "/api/workflow/{workflow_id}/answer",
    status_code=202,
    response_model=shapes.Accepted,
    openapi_extra=body_of("AnswerBody"),
    tags=["runs"],
)
async def answer(request: Request, workflow_id: str) -> Response:
    """Answer a question that a run asks: fields, or a text, which becomes `response`."""
    service, run_id = service_of(request), known_id(workflow_id)
    fields = await read_object(request, "answer", "question", optional=False)
    given = fields.get("answer")
    if not isinstance(given, str):
        given = object_of(fields, "answer", "an object or a text")
        if given is None:
            raise Problem(422, "bad_body", "answer: an object or a text is wanted")
    await service.live(run_id)
    await service.engine.answer(
        run_id, given, question=word_of(text_of(fields, "question"), "question")
    )
    return JSONResponse({"workflow_id": run_id, "accepted": True}, 202)


@router.post(
    "/api/workflow/{workflow_id}/resume",
    status_code=202,
    response_model=shapes.Started,
    tags=["runs"],
)
async def resume(request: Request, workflow_id: str) -> Response:
    """Let a parked run go on, after what stopped it was put right."""
    run_id = known_id(workflow_id)
    await service_of(request).engine.resume(run_id)
    return await _now(request, run_id)


@router.post(
    "/api/workflow/{workflow_id}/retry",
    status_code=202,
    response_model=shapes.Started,
    tags=["runs"],
)
async def retry(request: Request, workflow_id: str) -> Response:
    """Try a failed run again from the step that failed it, as a new run."""
    handler = await service_of(request).engine.retry(known_id(workflow_id))
    return await _now(request, handler.run_id)


@router.post(
    "/api/workflow/{workflow_id}/fork",
    status_code=202,
    response_model=shapes.Started,
    openapi_extra=body_of("ForkBody", required=False),
    tags=["runs"],
)
async def fork(request: Request, workflow_id: str) -> Response:
    """Start a copy of a run, up to a point, and let it go on from there."""
    service, run_id = service_of(request), known_id(workflow_id)
    fields = await read_object(request, "seq", "step", "input")
    seq, given = fields.get("seq"), object_of(fields, "input")
    if seq is not None and (not isinstance(seq, int) or isinstance(seq, bool) or seq < 1):
        raise Problem(422, "bad_body", f"seq: a whole number from 1 is wanted, not {seq!r:.60}")
    step = word_of(text_of(fields, "step"), "step")
    if seq is not None and step is not None:
        raise Problem(422, "bad_body", "give seq or step, not both")
    try:
        handler = await service.engine.fork(run_id, seq=seq, step=step, input=given or None)
    except WorkflowRuntimeError as error:
        raise Problem(409, "no_such_point", str(error)) from error
    return await _now(request, handler.run_id)


@router.delete("/api/workflow/{workflow_id}", status_code=204, tags=["runs"])
async def delete(request: Request, workflow_id: str) -> Response:
    """Delete a run that has ended, with all that belongs to it."""
    service, run_id = service_of(request), known_id(workflow_id)
    info = await service.engine.get(run_id)
    if not info.status.terminal:
        raise Problem(
            409, "run_not_ended", f"run {run_id} is {info.status.value}", hint="Cancel it first."
        )
    await service.engine.delete([run_id])
    return Response(status_code=204)

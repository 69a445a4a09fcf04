"""The routes that speak to runs: cancel, signal, answer, resume, retry, fork, delete."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from stepwell.errors import RunAlreadyExists, WorkflowRuntimeError
from stepwell.runtime.machine.signals import live
from stepwell.server import shapes
from stepwell.server.bodies import object_of, read_object, text_of, word_of
from stepwell.server.inputs import bad_edit, check_edit, check_signal
from stepwell.server.known import KnownOnly
from stepwell.server.problems import Problem
from stepwell.server.routes import Answer, Key, body_of, event_name, known_id, links_of, service_of

router = APIRouter(route_class=KnownOnly)


def new_id_of(fields: dict[str, Any]) -> str | None:
    """The id that a new run is to have; one that can stand in a path."""
    found = word_of(text_of(fields, "id"), "id")
    if found in (".", ".."):
        raise Problem(422, "bad_word", "id: nothing can be found at . or ..; choose another")
    return found


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
    return Answer(shown, 202, {"Location": links["self"]})


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
    step: Annotated[
        str | None, Query(description="Only for this step.", json_schema_extra=shapes.WORD)
    ] = None,
    question: Annotated[
        str | None, Query(description="It answers this question.", json_schema_extra=shapes.WORD)
    ] = None,
    idempotency_key: Key = None,
) -> Response:
    """Send a run an event; it is kept, and may come before anyone waits for it. What a state
    machine is sent has to fit its Context; a field that it would drop is refused."""
    run_id = known_id(workflow_id)
    payload = await read_object(request)
    accepted = await service_of(request).signal(
        run_id,
        event_name(name),
        payload,
        step=word_of(step, "step"),
        question=word_of(question, "question"),
        dedupe=word_of(idempotency_key, "Idempotency-Key"),
    )
    return Answer({"workflow_id": run_id, "accepted": accepted}, 202)


@router.post(
    "/api/signal/{name}",
    status_code=202,
    response_model=shapes.Received,
    openapi_extra=body_of("RunBody", required=False),
    tags=["runs"],
)
async def broadcast(
    request: Request,
    name: str,
    definition: Annotated[
        str | None,
        Query(description="Only to runs of this workflow.", json_schema_extra=shapes.WORD),
    ] = None,
    correlation: Annotated[
        str | None, Query(description="Only to runs with this word.", json_schema_extra=shapes.WORD)
    ] = None,
) -> Response:
    """Send every run that waits for it now an event; none, when it does not fit the Context of one
    of them, or has a field that all of them would drop."""
    engine, name, payload = service_of(request).engine, event_name(name), await read_object(request)
    where: dict[str, Any] = {
        "workflow": word_of(definition, "definition"),
        "correlation": word_of(correlation, "correlation"),
    }
    if payload:
        await check_signal(engine, await live(engine, waiting=name, **where), name, payload)
    received = await engine.broadcast(name, payload, **where)
    return Answer({"received": received}, 202)


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
    question = text_of(fields, "question")  # the run may have called it anything
    info = await service.live(run_id)
    said = {"response": given} if isinstance(given, str) else given
    await check_signal(service.engine, [info], (question or "answer")[:80], said)
    await service.engine.answer(run_id, given, question=question)
    return Answer({"workflow_id": run_id, "accepted": True}, 202)


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
    openapi_extra=body_of("RetryBody", required=False),
    tags=["runs"],
)
async def retry(request: Request, workflow_id: str) -> Response:
    """Try a failed run again from the step that failed it, as a new run."""
    service, run_id = service_of(request), known_id(workflow_id)
    new_id = new_id_of(await read_object(request, "id"))
    handler = await service.engine.retry(run_id, new_id=new_id)
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
    fields = await read_object(request, "seq", "step", "input", "id")
    seq, given = fields.get("seq"), object_of(fields, "input")
    if seq is not None and (not isinstance(seq, int) or isinstance(seq, bool) or seq < 1):
        raise Problem(422, "bad_body", f"seq: a whole number from 1 is wanted, not {seq!r:.60}")
    step = word_of(text_of(fields, "step"), "step")
    if seq is not None and step is not None:
        raise Problem(422, "bad_body", "give seq or step, not both")
    if given:
        check_edit(service.engine, await service.engine.get(run_id), given)
    try:
        handler = await service.engine.fork(
            run_id,
            seq=seq,
            step=step,
            input=given or None,
            new_id=new_id_of(fields),
        )
    except RunAlreadyExists:
        raise
    except ValueError as error:
        raise bad_edit(error) from error
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
            409,
            "run_not_ended",
            f"run {run_id} is {info.status.value}; only runs that have ended can be deleted",
            hint="Cancel it first.",
        )
    await service.engine.delete([run_id])
    return Response(status_code=204)

"""`asgi`: the service as an app that stands by itself or is mounted in another one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager
from typing import Annotated, Any, cast

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response
from starlette.routing import compile_path
from starlette.types import Scope

from stepwell._version import __version__
from stepwell.authoring.document_run import NAME
from stepwell.authoring.drawing import draw
from stepwell.authoring.tasks import TaskRegistry
from stepwell.errors import (
    InvalidArgument,
    StoreError,
    StoreUnavailable,
    WorkflowNotRegistered,
)
from stepwell.runtime.engine import Engine
from stepwell.runtime.telemetry import listen
from stepwell.server import console, examples, shapes, speaking
from stepwell.server.bodies import read_object, word_of
from stepwell.server.direct import Direct, Plain
from stepwell.server.inputs import input_schema, machine_of
from stepwell.server.known import KnownOnly
from stepwell.server.metrics import CONTENT_TYPE
from stepwell.server.page import page_of
from stepwell.server.paths import name_in, part_of
from stepwell.server.problems import MEDIA_TYPE, Problem, problem_of
from stepwell.server.routes import (
    MEDIA_TYPES,
    Answer,
    Graph,
    Key,
    Wait,
    body_of,
    router,
    service_of,
    show,
    start,
    started,
)
from stepwell.server.service import Limits, Service
from stepwell.server.shell import Shell

_FAULTS = {
    "400": "The body is no JSON.",
    "401": "A bearer token is needed.",
    "403": "A page of another site may not do this.",
    "404": "There is no such thing.",
    "405": "This is not done here.",
    "408": "The body did not come in time.",
    "409": "The run is not where this can be done.",
    "413": "The body, or a value in it, is too large.",
    "415": "The body is not declared as JSON.",
    "421": "The request is for another host.",
    "422": "What is asked for makes no sense; every fault is named.",
    "429": "Too much is queued; come again later.",
    "500": "A fault of the service.",
    "503": "The store is in trouble; come again later, nothing is lost.",
}


def asgi(
    engine: Engine,
    *,
    tasks: TaskRegistry | None = None,
    token: str | None = None,
    hosts: Collection[str] | None = None,
    degraded: str | None = None,
    max_queue: int = 10_000,
    heartbeat: float = 15.0,
    patience: float = 10.0,
) -> FastAPI:
    """The REST service of an engine, as an ASGI app.

    It can be served by itself (then it starts and stops the engine) or mounted in another app:
    `site.mount("/workflows", stepwell.asgi(engine))`; then the engine starts with the first
    request, and whoever made it stops it.

    Args:
        engine: advances the runs; its workflows can be started by name.
        tasks: what documents may name; the default registry by default.
        token: what callers must send as `Authorization: Bearer TOKEN`; None: nothing.
        hosts: the host names that requests may be for; None: any.
        degraded: why runs are kept in memory although a store was asked for; None: they are not.
        max_queue: how many runs may be queued before new ones are refused with 429.
        heartbeat: seconds between two signs of life of a stream without news.
        patience: seconds that a body may take to come (408), and the store to answer (503).

    Raises:
        InvalidArgument: the engine has another workflow called "document"; or the token is empty.

    Example:
        >>> from stepwell import Engine, asgi
        >>> asgi(Engine("memory://")).title
        'stepwell'
    """
    if token is not None and not token:
        raise InvalidArgument("the token is empty", hint="Give None for no token.")
    limits = Limits(max_queue=max_queue, heartbeat=heartbeat, patience=patience)
    service = Service(engine, tasks, limits, degraded)
    app = FastAPI(
        title="stepwell",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        lifespan=_living,
        # Bodies are read by `bodies`; there is no default shape of an error but the problem.
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.stepwell = service
    app.state.stop_listening = listen(service.hear)
    app.include_router(router)
    app.include_router(speaking.router)
    app.include_router(console.router)
    _more(app)
    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_middleware(Direct, routes=_BUSY)
    app.add_middleware(
        Shell,
        token=token,
        hosts=hosts,
        durability=service.durability,
        metrics=service.metrics,
        patience=lambda: service.limits.patience,
    )
    app.openapi = lambda: _openapi(app)  # pyright: ignore[reportAttributeAccessIssue] - as documented
    return app


@asynccontextmanager
async def _living(app: FastAPI) -> AsyncGenerator[None]:
    """The life of an app that stands by itself."""
    service: Service = app.state.stepwell
    try:
        await service.engine.start_up()
        yield
    finally:
        service.feeds.close()
        app.state.stop_listening()
        await service.engine.stop()


async def _http_problem(request: Request, error: Exception) -> Response:
    found = cast(HTTPException, error)
    status, asked = found.status_code, f"{request.method:.20} {request.url.path:.200}"
    code, said = {
        404: ("no_such_route", f"there is no route {asked}"),
        405: ("method_not_allowed", f"there is no {asked}, but there are other methods for it"),
    }.get(status, ("http_error", str(found.detail)))
    hint = "" if code == "http_error" else "GET /docs shows every route."
    headers = dict(found.headers or {})
    if status == 405:
        # Every method of the path, where the framework names those of its first route.
        paths = request.app.openapi()["paths"].items()
        there = [methods for path, methods in paths if _leads_to(path, request.scope)]
        words = sorted({method.upper() for methods in there for method in methods})
        headers["Allow"] = ", ".join(words) or "GET"
    return Problem(status, code, said, hint=hint, headers=headers).response()


def _leads_to(path: str, scope: Scope) -> bool:
    asked = scope["path"].removeprefix(scope.get("root_path", ""))
    return compile_path(path)[0].match(asked) is not None


async def _invalid(_request: Request, error: Exception) -> Response:
    """Query parameters and headers that are not as they should be."""
    faults = [
        f"{'.'.join(str(part) for part in e['loc'][1:])}: {e['msg']}"
        for e in cast(RequestValidationError, error).errors()
    ]
    return Problem(422, "bad_parameter", faults[0], errors=faults).response()


# --- definitions, and how the service is ---------------------------------------------------------


def _more(app: FastAPI) -> None:
    router = APIRouter(route_class=KnownOnly)
    router.get("/api/definitions", response_model=shapes.Definitions, tags=["definitions"])(
        definitions
    )
    router.post(
        "/api/definitions/{name}/run",
        status_code=202,
        response_model=shapes.Started,
        responses={200: {"model": shapes.RunShown, "description": "It ended within `wait`."}},
        openapi_extra=body_of("RunBody", required=False),
        tags=["definitions"],
    )(run_definition)
    router.get(
        "/api/definitions/{name}/graph",
        response_class=Response,
        responses={200: {"content": {k.partition(";")[0]: {} for k in MEDIA_TYPES.values()}}},
        tags=["definitions"],
    )(definition_graph)
    app.include_router(router)
    app.get("/healthz", response_model=shapes.Health, tags=["service"])(healthz)
    app.get("/readyz", response_model=shapes.Health, tags=["service"])(readyz)
    app.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
        tags=["service"],
    )(metrics)
    app.get("/docs", response_class=HTMLResponse, tags=["service"])(docs)


async def definitions(request: Request) -> Response:
    """The workflows that can be started by name, and the tasks that documents may name."""
    service = service_of(request)
    root = f"{request.scope.get('root_path', '')}/api/definitions"
    rows = [
        {
            "name": name,
            "version": program.definition.version,
            "steps": [s.name for s in program.definition.steps if not s.name.startswith("(")],
            "input_schema": input_schema(program),
            "links": {
                "run": f"{root}/{part_of(name)}/run",
                "graph": f"{root}/{part_of(name)}/graph",
            },
        }
        for name, program in sorted(service.definitions().items())
    ]
    return Answer({"definitions": rows, "tasks": service.documents.registry.names()})


async def run_definition(
    request: Request,
    name: str,
    wait: Wait = None,
    priority: Annotated[
        int, Query(ge=-1_000_000, le=1_000_000, description="Higher starts first.")
    ] = 0,
    idempotency_key: Key = None,
) -> Response:
    """Start a registered workflow with the fields in the body."""
    fields = await read_object(request)
    key = word_of(idempotency_key, "Idempotency-Key")
    handler, again = await service_of(request).start_named(name_in(name), fields, key, priority)
    return await started(request, handler, again, wait)


_BUSY = [
    Plain("POST", "/api/workflow", start, frozenset({"wait"}), key=True),
    Plain("GET", "/api/workflow/{workflow_id}", show),
    Plain("POST", "/api/workflow/{workflow_id}/signal/{name}", speaking.signal, key=True),
    Plain(
        "POST",
        "/api/definitions/{name}/run",
        run_definition,
        frozenset({"wait", "priority"}),
        key=True,
    ),
]
"""What a service is asked most."""


async def definition_graph(request: Request, name: str, format: Graph = "mermaid") -> Response:
    """A drawing of a registered workflow."""
    known, name = service_of(request).definitions(), name_in(name)
    if name not in known:
        raise WorkflowNotRegistered(name, sorted(known))
    program = known[name]
    text = draw(program.definition, format, machine=machine_of(program))
    return Response(text, media_type=MEDIA_TYPES[format])


async def healthz(request: Request) -> Response:
    """Whether the process answers."""
    service = service_of(request)
    return Answer({"status": "ok", "durability": service.durability()})


async def readyz(request: Request) -> Response:
    """Whether the service can do its work: 503 while its store can't be reached."""
    service = service_of(request)
    shown = {"status": "ready", "durability": service.durability()}
    try:
        async with asyncio.timeout(service.limits.patience / 2):
            await service.engine.start_up()
            await service.engine.store.get("-")
    except (StoreError, TimeoutError) as given:
        late = StoreUnavailable("the store does not answer")
        error = given if isinstance(given, StoreError) else late
        problem = problem_of(error)
        detail = {**shown, "status": "unavailable", "detail": error.message}
        return Answer(detail, 503, problem.headers if problem else None)
    if service.degraded is not None:
        shown["status"] = "degraded"
        shown["detail"] = "runs are kept in memory only, and survive nothing"
    return Answer(shown)


async def metrics(request: Request) -> Response:
    """Numbers for Prometheus."""
    service = service_of(request)
    counts = await service.engine.counts()
    text = service.metrics.text(counts, service.feeds.readers, service.degraded is not None)
    return Response(text, media_type=CONTENT_TYPE)


async def docs(request: Request) -> Response:
    """This page: every route, with what it takes. Needs no other site."""
    root = str(request.scope.get("root_path", ""))
    text = page_of(request.app.openapi(), root, service_of(request).durability())
    return HTMLResponse(text, headers=console.SAFE)


# --- OpenAPI -------------------------------------------------------------------------------------


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is not None:
        return app.openapi_schema
    made = get_openapi(
        title=app.title,
        version=app.version,
        description=(
            "Typed, durable workflows. A workflow is a document, or one of the definitions that "
            "the service was started with; both run, and are looked at, in the same way. Errors "
            "are problem details (RFC 9457)."
        ),
        routes=app.routes,
    )
    kinds = (
        shapes.NewWorkflow,
        shapes.Problem,
        shapes.CancelBody,
        shapes.AnswerBody,
        shapes.ForkBody,
        shapes.RetryBody,
        shapes.RunBody,
    )
    _, more = models_json_schema(
        [(kind, "validation") for kind in kinds], ref_template="#/components/schemas/{model}"
    )
    components = made.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas.update(more.get("$defs", {}))
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    components["responses"] = {
        status: {"description": text, "content": content} for status, text in _FAULTS.items()
    }
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    made["security"] = [{"token": []}, {}]
    for path, methods in made["paths"].items():
        for operation in methods.values():
            for status in _FAULTS:
                if path == "/readyz" and status == "503":
                    continue
                operation["responses"][status] = {"$ref": f"#/components/responses/{status}"}
    examples.put_into(made)
    ready = made["paths"]["/readyz"]["get"]["responses"]
    ready["503"] = {**ready["200"], "description": "The store can't be reached."}
    app.openapi_schema = made
    return made


__all__ = ["NAME", "asgi"]

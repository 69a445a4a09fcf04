"""The console: two pages for people, of what the API shows programs. They change nothing.

`/` says how the service is and which runs there are; `/runs/{id}` shows one. Rendered here, without
a script: everything that came from outside is text (`markup`), and browsers are told to run and to
load nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, cast
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from starlette.responses import HTMLResponse, Response

from stepwell._version import __version__
from stepwell.authoring.document_run import NAME
from stepwell.authoring.words import MOVED, wanted
from stepwell.errors import StepwellError
from stepwell.runtime.views import RunInfo, short
from stepwell.server.bodies import word_of
from stepwell.server.markup import Html, el, joined, page, table
from stepwell.server.paths import part_of
from stepwell.server.phrases import age, in_utc, said_at, why_in_short
from stepwell.server.problems import Problem, problem_of
from stepwell.server.routes import known_id, links_of, runs_of, service_of
from stepwell.server.shown import summary
from stepwell.server.ways import ways_on
from stepwell.values import RunStatus

router = APIRouter(include_in_schema=False)

ROWS = 30
"""Runs on one page."""

MOST_DRAWN = 200
"""Tasks of a run that is drawn on its page."""

MOST = 20_000
"""Characters of a result, and tasks of a run, that a page shows; the API has it all."""

SAFE = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'none'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",
}
"""What browsers are told: run no script, load nothing, stand in nobody's frame."""

_BAD = ("failed", "timed_out", "parked")
_GOOD = ("completed", "succeeded")


def shown_as(title: str, *inside: object, status: int = 200, headers: Any = None) -> Response:
    """A page, as an answer."""
    return HTMLResponse(page(title, *inside), status, {**SAFE, **(headers or {})})


def _sorry(request: Request, error: Exception) -> Response:
    """What can't be shown, and why."""
    found = error if isinstance(error, Problem) else problem_of(error)
    if found is None:
        raise error
    said = [el("h1", f"{found.status}: {found.detail}")]
    if found.hint:
        said.append(el("p", found.hint))
    return shown_as("stepwell", *_top(request), *said, status=found.status, headers=found.headers)


@router.get("/")
async def console(
    request: Request,
    definition: Annotated[str | None, Query()] = None,
    name: Annotated[str | None, Query()] = None,
    status: Annotated[str | None, Query()] = None,
    after: Annotated[str | None, Query()] = None,
) -> Response:
    """How the service is, and its newest runs; `name` is that of a document."""
    service = service_of(request)
    try:
        counts = await service.engine.counts()
        infos, cursor = await runs_of(
            service,
            workflow=NAME if name else word_of(definition or None, "definition"),
            correlation=word_of(name or None, "name"),
            status=[status] if status else None,
            after=after,
            limit=ROWS,
        )
    except (StepwellError, Problem) as error:
        return _sorry(request, error)
    kept = {"definition": definition, "name": name, "status": status}
    chosen = joined((f"{word} {value}" for word, value in kept.items() if value), ", ")
    inside = [
        *_top(request),
        el("h1", "stepwell"),
        el("h2", "Runs by workflow and status"),
        _counts(request, counts) if counts else el("p", "There are none yet.", class_="dim"),
        el("h2", "Runs", *([": ", chosen] if chosen else []), "" if after is None else ", older"),
        _runs(request, infos, service.engine.now()),
        el("p", *_turning(request, {k: v for k, v in kept.items() if v}, cursor, after)),
    ]
    return shown_as("stepwell", *inside)


def _root(request: Request) -> str:
    return str(request.scope.get("root_path", ""))


def _top(request: Request) -> list[Html]:
    """What stands above every page: where to go, and how durable all of it is."""
    service, root = service_of(request), _root(request)
    durability = service.durability()
    nav = el(
        "nav",
        el("a", "runs", href=f"{root}/"),
        el("a", "routes", href=f"{root}/docs"),
        el("a", "definitions", href=f"{root}/api/definitions"),
        el("span", f"stepwell {__version__}", class_="dim"),
        el("span", f"durability: {durability}", class_="dim"),
    )
    if service.degraded is None:
        return [nav]
    loud = f"durability: {durability}. Runs are kept in memory only, and survive nothing."
    return [nav, el("p", loud, class_="loud", role="alert")]


def _counts(request: Request, counts: Mapping[tuple[str, RunStatus], int]) -> Html:
    used = [status for status in RunStatus if any(s is status for _, s in counts)]
    names = sorted({name for name, _ in counts})

    def cell(name: str, status: RunStatus) -> Html:
        n = counts.get((name, status))
        if not n:
            return el("td", class_="n")
        where = _here(request, {"definition": name, "status": status.value})
        return el("td", el("a", n, href=where), class_="n")

    heads = ["workflow", *(el("th", _status(s.value), class_="n") for s in used)]
    rows = [
        [
            el(
                "td",
                el("a", name, href=_here(request, {"definition": name})),
                el("span", " (of all names)", class_="dim") if name == NAME else "",
            ),
            *(cell(name, status) for status in used),
        ]
        for name in names
    ]
    return table(heads, rows)


def _here(request: Request, query: Mapping[str, str]) -> str:
    return f"{_root(request)}/{'?' if query else ''}{urlencode(query)}"


def _turning(
    request: Request, kept: Mapping[str, str], cursor: str | None, after: str | None
) -> list[Html]:
    found: list[Html] = []
    if after is not None:
        found.append(el("a", "newest", href=_here(request, kept)))
    if cursor is not None:
        found.append(el("a", "older", href=_here(request, {**kept, "after": cursor})))
    return [joined(found, " · ")]


def _status(word: str) -> Html:
    kind = "bad" if word in _BAD else "good" if word in _GOOD else None
    return el("span", word.replace("_", " "), class_=kind)


def _link(request: Request, run_id: str, said: str | None = None) -> Html:
    return el("a", said or run_id, href=f"{_root(request)}/runs/{part_of(run_id)}")


def _runs(request: Request, infos: Sequence[RunInfo], now: float) -> Html:
    if not infos:
        return el("p", "There are none.", class_="dim")
    heads = ["status", "name", el("th", "run", class_="wide"), "age", "why it is there"]
    rows: list[list[Html]] = []
    for info in infos:
        named = summary(info, {})["name"]
        rows.append(
            [
                el("td", _status(info.status.value)),
                el("td", _link(request, info.id, short(named, 80)), class_="name"),
                el("td", el("code", _link(request, info.id, short(info.id, 40))), class_="wide"),
                el("td", age(now - info.created), title=in_utc(info.created)),
                el("td", short(why_in_short(info, now), 160), class_="long"),
            ]
        )
    return table(heads, rows)


# --- one run -------------------------------------------------------------------------------------


@router.get("/runs/{run_id}")
async def one_run(request: Request, run_id: str) -> Response:
    """A run: why it is where it is, its steps and tasks, its result or error, and a drawing."""
    service = service_of(request)
    try:
        run_id = known_id(run_id)
        links = links_of(request, run_id)
        run = await service.run(run_id, links)
        tasks = sum(len(step["tasks"]) for step in run["steps"])
        drawing = await service.graph(run_id, "svg") if tasks <= MOST_DRAWN else None
    except (StepwellError, Problem) as error:
        return _sorry(request, error)
    inside: list[object] = [
        *_top(request),
        el("h1", run["name"], " ", _status(run["status"])),
        el("p", run["why"]),
        _facts(request, run),
        *_waits(run["waits"]),
        *_ways(request, run),
        *_error(run["error"]),
    ]
    for word, said in (("steps", "Steps"), ("on_error", "On error"), ("on_exit", "On exit")):
        if run.get(word):
            inside += [el("h2", said), _steps(run[word])]
    if run["result"] is not None:
        inside += [el("h2", "Result"), el("pre", pretty(run["result"]))]
    if drawing is None:
        where = el("a", "here by itself", href=f"{links['graph']}?format=svg")
        picture = el(
            "p", f"With {tasks} tasks it is too big for this page; it is here ", where, "."
        )
    else:
        picture = el("div", Html(drawing), class_="drawing")
    inside += [el("h2", "Drawing"), picture]
    return shown_as(f"{run['name']}: {run['status']}", *inside)


def pretty(value: object) -> str:
    """JSON as people read it, cut off where a page would be too long."""
    return short(json.dumps(value, indent=2, ensure_ascii=False), MOST)


def _facts(request: Request, run: Mapping[str, Any]) -> Html:
    links = run["links"]
    ways = joined(
        (
            el("a", word, href=links[where] if where else f"{links['self']}/journal")
            for word, where in (("JSON", "self"), ("events", "events"), ("journal", ""))
        ),
        " · ",
    )
    rows: list[tuple[str, object]] = [
        ("run", el("code", run["workflow_id"])),
        ("workflow", _workflow(request, run)),
        ("started", said_at(run["created"])),
        ("ended", said_at(run["ended"])),
        ("part of", _link(request, run["parent"]) if run["parent"] else None),
        ("key", run["key"]),
        ("correlation", run["correlation"]),
        ("priority", run["priority"] or None),
        ("more", ways),
    ]
    return el(
        "div",
        el(
            "table",
            *(
                el("tr", el("th", name), el("td", value, class_="long"))
                for name, value in rows
                if value
            ),
        ),
        class_="scroll",
    )


def _workflow(request: Request, run: Mapping[str, Any]) -> Html:
    """The workflow, and for a document its name, with the runs that there are of it."""
    if run["definition"] != NAME or not run["correlation"]:
        return el("a", run["definition"], href=_here(request, {"definition": run["definition"]}))
    name = run["correlation"]
    return joined((NAME, el("a", name, href=_here(request, {"name": name}))), " ")


def _waits(waits: Sequence[Mapping[str, Any]]) -> Iterable[Html]:
    waits = [wait for wait in waits if wait["event"] != MOVED]
    if not waits:
        return
    yield el("h2", "Waits for")
    yield table(
        (
            el("th", "wait", class_="wide"),
            "event",
            el("th", "since", class_="wide"),
            "ends by itself",
            "question",
        ),
        (
            [
                el("td", el("code", wait["id"]), class_="wide"),
                el("td", _awaited(wait), class_="name"),
                el("td", said_at(wait["since"]), class_="wide"),
                el("td", said_at(wait["due"]) or "never", class_="name"),
                el("td", _question(wait["question"]), class_="long"),
            ]
            for wait in waits
        ),
    )


def _ways(request: Request, run: Mapping[str, Any]) -> Iterable[Html]:
    """What to copy, to move a run that a person has to move."""
    token = "authorization" in request.headers
    ways = list(ways_on(run, str(request.base_url).rstrip("/"), token))
    if ways:
        yield el("h2", "Move it")
        yield from (el("pre", way) for way in ways)
    if ways and token:
        yield el("p", "The token is taken from the variable STEPWELL_TOKEN.", class_="dim")


def _question(question: object) -> Html:
    return Html("") if question is None else el("pre", pretty(question))


def _awaited(wait: Mapping[str, Any]) -> str:
    if wait["child"]:
        return f"its part {wait['child']}"
    if wait["event"] is None:
        return "time"
    return wanted(wait["event"]) if wait["then"] else wait["event"]


def _error(error: Mapping[str, Any] | None) -> Iterable[Html]:
    if error is None:
        return
    yield el("h2", "Error")
    step = f" in {error['step']}" if error.get("step") else ""
    place = f" ({error['where']})" if error.get("where") else ""
    yield el("p", f"{error['type']}{step}{place}", class_="bad")
    yield el("pre", short(str(error["message"]), MOST))


def _steps(steps: Sequence[Mapping[str, Any]]) -> Html:
    rows: list[list[Html]] = []
    for step in steps:
        kind = step["execution_type"]
        if kind is not None:
            named = el("td", el("b", step["name"]), f" ({kind})", class_="name")
            rows.append([named, el("td", _status(step["status"])), el("td", colspan=3)])
        rows += [_task(task) for task in step["tasks"]]
        if len(rows) > MOST // 10:
            rows.append([el("td", "and more: the API shows all of them", colspan=5, class_="dim")])
            break
    numbers = (el("th", "tries", class_="n"), el("th", "took", class_="n wide"))
    return table(["task", "status", *numbers, "error or result"], rows)


def _task(task: Mapping[str, Any]) -> list[Html]:
    tries = len(task["attempts"])
    took = task["seconds"]
    error = cast("Mapping[str, Any] | None", task["error"])
    if error is not None:
        place = f" ({error['where']})" if error["where"] else ""
        last = el("span", short(f"{error['type']}: {error['message']}", 300), place, class_="bad")
    elif task["result"] is None:
        last = Html("")
    else:
        last = el("code", short(json.dumps(task["result"], ensure_ascii=False), 300))
    return [
        el("td", task["name"], f" ({task['id']})" if task["id"] else "", class_="name"),
        el("td", _status(task["status"])),
        el("td", tries or "", class_="n"),
        el("td", "" if took is None else f"{took:.3f} s", class_="n wide"),
        el("td", last, class_="long"),
    ]

"""The flows of the scenarios as documents, and the tasks that they name."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from tests.scenarios.world import HOUR, Style, broken, said

from stepwell.document import Documents
from stepwell.tasks import BUILT_IN, TaskRegistry

registry = TaskRegistry(BUILT_IN)


@registry.task()
async def add(word: str, n: int) -> int:
    said.append(word)
    return n + 1


@registry.task()
async def say(word: str, value: Any = None) -> Any:
    said.append(word)
    return value


@registry.task()
async def flaky() -> str:
    said.append("try")
    if said.count("try") < 3:
        raise OSError("not yet")
    return "at last"


@registry.task()
async def breaks() -> None:
    said.append("breaks")
    raise OSError("boom")


@registry.task()
async def deal(context: Mapping[str, Any]) -> None:
    said.append(f"handles {context['error_message']}")


@registry.task()
async def long() -> str:
    said.append("begins")
    await asyncio.sleep(HOUR)
    said.append("ends")
    return "done"


@registry.task()
async def leave(context: Mapping[str, Any]) -> None:
    if "steps.0.long" not in context:
        said.append("cleans up")


@registry.task()
async def ask(context: Any, patience: float | None = None) -> str:
    try:
        return (await context.wait_for_signal("Approved", patience))["by"]
    except TimeoutError:
        return "nobody"


@registry.task()
async def part(n: int) -> int:
    await asyncio.sleep((3 - n) * HOUR)
    said.append(f"part {n}")
    return n


@registry.task()
async def join(parts: list[int]) -> list[int]:
    said.append("joined")
    return parts


@registry.task()
async def child(context: Any, flow: str, n: int | None = None) -> Any:
    given = {} if n is None else {"n": n}
    result = await context.run_child(Documents(registry), **begins(flow, given))
    if flow == "straight":
        said.append("joined")
    return value(result)


@registry.task()
async def write() -> str:
    said.append("two")
    if "disk" in broken:
        raise OSError("the disk is broken")
    return "written"


def task(name: str, /, **params: Any) -> dict[str, Any]:
    return {"name": name, "params": params}


def document(*tasks: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "name": "scenario",
        "steps": [{"execution_type": "sequential", "tasks": [*tasks]}],
        **{word: steps(*of) if word != "timeout" else of for word, of in more.items()},
    }


def steps(*tasks: dict[str, Any], kind: str = "sequential") -> list[dict[str, Any]]:
    return [{"execution_type": kind, "tasks": [*tasks]}]


DOCUMENTS: Mapping[str, Mapping[str, Any]] = {
    "straight": document(
        {**task("add", word="one", n={"$ref": "input.n"}), "id": "one"},
        {**task("add", word="two", n={"$ref": "one.result"}), "id": "two"},
    ),
    "flaky": document(task("flaky", retry_count=2, retry_delay=10)),
    "caught": document(task("breaks"), on_error=[task("deal")]),
    "slow step": document(task("long", timeout=60)),
    "slow run": document(task("long"), timeout=60, on_exit=[task("leave")]),
    "sleeps": document(
        task("say", word="before"),
        task("sleep", seconds=86_400),
        task("say", word="after", value="rested"),
    ),
    "asks": document(task("ask")),
    "asks later": document(task("sleep", seconds=HOUR), task("ask")),
    "asks for an hour": document(task("ask", patience=HOUR)),
    "long": document(task("say", word="one"), task("long"), on_exit=[task("leave")]),
    "fans out": {
        "name": "scenario",
        "steps": [
            *steps(*(task("part", n=n) for n in range(3)), kind="parallel"),
            *steps(
                task(
                    "join",
                    parts=[
                        {"$ref": "steps.0.part.result"},
                        {"$ref": "steps.0.part_2.result"},
                        {"$ref": "steps.0.part_3.result"},
                    ],
                )
            ),
        ],
    },
    "parent": document(task("child", flow="straight", n={"$ref": "input.n"})),
    "guardian": document(task("child", flow="asks")),
    "fragile": document(task("say", word="one"), task("write")),
}


def flows() -> Mapping[str, Any]:
    return dict.fromkeys(DOCUMENTS, Documents(registry))


def begins(flow: str, given: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"document": DOCUMENTS[flow], "input": given}


def value(result: Mapping[str, Any]) -> Any:
    """What the last task gave."""
    return list(result.values())[-1]["result"]


def step(name: str) -> str:
    """The task of a flow of two, by its place."""
    return {"one": "steps.0.add", "two": "steps.0.add_2"}[name]


STYLE = Style(flows, value, begins, step, without={"publishes": "its readers see how it ends"})

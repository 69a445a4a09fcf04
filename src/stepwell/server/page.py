"""`/docs`: the routes on one page, made of the OpenAPI description. No script, no other site."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from stepwell.server.markup import Html, el, page


def page_of(api: Mapping[str, Any], root: str, durability: str) -> str:
    """The page.

    Args:
        api: the OpenAPI description.
        root: the path that the app is mounted under.
        durability: what a committed step survives.
    """
    rows: list[Html] = []
    for path, methods in api["paths"].items():
        for method, operation in cast("dict[str, dict[str, Any]]", methods).items():
            rows.append(_operation(f"{root}{path}", method.upper(), operation))
    schemas = api["components"]["schemas"]
    example = json.dumps(schemas["NewWorkflow"]["examples"][0], indent=2)
    document = json.dumps(schemas["NewWorkflow"], indent=2)
    return page(
        "stepwell: routes",
        el(
            "nav",
            el("a", "runs", href=f"{root}/"),
            el("a", "openapi.json", href=f"{root}/openapi.json"),
        ),
        el("h1", f"stepwell {api['info']['version']}"),
        el("p", api["info"]["description"], " Durability: ", el("b", durability), "."),
        el("h2", "Routes"),
        *rows,
        el("h2", "A document"),
        el("pre", example),
        el("details", el("summary", "Its schema"), el("pre", document)),
    )


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> Html:
    about = operation.get("description", "")
    parameters = [
        el(
            "li",
            el("code", p["name"]),
            f" ({p['in']}{', required' if p.get('required') else ''}) ",
            p.get("description", ""),
        )
        for p in operation.get("parameters", ())
    ]
    body: list[Html] = []
    if "requestBody" in operation:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        example = operation["requestBody"]["content"]["application/json"].get("example")
        body = [
            el("p", "Body: JSON, ", el("code", schema.rpartition("/")[2]), "; such as"),
            el("pre", json.dumps(example, indent=2)),
        ]
    return el(
        "details",
        el(
            "summary",
            el("span", method, class_="m"),
            " ",
            el("code", path),
            el("span", about.partition(". ")[0].rstrip("."), class_="dim wide"),
        ),
        el("p", about),
        el("ul", *parameters),
        *body,
        *_answer(operation),
    )


def _answer(operation: Mapping[str, Any]) -> list[Html]:
    """What is answered, by example."""
    for status, response in operation["responses"].items():
        for content in response.get("content", {}).values():
            if "example" in content:
                example = content["example"]
                text = example if isinstance(example, str) else json.dumps(example, indent=2)
                return [el("p", f"Answer: {status}, such as"), el("pre", text)]
    return []

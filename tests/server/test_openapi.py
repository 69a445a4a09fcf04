"""The OpenAPI description: it is one, every operation has an example, and the examples are true."""

from __future__ import annotations

from typing import Any

import pytest
from openapi_spec_validator import validate

import stepwell
from stepwell import Engine
from stepwell.server import examples, shapes


@pytest.fixture(scope="module")
def api() -> dict[str, Any]:
    app = stepwell.asgi(Engine("memory://"))
    app.state.stop_listening()
    return app.openapi()


def operations(api: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for methods in api["paths"].values() for one in methods.values()]


def test_it_is_an_openapi_description(api: dict[str, Any]) -> None:
    validate(api)


def test_every_operation_is_described_and_named(api: dict[str, Any]) -> None:
    names = [one["operationId"] for one in operations(api)]
    assert len(set(names)) == len(names)
    assert [one["operationId"] for one in operations(api) if not one.get("description")] == []


def test_every_operation_has_an_example(api: dict[str, Any]) -> None:
    without: list[str] = []
    for one in operations(api):
        parts = [
            content
            for status, response in one["responses"].items()
            if status[0] == "2"
            for content in response.get("content", {}).values()
        ]
        if parts and not any("example" in part for part in parts):
            without.append(one["operationId"])
        asked = [p for p in one.get("parameters", ()) if p["in"] == "path"]
        asked += one.get("requestBody", {}).get("content", {}).values()
        if not all("example" in part for part in asked):
            without.append(one["operationId"])
    assert without == []


def test_the_examples_have_the_shapes_that_are_promised() -> None:
    for shape, example in examples.BODIES.values():
        shape.model_validate(example)
    for _, shape, example in examples.ANSWERS.values():
        shape.model_validate(example)
    shapes.Problem.model_validate(examples.PROBLEM)
    shapes.RunShown.model_validate(examples.SHOWN)
    assert set(examples.BODIES) <= set(examples.ANSWERS)

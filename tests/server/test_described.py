"""What the service offers stands in its reference: every route, every setting, every option."""

from __future__ import annotations

import inspect
from pathlib import Path

import stepwell
from stepwell import Engine
from stepwell.authoring.document import StepSpec, TaskSpec, WorkflowDocument
from stepwell.client import Client
from stepwell.server.settings import Settings, variable_of

DOCS = Path(__file__).parents[2] / "docs" / "reference"


def test_every_route_is_described() -> None:
    text = (DOCS / "rest.md").read_text(encoding="utf-8")
    paths = stepwell.asgi(Engine("memory://")).openapi()["paths"]
    routes = [
        f"{method.upper()} {path.replace('{workflow_id}', '{id}')}"
        for path, methods in paths.items()
        for method in methods
    ]
    assert [route for route in routes if route not in text and "/docs" not in route] == []


def test_every_setting_is_described() -> None:
    text = (DOCS / "rest.md").read_text(encoding="utf-8")
    missing = [v for v in map(variable_of, Settings.model_fields) if f"`{v}`" not in text]
    assert missing == []


def test_every_option_and_verb_is_described() -> None:
    text = (DOCS / "rest.md").read_text(encoding="utf-8")
    names = [*inspect.signature(stepwell.asgi).parameters]
    names += [n for n in vars(Client) if n[0] != "_" and n not in ("aclose", "url", "workflows")]
    forms = ("`{}`", "`await {}(", "`{}(")
    missing = [n for n in names if not any(form.format(n) in text for form in forms)]
    assert missing == []


def test_every_field_of_documents_is_described() -> None:
    text = (DOCS / "document.md").read_text(encoding="utf-8")
    fields = [f for m in (WorkflowDocument, StepSpec, TaskSpec) for f in m.model_fields]
    assert [field for field in fields if f"`{field}`" not in text] == []

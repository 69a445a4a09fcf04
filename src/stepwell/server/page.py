"""`/docs`: the routes on one page, made of the OpenAPI description. No script, no other site."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from typing import Any, cast

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
code,pre{font-family:ui-monospace,monospace;font-size:.9em}
pre{background:#8881;padding:.7rem;overflow:auto;border-radius:.3rem}
details{border-top:1px solid #8884;padding:.5rem 0}summary{cursor:pointer}
.m{display:inline-block;min-width:4.5rem;font-weight:700}
:root{color-scheme:light dark}
"""


def page_of(api: Mapping[str, Any], root: str, durability: str) -> str:
    """The page.

    Args:
        api: the OpenAPI description.
        root: the path that the app is mounted under.
        durability: what a committed step survives.
    """
    rows: list[str] = []
    for path, methods in api["paths"].items():
        for method, operation in cast("dict[str, dict[str, Any]]", methods).items():
            rows.append(_operation(f"{root}{path}", method.upper(), operation))
    schemas = api["components"]["schemas"]
    example = json.dumps(schemas["NewWorkflow"]["examples"][0], indent=2)
    document = json.dumps(schemas["NewWorkflow"], indent=2)
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>stepwell</title>"
        f"<style>{_STYLE}</style><h1>stepwell {_text(api['info']['version'])}</h1>"
        f"<p>{_text(api['info']['description'])} Durability: <b>{_text(durability)}</b>. The same "
        f'for programs: <a href="{_text(root)}/openapi.json">openapi.json</a>.</p>'
        f"<h2>Routes</h2>{''.join(rows)}"
        f"<h2>A document</h2><pre>{_text(example)}</pre>"
        f"<details><summary>Its schema</summary><pre>{_text(document)}</pre></details></html>"
    )


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> str:
    parameters = "".join(
        f"<li><code>{_text(p['name'])}</code> ({_text(p['in'])}"
        f"{', required' if p.get('required') else ''}) {_text(p.get('description', ''))}</li>"
        for p in operation.get("parameters", ())
    )
    body = ""
    if "requestBody" in operation:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        body = f"<p>Body: JSON, <code>{_text(schema.rpartition('/')[2])}</code>.</p>"
    return (
        f"<details><summary><span class=m>{method}</span> <code>{_text(path)}</code></summary>"
        f"<p>{_text(operation.get('description', ''))}</p><ul>{parameters}</ul>{body}</details>"
    )


def _text(value: object) -> str:
    return html.escape(str(value))

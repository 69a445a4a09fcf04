"""Turn the lines of run.py into a Markdown table.

    python benchmarks/run.py > results.jsonl
    python benchmarks/table.py results.jsonl

A later line for the same bench replaces an earlier one, so a partial run may be appended.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

TITLES = {
    "llama_index": "LlamaIndex Workflows",
    "langgraph": "LangGraph",
    "pydantic_graph": "pydantic-graph",
    "burr": "Burr",
    "dbos": "DBOS",
    "llama_agents": "llama-agents-server",
}


def number(value: float | None) -> str:
    """Three significant digits, thousands apart: 0.0312, 4.2, 1,230."""
    if value is None:
        return "–"
    if abs(value) >= 1000:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}"


def cell(entry: dict[str, Any] | None) -> str:
    if not entry:
        return ""
    if entry.get("median") is None:
        return "–" if "unsupported" in entry else "failed"
    ratio = entry.get("ratio")
    return number(entry["median"]) + (f" ({number(ratio)}×)" if ratio else "")


def mark(line: dict[str, Any]) -> str:
    if "error" in line:
        return "failed"
    return {True: "yes", False: "no", None: ""}[line.get("ok")]


def table(lines: list[dict[str, Any]]) -> str:
    """The whole table; peers that no line mentions get no column."""
    present = [peer for peer in TITLES if any(peer in line.get("peers", {}) for line in lines)]
    versions = {
        peer: entry["version"]
        for line in lines
        for peer, entry in line.get("peers", {}).items()
        if entry.get("version")
    }
    head = ["measured", "unit", "floor", "stepwell", "target", "met"]
    head += [f"{TITLES[peer]} {versions.get(peer, '')}".strip() for peer in present]
    rows = [head, ["---", "---", *("---:" for _ in head[2:])]]
    for line in lines:
        row = [line.get("metric", line["bench"]), line.get("unit", ""), number(line.get("floor"))]
        row += [cell(line), line.get("target") or "", mark(line)]
        row += [cell(line.get("peers", {}).get(peer)) for peer in present]
        rows.append(row)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    text = Path(sys.argv[1]).read_text() if len(sys.argv) > 1 else sys.stdin.read()
    latest = {line["bench"]: line for line in map(json.loads, text.splitlines())}
    print(table(list(latest.values())))
    print("\nIn brackets: how many times the floor of the same row, measured in turns with it.")


if __name__ == "__main__":
    main()

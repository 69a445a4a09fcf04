"""Counters of the service, as Prometheus reads them. Numbers only; no names of runs, no values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from stepwell.values import RunStatus

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """What happened since the service began."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str, int]] = Counter()
        self.seconds: Counter[tuple[str, str]] = Counter()
        self.events: Counter[str] = Counter()

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self.requests[method, route, status] += 1
        self.seconds[method, route] += seconds  # pyright: ignore[reportArgumentType] - of floats

    def hear(self, name: str, _fields: Mapping[str, Any]) -> None:
        """Something was decided about some run."""
        self.events[name] += 1

    def text(self, runs: Mapping[tuple[str, RunStatus], int], streams: int, degraded: bool) -> str:
        """All of it."""
        lines = [
            *_family("stepwell_up", "gauge", "Whether the service answers.", [("", 1)]),
            *_family(
                "stepwell_degraded",
                "gauge",
                "Whether runs are kept in memory because the store could not be reached.",
                [("", int(degraded))],
            ),
            *_family(
                "stepwell_runs",
                "gauge",
                "Runs that are kept, by workflow and status.",
                [(_labels(workflow=w, status=s.value), n) for (w, s), n in sorted(runs.items())],
            ),
            *_family("stepwell_streams", "gauge", "Readers of streams.", [("", streams)]),
            *_family(
                "stepwell_events_total",
                "counter",
                "What was decided about runs by this process.",
                [(_labels(event=name), n) for name, n in sorted(self.events.items())],
            ),
            *_family(
                "stepwell_http_requests_total",
                "counter",
                "Requests that were answered.",
                [
                    (_labels(method=m, route=r, status=str(s)), n)
                    for (m, r, s), n in sorted(self.requests.items())
                ],
            ),
            *_family(
                "stepwell_http_request_seconds_total",
                "counter",
                "Seconds that answering took.",
                [
                    (_labels(method=m, route=r), round(float(n), 6))
                    for (m, r), n in sorted(self.seconds.items())
                ],
            ),
        ]
        return "\n".join(lines) + "\n"


def _family(name: str, kind: str, purpose: str, rows: Iterable[tuple[str, float]]) -> list[str]:
    return [
        f"# HELP {name} {purpose}",
        f"# TYPE {name} {kind}",
        *(f"{name}{labels} {value}" for labels, value in rows),
    ]


def _labels(**labels: str) -> str:
    rows = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{rows}}}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

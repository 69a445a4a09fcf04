"""OpenTelemetry spans for runs (the extra `otel`).

All spans of a run are in one trace, whose id follows from the run's id, so what different
processes emit for one run belongs together without anything being passed between them. A step's
span lasts as long as its body is busy: when the body waits, the span ends, and the one that goes
on after the wait has a link to it. The run's own span is emitted once, when the run ends. A run
that was started inside a span has a link to that.

Metrics can be made of the same events by a listener of one's own (`stepwell.runtime.telemetry`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    TracerProvider,
)

from stepwell.runtime.telemetry import listen
from stepwell.values import derived_id

_PREFIX = "stepwell."


def instrument(tracer_provider: TracerProvider | None = None) -> Callable[[], None]:
    """Emit spans for every run of this process from now on.

    Args:
        tracer_provider: where spans go; the global one by default.

    Returns:
        A function that ends it; spans that are open then are ended.

    Example:
        >>> from stepwell.runtime.otel import instrument
        >>> stop = instrument()
        >>> stop()
    """
    spans = _Spans(trace.get_tracer("stepwell", tracer_provider=tracer_provider))
    stop = listen(spans.heard)

    def end() -> None:
        stop()
        spans.close()

    return end


def trace_of(run_id: str) -> SpanContext:
    """The context that all spans of a run have as their parent."""
    digits = derived_id(run_id, "trace")
    return SpanContext(
        trace_id=int(digits, 16) or 1,
        span_id=int(digits[:16], 16) or 1,
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
    )


class _Spans:
    """Turns the events of telemetry into spans."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._open: dict[tuple[str, int], Span] = {}
        self._last: dict[tuple[str, int], SpanContext] = {}
        self._begun: dict[str, tuple[int, list[Link]]] = {}

    def heard(self, name: str, fields: dict[str, Any]) -> None:
        """One event of the catalogue."""
        run = fields["run"]
        work = fields.get("work")
        match name:
            case "run.started":
                caller = trace.get_current_span().get_span_context()
                links = [Link(caller)] if caller.is_valid else []
                self._begun[run] = (_nanoseconds(fields["at"]), links)
            case "step.started":
                self._start(run, fields)
            case "step.finished":
                self._end(run, work, fields["at"])
            case "step.failed" | "step.retrying":
                self._end(run, work, fields["at"], error=fields.get("error"))
            case "wait.opened" if work:
                self._end(run, work, fields["at"], waits=True)
            case "run.ended":
                self._run_ended(run, fields)
            case _:
                return

    def _start(self, run: str, fields: dict[str, Any]) -> None:
        key = (run, fields["work"])
        if key in self._open:
            return
        before = self._last.pop(key, None)
        self._open[key] = self._tracer.start_span(
            f"step {fields['step']}",
            context=_parent(run),
            kind=SpanKind.INTERNAL,
            attributes=_attributes(fields),
            links=[] if before is None else [Link(before)],
            start_time=_nanoseconds(fields["at"]),
        )

    def _end(
        self,
        run: str,
        work: int | None,
        at: float,
        *,
        error: str | None = None,
        waits: bool = False,
    ) -> None:
        if work is None:
            return
        span = self._open.pop((run, work), None)
        if span is None:
            return
        if error is not None:
            span.set_status(Status(StatusCode.ERROR, error))
        if waits:
            span.set_attribute(f"{_PREFIX}waits", True)
            self._last[run, work] = span.get_span_context()
        else:
            self._last.pop((run, work), None)
        span.end(_nanoseconds(at))

    def _run_ended(self, run: str, fields: dict[str, Any]) -> None:
        for key in [key for key in self._open if key[0] == run]:
            self._end(*key, fields["at"])
        for key in [key for key in self._last if key[0] == run]:
            del self._last[key]
        at = _nanoseconds(fields["at"])
        begun, links = self._begun.pop(run, (at, []))
        span = self._tracer.start_span(
            f"run {fields['workflow']}",
            context=_parent(run),
            attributes=_attributes(fields),
            links=links,
            start_time=begun,
        )
        if fields["status"] in ("failed", "timed_out"):
            span.set_status(Status(StatusCode.ERROR, str(fields.get("error", ""))))
        span.end(at)

    def close(self) -> None:
        """End what is open."""
        for span in self._open.values():
            span.end()
        self._open.clear()
        self._last.clear()
        self._begun.clear()


def _parent(run: str) -> Any:
    return trace.set_span_in_context(NonRecordingSpan(trace_of(run)))


def _nanoseconds(at: float) -> int:
    return int(at * 1e9)


def _attributes(fields: dict[str, Any]) -> dict[str, Any]:
    return {f"{_PREFIX}{k}": v for k, v in fields.items() if k != "at"}

"""Spans: one trace for a run, steps as spans, links across waits."""

from __future__ import annotations

import asyncio

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from stepwell import (
    Context,
    Engine,
    Event,
    HumanResponseEvent,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)
from stepwell.retry_policy import retry_policy, stop_after_attempt, wait_none
from stepwell.runtime.otel import instrument, trace_of
from stepwell.runtime.telemetry import listen


class Middle(Event):
    pass


class Asks(Workflow):
    @step
    async def ask(self, ctx: Context, ev: StartEvent) -> Middle:
        await ctx.wait_for_event(HumanResponseEvent, waiter_id="q")
        return Middle()

    @step(retry_policy=retry_policy(wait=wait_none(), stop=stop_after_attempt(2)))
    async def flaky(self, ctx: Context, ev: Middle) -> StopEvent:
        if ctx.retry_info().retry_number == 0:
            raise ValueError("first time")
        return StopEvent()


@pytest.fixture
def spans():
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    stop = instrument(provider)
    yield exporter
    stop()
    provider.shutdown()


@pytest.mark.parametrize("durable", [False, True])
async def test_a_run_is_one_trace_with_a_span_per_attempt_and_a_link_across_the_wait(
    spans, durable
):
    asked = asyncio.Event()
    stop = listen(lambda name, _: asked.set() if name == "wait.opened" else None)
    async with Engine("memory://") as engine:
        handler = Asks().run(engine=engine if durable else None)
        await asked.wait()
        stop()
        await handler.answer("q", HumanResponseEvent(response="yes"))
        await handler
    found = spans.get_finished_spans()
    assert {s.context.trace_id for s in found} == {trace_of(handler.run_id).trace_id}
    names = [s.name for s in found]
    assert names[:4] == ["step ask", "step ask", "step flaky", "step flaky"]
    assert names[4].startswith("run ")
    assert len(names) == 5
    before, after, failed, fine, run = found
    assert before.attributes["stepwell.waits"] is True
    assert [link.context.span_id for link in after.links] == [before.context.span_id]
    assert failed.status.status_code is StatusCode.ERROR
    assert fine.attributes["stepwell.attempt"] == 2
    assert run.attributes["stepwell.status"] == "completed"


async def test_a_run_started_inside_a_span_links_to_it(spans):
    provider = TracerProvider()
    with provider.get_tracer("caller").start_as_current_span("request") as request:
        handler = Asks().run()
    await handler.answer("q", HumanResponseEvent())
    await handler
    run = spans.get_finished_spans()[-1]
    assert [link.context.span_id for link in run.links] == [request.get_span_context().span_id]


async def test_nothing_is_emitted_after_the_end_of_instrumentation():
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    instrument(provider)()
    handler = Asks().run()
    await handler.answer("q", HumanResponseEvent())
    await handler
    assert exporter.get_finished_spans() == ()

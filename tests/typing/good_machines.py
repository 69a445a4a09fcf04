"""State machines whose types are right."""

from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

from pydantic import BaseModel

from stepwell.machine import (
    Retry,
    RunSet,
    StepExecution,
    SubflowResult,
    WorkflowEngine,
    WorkflowEvent,
    WorkflowRun,
    WorkflowStatus,
    complete,
    engine,
    event_workflow,
    fail,
    get_context,
    goto,
    on_fail,
    run_subflow,
    sleep,
    step,
    wait,
    wait_for_event,
    workflow,
)
from stepwell.retry_policy import retry_policy, stop_after_attempt
from stepwell.testing import SynchronousExecutor


class OrderContext(BaseModel):
    order_id: int
    paid: bool = False


@workflow("order", default_retry=Retry(max_attempts=5, base_delay=timedelta(seconds=2)))
class Order:
    Context = OrderContext
    context: OrderContext

    @classmethod
    def create_context(cls, order_id: int) -> OrderContext:
        return cls.Context(order_id=order_id)

    @step(start=True, retry=retry_policy(stop=stop_after_attempt(3)), timeout=30)
    def pay(self):
        assert_type(self.context.paid, bool)
        get_context().paid = True
        return goto(self.ask, progress=0.5)

    @step
    async def ask(self):
        return wait.for_signal("go", timedelta(days=7), on_timeout=self.late, then="ship")

    @step()
    def late(self):
        return sleep(60, then=self.ask) if self.context.paid else fail("late")

    @step(title="Ship it", visible=False)
    def ship(self):
        return run_subflow(Order, self.done, on_create=self.made, order_id=8)

    def made(self, run_id: str) -> None:
        print(run_id)

    @step()
    def done(self, result: SubflowResult):
        assert_type(result.status, WorkflowStatus)
        assert_type(result.error, str | None)
        return complete(order_id=9)

    @on_fail
    def mourn(self, error: BaseException) -> None:
        print(error)


@event_workflow("placed", offset=timedelta(hours=-1), name="on placed")
class OnPlaced:
    class Context(BaseModel):
        entity_id: int

    @classmethod
    def should_run_for_event(cls, event: WorkflowEvent) -> bool:
        return event.entity is not None

    @step(start=True)
    def begin(self):
        return wait_for_event("paid", where={"entity_id": 7})


def main() -> None:
    assert_type(engine, WorkflowEngine)
    run = engine.start(Order, order_id=7)
    assert_type(run, WorkflowRun)
    assert_type(run.status, WorkflowStatus)
    assert_type(run.wake_at, datetime | None)
    assert_type(run.data, dict[str, Any])
    assert_type(run.step_executions, list[StepExecution])
    assert_type(run.refresh().refresh_from_db(), WorkflowRun)
    assert_type(engine.start("order", OrderContext(order_id=1), key="k", correlation="c").id, str)
    assert_type(engine.signal("go", {"paid": True}, run_id=run.id), int)
    assert_type(engine.cancel(run.id), bool)
    assert_type(engine.result(run.id, timeout=5), dict[str, Any])
    assert_type(engine.emit("placed", entity=7, at=datetime.now(UTC)), WorkflowEvent)
    assert_type(engine.process_scheduled(datetime.now(UTC)), int)
    assert_type(engine.runs.filter(status=["failed", WorkflowStatus.WAITING]), RunSet)
    assert_type(WorkflowRun.objects.get(id=run.id), WorkflowRun)
    assert_type(engine.runs.counts(), dict[WorkflowStatus, int])
    for found in engine.runs.filter(waiting_signal="go"):
        assert_type(found, WorkflowRun)
    executor = SynchronousExecutor()
    engine.set_executor(executor)
    assert_type(executor.advance(timedelta(days=1)), int)
    engine.set_executor(None)


async def twins() -> None:
    run = await engine.astart(Order, order_id=7)
    assert_type(run, WorkflowRun)
    assert_type(await run.arefresh(), WorkflowRun)
    assert_type(await engine.asignal("go"), int)
    assert_type(await engine.aresult(run.id), dict[str, Any])
    async for found in engine.runs:
        assert_type(found, WorkflowRun)

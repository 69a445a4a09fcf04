"""State machines that are started by an event, and subflows.

python examples/machine_events.py
"""

from dataclasses import dataclass

from pydantic import BaseModel

from stepwell.machine import (
    SubflowResult,
    WorkflowEvent,
    complete,
    engine,
    event_workflow,
    fail,
    get_context,
    run_subflow,
    step,
    workflow,
)
from stepwell.testing import SynchronousExecutor


@dataclass
class Order:
    """What the events are about; a row of a database, say."""

    id: int
    total: int


@workflow("billing")
class Billing:
    class Context(BaseModel):
        order_id: int
        total: int

    @step(start=True)
    def send_invoice(self):
        if get_context().total <= 0:
            return fail("there is nothing to pay")
        return complete(invoice=f"invoice {get_context().order_id}")


@event_workflow("order_placed")
class OrderProcessing:
    """Begins when an order is placed; test orders are left out."""

    class Context(BaseModel):
        order_id: int
        total: int

    @classmethod
    def should_run_for_event(cls, event: WorkflowEvent) -> bool:
        return event.entity.id > 0

    @classmethod
    def create_context(cls, event: WorkflowEvent) -> Context:
        return cls.Context(order_id=event.entity.id, total=event.entity.total)

    @step(start=True)
    def process_new_order(self):
        ctx = get_context()
        return run_subflow(Billing, on_complete=self.billed, order_id=ctx.order_id, total=ctx.total)

    @step()
    def billed(self, result: SubflowResult):
        return complete(billing=result.status, invoice=result.result.get("invoice"))


def main() -> dict[str, object]:
    """Place three orders; what became of them."""
    engine.set_executor(SynchronousExecutor())
    for order in (Order(7, 100), Order(8, 0), Order(-1, 5)):
        engine.emit("order_placed", entity=order)
    runs = sorted(engine.runs.filter(name="OrderProcessing"), key=lambda run: run.data["order_id"])
    ends: dict[str, object] = {f"order {run.data['order_id']}": run.result for run in runs}
    ends["subflows"] = [engine.runs.get(parent_run_id=run.id).error for run in runs]
    engine.set_executor(None)
    return ends


if __name__ == "__main__":
    for name, end in main().items():
        print(f"{name}: {end}")

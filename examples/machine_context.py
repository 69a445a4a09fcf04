"""State machines: what the Context holds, and that changes in place are kept.

python examples/machine_context.py
"""

from decimal import Decimal

from pydantic import BaseModel

from stepwell.machine import complete, engine, get_context, goto, step, workflow
from stepwell.testing import SynchronousExecutor


class OrderContext(BaseModel):
    order_id: int
    customer_email: str

    payment_method: str = ""
    total_amount: Decimal = Decimal("0.00")
    shipping_address: dict[str, str] = {}

    steps_completed: list[str] = []
    last_error: str = ""

    shipping_tracking_id: str = ""


@workflow("context_updates")
class ContextUpdates:
    Context = OrderContext

    @step(start=True)
    def update_context_example(self):
        ctx = get_context()
        ctx.payment_method = "credit_card"
        ctx.total_amount += Decimal("19.90")
        ctx.steps_completed.append("payment_processed")
        ctx.shipping_address = {"street": "123 Main St", "city": "Portland", "state": "OR"}
        return goto(self.next_step)

    @step()
    def next_step(self):
        ctx = get_context()
        ctx.shipping_address["city"] = "Salem"
        ctx.steps_completed.append("address_checked")
        return complete(total=ctx.total_amount)


def main() -> dict[str, object]:
    """Run it inline; what it holds at the end."""
    engine.set_executor(SynchronousExecutor())
    run = engine.start(ContextUpdates, order_id=1, customer_email="ada@example.org").refresh()
    ends: dict[str, object] = {"data": run.data, "context": run.context}
    try:
        engine.start(ContextUpdates, order_id="one", customer_email="")
    except ValueError as error:
        ends["refused"] = str(error).splitlines()[1]
    engine.set_executor(None)
    return ends


if __name__ == "__main__":
    for name, end in main().items():
        print(f"{name}: {end}")

"""State machines: waiting for signals and for events, with and without a time limit.

python examples/machine_signals.py
"""

from datetime import timedelta

from pydantic import BaseModel

from stepwell.machine import (
    complete,
    engine,
    get_context,
    goto,
    step,
    wait,
    wait_for_event,
    workflow,
)
from stepwell.testing import SynchronousExecutor


@workflow("purchase")
class Purchase:
    """A manager approves, then the customer has a week to answer."""

    class Context(BaseModel):
        approved: bool = False
        notes: str = ""
        answer: str = ""

    @step(start=True)
    def wait_for_approval(self):
        return wait.for_signal("manager_approval")  # however long it takes

    @step()
    def wait_with_timeout(self):
        return wait.for_signal(
            "user_response", timeout=timedelta(days=7), on_timeout="send_final_notice"
        )

    @step()
    def thank(self):
        return complete(status="answered")

    @step()
    def send_final_notice(self):
        return complete(status="expired")


@workflow("payment")
class Payment:
    """Waits for an event; its data are in the Context afterwards."""

    class Context(BaseModel):
        order_id: int
        event_id: str = ""
        event_name: str = ""
        entity_id: int = 0
        amount: float = 0.0

    @step(start=True)
    def wait_for_payment(self):
        return wait_for_event(
            "payment_received",
            timeout=timedelta(hours=48),
            on_timeout="cancel_order",
            where={"entity_id": get_context().order_id},
        )

    @step()
    def process_payment(self):
        return goto(self.fulfill_order)

    @step()
    def fulfill_order(self):
        ctx = get_context()
        return complete(paid=ctx.amount, event=ctx.event_name, entity=ctx.entity_id)

    @step()
    def cancel_order(self):
        return complete(cancelled=True)


@workflow("form")
class Form:
    """What a signal brings is merged into the Context before the next step begins."""

    class Context(BaseModel):
        form_data: dict[str, str] = {}
        submission_time: str = ""

    @step(start=True)
    def wait_for_user_input(self):
        return wait.for_signal("user_submitted_form")

    @step()
    def process_user_input(self):
        ctx = get_context()
        return complete(user_name=ctx.form_data["name"], at=ctx.submission_time)


def main() -> dict[str, object]:
    """Run them inline, in virtual time; how each ended."""
    executor = SynchronousExecutor()
    engine.set_executor(executor)
    answered, expired = engine.start(Purchase), engine.start(Purchase)
    told = engine.signal("manager_approval", {"approved": True, "notes": "Looks good"})
    engine.signal("user_response", {"answer": "yes"}, run_id=answered.id)
    executor.advance(timedelta(days=8))

    paid, unpaid = engine.start(Payment, order_id=7), engine.start(Payment, order_id=8)
    engine.emit("payment_received", entity=7, payload={"amount": 9.5})
    executor.advance(timedelta(hours=49))

    form = engine.start(Form)
    engine.signal(
        "user_submitted_form",
        {"form_data": {"name": "John", "phone": "555-1234"}, "submission_time": "noon"},
    )
    ends: dict[str, object] = {
        "told": told,
        "answered": (answered.refresh().result, answered.data["notes"], answered.data["answer"]),
        "expired": expired.refresh().result,
        "paid": paid.refresh().result,
        "unpaid": unpaid.refresh().result,
        "form": form.refresh().result,
    }
    engine.set_executor(None)
    return ends


if __name__ == "__main__":
    for name, end in main().items():
        print(f"{name}: {end}")

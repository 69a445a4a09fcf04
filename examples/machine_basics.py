"""State machines: a class of steps, its Context, and where each step goes next.

python examples/machine_basics.py
"""

from pydantic import BaseModel

from stepwell.machine import complete, engine, fail, get_context, goto, step, workflow
from stepwell.testing import SynchronousExecutor

MAILS: list[int] = []


@workflow("user_onboarding")
class UserOnboarding:
    class Context(BaseModel):
        user_id: int
        email_sent: bool = False
        profile_completed: bool = False

    @classmethod
    def create_context(cls, user_id: int) -> Context:
        return cls.Context(user_id=user_id)

    @step(start=True)
    def send_welcome_email(self):
        ctx = get_context()
        MAILS.append(ctx.user_id)
        ctx.email_sent = True
        return complete()


@workflow("order_fulfillment")
class OrderFulfillment:
    class Context(BaseModel):
        order_id: int
        payment_confirmed: bool = False
        items_reserved: bool = False
        shipped: bool = False

    @step(start=True)
    def confirm_payment(self):
        get_context().payment_confirmed = True
        return goto(self.reserve_inventory)

    @step()
    def reserve_inventory(self):
        get_context().items_reserved = True
        return goto(self.ship_order)

    @step()
    def ship_order(self):
        get_context().shipped = True
        return complete()


@workflow("order_routing")
class OrderRouting:
    """Large orders take one step more."""

    class Context(BaseModel):
        order_total: int
        approved: bool = False

    @step(start=True)
    def process_order(self):
        if get_context().order_total > 1000:
            return goto(self.require_approval)
        return goto(self.fulfill_immediately)

    @step()
    def require_approval(self):
        get_context().approved = True
        return goto(self.fulfill_immediately)

    @step()
    def fulfill_immediately(self):
        return complete()


@workflow("application_check")
class ApplicationCheck:
    """Ends well, or with a reason."""

    class Context(BaseModel):
        all_validations_passed: bool
        final_status: str = ""

    @step(start=True)
    def final_step(self):
        if get_context().all_validations_passed:
            return complete(final_status="approved", completion_date="2026-03-01")
        return fail("required documents are missing")


def main() -> dict[str, object]:
    """Run them all inline; how each ended."""
    engine.set_executor(SynchronousExecutor())
    onboarding = engine.start("user_onboarding", user_id=123).refresh()
    order = engine.start("order_fulfillment", order_id=1).refresh()
    small, large = (engine.start(OrderRouting, order_total=n).refresh() for n in (200, 5000))
    good, bad = (
        engine.start(ApplicationCheck, all_validations_passed=passed).refresh()
        for passed in (True, False)
    )
    ends: dict[str, object] = {
        "onboarding": (onboarding.status, onboarding.data["email_sent"], MAILS),
        "order": (order.status, order.data),
        "order steps": [e.step for e in order.step_executions],
        "small": [e.step for e in small.step_executions],
        "large": [e.step for e in large.step_executions],
        "good": (good.status, good.data["final_status"], good.result),
        "bad": (bad.status, bad.error),
    }
    engine.set_executor(None)
    return ends


if __name__ == "__main__":
    for name, end in main().items():
        print(f"{name}: {end}")

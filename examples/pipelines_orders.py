"""An order goes through its steps: retries, time limits, two at once, an error step, clean-up.

python examples/pipelines_orders.py
"""

import asyncio

from stepwell.pipeline import Workflow


async def validate_order(ctx):
    return {"order": ctx["order_id"], "lines": 3}


async def charge_card(ctx):
    ctx["charged"] = 10 * ctx["validate_order"]["lines"]
    return "transaction 123456"


def notify_warehouse(order_id):  # a plain function runs in a thread
    print(f"warehouse: pack {order_id}")


async def notify_user(ctx):
    return "told"


async def send_email(ctx):
    return "sent"


async def ship(ctx):
    if ctx["order_id"] == "order_002":
        raise ConnectionError("no carrier")


async def handle_error(ctx):
    print(f"error in step {ctx['normal_error']['step']}: {ctx['error_message']}")


async def log_transaction(ctx):
    print(f"logged {ctx['charge_card']}, {ctx['charged']} in all")


wf = Workflow(ctx={"order_id": "order_001"})
wf.add_step(validate_order, retries=2)
wf.add_step(charge_card, timeout=10)
wf.add_step(notify_warehouse)
wf.add_parallel_steps([notify_user, send_email], name="notifications")
wf.add_step(ship)
wf.add_error_step(handle_error)
wf.add_exit_step(log_transaction)


async def main():
    for order in ("order_001", "order_002"):
        result = await wf.run(order_id=order)
        print(f"{order}: {result.status}, {result['notifications']}")


asyncio.run(main())
